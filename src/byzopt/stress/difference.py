"""How different the honest rows of runs were, and whether any rule could have promised a direction there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite
from statistics import median
from typing import NamedTuple

from byzopt.experiments import Record
from byzopt.theory.disagreement import Dissimilarity, fitted, indistinct


class Difference(NamedTuple):
    """Of `rounds` recorded rounds with n workers, f of whom lie: the median of h = variance/‖mean‖² of the
    honest rows, in how many r h >= 1 (r = f/(n - 2 f)), and the fit of variance = G² + B² ‖mean‖².

    Args:
        n: Number of workers.
        f: Number of those that lie.
        rounds: Number of recorded rounds.
        h: The median of variance/‖mean‖².
        beyond: In how many rounds r h >= 1.
        fit: G² and B².

    Examples:
        >>> from byzopt.stress.difference import difference_of
        >>> found = difference_of([(6.0, 6.0), (2.0, 1.0)], n=20, f=3)
        >>> found.h, found.beyond, round(found.r, 3)
        (3.5, 1, 0.214)
    """

    n: int
    f: int
    rounds: int
    h: float
    beyond: int
    fit: Dissimilarity

    @property
    def r(self) -> float:
        """f/(n - 2 f)."""
        limit = indistinct(self.n, self.f)
        return 1 / limit if limit else float("inf")

    @property
    def too_different(self) -> bool:
        """Whether f/n >= 1/(2 + B²) with the fitted B."""
        return self.f / self.n >= self.fit.breakdown

    def sentences(self) -> list[str]:
        """In words, with the premises."""
        lines = [
            f"Honest rows differ: h = variance/|mean|^2 = {self.h:.3g} in the median of {self.rounds} "
            f"recorded rounds; r = f/(n - 2 f) = {self.r:.3g}."
        ]
        if self.beyond:
            lines.append(
                f"r h >= 1 in {self.beyond} of them: there no rule that sees these rows alone can promise "
                "that its answer points the right way. It may still do so; trusted or shared data, or fewer "
                "liars, make a promise possible."
            )
        else:
            lines.append("r h < 1 in all of them: they differ little enough for a rule to keep a direction.")
        if self.too_different:
            lines.append(
                f"f/n = {self.f / self.n:.3g} >= 1/(2 + B^2) = {self.fit.breakdown:.3g}, with B^2 = "
                f"{self.fit.slope:.3g} fitted to these rows (variance = G^2 + B^2 |mean|^2, noise of samples "
                "included): if that holds at all points, no method can promise to end near an optimum "
                "(arXiv:2309.13591)."
            )
        return lines


def differences(records: Iterable[Record]) -> list[tuple[float, float]]:
    """Variance and variance/‖mean‖² of the honest rows, in each record that has them."""
    return [(one["honest_variance"], one["relative_variance"]) for one in records if "honest_variance" in one]


def difference_of(apart: Sequence[tuple[float, float]], n: int, f: int) -> Difference | None:
    """What such pairs, of rounds with n workers f of whom lie, come to; None where there are none.

    Args:
        apart: Variance and variance/‖mean‖² of each round.
        n: Number of workers.
        f: Number of those that lie.

    Returns:
        Their summary.

    Examples:
        >>> from byzopt.stress.difference import difference_of
        >>> difference_of([], n=20, f=3) is None
        True
    """
    known = [(v, h) for v, h in apart if isfinite(v)]
    if not known:
        return None
    limit = indistinct(n, f)
    beyond = sum(h >= limit for _, h in known)
    differing = [(v, v / h) for v, h in known if h]
    fit = fitted(*zip(*differing, strict=True)) if differing else Dissimilarity(0.0, 0.0)
    return Difference(n, f, len(known), median(h for _, h in known), beyond, fit)
