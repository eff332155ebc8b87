"""The search for the worst that one attack can do: a coarse look everywhere, then closer around the best."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, sqrt
from typing import NamedTuple, Protocol

from byzopt.attacks import Attack
from byzopt.certificates.breaking.finding import Finding
from byzopt.certificates.breaking.space import (
    Axis,
    coarse_grid,
    search_axes,
    vary_one_parameter,
    with_parameter,
)

GOLDEN = (sqrt(5) - 1) / 2
LOOKS = 8  # at one float, in one pass
REACH, NARROWER = 10.0, 0.25  # a float's bracket is [v / 10, 10 v]; each pass narrows it on the log scale


class SearchSetting(Protocol):
    """Where attacks are evaluated: places by name, and the figures that count."""

    @property
    def places(self) -> tuple[str, ...]: ...
    @property
    def forms(self) -> tuple[str, ...]: ...
    def play(self, attack: Attack, rows: str, seed: int) -> Finding: ...


class WorstCase(NamedTuple):
    """The worst case for the rule so far."""

    attack: Attack
    rows: str
    figure: float


class AttackSearch:
    """Evaluates one attack, no case twice. The refinement ends after `allowance` evaluations."""

    def __init__(
        self, setting: SearchSetting, attack: Attack, seed: int, trials: int, allowance: int
    ) -> None:
        self.setting, self.attack, self.seed, self.allowance = setting, attack, seed, allowance
        self.seeds = range(seed + 1, seed + trials)
        self.played: dict[tuple[Attack, str, int], Finding] = {}

    def run(self) -> list[Finding]:
        """All findings. Half of the allowance goes into the coarse search; the last ones try other seeds."""
        forms, end = self.setting.forms, self.allowance - len(self.seeds) * len(self.setting.forms)
        self._look_everywhere(min(self.allowance // 2, end))
        for k, form in enumerate(forms):
            self._closer(form, len(self.played) + max(end - len(self.played), 0) // (len(forms) - k))
        for best in filter(None, map(self._best, forms)):
            for seed in self.seeds:
                self._play(best.attack, best.rows, seed)
        return list(self.played.values())

    def _look_everywhere(self, most: int) -> None:
        """The recipe as it stands in every place, then its variations, thinned to `most` evaluations."""
        first, *others = coarse_grid(self.attack)
        for rows in self.setting.places:
            self._play(first, rows, self.seed)
        cases = [(attack, rows) for attack in others for rows in self.setting.places]
        room = most - len(self.played)
        for k in range(min(room, len(cases))):
            attack, rows = cases[k * len(cases) // min(room, len(cases))]
            self._play(attack, rows, self.seed)

    def _closer(self, form: str, limit: int) -> None:
        """Coordinate search from the best case so far, until nothing improves or `limit` is reached."""
        reach, before = REACH, -inf
        while (best := self._best(form)) and best.figure > before and len(self.played) < limit:
            attack, rows, before = best

            def score(one: Attack, rows: str = rows) -> float:
                known = (one, rows, self.seed) in self.played or len(self.played) < limit
                return self._play(one, rows, self.seed).figures.get(form, -inf) if known else -inf

            for axis in search_axes(type(attack)):
                attack = _along(axis, attack, score, reach)
            reach **= NARROWER

    def _play(self, attack: Attack, rows: str, seed: int) -> Finding:
        case = (attack, rows, seed)
        if case not in self.played:
            self.played[case] = self.setting.play(*case)
        return self.played[case]

    def _best(self, form: str) -> WorstCase | None:
        cases = [
            WorstCase(attack, rows, finding.figures[form])
            for (attack, rows, _), finding in self.played.items()
            if form in finding.figures
        ]
        return max(cases, key=lambda best: best.figure, default=None)


def _along(axis: Axis, attack: Attack, score: Callable[[Attack], float], reach: float) -> Attack:
    """The best recipe met on one axis through `attack`. Scores jump, so the best met counts, not the last."""
    top = max([attack, *vary_one_parameter(attack, axis)], key=score)
    value = getattr(top, axis.name)
    if not isinstance(value, float) or value == 0:
        return top
    met = [top]

    def at(power: float) -> float:
        moved = with_parameter(top, axis.name, value * reach**power)
        met.extend([] if moved is None else [moved])
        return -inf if moved is None else score(moved)

    golden_section(at)
    return max(met, key=score)


def golden_section(at: Callable[[float], float]) -> None:
    """`LOOKS` looks at a function on [-1, 1], by golden section towards a maximum."""
    low, high = -1.0, 1.0
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = at(left), at(right)
    for _ in range(LOOKS - 2):
        if at_left >= at_right:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = at(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = at(right)
