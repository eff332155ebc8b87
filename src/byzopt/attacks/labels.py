"""Label flipping: Byzantine workers follow the protocol honestly on data with wrong labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from byzopt.attacks.base import ATTACKS, Attack, Knowledge, View
from byzopt.errors import require
from byzopt.rng import stream


@ATTACKS.register("label_flip")
@dataclass(frozen=True)
class LabelFlip(Attack):
    """Honest messages computed on wrong labels; C is the number of classes.

    `mode="shift"`: y -> (y + shift) mod C, default shift 5 (LF of arXiv:2603.12512, as written).
    `mode="mirrored"`: y -> C - 1 - y (its released code; arXiv:2012.14368). The middle class of an odd C
    keeps its label. `mode="random"`: y -> p(y), p a random cycle through all classes drawn from the stream
    of `seed`, so that no label stays. A fixed p, unlike a fresh draw for every sample, does not depend on
    how the data are cut into workers or batches.

    Errors: a task without labels; a shift that is a multiple of C, which would flip nothing.

    Args:
        mode: How labels change: "shift", "mirrored" or "random".
        shift: By how much, for mode "shift".
        seed: Of the cycle through the classes, for mode "random".

    Raises:
        InvalidInput: A task without labels, or a shift that flips nothing.

    Examples:
        >>> from byzopt import Cohort, Digits, LabelFlip, simulate
        >>> task = Digits(model="linear", batch=8).build(Cohort.of(4, 1), seed=0)
        >>> simulate(task, "median", lr=0.1, rounds=2, f=1, attack=LabelFlip(mode="mirrored")).status.value
        'completed'
    """

    mode: Literal["shift", "mirrored", "random"] = "shift"
    shift: int = 5
    seed: int = 0
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"own"})
    batched = True

    def poison(self, task: Any, workers: tuple[int, ...]) -> Any:
        return task.relabelled(workers, self.relabel)

    def relabel(self, labels: Tensor, classes: int) -> Tensor:
        """Wrong labels of the same shape and dtype for labels in 0 .. classes - 1."""
        if self.mode == "mirrored":
            return classes - 1 - labels
        if self.mode == "random":
            return self._cycle(classes).to(labels.device)[labels.long()].to(labels.dtype)
        require(self.shift % classes != 0, "The label shift", f"be no multiple of {classes}", self.shift)
        return (labels + self.shift) % classes

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        return view.own

    def _cycle(self, classes: int) -> Tensor:
        order = torch.randperm(classes, generator=stream(self.seed, "label_flip", classes), device="cpu")
        return torch.empty_like(order).index_copy(0, order, order.roll(-1))
