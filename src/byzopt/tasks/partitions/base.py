"""What a partition is: which samples each worker owns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

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


def equal(m: int, n: int) -> list[int]:
    """m as n sizes that differ by at most one, larger ones first."""
    return [m // n + (i < m % n) for i in range(n)]


def in_proportion(m: int, weights: Tensor, order: Tensor) -> Tensor:
    """m as whole sizes `[n]` in proportion to `weights` `[n]`, by largest remainders, ties as in `order`.

    No size is off by one or more from its share of m.
    """
    shares = m * weights.double() / weights.double().sum()
    sizes = shares.floor().long()
    remainders = (shares - sizes)[order]
    first = remainders.argsort(descending=True, stable=True)[: m - int(sizes.sum())]
    sizes[order[first]] += 1
    return sizes


def refill(shards: list[Tensor], minimum: int) -> list[Tensor]:
    """Shards of at least `minimum` samples: who has fewer takes the last ones of who holds most just then."""
    for i in range(len(shards)):
        while len(shards[i]) < minimum:
            giver = max(range(len(shards)), key=lambda j: len(shards[j]))
            shards[i] = torch.cat([shards[i], shards[giver][-1:]])
            shards[giver] = shards[giver][:-1]
    return shards
