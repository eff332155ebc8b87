"""What a pre-aggregator states: a matrix that mixes the rows before a rule, and what that does to proofs."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np
from torch import Tensor

from byzopt.aggregators.core.foreign import checked_value
from byzopt.aggregators.core.stage import Stage
from byzopt.aggregators.core.traits import DECIDE, replaces
from byzopt.aggregators.numerics.distances import Array
from byzopt.aggregators.numerics.geometry import Geometry
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.theory.robustness import NOTHING, Coefficients


class MixingStage(Stage):
    """A stage before a rule: maps rows `[n, d]` to rows `[m, d]` by a matrix decided on their geometry."""

    validates = True
    affine: ClassVar[bool] = True  # every row of the mixing matrix sums to one
    sketches: ClassVar[bool] = False  # it only says how rows lie, by products of its own
    mixes: ClassVar[bool] = True  # what comes out for a worker holds something of others' rows
    # No row that comes out is longer than some honest one, or than a length that was set, whatever as many
    # faulty rows as `breakdown` says hold: then a mean behind it stays bounded too.
    bounds: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        """As for rules: nothing is proved or said of a stage of another package that mixes in its own way."""
        super().__init_subclass__()
        if replaces(cls, "compose", DECIDE):
            cls.compose = MixingStage.compose  # type: ignore[method-assign]
        if replaces(cls, "mixes", DECIDE):
            cls.mixes = True
        if replaces(cls, "bounds", DECIDE):
            cls.bounds = False

    @abstractmethod
    def mixing(self, geometry: Geometry) -> Tensor:
        """The mixing matrix `[m, n]`, float64."""

    def lengths(self, norms: Array, unit: float) -> Array:
        """How long each row is afterwards, `[..., m]`, by the rows' lengths in units of `unit`, where a stage
        `asks` for nothing else: it scales rows. Those cut to one length have the very same."""
        raise NotImplementedError(f"{self!r} does not scale rows by their lengths.")

    def scales(self, norms: Array, unit: float) -> Array:
        """What each row is multiplied by then, `[..., m]`; a row of zeros by 1."""
        after = self.lengths(norms, unit)
        factors: Array = np.divide(after, norms, out=np.ones_like(norms), where=norms > 0)
        return factors

    def splits(self) -> bool:
        return True

    def apply(self, mixed: Mixed) -> Mixed:
        """The rows after this stage."""
        matrix = self.decided(mixed.geometry)
        return mixed.then(matrix, self.affine, scales=bool(self.asks) and not self.foreign)

    def decided(self, geometry: Geometry) -> Tensor:
        """`mixing(geometry)`, checked where it is code of another package."""
        matrix = self.mixing(geometry)
        if not self.foreign & {"mixing", "lengths"}:
            return matrix
        *lead, m = geometry.shape
        return checked_value(self, "mixing", matrix, (*lead, self.out(m), m))

    def out(self, n: int) -> int:
        """How many rows come out of n."""
        return n

    def compose(self, inner: Coefficients, n: int, f: int) -> Coefficients:
        """What is proved of this stage followed by a rule, on n rows, f of them faulty.

        `inner` is what is proved of the rule; `f` is at least what the stage is set to tolerate. Default:
        nothing.
        """
        return NOTHING
