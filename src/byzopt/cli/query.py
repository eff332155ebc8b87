"""`byzopt query`: all runs of a store as one table."""

from __future__ import annotations

import json
import sys
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import typer

from byzopt.cli.options import directory, names
from byzopt.errors import require

WIDTH = 200  # of the table where stdout is no terminal
FIGURES = ("loss", "accuracy", "perplexity", "grad_norm")
USUAL = ("run", "task", "rule", "method", "attack", "n", "f", "lr", "seed", "status")


def command(
    store: Annotated[
        Path, typer.Argument(parser=directory, help="A store, or the directory of what `byzopt run` made.")
    ],
    where: Annotated[
        list[str] | None, typer.Option(help="A condition, as attack=alie or lr>=0.1. Repeatable: all hold.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(callback=names, help="Names with commas between. Default: all.")
    ] = None,
    records: Annotated[
        bool, typer.Option("--records", help="A row for every record, not every run.")
    ] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV on stdout.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list of rows on stdout.")] = False,
) -> int:
    """Show runs and their final figures, or all their records, as one table."""
    from byzopt.experiments.store.conditions import doubtful_conditions
    from byzopt.experiments.store.table import rows, select_rows

    require(
        not (as_csv and as_json), "A table", "have one form", "--csv and --json", "Leave out one of them."
    )
    stored = rows(store, records)
    wanted = [name.strip() for name in columns.split(",")] if columns else []
    shown = select_rows(stored.rows, where or (), wanted)
    for doubt in doubtful_conditions(where or ()):
        print(f"byzopt: --where {doubt}", file=sys.stderr)
    for name, reason in stored.damaged.items():
        print(f"byzopt: damaged and left out: {name}: {reason}", file=sys.stderr)
    if stored.unfinished:
        print(f"byzopt: {stored.unfinished} unfinished left out", file=sys.stderr)
    if as_json:
        print(json.dumps([{key: _finite(value) for key, value in row.items()} for row in shown]))
    elif as_csv:
        _csv(shown)
    else:
        _table(shown, wanted)
    return 1 if stored.damaged else 0


def _finite(value: Any) -> Any:
    """JSON has no infinity and no NaN."""
    return None if isinstance(value, float) and not isfinite(value) else value


def _csv(shown: list[dict[str, Any]]) -> None:
    from byzopt.escaping import csv_text

    cells = ([json.dumps(v) if isinstance(v, list) else v for v in row.values()] for row in shown)
    sys.stdout.write(csv_text([*([list(shown[0])] if shown else []), *cells]))


def _table(shown: list[dict[str, Any]], wanted: list[str]) -> None:
    from rich.table import Table

    from byzopt.cli import terminal

    names = wanted or _telling(shown)
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold")
    for row in shown:
        table.add_row(*(_spelled(row[name]) for name in names))
    terminal.console(width=WIDTH).print(table)
    print(f"{len(shown)} rows")


def _telling(shown: list[dict[str, Any]]) -> list[str]:
    """The usual columns, figures, and whatever differs between rows."""
    names = list(shown[0]) if shown else []
    hidden = {"seconds", "message", "gradients", "bits", "aggregate_norm", "stalls", "rounds_run"}
    hidden |= {"honest_variance", "relative_variance"}
    from byzopt.experiments.trials.per_worker import worker_figure

    differ = [
        n
        for n in names
        if len({json.dumps(row[n]) for row in shown}) > 1 and n not in hidden and not worker_figure(n)
    ]
    first = [n for n in USUAL if n in names]
    return first + [n for n in names if n not in first and (n in FIGURES or n in differ)]


def _spelled(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)
