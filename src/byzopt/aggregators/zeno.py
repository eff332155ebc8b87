"""Zeno: the rows that promise the largest descent along a trusted gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from byzopt.aggregators.core.aggregator import RULES
from byzopt.aggregators.core.trusting import MeasuringRule
from byzopt.aggregators.numerics.distances import Array
from byzopt.aggregators.numerics.figures import Ask, least
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.errors import require


@RULES.register("zeno")
@dataclass(frozen=True)
class Zeno(MeasuringRule):
    """The mean of the n - f rows with the highest score <v_0, v_i> - ρ‖v_i‖², v_0 being the trusted row.

    `trusted` is the index of v_0, which is scored like the others. `rho` ρ > 0 is a pure number, so the
    rule is scale-equivariant. At ρ = 1/2 the rows nearest to v_0 are kept; a smaller ρ lets rows as long as
    ‖v_0‖/ρ pass. `TooManyFaults` when v_0 is not finite; `InvalidInput` behind a stage that mixes rows (NNM,
    bucketing), after which v_0 would hold faulty ones.

    Needs f < n. Breakdown point f/n, given that v_0 is honest; 0 if it is not: a faulty row is either
    dropped or scores no less than the worst of the honest. κ unproved. Neither translation-equivariant (but
    for ρ = 1/2) nor permutation-invariant. Ties: the lower index. Cost: two passes over the rows, with
    float64 products.
    Source: Xie, Koyejo, Gupta, ICML 2019 (arXiv:1805.10032), definitions 2-3. Where we differ: the paper's
    score is the descent f_r(x) - f_r(x - γ v_i) - ρ‖v_i‖² of a sampled loss; a rule sees rows only, so the
    first-order form of Zeno++ (arXiv:1903.07020) stands for it, divided by γ (our ρ is the paper's ρ/γ).

    Args:
        f: Number of faulty rows that the rule is set to withstand, f < n.
        trusted: Index of the trusted row.
        rho: ρ > 0; at 1/2 the rows nearest to the trusted one are kept.

    Raises:
        TooManyFaults: The trusted row is not finite.
        InvalidInput: A stage before the rule that mixes rows.

    Examples:
        >>> import torch
        >>> from byzopt import Zeno
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, -90.0]])
        >>> Zeno(f=1)(rows)
        tensor([1.5000, 1.5000])
    """

    translation_equivariant = False

    measure = "minus the Zeno score"
    asks = "inner"

    f: int
    trusted: int = 0
    rho: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.rho > 0, "Parameter `rho` of Zeno", "be positive", self.rho)

    def shares(self, found: Array, unit: float, order: Ask | None = None) -> Array:
        return least(self._loss(found), found.shape[-1] - self.f)

    def scores(self, mixed: Mixed) -> Tensor:
        return torch.from_numpy(self._loss(self.figures(mixed))) * mixed.unit * mixed.unit

    def _loss(self, found: Array) -> Array:
        inner, squares = found
        with np.errstate(over="ignore", invalid="ignore"):
            loss: Array = self.rho * squares - inner
        return loss
