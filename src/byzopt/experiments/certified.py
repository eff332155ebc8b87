"""What was certified along a run: the coefficients of its recorded rounds, summed up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from statistics import median
from typing import NamedTuple

from byzopt.theory.robustness import Coefficients


class Certified(NamedTuple):
    """Of `rounds` recorded rounds, the worst and the median coefficients; infinite where a round has none.

    `lacking` rounds have no certificate: a bound over the whole run needs `lacking` == 0.
    """

    rounds: int
    lacking: int
    worst: Coefficients
    median: Coefficients

    def __str__(self) -> str:
        """In words: the squared and the linear coefficient."""
        told = f"kappa_squared worst {_shown(self.worst.squared)}, median {_shown(self.median.squared)}; "
        told += f"kappa worst {_shown(self.worst.linear)}, median {_shown(self.median.linear)}"
        some = f"; {self.lacking} of {self.rounds} rounds are not certified" if self.lacking else ""
        return f"certified over {self.rounds} recorded rounds: {told}{some}"


def certified(records: Sequence[Mapping[str, float]]) -> Certified | None:
    """The certificates in the `records` of a run; None where there are none, as for rules whose coefficients
    are proved in advance, and for runs stored by earlier versions."""
    pairs = [
        (one["certified_linear"], one["certified_squared"]) for one in records if "certified_squared" in one
    ]
    if not pairs:
        return None
    linear, squared = zip(*pairs, strict=True)
    lacking = sum(value == inf for value in squared)
    return Certified(
        len(pairs),
        lacking,
        Coefficients(max(linear), max(squared)),
        Coefficients(median(linear), median(squared)),
    )


def _shown(value: float | None) -> str:
    return "none" if value is None or value == inf else f"{value:.4g}"
