"""A secret random projection: rows of many coordinates to a few, with lengths and distances nearly kept.

For tests on sums that are too large to keep: a guard's B of n x d numbers becomes n x k. Who does not know
the seed cannot aim at what the projection does not see.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from byzopt import kernels
from byzopt.rng import stream


def sketched(rows: Tensor, k: int | None, seed: int, centre: Tensor | None = None) -> Tensor:
    """`[..., n, d]` to `[..., n, k]`: each coordinate is added, with a random sign, to one of k at random.

    E‖Sx‖² = ‖x‖², and distances of spread-out rows are kept to about sqrt(2/k). Linear; O(n d). The draw is
    a function of (seed, d, k); a GPU adds in any order, so that last bits may differ there. `k` None, or at
    least d: the rows as they are. With a `centre` `[..., d]`: of rows - centre. Source: count sketch
    (Charikar, Chen, Farach-Colton 2002); as an embedding of lengths Weinberger et al., arXiv:0902.2206.
    """
    d = rows.shape[-1]
    if k is None or k >= d:
        return rows if centre is None else rows - centre.unsqueeze(-2)
    place, sign = _drawn(d, k, seed, rows.device)
    sign = sign.to(rows.dtype)
    if centre is not None and rows.ndim > 2:
        rows, centre = rows - centre.unsqueeze(-2), None
    flat = rows.reshape(-1, d)
    if kernels.supports(flat):
        short = kernels.fused_scatter(flat, np.ones(len(flat)), place, sign, k, centre).to(rows.dtype)
    else:
        flat = flat if centre is None else flat - centre
        short = flat.new_zeros(len(flat), k).index_add_(-1, place, flat * sign)
    return short.reshape(*rows.shape[:-1], k)


@lru_cache(maxsize=8)
def _drawn(d: int, k: int, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    generator = stream(seed, "sketch", d, k)
    place = torch.randint(k, (d,), generator=generator, device="cpu")
    sign = torch.randint(2, (d,), generator=generator, device="cpu") * 2 - 1
    return place.to(device, torch.int32), sign.to(device, torch.float32)
