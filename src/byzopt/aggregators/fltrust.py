"""FLTrust: rows weighed by their agreement with a trusted one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from byzopt.aggregators.core.aggregator import RULES
from byzopt.aggregators.core.trusting import MeasuringRule
from byzopt.aggregators.numerics.distances import Array
from byzopt.aggregators.numerics.figures import Ask


@RULES.register("fltrust")
@dataclass(frozen=True)
class FLTrust(MeasuringRule):
    """Σ s_i (‖v_0‖/‖v_i‖) v_i / Σ s_i over i ≠ 0, with s_i = max(0, cos(v_i, v_0)) and v_0 the trusted row.

    `trusted` is the index of v_0, the server's own row; it is compared with, not averaged, as in the paper.
    The answer is never longer than v_0 and tolerates any number of faulty rows beside it. `f` only says how
    many rows may be dropped (None: all but the trusted one); `TooManyFaults` when v_0 itself is not finite.
    A chain may shorten rows before it but not mix them: `InvalidInput` behind NNM and bucketing, after which
    v_0 would hold faulty rows and others v_0.

    Breakdown point: (n - 1)/n, given that v_0 is honest; 0 if it is not. κ unproved (the guarantee is
    relative to v_0, not to the honest mean). Scale-equivariant; neither translation-equivariant nor
    permutation-invariant. Cost: two passes over the rows, with float64
    products.
    Source: Cao, Fang, Liu, Gong, NDSS 2021 (arXiv:2012.13995), algorithm 2. Where we differ: no row with
    positive trust gives v_0 (the paper divides 0 by 0); zero rows have trust 0.

    Args:
        f: How many rows may be dropped as not finite; None: all but the trusted one.
        trusted: Index of the server's own row.

    Examples:
        >>> import torch
        >>> from byzopt import FLTrust
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, -90.0]])
        >>> FLTrust(f=1)(rows)
        tensor([1.7054, 1.4088])
    """

    translation_equivariant = False
    convex = False
    asks = "inner"

    f: int | None = None
    trusted: int = 0

    def shares(self, found: Array, unit: float, order: Ask | None = None) -> Array:
        inner, norms = found[0], np.sqrt(found[1])
        own = norms[self.trusted]
        sizes = norms * own
        trust: Array = np.divide(inner, sizes, out=np.zeros_like(sizes), where=sizes > 0).clip(0, 1)
        trust[self.trusted] = 0
        total = trust.sum()
        if total == 0:
            trust[self.trusted] = 1
            return trust
        with np.errstate(over="ignore"):
            np.divide(trust / total * own, norms, out=trust, where=trust > 0)
        return trust
