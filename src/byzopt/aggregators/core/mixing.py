"""What a pre-aggregator states: a matrix that mixes the rows before a rule, and what that does to proofs."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from byzopt.aggregators.core.stage import Stage
from byzopt.aggregators.core.traits import DECIDE, replaces
from byzopt.aggregators.numerics.geometry import Geometry
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.errors import require
from byzopt.theory.robustness import NOTHING, Coefficients


class MixingStage(Stage):
    """A stage before a rule: maps rows `[n, d]` to rows `[m, d]` by a matrix decided on their geometry."""

    validates = True
    affine: ClassVar[bool] = True  # every row of the mixing matrix sums to one

    def __init_subclass__(cls) -> None:
        """As for rules: nothing is proved of a plugin's stage that mixes in a way of its own."""
        super().__init_subclass__()
        if replaces(cls, "compose", DECIDE):
            cls.compose = MixingStage.compose  # type: ignore[method-assign]

    @abstractmethod
    def mixing(self, geometry: Geometry) -> Tensor:
        """The mixing matrix `[m, n]`, float64."""

    def splits(self) -> bool:
        return True

    def apply(self, mixed: Mixed) -> Mixed:
        """The rows after this stage."""
        matrix = self.mixing(mixed.geometry)
        if self.foreign:
            self._check_matrix(matrix, mixed.m)
        return mixed.then(matrix, self.affine)

    def _check_matrix(self, matrix: Tensor, m: int) -> None:
        name, shape = type(self).__name__, f"be float64 [k, m] with m = {m} and k = {self.out(m)}"
        fits = matrix.shape == (self.out(m), m) and matrix.dtype == torch.float64
        require(fits, f"The mixing matrix of {name}", shape, f"{matrix.dtype} {list(matrix.shape)}")
        lost = int((~matrix.isfinite()).sum())
        require(lost == 0, f"The mixing matrix of {name}", "be finite", f"NaN or Inf in {lost} numbers")

    def out(self, n: int) -> int:
        """How many rows come out of n."""
        return n

    def compose(self, inner: Coefficients, n: int, f: int) -> Coefficients:
        """What is proved of this stage followed by a rule, on n rows, f of them faulty.

        `inner` is what is proved of the rule; `f` is at least what the stage is set to tolerate. Default:
        nothing.
        """
        return NOTHING
