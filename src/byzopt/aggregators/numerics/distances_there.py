"""Distances between many rows on an accelerator: what looks at all n x n numbers is done there.

The host's compiled decisions end at some hundred rows. Beyond, sorting a million numbers takes it ten
milliseconds and an accelerator a tenth of one; what comes back is a number or two for each row, but for
matrices that a decision goes on with. Values are those of the host, to the bit, but for sums.
"""

from __future__ import annotations

from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from byzopt import accelerator
from byzopt.aggregators.numerics.distances import Array, Distances, Index, even
from byzopt.aggregators.numerics.products import WHOLE, twins


def distances_by(there: Tensor, here: Array) -> Distances:
    """Distances by products `[n, n]` that lie on an accelerator, `there`, and were fetched, `here`."""
    return DistancesThere(there, here) if len(here) > WHOLE else Distances(here)


class DistancesThere(Distances):
    """As `Distances` by products that lie in float64 on an accelerator, `there`, and on the CPU, `gram`."""

    def __init__(self, there: Tensor, gram: Array) -> None:
        self.there, self.gram, self.m = there, gram, len(gram)
        self._few = None

    @cached_property
    def _squared(self) -> Tensor:
        own = self.there.diagonal()
        return (own[:, None] + own - 2 * self.there).clamp_min_(0).fill_diagonal_(0)

    @cached_property
    def _ordered(self) -> Tensor:
        """In each column a row's squared distances to all in ascending order: columns are summed alike."""
        return self._squared.sort(dim=0).values

    @cached_property
    def ranked(self) -> Array:
        return _fetched(self._ordered).T

    def reach(self, rank: int) -> Array:
        return _fetched(self._squared.kthvalue(rank + 1, dim=0).values)

    @cached_property
    def radii(self) -> Array:
        return self.reach(self.m // 2)

    def close(self) -> list[tuple[int, int]]:
        least = 1e-5 * (self.there.diagonal()[:, None] + self.there.diagonal())
        near = (self._squared <= least).tril(-1)
        if not accelerator.fetch(near.any())[0]:
            return []
        return [(j, i) for j, i in near.nonzero().cpu().tolist()]

    def nearest_shares(self, count: int) -> Array:
        near = self._squared.clone().fill_diagonal_(-1)  # a row is nearest to itself
        chosen = near.sort(dim=1, stable=True).indices[:, :count]
        return _fetched(torch.zeros_like(near).scatter_(1, chosen, 1 / count))

    def best_shares(self, neighbours: int, count: int) -> Array | None:
        scores = _fetched(self._ordered[1 : 1 + neighbours].sum(dim=0))
        return even(scores.argsort(kind="stable")[:count], self.m)

    def lengths_to(self, weights: Array) -> Array:
        if weights.ndim > 1:
            return super().lengths_to(weights)
        lean = _fetched(self.there @ torch.from_numpy(weights).to(self.there.device))
        return self.lengths_by(weights, lean)

    def mixed(self, mixing: Array) -> Distances:
        shares = torch.from_numpy(mixing).to(self.there.device)
        product = shares @ self.there @ shares.T
        product = (product + product.T) / 2
        first, same = twins(mixing)
        if len(same):
            at, to = (torch.from_numpy(each).to(product.device) for each in (same, first[same]))
            product[at] = product[to]
            product[:, at] = product[:, to]
        return distances_by(product, _fetched(product))

    def taken(self, order: Index) -> Distances:
        places = torch.from_numpy(order).to(self.there.device)
        moved = self.there[places][:, places]
        return DistancesThere(moved, _fetched(moved))


def _fetched(numbers: Tensor) -> Array:
    return cast(Array, accelerator.fetch(numbers)[0].numpy())
