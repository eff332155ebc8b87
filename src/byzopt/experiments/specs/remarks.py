"""What is worth saying of a spec that is valid."""

from __future__ import annotations

from collections.abc import Mapping

from byzopt.attacks import ClockAttack
from byzopt.attacks.flips import NoAttack
from byzopt.engines import Asynchrony
from byzopt.experiments.specs.spec import Spec
from byzopt.intakes import FedBuff
from byzopt.theory.asynchrony import share_of_rows


def more_attackers_than_tolerated(specs: Mapping[str, Spec]) -> str:
    """One line that names the specs with more attackers than their server tolerates; "" if there are none.

    A rule tolerates what its own f says. One that says nothing, as the mean, is measured by the spec's f.
    """
    found: dict[str, list[str]] = {}
    for name, spec in specs.items():
        if spec.graph is not None:
            continue
        count, f = len(spec.cohort.byzantine), spec.rule.tolerance(spec.n) or spec.f
        if count > f and not isinstance(spec.attack, NoAttack):
            found.setdefault(f"{count} of {spec.n} workers attack, and f = {f} are tolerated", []).append(
                name
            )
    if not found:
        return ""
    (what, names), *_ = found.items()
    number = sum(map(len, found.values()))
    which = f": {', '.join(names)}" if number == len(names) <= 3 else f", as {names[0]}"
    where = f" (in {number} of {len(specs)} runs{which})" if len(specs) > 1 else ""
    return f"{what}{where}. No rule is proved against more than f."


def betrayed_trust(specs: Mapping[str, Spec]) -> tuple[str, ...]:
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


def graph_warnings(specs: Mapping[str, Spec]) -> tuple[str, ...]:
    """Where theory says that a spec's graph does not bear what is asked of it, each sentence once."""
    told: dict[str, None] = {}
    for spec in specs.values():
        if spec.graph is not None:
            told |= dict.fromkeys(spec.graph.network(spec.cohort).warnings(spec.f))
    return tuple(told)


def row_times(spec: Spec, asynchrony: Asynchrony) -> tuple[list[float], list[float]]:
    """Mean times of liars' and of honest workers' rows."""
    cohort, clock = spec.cohort, asynchrony.clock
    honest = [clock.mean(i, spec.n) for i in cohort.honest]
    liars = [clock.mean(i, spec.n) for i in cohort.byzantine]
    if isinstance(spec.attack, ClockAttack):
        liars = [spec.attack.pace(min(honest), max(honest))] * len(liars)
    return liars, honest


def clock_warnings(specs: Mapping[str, Spec]) -> tuple[str, ...]:
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
