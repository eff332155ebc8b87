"""FLAME: the rows that point the way of a majority, cut to the median length, with optional noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from byzopt.aggregators.core.aggregator import RULES
from byzopt.aggregators.core.weighing import WeighingRule, cosines, median_value, row_norms, saturated, shrink
from byzopt.aggregators.numerics.clusters import linked_majority
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.errors import require
from byzopt.rng import stream


@RULES.register("flame")
@dataclass(frozen=True)
class FLAME(WeighingRule):
    """The mean of min(1, S/‖v_i‖) v_i over the admitted rows, S being the median norm of all rows.

    Admitted: with distances 1 - cos(v_i, v_j), the component of {distance <= t} that holds more than n/2
    rows, for the least t for which there is one. This is what HDBSCAN finds with min_cluster_size = n/2 + 1,
    min_samples = 1 and a single cluster allowed: two children of a split cannot both have so many rows, so
    its only cluster is the root, cut where it falls apart. A row of zeros has distance 1 to all others but
    0 to its like.

    `noise` λ adds λ S N(0, I), drawn from (seed, "flame", t); `at(t)` is the recipe of round t. The paper's
    λ = √(2 ln(1.25/δ))/ε is for the privacy of (ε, δ); 0 unless given. `f` only says how many rows may be
    dropped.

    Needs 2 f < n; without noise the answer is no longer than S, which lies among the honest norms. κ
    unproved: linking chains, so faulty rows may be admitted through others. Scale-equivariant; not
    translation-equivariant. Cost: one float64 Gram product of the rows, so
    that 1 - cosine is known to about 1e-15.
    Source: Nguyen et al., USENIX Security 2022 (arXiv:2101.02281), algorithm 1. Where we differ: rows are
    updates, so that clipping is about 0 (the paper's is about the last model) and so are the angles.

    Args:
        f: How many rows may be dropped as not finite; None: as many as n allows.
        noise: λ of the noise that is added, in units of the median norm.
        seed: Of the noise.
        t: The round, part of the noise's stream.

    Examples:
        >>> import torch
        >>> from byzopt import FLAME
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, -90.0]])
        >>> FLAME(f=1)(rows)
        tensor([1.3953, 1.3953])
    """

    translation_equivariant = False
    convex = False
    validates = True

    f: int | None = None
    noise: float = 0.0
    seed: int = 0
    t: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.noise >= 0, "Parameter `noise` of FLAME", "be at least 0", self.noise)

    @property
    def draws(self) -> bool:
        return self.noise > 0

    def at(self, t: int) -> FLAME:
        return replace(self, t=t)

    def weigh(self, mixed: Mixed) -> Tensor:
        norms = row_norms(mixed)
        zero = norms == 0
        dists = (1 - cosines(mixed, norms)).masked_fill_(zero & zero.unsqueeze(1), 0)
        admitted = linked_majority(dists)
        return admitted * shrink(norms, median_value(norms)) / admitted.sum()

    def reduce(self, mixed: Mixed) -> Tensor:
        out = super().reduce(mixed)
        if self.noise == 0:
            return out
        draw = torch.randn(
            mixed.d, generator=stream(self.seed, "flame", self.t), dtype=torch.float64, device="cpu"
        )
        noise = self.noise * median_value(row_norms(mixed)) * mixed.held(draw)
        return saturated(out.double() + noise.to(out.device), out.dtype)
