"""`byzopt stress`: how bad can it get for a training of one's own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from byzopt.cli.options import at_least
from byzopt.cli.parameters import DEFAULT_STORE, AsJson, Jobs, Settings, SpecName, StorePath

if TYPE_CHECKING:
    from byzopt.stress import Stress, Trial
    from byzopt.stress.difference import Difference

BELOW = 3  # exit status: the worst accuracy is below --at-least
NO_EVIDENCE = 4  # exit status: with --at-least, not everything was measured that could be below it
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def duration(text: str | None) -> float | None:
    """Seconds of a duration such as 90s, 10m or 1.5h. Errors: `typer.BadParameter`."""
    if text is None:
        return None
    number, unit = (text[:-1], text[-1]) if text[-1:] in UNITS else (text, "s")
    try:
        seconds = float(number) * UNITS[unit]
    except ValueError:
        seconds = -1.0
    if not (isfinite(seconds) and seconds > 0):
        raise typer.BadParameter(f"A duration should be a positive number and s, m or h. Found {text!r}.")
    return seconds


def command(
    spec: SpecName,
    settings: Settings = None,
    compare: Annotated[
        str, typer.Option(help='Rules to try beside the spec\'s own: "rfa; nnm >> rfa; centered_clipping".')
    ] = "",
    threat: Annotated[
        str, typer.Option(help="What attackers know: omniscient, no_rule, own_data or one_round_late.")
    ] = "omniscient",
    attacks: Annotated[
        str,
        typer.Option(
            help="Attacks to try, of the ensemble, registered or your own: "
            '"searched: cos; ipm; parts.py:Swing". Default: the ensemble.'
        ),
    ] = "",
    seeds: Annotated[int, typer.Option(callback=at_least(1), help="Runs of each cell.")] = 1,
    budget: Annotated[
        str | None, typer.Option(help="Stop after 90s, 10m, 1h; what is left is said. Default: no limit.")
    ] = None,
    least: Annotated[
        float | None,
        typer.Option(
            "--at-least",
            help="Exit with 3 if the worst accuracy is below this fraction, with 4 if too little was "
            "measured to tell.",
        ),
    ] = None,
    jobs: Jobs = None,
    store: StorePath = DEFAULT_STORE,
    as_json: AsJson = False,
) -> int:
    """Train a spec under an ensemble of attacks, and say the worst.

    The attack that the spec itself names is left out. All runs are stored: the same command goes on where it
    was stopped.
    """
    from byzopt.cli.stopping import stop_on_signals
    from byzopt.experiments import load
    from byzopt.experiments.store.directories import check_directory
    from byzopt.figures import in_percent
    from byzopt.reports.stress import draw
    from byzopt.stress import stress

    seconds = duration(budget)
    if least is not None and (remark := in_percent("accuracy", least)):
        raise typer.BadParameter(remark)
    chosen = load(spec, settings or (), compare=False)
    check_directory(store, "--store")
    with stop_on_signals() as stopped:
        result = stress(
            chosen,
            store,
            compare=_names(compare),
            threat=threat,  # type: ignore[arg-type]
            attacks=_names(attacks),
            seeds=seeds,
            budget=seconds,
            play=_player(jobs),
            stopped=stopped,
        )
        halted = stopped()
    picture = draw(result) if result.trials else None
    _say(result, picture, as_json)
    if halted:
        return 130
    return 0 if least is None else _verdict(result, least)


def _verdict(result: Stress, least: float) -> int:
    """The exit status of --at-least; what it is that is not known goes to stderr."""
    rule = result.rules[0]
    values = [one.value for one in result.trials if one.rule == rule and one.larger_is_better]
    if any(value is not None and value < least for value in values):
        return BELOW
    if result.complete(rule) and len(values) == len(result.attacks) + 1:
        return 0
    why = (
        "its task measures no accuracy"
        if result.complete(rule)
        else f"{result.measured(rule)} of {len(result.attacks)} attacks were measured"
        + ("" if result.calm(rule) else ", and training without attack was not")
    )
    print(f"byzopt: there is no evidence that {rule} keeps {least:g}: {why}.", file=sys.stderr)
    return NO_EVIDENCE


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(";") if name.strip()]


def _player(jobs: int | None) -> Callable[[Any, Callable[[], bool]], None]:
    """Plays a plan with progress on stderr; a run that failed ends it."""
    from byzopt.cli.sweep_progress import SweepDisplay
    from byzopt.experiments.sweeps import run_sweep
    from byzopt.experiments.sweeps.cores import ProcessLayout, best_layout

    def play(plan: Any, over: Callable[[], bool]) -> None:
        layout = best_layout() if jobs is None else ProcessLayout(jobs, 1)
        with SweepDisplay(plan) as display:
            run_sweep(
                plan,
                jobs=layout.processes if len(plan.batches) > 1 else 0,
                threads=layout.threads,
                tell=display.hear,
                stopped=lambda: display.failed > 0 or over(),
            )

    return play


def _say(result: Stress, picture: Path | None, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_data(result, picture)))
        return
    from rich.table import Table

    from byzopt.cli import terminal

    console, table = terminal.console(), Table(box=None, pad_edge=False)
    console.print(
        f"{result.attackers} of {result.n} workers lie, the rule tolerates {result.f}. They are "
        f"{result.threat}."
    )
    table.add_column("attack")
    for rule in result.rules:
        table.add_column(rule, justify="right")
    for attack in dict.fromkeys(one.attack for one in result.trials):
        table.add_row(attack, *(_cell(result.of(rule, attack)) for rule in result.rules))
    table.add_section()
    table.add_row("worst attack", *(_cell(result.worst(rule)) for rule in result.rules))
    if result.trials:
        console.print(f"{result.heading}:")
        console.print(table)
    different = result.difference(result.rules[0])
    for line in [*_advice(result), *(different.sentences() if different else [])]:
        console.print(line)
    if picture is not None:
        console.print(f"picture: {picture}")
    for why in dict.fromkeys(result.unfit.values()):
        names = ", ".join(name for name, other in result.unfit.items() if other == why)
        print(f"byzopt: left out: {names}: {why}", file=sys.stderr)
    if result.left:
        print(f"byzopt: not measured, the same command goes on: {', '.join(result.left)}", file=sys.stderr)


def _advice(result: Stress) -> list[str]:
    """How bad it can get as far as was measured, and whether another rule that was tried holds better."""
    rule = result.rules[0]
    bad, done, every = result.worst(rule), result.measured(rule), len(result.attacks)
    question = f"How bad can it get with {rule}?"
    if bad is None:
        return [f"{question} That is not known: so far, 0 of {every} attacks were measured."]
    said = f"{_cell(bad)}, by {bad.attack}"
    lines = [
        f"{question} {said}. No attack that was tried does worse."
        if done == every
        else f"{question} So far {said}: {done} of {every} attacks were measured, others may do worse."
    ]
    calm = result.calm(rule)
    if calm is not None and calm.badness > bad.badness:
        lines[0] = (
            f"{question} {_cell(calm)}, without any attack. The worst attack, {bad.attack} "
            f"({done} of {every} were measured), leaves {_cell(bad)}: they do no harm, something else "
            "limits this training."
        )
    best = result.best_rule
    better = result.worst(best) if best else None
    if better is not None and best != rule:
        so_far = "" if done == every else " so far"
        lines.append(f"Of the rules tried {best} holds best{so_far}: {_cell(better)}, by {better.attack}.")
    if best is None and len(result.rules) > 1:
        lines.append("Which rule holds best is open: they were not measured under the same attacks.")
    return lines


def _cell(one: Trial | None) -> str:
    if one is None or one.value is None:
        return "-"
    shown = f"{100 * one.value:.1f} %" if one.larger_is_better else f"{one.value:.4g}"
    return shown if one.status in ("completed", "converged") else f"{shown} ({one.status})"


def _difference(found: Difference | None) -> dict[str, Any] | None:
    """How different honest rows were, as figures; what is infinite is None."""
    if found is None:
        return None
    figures = {"rounds": found.rounds, "h": found.h, "r": found.r, "rounds_with_rh_at_least_1": found.beyond}
    figures |= {"b_squared": found.fit.slope, "limit": found.fit.breakdown, "share": found.f / found.n}
    finite = {name: value if isfinite(value) else None for name, value in figures.items()}
    return {**finite, "sentences": found.sentences()}


def _data(result: Stress, picture: Path | None) -> dict[str, Any]:
    from byzopt.stress.difference import difference_of

    def plain(one: Trial | None) -> dict[str, Any] | None:
        if one is None:
            return None
        value = one.value if one.value is not None and isfinite(one.value) else None
        return {
            "rule": one.rule,
            "attack": one.attack,
            one.figure: value,
            "status": one.status,
            "runs": one.runs,
            "honest_rows": _difference(difference_of(one.apart, result.n, result.attackers)),
        }

    return {
        "n": result.n,
        "f": result.f,
        "attackers": result.attackers,
        "threat": result.threat,
        "figure": result.figure,
        "unit": "fraction" if result.figure == "accuracy" else "of the task",
        "mean_over": result.mean_over,
        "seeds": result.seeds,
        "attacks": list(result.attacks),
        "measured": {rule: result.measured(rule) for rule in result.rules},
        "complete": {rule: result.complete(rule) for rule in result.rules},
        "headline": _advice(result),
        "honest_rows": {rule: _difference(result.difference(rule)) for rule in result.rules},
        "trials": [plain(one) for one in result.trials],
        "worst": {rule: plain(result.worst(rule)) for rule in result.rules},
        "not_measured": list(result.left),
        "left_out": dict(result.unfit),
        "picture": str(picture) if picture is not None else None,
    }
