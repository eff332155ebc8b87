"""Who holds which of a task's training samples, liars and the server among them."""

from __future__ import annotations

from itertools import cycle
from typing import Literal

import torch
from torch import Tensor

from byzopt.cohort import Cohort
from byzopt.tasks.partitions import Partition

ByzantineData = Literal["share", "all", "mirror"]


def dealt(
    partition: Partition,
    cohort: Cohort,
    labels: Tensor | None,
    kept: Tensor,
    byzantine_data: ByzantineData,
    serves: bool,
    generator: torch.Generator,
) -> tuple[list[Tensor], Tensor | None]:
    """Every worker's samples, and the server's own where it `serves` as one owner more.

    `kept` `[m]` are the samples that are dealt, `labels` `[m]` theirs, if any. With "share" liars are dealt
    samples as others are; else honest workers share all, and each liar holds all of them or a "mirror" of an
    honest worker's, in turn.
    """
    liars = set(cohort.byzantine) if byzantine_data != "share" else set()
    owners = cohort.n - len(liars)
    parts = [kept[part] for part in partition.split(labels, len(kept), owners + serves, generator)]
    server = parts.pop() if serves else None
    theirs = [kept] if byzantine_data == "all" else parts
    honest_shards, copies = iter(parts), cycle(theirs)
    return [next(copies) if i in liars else next(honest_shards) for i in range(cohort.n)], server


def picked(places: Tensor, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The `inputs` `[m, ...]` and `labels` `[m, ...]` at `places`, indices on the CPU, which go where those
    lie."""
    there = places.to(inputs.device)
    return inputs.index_select(0, there), labels.index_select(0, there)
