"""Measuring an entry in a cell: which runs that takes, playing those that are missing, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from byzopt.benchmark.entries import Entry, check_name
from byzopt.benchmark.protocol import ATTACK_SET, HELD_OUT, PROTOCOL, REFERENCE, SEEDS, TUNED_AGAINST, Cell
from byzopt.benchmark.repeating import check_repeats
from byzopt.benchmark.rows import Hit, Row, Setting
from byzopt.errors import InvalidInput
from byzopt.experiments import Outcome, Spec
from byzopt.experiments.sweeps import SweepPlan, plan_sweep, run_sweep
from byzopt.experiments.sweeps.runs import deciding_versions
from byzopt.experiments.sweeps.sweep import Sweep
from byzopt.experiments.sweeps.tuning import Tune
from byzopt.stress.catalogue import NO_ATTACK
from byzopt.stress.verdict import tail_mean

Play = Callable[[SweepPlan, Callable[[], bool]], Any]
POINTS = 26  # of a curve that a row keeps


def play_here(plan: SweepPlan, over: Callable[[], bool]) -> None:
    """Play the runs of a plan in this process, on one thread."""
    run_sweep(plan, jobs=0, threads=1, stopped=over)


def tuning_sweep(cell: Cell, entry: Entry) -> Sweep:
    """The runs that choose an entry's setting: all settings against the attacks of tuning, on a seed that no
    figure has."""
    settings = entry.settings_in(cell)
    keys = list(settings[0])
    walked = {key: [setting[key] for setting in settings] for key in keys}
    against = (NO_ATTACK,) if entry.name == REFERENCE else TUNED_AGAINST
    attacks = [dict(cell.attacks[name]) for name in against]
    spec = entry.base(cell)
    tune = Tune(tuple(keys), cell.rules.tuned_by, "best_worst_case")
    grid = {"attack": attacks, "seed": [HELD_OUT]}
    return Sweep("benchmark-tuning", spec=spec, grid=grid, zip=(walked,), tune=tune)


def attack_sweep(spec: Mapping[str, Any], rules: Sequence[Any], attack: Mapping[str, Any]) -> Sweep:
    """The runs of one attack against a tuned defence: all seeds, and all draws of its lots, in one batch."""
    shared = {key: value for key, value in spec.items() if key not in ("rule", "attack", "seed")}
    grid = {"rule": list(rules), "seed": list(SEEDS)}
    return Sweep("benchmark", spec={**shared, "attack": dict(attack)}, grid=grid)


def tuned(
    cell: Cell, entry: Entry, store: Path, play: Play, over: Callable[[], bool]
) -> tuple[dict[str, Any], list[Setting]] | None:
    """The spec of the setting that is chosen, and what each came to; None where `over` came before.

    Errors: `InvalidInput` where every setting fails.
    """
    plan = plan_sweep(tuning_sweep(cell, entry), store)
    if plan.to_play and not over():
        check_repeats(entry, entry.specs(cell)[0])
        play(plan, over)
        plan = plan_sweep(plan.sweep, store)
    if plan.to_play:
        return None
    runs = plan.expansion.runs
    ended = {run.id: plan.store.read_outcome(run.id) for run in runs}
    assert plan.sweep.tune is not None
    (found,) = plan.sweep.tune.pick(ended, runs)["cells"]
    tries = [Setting(one["setting"], one["score"], one["runs"]) for one in found["settings"]]
    chosen = found["chosen"] or found["settings"][0]["setting"]
    return entry.specs(cell)[entry.settings_in(cell).index(chosen)], tries


def hit(
    cell: Cell,
    spec: Mapping[str, Any],
    rules: Sequence[Any],
    attack: Mapping[str, Any],
    store: Path,
    play: Play,
    over: Callable[[], bool],
) -> tuple[Hit, list[Outcome]] | None:
    """What an attack did to a tuned defence; None where `over` came before its runs had ended."""
    plan = plan_sweep(attack_sweep(spec, rules, attack), store)
    if plan.to_play and not over():
        play(plan, over)
        plan = plan_sweep(plan.sweep, store)
    runs = plan.expansion.runs
    stored = [plan.store.inspect(run.id) for run in runs]
    if failed := next((one for one in stored if one.kind == "failed"), None):
        raise InvalidInput(f"A run in cell {cell.name} failed: {failed.message}")
    if plan.to_play:
        return None
    outcomes = [plan.store.read_outcome(run.id) for run in runs]
    figure, each = cell.rules.figure, len(SEEDS)
    values: list[float | None] = [
        sum(tail_mean(outcomes[draw * each + k], figure) for draw in range(len(rules))) / len(rules)
        for k in range(each)
    ]
    status = sorted({outcome.ending for outcome in outcomes})
    seconds = sum(outcome.seconds for outcome in outcomes)
    return Hit(values, [run.id for run in runs], dict(attack), ", ".join(status), seconds), outcomes


def evaluate(
    cell: Cell,
    entry: Entry,
    store: str | Path,
    *,
    play: Play = play_here,
    over: Callable[[], bool] = lambda: False,
) -> Row | None:
    """Tune a defence in a cell and measure it under every attack of the set.

    What is stored is not run again, so the same call goes on where it was stopped.

    Args:
        cell: Where.
        entry: A defence.
        store: The directory that keeps every run.
        play: Plays the runs of a plan; default: in this process.
        over: Whether to stop; checkpoints are kept.

    Returns:
        The row, with those attacks that were measured, or why the defence does not fit the cell; None
        where not even the tuning was done.

    Raises:
        InvalidInput: A run that an error ended, a name that is taken, or an entry that fits no cell whatever.

    Examples:
        >>> from byzopt.benchmark import Cell, evaluate, load_entry
        >>> import tempfile
        >>> cell, entry = Cell.of("digits-dirichlet1-n20-f3"), load_entry("rfa")
        >>> with tempfile.TemporaryDirectory() as folder:  # nothing is stored, and no time is given
        ...     print(evaluate(cell, entry, folder, over=lambda: True))
        None
    """
    check_name(entry)
    entry.check()
    store = Path(store)
    row = Row(
        cell=cell.name,
        entry=entry.name,
        title=entry.title,
        source=entry.source,
        remarks=entry.remarks,
        protocol=PROTOCOL,
        attack_set=ATTACK_SET,
        figure=cell.rules.figure,
        rises=cell.rules.rises,
        seeds=list(SEEDS),
        versions=deciding_versions(),
    )
    try:
        entry.specs(cell)
    except InvalidInput as error:
        row.refused = str(error)
        return row
    found = tuned(cell, entry, store, play, over)
    if found is None:
        return None
    row.spec, row.tries = found
    row.rules, row.trusted = entry.lots(row.spec), list(Spec.of(row.spec).rule.trusts)
    for name, attack in cell.attacks.items():
        struck = hit(cell, row.spec, row.rules, attack, store, play, over)  # what is stored takes no time
        if struck is None:
            continue
        row.hits[name], outcomes = struck
        note(row, name, outcomes)
    return row


def note(row: Row, attack: str, outcomes: Sequence[Outcome]) -> None:
    """Keep in a row the curve of an attack, where it is the worst so far, and where its runs began."""
    points: dict[int, list[float]] = {}
    for outcome in outcomes:
        for record in outcome.records:
            if row.figure in record:
                points.setdefault(int(record["t"]), []).append(record[row.figure])
    means = [(t, sum(values) / len(values)) for t, values in points.items() if len(values) == len(outcomes)]
    step = max(1, -(-len(means) // POINTS))
    row.curves[attack] = [list(one) for one in means[::step] if isfinite(one[1])]  # JSON has no infinity
    if attack == NO_ATTACK and means:
        row.start = means[0][1]


def replay(row: Row, attack: str, store: str | Path, play: Play = play_here) -> list[float | None]:
    """Run one attack of a row again, from what the row says alone, and return its figures.

    They are those of the row to the last digit, where the packages and the processor are the same.

    Args:
        row: A row of a table.
        attack: One of its attacks.
        store: An empty directory.
        play: Plays the runs of a plan.

    Returns:
        The figure of each seed.

    Raises:
        InvalidInput: An attack that the row does not have, or runs that no longer work.
    """
    known = {**row.hits, **row.outside}
    if attack not in known:
        raise InvalidInput(f"An attack of this row should be one of {', '.join(known)}. Found {attack!r}.")
    done = hit(Cell.of(row.cell), row.spec, row.rules, known[attack].attack, Path(store), play, lambda: False)
    assert done is not None
    return done[0].values
