"""What is worth saying of a spec that is valid."""

from __future__ import annotations

from collections.abc import Mapping

from byzopt.attacks.flips import NoAttack
from byzopt.experiments.specs.spec import Spec


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


def graph_warnings(specs: Mapping[str, Spec]) -> tuple[str, ...]:
    """Where theory says that a spec's graph does not bear what is asked of it, each sentence once."""
    told: dict[str, None] = {}
    for spec in specs.values():
        if spec.graph is not None:
            told |= dict.fromkeys(spec.graph.network(spec.cohort).warnings(spec.f))
    return tuple(told)
