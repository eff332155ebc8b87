"""A secret random projection: rows of many coordinates to a few, with lengths and distances nearly kept.

For tests on sums that are too large to keep: a guard's B of n x d numbers becomes n x k. Who does not know
the seed cannot aim at what the projection does not see.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from byzopt.rng import stream


def sketched(rows: Tensor, k: int | None, seed: int) -> Tensor:
    """`[..., n, d]` to `[..., n, k]`: each coordinate is added, with a random sign, to one of k at random.

    E‖Sx‖² = ‖x‖², and distances of spread-out rows are kept to about sqrt(2/k). Linear; O(n d). The draw is
    a function of (seed, d, k); a GPU adds in any order, so that last bits may differ there. `k` None, or at
    least d: the rows as they are. Source: count sketch (Charikar, Chen, Farach-Colton 2002); as an embedding
    of lengths Weinberger et al., arXiv:0902.2206.
    """
    d = rows.shape[-1]
    if k is None or k >= d:
        return rows
    place, sign = _drawn(d, k, seed, rows.device)
    return rows.new_zeros(*rows.shape[:-1], k).index_add_(-1, place, rows * sign.to(rows.dtype))


@lru_cache(maxsize=8)
def _drawn(d: int, k: int, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    generator = stream(seed, "sketch", d, k)
    place = torch.randint(k, (d,), generator=generator, device="cpu")
    sign = torch.randint(2, (d,), generator=generator, device="cpu") * 2 - 1
    return place.to(device), sign.to(device, torch.float32)
