"""What is worth saying of runs that are valid, and how it is said: once, as a warning."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Protocol
from warnings import warn

from byzopt.aggregators import Aggregator
from byzopt.attacks import Attack, ClockAttack
from byzopt.attacks.flips import NoAttack
from byzopt.cohort import Cohort
from byzopt.engines import Asynchrony, Graph
from byzopt.errors import DoubtfulSetting
from byzopt.intakes import FedBuff
from byzopt.methods import MethodRecipe
from byzopt.tasks import Task
from byzopt.theory.asynchrony import share_of_rows
from byzopt.theory.privacy import noise_over_signal


class Setting(Protocol):
    """What is looked at: a spec, or what `simulate` is given."""

    @property
    def cohort(self) -> Cohort: ...
    @property
    def f(self) -> int: ...
    @property
    def rule(self) -> Aggregator: ...
    @property
    def attack(self) -> Attack: ...
    @property
    def graph(self) -> Graph | None: ...
    @property
    def asynchrony(self) -> Asynchrony | None: ...


def doubts(settings: Mapping[str, Setting]) -> tuple[str, ...]:
    """All that is worth saying of these settings before anything is built: each sentence once."""
    told = [*betrayed_trust(settings), *graph_warnings(settings), *clock_warnings(settings)]
    told += broken_before_its_f(settings)
    return (*told, *filter(None, [more_attackers_than_tolerated(settings)]))


def doubts_on_task(task: Task, method: MethodRecipe, setting: Setting, rounds: int) -> tuple[str, ...]:
    """What is worth saying of a run once its task is built: of noise that drowns what it hides, and of a rule
    on a model of these tensors."""
    sizes = task.layout.sizes
    about_rule = setting.rule.doubt(sizes) if setting.graph is None else ""
    return tuple(filter(None, (_noise(task, method, rounds), about_rule)))


def warn_of(lines: Iterable[str]) -> None:
    """Warn of each, as of the line that called byzopt."""
    frame, level = sys._getframe(), 1
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == "byzopt":
        frame, level = frame.f_back, level + 1
    for line in lines:
        warn(line, DoubtfulSetting, stacklevel=level)


def _noise(task: Task, method: MethodRecipe, rounds: int) -> str:
    """That the noise of a private method moves the iterate further than all clipped gradients can."""
    share = method.noise_share(rounds, task.uses(rounds).batch)
    if not share:
        return ""
    d, workers = task.layout.d, len(task.cohort.honest)
    ratio = noise_over_signal(share, d, workers, rounds)
    if ratio <= 1:
        return ""
    return (
        f"Noise of {share:.4g} times the clipping length in each of {d} coordinates, averaged over {workers} "
        f"workers, moves x {ratio:.3g} times as far in {rounds} rounds as all that is clipped can: "
        'little but noise is left. Raise `epsilon`, clip per = "sample" of large batches (safe_dshb), '
        "or take more workers or a smaller model."
    )


def more_attackers_than_tolerated(specs: Mapping[str, Setting]) -> str:
    """One line that names the specs with more attackers than their server tolerates; "" if there are none.

    A rule tolerates what its own f says. One that says nothing, as the mean, is measured by the spec's f.
    """
    found: dict[str, list[str]] = {}
    for name, spec in specs.items():
        if spec.graph is not None:
            continue
        count, f = len(spec.cohort.byzantine), spec.rule.tolerance(spec.cohort.n) or spec.f
        if count > f and not isinstance(spec.attack, NoAttack):
            found.setdefault(
                f"{count} of {spec.cohort.n} workers attack, and f = {f} are tolerated", []
            ).append(name)
    if not found:
        return ""
    (what, names), *_ = found.items()
    number = sum(map(len, found.values()))
    which = f": {', '.join(names)}" if number == len(names) <= 3 else f", as {names[0]}"
    where = f" (in {number} of {len(specs)} runs{which})" if len(specs) > 1 else ""
    return f"{what}{where}. No rule is proved against more than f."


def broken_before_its_f(specs: Mapping[str, Setting]) -> tuple[str, ...]:
    """Where a rule is set to tolerate the workers who attack, and yet they can carry it off, each sentence
    once. The mean, which is set to tolerate nobody, is not told of."""
    told: dict[str, None] = {}
    for spec in specs.values():
        n, count, rule = spec.cohort.n, len(spec.cohort.byzantine), spec.rule
        server = spec.graph is None and spec.asynchrony is None and not isinstance(spec.attack, NoAttack)
        if server and rule.breakdown(n) < count <= rule.tolerance(n):
            told[
                f"{count} of {n} workers attack, as f = {rule.tolerance(n)} says, but more than "
                f"{rule.breakdown(n)} can carry {rule!r} off. Its page of the reference says why."
            ] = None
    return tuple(told)


def betrayed_trust(specs: Mapping[str, Setting]) -> tuple[str, ...]:
    """Where a rule trusts rows of workers who attack, each sentence once."""
    told: dict[str, None] = {}
    for spec in specs.values():
        found = sorted(set(spec.rule.trusts) & set(spec.cohort.byzantine)) if spec.graph is None else []
        if found and not isinstance(spec.attack, NoAttack):
            told[
                f"The rule trusts workers {list(spec.rule.trusts)}, of whom {found} attack. It withstands "
                "nothing unless those are honest. Change `trusted` or `attackers`."
            ] = None
    return tuple(told)


def graph_warnings(specs: Mapping[str, Setting]) -> tuple[str, ...]:
    """Where theory says that a spec's graph does not bear what is asked of it, each sentence once."""
    told: dict[str, None] = {}
    for spec in specs.values():
        if spec.graph is not None:
            told |= dict.fromkeys(spec.graph.network(spec.cohort).warnings(spec.f))
    return tuple(told)


def row_times(spec: Setting, asynchrony: Asynchrony) -> tuple[list[float], list[float]]:
    """Mean times of liars' and of honest workers' rows."""
    cohort, clock = spec.cohort, asynchrony.clock
    honest = [clock.mean(i, spec.cohort.n) for i in cohort.honest]
    liars = [clock.mean(i, spec.cohort.n) for i in cohort.byzantine]
    if isinstance(spec.attack, ClockAttack):
        liars = [spec.attack.pace(min(honest), max(honest))] * len(liars)
    return liars, honest


def clock_warnings(specs: Mapping[str, Setting]) -> tuple[str, ...]:
    """Where liars have more of the rows of a step than the server tolerates, each sentence once."""
    told: dict[str, None] = {}
    for spec in specs.values():
        intake = spec.asynchrony.intake if spec.asynchrony is not None else None
        if spec.asynchrony is None or not isinstance(intake, FedBuff) or not (intake.repeats and intake.size):
            continue
        filled = intake.size * share_of_rows(*row_times(spec, spec.asynchrony))
        if filled > spec.f:
            told[
                f"Of {intake.size} rows in a step liars have {filled:.1f} on average, more than "
                f"f = {spec.f}, since a worker may have several. Leave out `repeats`."
            ] = None
    return tuple(told)
