"""`byzopt break`: the worst that attacks and searched rows do to a rule, and the command that replays it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from byzopt.cli.options import at_least, directory, one_of, optional
from byzopt.cli.parameters import AsJson
from byzopt.errors import require

if TYPE_CHECKING:
    from byzopt.certificates.breaking import BreakReport, Finding

BROKE = 1  # exit status: a proved bound is exceeded, or an answer is NaN, Inf or an error without a name


def command(
    rule: Annotated[str, typer.Argument(help='As in a spec: krum, "nnm >> krum(extra=1)".')],
    n: Annotated[int, typer.Option("--n", callback=at_least(1), help="Workers.")],
    f: Annotated[
        int,
        typer.Option(
            "--f", callback=at_least(0), help="Byzantine ones; also the rule's f where it names none."
        ),
    ],
    d: Annotated[int, typer.Option("--d", callback=at_least(1), help="Coordinates of a row.")] = 10,
    task: Annotated[
        str | None, typer.Option(help="Train on this task (a name or a JSON table) instead.")
    ] = None,
    seed: Annotated[int, typer.Option(callback=at_least(0), help="The first seed.")] = 0,
    trials: Annotated[int, typer.Option(callback=at_least(1), help="Seeds to try for the best cases.")] = 3,
    budget: Annotated[
        int | None,
        typer.Option(
            callback=at_least(1),
            help="Evaluations of attacks (default 10000, or 200 trainings), and sets of rows for each form "
            "(default 300000 for rules that answer many at once, else 20000).",
        ),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(
            callback=optional(one_of("both", "rows", "attacks")),
            help="rows: honest and faulty ones together; attacks: those that are registered, on kinds of "
            "honest rows. Default: both, and attacks with --task.",
        ),
    ] = None,
    ledger: Annotated[
        Path | None,
        typer.Option(
            parser=directory,
            metavar="DIR",
            help="Begin from the worst rows in this folder, and add to it what is worse.",
        ),
    ] = None,
    attack: Annotated[
        str | None, typer.Option(help="Play only this attack (a name or a JSON table).")
    ] = None,
    rows: Annotated[
        str | None, typer.Option(help="Kind of honest rows, with --attack. Default: gaussian.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Search attacks with their parameters, and rows of all workers, for the largest error of a rule.

    Exits with 1 when the error is beyond the rule's proved bound, or the rule answers with NaN, Inf or an
    error without a name.
    """
    from byzopt.aggregators import rule_from
    from byzopt.certificates.breaking import EvaluationStatus, break_rule, replay
    from byzopt.cli.breaking_rows import search_rows
    from byzopt.experiments.store.directories import check_directory, explain_refused_writes

    with_attack = attack is not None or rows is None
    require(with_attack, "Option --rows", "go with --attack", f"--rows {rows}", "A search tries all kinds.")
    table = _data(task)
    single = task is not None or attack is not None
    by_rows = not single and search != "attacks"
    require(
        not single or search in (None, "attacks"), "--search", "be attacks with --task or --attack", search
    )
    require(by_rows or ledger is None, "Option --ledger", "go with a search of rows", f"--ledger {ledger}")
    if ledger is not None:
        check_directory(ledger, "--ledger")
        rule_from(rule, f=f).check(n)
        with explain_refused_writes(ledger, "Choose another --ledger."):
            ledger.mkdir(parents=True, exist_ok=True)
    if attack is not None:
        finding = replay(rule, n, f, d, attack=_data(attack), rows=rows or "gaussian", seed=seed, task=table)
        _say(_flat(finding), as_json)
        return BROKE if finding.verdict is EvaluationStatus.BROKEN else 0
    broke, data = False, {}
    if search != "rows":
        breach = break_rule(rule, n, f, d, table, seed, trials, budget)
        broke, data = bool(breach.exceeded or breach.broken), _all(breach)
        if not as_json:
            _print(breach)
    if by_rows:
        found = search_rows(rule, n, f, budget, seed, ledger, quiet=as_json)
        broke, data = broke or found.broke, data | {"rows": found.data()}
    if as_json:
        _say(data, as_json)
    return BROKE if broke else 0


def _data(text: str | None) -> Any:
    """A component's name, or its table where the text is JSON."""
    from byzopt.errors import InvalidInput, said

    if text is None or not text.lstrip().startswith("{"):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            f"A component should be a name or a JSON table. Found {said(text)}: {error}."
        ) from None


LISTS = ("ranking", "broken", "refused", "unfit")  # of findings, in a report


def _all(breach: BreakReport) -> dict[str, Any]:
    data = {
        name: getattr(breach, name)
        for name in ("rule", "n", "f", "d", "task", "bounds", "floors", "evaluations")
    }
    worst = {
        form: _flat(finding) | {"replay": breach.replay(finding)} for form, finding in breach.worst.items()
    }
    lists = {name: list(map(_flat, getattr(breach, name))) for name in LISTS}
    former = {"games": breach.evaluations}  # the name of before, for one release
    return data | former | {"exceeded": list(breach.exceeded), "worst": worst} | lists


def _flat(finding: Finding) -> dict[str, Any]:
    figures = {form: value if isfinite(value) else "inf" for form, value in finding.figures.items()}
    data = {"attack": finding.attack, "rows": finding.rows, "seed": finding.seed}
    return data | {"verdict": finding.verdict} | figures | {"message": finding.message}


def _say(data: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(data, allow_nan=False))
        return
    for key, value in data.items():
        if value != "":
            print(f"{key}: {json.dumps(value) if isinstance(value, Mapping) else value}")


def _print(breach: BreakReport) -> None:
    from rich.table import Table

    from byzopt.cli import terminal

    console = terminal.console()
    forms = list(breach.worst)
    title = f"{breach.rule}: {breach.f} of {breach.n} workers Byzantine, {breach.evaluations} evaluations"
    table = Table("attack", "rows", title=title, title_justify="left", title_style="bold")
    for form in forms:
        table.add_column(form, justify="right")
    for finding in breach.ranking:
        parameters = ", ".join(
            f"{key}={_spelled(value)}" for key, value in finding.attack.items() if key != "name"
        )
        shown = f"{finding.attack['name']}({parameters})" if parameters else finding.attack["name"]
        table.add_row(shown, finding.rows, *(f"{finding.figures[form]:.4g}" for form in forms))
    console.print(table)
    for form, finding in breach.worst.items():
        console.print(_sentence(breach, form, finding), soft_wrap=True)
        print(f"  {breach.replay(finding)}")
    for verdict in ("broken", "refused"):
        for finding in getattr(breach, verdict):
            line = f"{verdict} under {finding.attack['name']} on {finding.rows} rows: {finding.message}"
            console.print(line, soft_wrap=True)
    for finding in breach.unfit:
        console.print(f"not tried: {finding.attack['name']}: {finding.message}", soft_wrap=True)


def _sentence(breach: BreakReport, form: str, finding: Finding) -> str:
    text = f"Worst {form}: {finding.figures[form]:.6g} under {finding.attack['name']} on {finding.rows}"
    if form not in breach.bounds:
        return f"{text}, times the loss without attack"
    bound = breach.bounds[form]
    proved = "none is proved" if bound is None else f"proved {bound:.6g}"
    beyond = " - EXCEEDED" if form in breach.exceeded else ""
    return f"{text}; {proved}{beyond}; no rule is below {breach.floors[form]:.4g}"


def _spelled(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
