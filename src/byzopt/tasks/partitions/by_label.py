"""Partitions that deal few labels to a worker."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from byzopt.errors import require
from byzopt.tasks.partitions.base import PARTITIONS, Partition, equal, refill


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
        counts = equal(k, n)
        similar = torch.split(shuffled[:k], counts)
        # The sorted part fills up to equal totals; equal cuts of its own could leave a worker empty.
        room = [total - have for total, have in zip(equal(m, n), counts, strict=True)]
        return [torch.cat(parts) for parts in zip(similar, torch.split(rest, room), strict=True)]


@PARTITIONS.register("shards")
@dataclass(frozen=True)
class LabelShards(Partition):
    """Samples sorted by label and cut into n `per_worker` shards, as many at random for each worker.

    Shards' sizes differ by at most one. With few of them a worker sees few labels, at most two a shard where
    no label is smaller than one. Source: McMahan et al., arXiv:1602.05629, Section 3, where 100 workers get
    two shards of 300 digits each. Errors: fewer samples than shards.

    Args:
        per_worker: Shards of a worker, at least 1.

    Examples:
        >>> import torch
        >>> from byzopt.tasks import LabelShards
        >>> labels = torch.arange(8) // 2
        >>> generator = torch.Generator().manual_seed(0)
        >>> shards = LabelShards(per_worker=2).split(labels, m=8, n=2, generator=generator)
        >>> [len(labels[shard].unique()) for shard in shards]  # two of the four labels each
        [2, 2]
    """

    per_worker: int = 2

    def __post_init__(self) -> None:
        require(self.per_worker >= 1, "Parameter `per_worker` of shards", "be at least 1", self.per_worker)

    def _shards(self, labels: Tensor | None, m: int, n: int, generator: torch.Generator) -> list[Tensor]:
        count = n * self.per_worker
        remedy = "Lower `per_worker` or n."
        require(m >= count, "The number of samples", f"be at least n * per_worker = {count}", m, remedy)
        parts = self._labels(labels).argsort(stable=True).cpu().tensor_split(count)
        dealt = torch.randperm(count, generator=generator, device="cpu").view(n, self.per_worker).tolist()
        return [torch.cat([parts[j] for j in mine]) for mine in dealt]


@PARTITIONS.register("label_quantity")
@dataclass(frozen=True)
class LabelQuantity(Partition):
    """Each worker holds `labels` different labels, and a label's samples are shared out among its holders.

    Every worker in turn takes the labels with fewest holders so far, ties at random: the numbers of labels'
    holders differ by at most one, and so do the sizes of the parts of one label. A worker whose labels have
    fewer samples than holders may get none; it then takes one from the worker that holds most. Source: Li et
    al., arXiv:2102.02079, Section 4.1 (#C = k), which draws labels at random; a label that nobody draws is
    lost there, and here there is none. Errors: fewer than n `labels` for all the labels that there are, fewer
    labels than `labels`.

    Args:
        labels: Different labels that a worker holds, at least 1.

    Examples:
        >>> import torch
        >>> from byzopt.tasks import LabelQuantity
        >>> labels = torch.arange(12) % 4
        >>> generator = torch.Generator().manual_seed(0)
        >>> shards = LabelQuantity(labels=2).split(labels, m=12, n=4, generator=generator)
        >>> [len(labels[shard].unique()) for shard in shards]
        [2, 2, 2, 2]
    """

    labels: int = 2

    def __post_init__(self) -> None:
        require(self.labels >= 1, "Parameter `labels` of label_quantity", "be at least 1", self.labels)

    def _shards(self, labels: Tensor | None, m: int, n: int, generator: torch.Generator) -> list[Tensor]:
        known, codes = torch.unique(self._labels(labels).cpu(), return_inverse=True)
        count = len(known)
        what = "Parameter `labels` of label_quantity"
        require(self.labels <= count, what, f"be at most the {count} labels that there are", self.labels)
        enough = f"be at least {-(-count // n)}, so that {n} workers hold all {count} labels"
        require(n * self.labels >= count, what, enough, self.labels)
        holders = self._holders(count, n, generator)
        dealt: list[list[Tensor]] = [[] for _ in range(n)]
        for label in range(count):
            mine = (codes == label).nonzero().squeeze(1)
            mine = mine[torch.randperm(len(mine), generator=generator, device="cpu")]
            who = holders[:, label].nonzero().squeeze(1)
            who = who[torch.randperm(len(who), generator=generator, device="cpu")]
            for i, part in zip(who.tolist(), mine.tensor_split(len(who)), strict=True):
                dealt[i].append(part)
        return refill([torch.cat(parts) for parts in dealt], 1)

    def _holders(self, count: int, n: int, generator: torch.Generator) -> Tensor:
        """Which worker holds which label, `[n, count]`."""
        held = torch.zeros(n, count, dtype=torch.bool, device="cpu")
        for i in range(n):
            order = torch.randperm(count, generator=generator, device="cpu")
            fewest = held.sum(dim=0)[order].argsort(stable=True)[: self.labels]
            held[i, order[fewest]] = True
        return held
