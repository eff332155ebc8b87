"""Who takes part: n workers, some of them Byzantine. Row i is worker i in every room."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from byzopt.errors import require

__all__ = ["Cohort"]


@dataclass(frozen=True)
class Cohort:
    """`n` workers of which those in `byzantine` lie. The server does not know the set, only its own `f`.

    Args:
        n: Number of workers, at least 1.
        byzantine: Ids of the workers that lie, in 0 .. n - 1; kept in ascending order.

    Raises:
        InvalidInput: Ids that repeat or lie outside, or no honest worker left.

    Examples:
        >>> from byzopt import Cohort
        >>> cohort = Cohort.of(5, byzantine=2)  # a count means the last workers
        >>> cohort.byzantine, cohort.honest
        ((3, 4), (0, 1, 2))
        >>> Cohort.of(5, byzantine=[0, 4]).honest
        (1, 2, 3)
    """

    n: int
    byzantine: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        require(self.n >= 1, "The number of workers `n`", "be at least 1", self.n)
        ids = self.byzantine
        require(len(set(ids)) == len(ids), "The Byzantine workers", "be distinct", list(ids))
        require(all(0 <= i < self.n for i in ids), "Byzantine workers", f"lie in 0..{self.n - 1}", list(ids))
        require(len(ids) < self.n, "The cohort", "hold an honest worker", f"{len(ids)} Byzantine of {self.n}")
        object.__setattr__(self, "byzantine", tuple(sorted(ids)))

    @classmethod
    def of(cls, n: int, byzantine: int | Iterable[int] = 0) -> Cohort:
        """A count means the last workers, as in the papers' code; an iterable names them."""
        if isinstance(byzantine, int):
            require(0 <= byzantine < n, "The number of attackers", f"lie in 0..{n - 1}", byzantine)
            return cls(n, tuple(range(n - byzantine, n)))
        return cls(n, tuple(byzantine))

    @cached_property
    def honest(self) -> tuple[int, ...]:
        """The honest workers, ascending."""
        liars = set(self.byzantine)
        return tuple(i for i in range(self.n) if i not in liars)
