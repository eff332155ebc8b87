"""Figures of each honest worker on its own data, in records beside those of all: `loss_worker_3`."""

from __future__ import annotations

import re
from typing import NamedTuple

from torch import Tensor

from byzopt.tasks import Task

_NAME = re.compile(r"(\w+)_worker_(\d+)")


class WorkerFigure(NamedTuple):
    """A figure of one worker."""

    figure: str
    worker: int


def worker_figures(task: Task, x: Tensor) -> dict[str, float]:
    """What every honest worker's own data say of `x` `[d]`, as `figure_worker_i`.

    Errors: `InvalidInput` for a task that cannot tell workers apart.
    """
    return {
        f"{name}_worker_{worker}": value
        for name, values in task.measure_workers(x).items()
        for worker, value in zip(task.cohort.honest, values, strict=True)
    }


def worker_figure(key: str) -> WorkerFigure | None:
    """The figure and the worker that a record's key is of; None for a figure of all."""
    match = _NAME.fullmatch(key)
    return WorkerFigure(match[1], int(match[2])) if match else None
