"""Weights of chosen rows."""

from __future__ import annotations

import numpy as np

from byzopt.aggregators.numerics.products import Array, Index


def even(chosen: Index, m: int) -> Array:
    """Equal weights `[..., m]` for the rows `chosen` `[..., k]`, 0 for the others."""
    weights = np.zeros((*chosen.shape[:-1], m))
    if chosen.ndim == 1:
        weights[chosen] = 1 / len(chosen)
    else:
        np.put_along_axis(weights, chosen, 1 / chosen.shape[-1], axis=-1)
    return weights
