"""`byzopt audit`: a run watched from outside, its measured oracle beside the proved one, and what follows."""

from __future__ import annotations

import json
from dataclasses import asdict
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any

import typer

from byzopt.cli.options import at_least

if TYPE_CHECKING:
    from byzopt.experiments.audit import Audit
    from byzopt.theory.promise import Promise

LINES = 12  # rounds that the table shows


def command(
    spec: Annotated[str, typer.Argument(help="A TOML file, or a preset such as byz-nsgdm/digits.")],
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Further settings, as with --set.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the spec. Repeatable.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(callback=at_least(1), help="Rounds to watch. Default: the spec's.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Measure a rule's error oracle (zeta^2, alpha) in a run, and say what each theorem then promises.

    Per round kappa-hat = |g - m|^2 / variance of the honest rows, m their mean, against the proved kappa;
    over the run G, B; on the task L, mu, Delta. Variants of the spec are left out.
    """
    from byzopt.cli.progress import Steps
    from byzopt.experiments import load
    from byzopt.experiments.audit import audit

    loaded = load(spec, [*(settings or ()), *(more or ())], compare=False)
    with Steps() as tell:
        found = audit(loaded, rounds, tell)
    if as_json:
        print(json.dumps(flat(found), allow_nan=False))
    else:
        _print(found)


def flat(found: Audit) -> dict[str, Any]:
    """The audit as plain data; null in place of what is unknown or not finite."""
    return {
        "rounds": [_finite(r._asdict()) for r in found.rounds],
        "kappa_hat": found.kappa_hat,
        "kappa": found.kappa,
        "G": found.pair.g,
        "B": found.pair.b,
        "zeta_squared": found.zeta_squared,
        "alpha": found.alpha,
        "constants": _finite(asdict(found.known)),
        "proved": {name: told(promise) for name, promise in found.proved.items()},
        "measured": {name: told(promise) for name, promise in found.measured.items()},
        "message": found.message,
    }


def told(promise: Promise) -> dict[str, Any]:
    """A promise as plain data."""
    values = asdict(promise)
    return values | _finite({key: values[key] for key in ("bound", "floor")})


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {k: v if not isinstance(v, float) or isfinite(v) else None for k, v in values.items()}


def _print(found: Audit) -> None:
    from rich.table import Table

    from byzopt.cli import terminal

    console = terminal.console()
    proved = "none is proved" if found.kappa is None else f"proved {found.kappa:.4g}"
    table = Table("round", title=f"Largest kappa-hat {found.kappa_hat:.4g}; {proved}", title_justify="left")
    for name in ("kappa-hat", "variance", "|m|", "error", "zeta^2", "alpha"):
        table.add_column(name, justify="right")
    step = max(1, -(-len(found.rounds) // LINES))
    for r in [*found.rounds[:-1:step], *found.rounds[-1:]]:
        oracle = (r.kappa_hat * found.pair.g**2, r.kappa_hat * found.pair.b**2)
        figures = (r.kappa_hat, r.variance, r.grad_norm, r.error, *oracle)
        table.add_row(str(r.t), *(f"{value:.4g}" for value in figures))
    console.print(table)
    pair = f"G = {found.pair.g:.4g}, B = {found.pair.b:.4g}"
    print(f"Over the run: {pair}, zeta^2 = {found.zeta_squared:.4g}, alpha = {found.alpha:.4g}")
    print(f"On the task: {constants_line(asdict(found.known))}")
    for title, promises in (("the proved kappa", found.proved), ("the measured kappa-hat", found.measured)):
        console.print(promised(title, promises))
    if found.message:
        print(f"The run ended early: {found.message}")


def constants_line(values: dict[str, Any]) -> str:
    """Known constants in one line."""
    names = {"lipschitz": "L", "mu": "mu", "delta": "Delta", "gap": "gap", "sigma": "sigma", "zeta": "zeta"}
    return ", ".join(f"{shown} = {_shown(values[name])}" for name, shown in names.items())


def promised(title: str, promises: Any) -> Any:
    """A table of promises by method."""
    from rich.table import Table

    table = Table("method", "theorem", title=f"With {title}", title_justify="left")
    for name in ("bound", "floor"):
        table.add_column(name, justify="right")
    table.add_column("steps, or what is missing")
    for name, promise in promises.items():
        steps = ", ".join(f"{key} = {value:.4g}" for key, value in promise.steps.items())
        lacks = "; ".join(promise.missing)
        words = (name, promise.theorem.partition(" (")[0], _shown(promise.bound), _shown(promise.floor))
        table.add_row(*words, lacks or steps)
    return table


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
