"""Whether all honest workers of a task sample one distribution, as guards assume when they expel workers."""

from __future__ import annotations

import torch

from byzopt.aggregators.core.filters import Filter
from byzopt.errors import InvalidInput
from byzopt.rng import stream
from byzopt.tasks import Task

REMEDY = (
    "Take a task whose workers sample one distribution, another method, or say `method.differing=true` to "
    "run it so."
)


def check_same_distribution(task: Task, filter: Filter) -> None:
    """Raise `InvalidInput` where a filter that expels on the premise of one distribution meets a task whose
    honest workers have not got one, or that cannot tell.

    Seen by their full gradients at a point near the start, which then are one to rounding. Cost: one full
    pass, for such filters alone.
    """
    if not filter.assumes_one_distribution:
        return
    premise = "This method expels workers on the premise that all honest ones sample one distribution."
    try:
        difference = gradient_spread(task)
    except InvalidInput:
        raise InvalidInput(
            f"{premise} Found a task without full gradients, of which nobody can tell. {REMEDY}"
        ) from None
    end = torch.finfo(task.start().dtype).eps ** 0.5
    if difference > end:
        raise InvalidInput(
            f"{premise} Found honest full gradients that differ by {difference:.2g} of their length: honest "
            f"workers would be expelled in the end. {REMEDY}"
        )


def gradient_spread(task: Task) -> float:
    """The largest distance of an honest full gradient from their mean, as a share of the longest one.

    Errors: `InvalidInput` for a task without full gradients.
    """
    x = task.start()
    drawn = torch.randn(x.shape, dtype=torch.float64, generator=stream(0, "alike"), device="cpu").to(x)
    near = x + 0.1 * (1 + x.abs()) * drawn
    honest = torch.tensor(task.cohort.honest, device="cpu").to(x.device)
    rows = task.grads(near, task.full()).index_select(0, honest).double()
    longest = float(torch.linalg.vector_norm(rows, dim=1).max())
    away = float(torch.linalg.vector_norm(rows - rows.mean(dim=0), dim=1).max())
    return away / longest if longest else 0.0
