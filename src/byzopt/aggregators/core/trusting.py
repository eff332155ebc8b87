"""Rules that trust one row: its sender is the server itself, or a worker known to be honest."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral
from typing import Any, Self, cast

from torch import Tensor

from byzopt.aggregators.core.weighing import FigureRule, WeighingRule
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.errors import InvalidInput, TooManyFaults, require

_ROUNDING = 1e-12


class TrustingRule(WeighingRule):
    """What FLTrust, Zeno and MoNNA share: the index `trusted`, which follows its row when others are dropped.

    All other rows may be faulty: needs f < n only. Not permutation-invariant, by design.

    Examples:
        >>> from byzopt import FLTrust
        >>> from byzopt.aggregators import TrustingRule
        >>> isinstance(FLTrust(trusted=2), TrustingRule), FLTrust(trusted=2).trusts
        (True, (2,))
    """

    positional = True

    f: int | None
    trusted: int

    def __post_init__(self) -> None:
        super().__post_init__()
        index: Any = self.trusted
        valid = isinstance(index, Integral) and not isinstance(index, bool)
        what = f"Parameter `trusted` of {type(self).__name__}"
        require(valid and index >= 0, what, "be the index of a row, at least 0", index)

    @property
    def trusts(self) -> tuple[int, ...]:
        return (self.trusted,)

    def tolerance(self, n: int) -> int:
        return n - 1 if self.f is None else int(self.f)

    def check(self, n: int) -> None:
        name, f = type(self).__name__, self.tolerance(n)
        require(f < n, f"Parameter `f` of {name}", "satisfy f < n", f"f = {f} with n = {n}", "Lower f.")
        require(self.trusted < n, f"Parameter `trusted` of {name}", f"lie in 0..{n - 1}", self.trusted)

    def restricted(self, kept: Tensor) -> Self:
        if not bool(kept[self.trusted]):
            raise TooManyFaults(
                f"The row that {type(self).__name__} trusts should be finite. Found NaN or Inf from worker "
                f"{self.trusted}. Trust another row, or find out why this one is not finite.",
                [self.trusted],
            )
        left = cast(Any, super().restricted(kept))
        return cast(Self, replace(left, trusted=int(kept[: self.trusted].sum())))

    def in_place(self, mixed: Mixed) -> None:
        """Raise `InvalidInput` when a stage before this rule moved the trusted row or thinned it out."""
        mixing, i = mixed.mixing, self.trusted
        if mixing is None:
            return
        square = mixing.shape[0] == mixing.shape[1]
        # A stage that moves a row a share of the way to a mean it is part of rounds its own weight by itself.
        if not (square and mixing[i, i] >= mixing[i].abs().max() * (1 - _ROUNDING)):
            raise InvalidInput(
                f"Stages before {type(self).__name__} should leave the trusted row {i} in its place. "
                "Found one that moves rows. Remove it (clipping keeps rows in place)."
            )


class MeasuringRule(FigureRule, TrustingRule):
    """A trusting rule that needs no more of each row than a few figures, measured against the trusted one.

    Examples:
        >>> from byzopt import MoNNA
        >>> from byzopt.aggregators import MeasuringRule
        >>> isinstance(MoNNA(f=1), MeasuringRule), MoNNA(f=1, trusted=2).row
        (True, 2)
    """

    @property
    def row(self) -> int | None:
        return self.trusted

    def weigh(self, mixed: Mixed) -> Tensor:
        self.in_place(mixed)
        return super().weigh(mixed)
