"""BASGD: workers share boxes, each box holds the mean of its rows, and the rule combines full boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from byzopt.aggregators.core.base import BaseAggregator
from byzopt.errors import require
from byzopt.intakes.base import (
    INTAKES,
    NOTHING,
    Arrival,
    AtServer,
    Intake,
    Taken,
    check_above,
    check_unnamed,
    put,
)


class BoxState(NamedTuple):
    """The mean `[d]` and the number of rows of each box, and how many rows were refused."""

    means: tuple[Tensor, ...]
    counts: tuple[int, ...]
    refused: int


@INTAKES.register("basgd")
@dataclass(frozen=True)
class BASGD(Intake):
    """Worker i's rows go to box i mod B, which holds their mean; when no box is empty, the rule combines all.

    f liars spoil f boxes at most, however often they answer, and the rule runs on B rows with its f: f < B/2.
    Honest workers in a box with a liar are lost with it. `boxes` n is `unique` with means in the place of
    latest rows. Rows that are not finite are refused. A box whose workers are all silent holds the server up;
    the paper's reassignment of workers to boxes after a timer is not done.

    Source: Yang, Li, arXiv:2003.00937, Algorithm 1.

    Args:
        boxes: Number B of boxes.

    Examples:
        >>> import torch
        >>> from byzopt.intakes import BASGD, Arrival, AtServer
        >>> intake, x = BASGD(boxes=2), torch.zeros(1)
        >>> state, at = intake.start(x, 4, 0), AtServer(0, x, n=4, f=0)
        >>> for worker, value in ((0, 1.0), (2, 3.0), (1, 5.0)):
        ...     taken, state = intake.take(state, Arrival(torch.tensor([value]), worker, 0, x), at)
        >>> taken.rows.flatten()
        tensor([2., 5.])
    """

    boxes: int = 5

    def __post_init__(self) -> None:
        check_above(self, 0, boxes=self.boxes)

    def check(self, n: int, f: int, rule: BaseAggregator) -> None:
        what = "Parameter `boxes` of intake basgd"
        require(self.boxes <= n, what, f"be at most n = {n}", self.boxes)
        require(2 * f < self.boxes, what, f"be more than 2 f = {2 * f}", self.boxes)
        if self.boxes < n:
            check_unnamed(rule, f"intake {self.name} with fewer boxes than workers")
        rule.check(self.boxes)

    def start(self, x0: Tensor, n: int, f: int) -> BoxState:
        return BoxState((torch.zeros_like(x0),) * self.boxes, (0,) * self.boxes, 0)

    def take(self, state: BoxState, arrival: Arrival, at: AtServer) -> tuple[Taken, BoxState]:
        if not arrival.sound:
            return NOTHING, state._replace(refused=state.refused + 1)
        box = arrival.worker % self.boxes
        count, before = state.counts[box] + 1, state.means[box]
        mean = arrival.row if count == 1 else before + (arrival.row - before) / count
        after = BoxState(put(state.means, box, mean), put(state.counts, box, count), state.refused)
        if not all(after.counts):
            return NOTHING, after
        return Taken(torch.stack(after.means)), self.start(at.x, at.n, at.f)._replace(refused=state.refused)

    def report(self, state: BoxState) -> dict[str, float]:
        """`refused_rows`: rows so far that were left out."""
        return {"refused_rows": float(state.refused)}
