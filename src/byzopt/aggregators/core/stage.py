"""What rules and pre-aggregators share."""

from __future__ import annotations

from abc import ABC
from dataclasses import replace
from numbers import Integral
from typing import Any, ClassVar, Self, cast

from torch import Tensor

from byzopt.aggregators.core.traits import Traits, replaces
from byzopt.errors import require


class Stage(Traits, ABC):
    """What rules and pre-aggregators share: a name, a tolerance, and preconditions on (n, f)."""

    name: ClassVar[str]

    def __init_subclass__(cls) -> None:
        """As for traits: a class of another package that reads rows in its own way is given whole rows."""
        super().__init_subclass__()
        if replaces(cls, "splits", ("reduce", "apply", "__call__")):
            cls.splits = Stage.splits  # type: ignore[method-assign]

    def __post_init__(self) -> None:
        f = getattr(self, "f", None)
        valid = f is None or (isinstance(f, Integral) and not isinstance(f, bool))
        require(
            valid and (f is None or f >= 0),
            f"Parameter `f` of {type(self).__name__}",
            "be a whole number, at least 0",
            f,
        )

    def tolerance(self, n: int) -> int:
        """How many bad rows among n the stage is set to tolerate: its `f`, or the most that n allows."""
        f = getattr(self, "f", None)
        return (n - 1) // 2 if f is None else int(f)

    def check(self, n: int) -> None:
        """Raise `InvalidInput` when the stage cannot work on n rows. Default: 2 f < n."""
        f = self.tolerance(n)
        if 2 * f >= n:  # few calls get here, and all others need no words
            what, found = f"Parameter `f` of {type(self).__name__}", f"f = {f} with n = {n}"
            require(False, what, "satisfy 2 f < n", found, "Lower f or add workers.")

    def lowered(self, k: int) -> Self:
        """The same recipe for k fewer Byzantine rows (they were dropped)."""
        f = getattr(self, "f", None)
        return self if f is None or k == 0 else replace(cast(Any, self), f=f - k)

    def restricted(self, kept: Tensor) -> Self:
        """The same recipe for the rows where `kept` `[n]` is true; the others were dropped."""
        return self.lowered(int((~kept).sum()))

    def tolerating(self, f: int) -> Self:
        """The same recipe with tolerance f. A stage without an `f` stays as it is."""
        return replace(cast(Any, self), f=f) if hasattr(self, "f") else self

    def breakdown(self, n: int) -> int:
        """Up to how many faulty rows among n the answer stays bounded, whatever they hold.

        An `f` that may be left out only says how many rows may be dropped: then it is the most that n allows.
        """
        spare = getattr(type(self), "f", 0) is None
        return (replace(cast(Any, self), f=None) if spare else self).tolerance(n)

    def splits(self) -> bool:
        """Whether it gives its answer for some columns from these columns alone. What it needs of whole rows
        it takes from the geometry, or sums by `Mixed.total`."""
        return False

    def at(self, t: int) -> Self:
        """The recipe for round t. Only stages that draw lots differ between rounds."""
        return self

    @property
    def draws(self) -> bool:
        return type(self).at is not Stage.at
