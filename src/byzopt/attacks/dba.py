"""The distributed backdoor: each attacker teaches a piece of the trigger, and all of it is used."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from byzopt.attacks.backdoor import Backdoor
from byzopt.attacks.base import ATTACKS


@ATTACKS.register("dba")
@dataclass(frozen=True)
class DBA(Backdoor):
    """As `backdoor`, the trigger's pixels being dealt to the attackers in turn, row by row.

    Each Byzantine worker's samples show its own pixels alone; `backdoor_success` is measured with the whole
    trigger. Attackers beyond the number of pixels share them. One attacker is `backdoor`.

    Source: Xie, Huang, Chen, Li, ICLR 2020 ("DBA: distributed backdoor attacks against federated learning"),
    there with four bars; the squares here are those of `backdoor`.

    Args:
        target: Label that images with the trigger get.
        size: Side of the trigger, in pixels.
        share: Share of a Byzantine worker's samples that get its piece, in (0, 1].
        scale: Factor of the message; None: n/b.
        seed: Decides which samples get it.

    Raises:
        InvalidInput: As for `backdoor`.

    Examples:
        >>> from byzopt import Cohort, DBA, Digits, simulate
        >>> task = Digits(model="linear", batch=8).build(Cohort.of(6, 2), seed=0)
        >>> outcome = simulate(task, "median", lr=0.1, rounds=2, f=2, attack=DBA(target=7))
        >>> "backdoor_success" in outcome.metrics
        True
    """

    def poison(self, task: Any, workers: tuple[int, ...]) -> Any:
        for j, worker in enumerate(workers):
            taught = partial(self._taught, j, len(workers))
            task = task.poisoned((worker,), taught, "backdoor_success", self.goal)
        return task

    def _taught(
        self, j: int, attackers: int, images: Tensor, labels: Tensor, classes: int
    ) -> tuple[Tensor, Tensor]:
        """`infect` with the pixels of attacker j."""
        pixels = self.size**2
        piece = range(j % pixels, pixels, min(attackers, pixels))
        return self.infect(images, labels, classes, piece)
