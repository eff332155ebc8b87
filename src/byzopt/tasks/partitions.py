"""Partitions: which samples each worker owns. Every sample has exactly one owner, no worker is empty."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import inf
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from byzopt.errors import InvalidInput, require
from byzopt.registry import Registry


class Partition(ABC):
    """A way to deal m samples to n workers.

    Examples:
        >>> import torch
        >>> from byzopt.tasks import Contiguous
        >>> [shard.tolist() for shard in Contiguous().split(None, m=5, n=2, generator=torch.Generator())]
        [[0, 1, 2], [3, 4]]
    """

    name: ClassVar[str]

    def split(self, labels: Tensor | None, m: int, n: int, generator: torch.Generator) -> list[Tensor]:
        """n non-empty index tensors (int64) that together hold each of 0 .. m-1 exactly once.

        `labels` `[m]` int64 may be None where the partition looks at no labels. Errors: fewer samples than
        workers, labels of another length, a partition by label without labels.
        """
        require(n >= 1, "The number of workers `n`", "be at least 1", n)
        require(m >= n, "The number of samples", f"be at least one for each of {n} workers", m, "Lower n.")
        if labels is not None:
            require(tuple(labels.shape) == (m,), "Labels", f"have shape ({m},)", tuple(labels.shape))
        return self._shards(labels, m, n, generator)

    @abstractmethod
    def _shards(self, labels: Tensor | None, m: int, n: int, generator: torch.Generator) -> list[Tensor]:
        """`split` after its checks: m >= n >= 1."""

    def _labels(self, labels: Tensor | None) -> Tensor:
        if labels is None:
            raise InvalidInput(
                f"Partition {self.name!r} needs one label for each sample. Found none. Use iid or contiguous."
            )
        return labels


PARTITIONS: Registry[Partition] = Registry("partition", Partition)


@PARTITIONS.register("iid")
@dataclass(frozen=True)
class IID(Partition):
    """A random permutation, cut into n consecutive parts whose sizes differ by at most one.

    Examples:
        >>> import torch
        >>> from byzopt.tasks import IID
        >>> labels = torch.tensor([0, 1, 0, 1, 0, 1])
        >>> generator = torch.Generator().manual_seed(0)
        >>> shards = IID().split(labels, m=6, n=2, generator=generator)
        >>> [len(shard) for shard in shards]
        [3, 3]
    """

    def _shards(self, labels: Tensor | None, m: int, n: int, generator: torch.Generator) -> list[Tensor]:
        return list(torch.randperm(m, generator=generator, device="cpu").tensor_split(n))


@PARTITIONS.register("strided")
@dataclass(frozen=True)
class Strided(Partition):
    """A random permutation dealt in turn: worker i owns places i, i + n, i + 2 n, ... (arXiv:2603.15144).

    Examples:
        >>> import torch
        >>> from byzopt.tasks import Strided
        >>> labels = torch.tensor([0, 1, 0, 1, 0, 1])
        >>> generator = torch.Generator().manual_seed(0)
        >>> shards = Strided().split(labels, m=6, n=2, generator=generator)
        >>> [len(shard) for shard in shards]
        [3, 3]
    """

    def _shards(self, labels: Tensor | None, m: int, n: int, generator: torch.Generator) -> list[Tensor]:
        permuted = torch.randperm(m, generator=generator, device="cpu")
        return [permuted[i::n] for i in range(n)]


@PARTITIONS.register("contiguous")
@dataclass(frozen=True)
class Contiguous(Partition):
    """The file's order, cut into n consecutive parts whose sizes differ by at most one.

    Examples:
        >>> import torch
        >>> from byzopt.tasks import Contiguous
        >>> labels = torch.tensor([0, 1, 0, 1, 0, 1])
        >>> generator = torch.Generator().manual_seed(0)
        >>> shards = Contiguous().split(labels, m=6, n=2, generator=generator)
        >>> [shard.tolist() for shard in shards]
        [[0, 1, 2], [3, 4, 5]]
    """

    def _shards(self, labels: Tensor | None, m: int, n: int, generator: torch.Generator) -> list[Tensor]:
        return list(torch.arange(m, device="cpu").tensor_split(n))


@PARTITIONS.register("sorted")
@dataclass(frozen=True)
class SortedByLabel(Partition):
    """Samples grouped by label, in file order within a label, cut into n consecutive parts.

    Sizes differ by at most one, larger parts first. Source: Section 6 of arXiv:2603.12512. Its released code
    appends the first samples again until n divides m; here no sample has two owners.

    Examples:
        >>> import torch
        >>> from byzopt.tasks import SortedByLabel
        >>> labels = torch.tensor([0, 1, 0, 1, 0, 1])
        >>> generator = torch.Generator().manual_seed(0)
        >>> shards = SortedByLabel().split(labels, m=6, n=2, generator=generator)
        >>> [labels[shard].tolist() for shard in shards]
        [[0, 0, 0], [1, 1, 1]]
    """

    def _shards(self, labels: Tensor | None, m: int, n: int, generator: torch.Generator) -> list[Tensor]:
        return list(self._labels(labels).argsort(stable=True).cpu().tensor_split(n))


@PARTITIONS.register("gamma")
@dataclass(frozen=True)
class GammaSimilarity(Partition):
    """A random share `gamma` of the data dealt i.i.d., the rest sorted by label and cut in order.

    `gamma` in [0, 1]: 0 is `sorted`, 1 is `iid`. Workers' totals differ by at most one. Source: Karimireddy
    et al., SCAFFOLD, arXiv:1910.06378, Section 7 (s % similarity).

    Args:
        gamma: Share of the data dealt i.i.d., in [0, 1].

    Examples:
        >>> import torch
        >>> from byzopt.tasks import GammaSimilarity
        >>> labels = torch.tensor([0, 1, 0, 1, 0, 1])
        >>> generator = torch.Generator().manual_seed(0)
        >>> shards = GammaSimilarity(gamma=1.0).split(labels, m=6, n=2, generator=generator)
        >>> sorted(torch.cat(shards).tolist())  # each sample has one owner
        [0, 1, 2, 3, 4, 5]
    """

    gamma: float = 0.5

    def __post_init__(self) -> None:
        require(0 <= self.gamma <= 1, "Parameter `gamma`", "lie in [0, 1]", self.gamma)

    def _shards(self, labels: Tensor | None, m: int, n: int, generator: torch.Generator) -> list[Tensor]:
        k = round(self.gamma * m)
        shuffled = torch.randperm(m, generator=generator, device="cpu")
        rest = shuffled[k:].sort().values
        rest = rest[self._labels(labels).cpu()[rest].argsort(stable=True)]
        counts = _equal(k, n)
        similar = torch.split(shuffled[:k], counts)
        # The sorted part fills up to equal totals; equal cuts of its own could leave a worker empty.
        room = [total - have for total, have in zip(_equal(m, n), counts, strict=True)]
        return [torch.cat(parts) for parts in zip(similar, torch.split(rest, room), strict=True)]


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
        # numpy draws Dirichlet shares without underflow at small alpha; its seed comes from our stream.
        numbers = np.random.default_rng(int(torch.randint(2**62, (), generator=generator, device="cpu")))
        owners = torch.empty(m, dtype=torch.int64, device="cpu")
        for label in np.unique(labels.numpy()):
            mine = (labels == int(label)).nonzero().squeeze(1)
            cuts = numbers.dirichlet([self.alpha] * n).cumsum()[:-1] * len(mine)
            owner = torch.from_numpy(np.searchsorted(cuts, np.arange(len(mine)) + 0.5))
            owners[mine[torch.randperm(len(mine), generator=generator, device="cpu")]] = owner
        shuffled = torch.randperm(m, generator=generator, device="cpu")
        return self._refill([shuffled[owners[shuffled] == i] for i in range(n)])

    def _refill(self, shards: list[Tensor]) -> list[Tensor]:
        for i in range(len(shards)):
            while len(shards[i]) < self.minimum:
                giver = max(range(len(shards)), key=lambda j: len(shards[j]))
                shards[i] = torch.cat([shards[i], shards[giver][-1:]])
                shards[giver] = shards[giver][:-1]
        return shards


def _equal(m: int, n: int) -> list[int]:
    """m as n sizes that differ by at most one, larger ones first."""
    return [m // n + (i < m % n) for i in range(n)]
