"""Tasks of several runs, asked together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from byzopt.errors import require
from byzopt.tasks.base import Batch, Task


class Crowd:
    """R tasks with equal n and layout, each at a point of its own. This one asks them in turn."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tuple(tasks)

    def draw(self, t: int) -> Batch:
        """All tasks' samples of round t."""
        return [task.draw(t) for task in self.tasks]

    def full(self) -> Batch:
        """All data of every task, where the tasks have full gradients."""
        return [task.full() for task in self.tasks]

    def grads(self, x: Tensor, batch: Batch) -> Tensor:
        """Gradients `[R, n, d]` at `x` `[R, d]`."""
        each = zip(self.tasks, x, batch, strict=True)
        return torch.stack([task.grads(point, sample) for task, point, sample in each])

    def grads_at(self, points: Tensor, batch: Batch) -> Tensor:
        """Gradients `[R, n, d]` of workers at points of their own `[R, n, d]`."""
        each = zip(self.tasks, points, batch, strict=True)
        return torch.stack([task.grads_at(own, sample) for task, own, sample in each])

    def measure(self, x: Tensor, who: Sequence[int]) -> list[dict[str, float]]:
        """What the tasks `who` measure at their points `x` `[len(who), d]`."""
        return [self.tasks[r].measure(point) for r, point in zip(who, x, strict=True)]


class Stacked(Crowd):
    """Tasks whose data, stacked, are those of one task `joint` that works over a leading dimension."""

    def __init__(self, tasks: Sequence[Task], joint: Task) -> None:
        super().__init__(tasks)
        self.joint = joint

    def draw(self, t: int) -> Tensor:
        return torch.stack([task.draw(t) for task in self.tasks])

    def full(self) -> Tensor:
        return torch.stack([task.full() for task in self.tasks])

    def grads(self, x: Tensor, batch: Batch) -> Tensor:
        return self.joint.grads(x, batch)

    def grads_at(self, points: Tensor, batch: Batch) -> Tensor:
        wanted, found = list(batch.shape), list(points.shape)
        require(found == wanted, "Points of workers' own", f"have shape {wanted}", f"shape {found}")
        return self.joint.rows_at(points, batch, slice(None))


def together(tasks: Sequence[Task]) -> Crowd:
    """These tasks as one: in the way of their kind, if they are all of one that has a way."""
    kinds = {type(task) for task in tasks}
    crowd: Any = tasks[0].crowd(tasks) if len(kinds) == 1 else None
    return crowd or Crowd(tasks)
