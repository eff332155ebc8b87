"""Partitions that look at no labels, in equal shares."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from byzopt.tasks.partitions.base import PARTITIONS, Partition


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
