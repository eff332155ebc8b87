"""Partitions with shares of unequal size, drawn or given by a profile."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
import torch
from torch import Tensor

from byzopt.errors import require
from byzopt.tasks.partitions.base import PARTITIONS, Partition, in_proportion, refill


@PARTITIONS.register("dirichlet")
@dataclass(frozen=True)
class Dirichlet(Partition):
    """For each label, shares of its samples over workers drawn from a symmetric Dirichlet(`alpha`).

    Small `alpha` > 0 gives few labels per worker and very unequal sizes. Workers left with fewer than
    `minimum` samples then take random ones from the worker that holds most at that moment, so the result
    always exists when m >= n * `minimum`. Errors: fewer samples than that. Source: Hsu et al.,
    arXiv:1909.06335, in the form per label of Yurochkin et al., arXiv:1905.12022; the refill is ours.

    Args:
        alpha: Concentration α > 0; small values make workers unlike.
        minimum: Least number of samples of a worker.

    Examples:
        >>> import torch
        >>> from byzopt.tasks import Dirichlet
        >>> labels = torch.tensor([0, 1, 0, 1, 0, 1])
        >>> generator = torch.Generator().manual_seed(0)
        >>> shards = Dirichlet(alpha=1.0).split(labels, m=6, n=2, generator=generator)
        >>> sorted(torch.cat(shards).tolist())  # each sample has one owner
        [0, 1, 2, 3, 4, 5]
    """

    alpha: float = 1.0
    minimum: int = 1

    def __post_init__(self) -> None:
        valid = 0 < self.alpha < inf
        require(valid, "Parameter `alpha` of dirichlet", "be positive and finite", self.alpha)
        require(self.minimum >= 1, "Parameter `minimum` of dirichlet", "be at least 1", self.minimum)

    def _shards(self, labels: Tensor | None, m: int, n: int, generator: torch.Generator) -> list[Tensor]:
        rule = f"be at least n * minimum = {n * self.minimum}"
        require(m >= n * self.minimum, "The number of samples", rule, m, "Lower `minimum` or n.")
        labels = self._labels(labels).cpu()
        # NumPy draws Dirichlet shares without underflow at small alpha; its seed comes from our stream.
        numbers = np.random.default_rng(int(torch.randint(2**62, (), generator=generator, device="cpu")))
        owners = torch.empty(m, dtype=torch.int64, device="cpu")
        for label in np.unique(labels.numpy()):
            mine = (labels == int(label)).nonzero().squeeze(1)
            cuts = numbers.dirichlet([self.alpha] * n).cumsum()[:-1] * len(mine)
            owner = torch.from_numpy(np.searchsorted(cuts, np.arange(len(mine)) + 0.5))
            owners[mine[torch.randperm(len(mine), generator=generator, device="cpu")]] = owner
        shuffled = torch.randperm(m, generator=generator, device="cpu")
        return refill([shuffled[owners[shuffled] == i] for i in range(n)], self.minimum)


@PARTITIONS.register("unbalanced")
@dataclass(frozen=True)
class Unbalanced(Partition):
    """i.i.d. samples in unequal shares: worker i's is in proportion to exp(`spread` z_i), z_i ~ N(0, 1).

    Sizes are log-normal, rounded by largest remainders; a worker that would get nothing takes one sample from
    the largest. `spread` = 0 is equal shares. Source: Acar et al., FedDyn, arXiv:2111.04263, as in its
    released code and FedLab's `lognormal_unbalance_split`.

    Args:
        spread: Standard deviation of the logarithm of a worker's size, >= 0.

    Examples:
        >>> import torch
        >>> from byzopt.tasks import Unbalanced
        >>> generator = torch.Generator().manual_seed(0)
        >>> shards = Unbalanced(spread=1.0).split(None, m=100, n=4, generator=generator)
        >>> sum(len(shard) for shard in shards), len({len(shard) for shard in shards}) > 1
        (100, True)
    """

    spread: float = 0.5

    def __post_init__(self) -> None:
        valid = 0 <= self.spread < inf
        require(valid, "Parameter `spread` of unbalanced", "be finite and at least 0", self.spread)

    def _shards(self, labels: Tensor | None, m: int, n: int, generator: torch.Generator) -> list[Tensor]:
        logs = self.spread * torch.randn(n, dtype=torch.float64, generator=generator, device="cpu")
        sizes = in_proportion(m, (logs - logs.max()).exp(), torch.arange(n, device="cpu"))
        shuffled = torch.randperm(m, generator=generator, device="cpu")
        return refill(list(torch.split(shuffled, sizes.tolist())), 1)


@PARTITIONS.register("long_tail")
@dataclass(frozen=True)
class LongTail(Partition):
    """Every worker has a label that it sees most, and a long tail of others: shares fall exponentially.

    Of its r-th label, r = 0 .. K - 1, a worker gets in proportion to `imbalance`^(-r/(K - 1)). Workers'
    orders are one random order of the labels, each worker's begun at the next one, so that neighbours differ
    in what they see most. A worker that would get nothing takes one sample from the largest. Source of the
    profile: Cui et al., arXiv:1901.05555, who cut a whole data set by it and drop the rest; here it is what a
    worker sees, and no sample is dropped.

    Args:
        imbalance: How much more of its first label than of its last a worker gets, >= 1; 1: all alike.

    Examples:
        >>> import torch
        >>> from byzopt.tasks import LongTail
        >>> labels = torch.arange(222) % 2
        >>> generator = torch.Generator().manual_seed(0)
        >>> shards = LongTail(imbalance=10.0).split(labels, m=222, n=2, generator=generator)
        >>> sorted(labels[shards[0]].bincount().tolist())
        [10, 101]
    """

    imbalance: float = 100.0

    def __post_init__(self) -> None:
        valid = 1 <= self.imbalance < inf
        require(valid, "Parameter `imbalance` of long_tail", "be finite and at least 1", self.imbalance)

    def _shards(self, labels: Tensor | None, m: int, n: int, generator: torch.Generator) -> list[Tensor]:
        known, codes = torch.unique(self._labels(labels).cpu(), return_inverse=True)
        count = len(known)
        order = torch.randperm(count, generator=generator, device="cpu")
        workers = torch.arange(n, device="cpu")
        dealt: list[list[Tensor]] = [[] for _ in range(n)]
        for place in range(count):
            rank = (place - workers) % count
            weights = self.imbalance ** (-rank.double() / max(1, count - 1))
            mine = (codes == order[place]).nonzero().squeeze(1)
            mine = mine[torch.randperm(len(mine), generator=generator, device="cpu")]
            # Whoever got least so far is rounded up first, so that no worker loses by every label.
            first = torch.tensor([sum(map(len, parts)) for parts in dealt], device="cpu").argsort(stable=True)
            sizes = in_proportion(len(mine), weights, first).tolist()
            for parts, part in zip(dealt, torch.split(mine, sizes), strict=True):
                parts.append(part)
        return refill([torch.cat(parts) for parts in dealt], 1)
