"""Projected steps whose answer is an average, in one epoch or several: the server's step of ByzantineSGD."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from byzopt import linalg
from byzopt.errors import require
from byzopt.servers.base import ServerContext, Step
from byzopt.theory.byzantine_epochs import Epoch


class ProjectedState(NamedTuple):
    """Iterate `x`, centre `home` of the epoch's ball, `mean` of the epoch's iterates so far, `[d]` each; the
    epoch's place in the list, and its finished rounds `k`; the `radius` of a ball that grows, and how `far`
    from the centre iterates of this epoch were, `[]` each."""

    x: Tensor
    home: Tensor
    mean: Tensor
    epoch: int
    k: int
    radius: Tensor
    far: Tensor


@dataclass(frozen=True)
class ProjectedStep(Step):
    """x <- the point of the ball nearest to x - γ_s g, in epoch s of `epochs`; an infinite radius is no ball.

    The answer is the mean of the epoch's points: `smooth` x_2 .. x_{T+1}, after each step; else x_1 .. x_T,
    those asked at. An epoch ends by starting the next one at its answer. The last one has no end.

    `grow`: the first epoch's radius is a guess; that of a later one is the radius before, or twice the
    largest distance of iterates from the centre before if this is more.
    Source: arXiv:1803.08917, Algorithm 1 (one epoch).

    Args:
        epochs: Rounds, radius of the ball and length of the steps of each epoch.
        smooth: Whether the answer averages the points after the steps, or those asked at.
        grow: Whether the first radius is a guess that later epochs enlarge.

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.servers import ProjectedStep, ServerContext
        >>> from byzopt.theory.byzantine_epochs import Epoch
        >>> step = ProjectedStep((Epoch(rounds=10, radius=1.0, step=5.0),))
        >>> state = step.init(torch.zeros(1), ServerContext(Layout.flat(1)))
        >>> step.ask(step.tell(state, torch.ones(1)))  # cut to the ball
        tensor([-1.])
    """

    name: ClassVar[str] = "projected"  # not in the registry: its epochs are made, not written down
    epochs: tuple[Epoch, ...]
    smooth: bool = True
    grow: bool = False
    batched = True

    def __post_init__(self) -> None:
        require(len(self.epochs) > 0, "A projected step", "have at least one epoch", self.epochs)
        for epoch in self.epochs:
            good = epoch.rounds >= 1 and epoch.radius > 0 and isfinite(epoch.step) and epoch.step > 0
            require(good, "An epoch", "have rounds, a positive radius and a positive step", epoch)

    def init(self, x0: Tensor, site: ServerContext) -> ProjectedState:
        radius = torch.tensor(self.epochs[0].radius, dtype=torch.float64, device=x0.device)
        return ProjectedState(x0, x0, x0, 0, 0, radius, torch.zeros_like(radius))

    def ask(self, state: ProjectedState) -> Tensor:
        return state.x

    def tell(self, state: ProjectedState, g: Tensor) -> ProjectedState:
        epoch, k = self.epochs[state.epoch], state.k + 1
        x = torch.add(state.x, g, alpha=-epoch.step)
        radius, far = state.radius, state.far
        if self.grow:
            x = linalg.project_ball(x, state.home, radius)
            far = torch.maximum(far, linalg.norm(x - state.home).double())
        elif isfinite(epoch.radius):
            x = linalg.project_ball(x, state.home, epoch.radius)
        mean = state.mean + ((x if self.smooth else state.x) - state.mean) / k
        if k == epoch.rounds and state.epoch + 1 < len(self.epochs):
            radius = torch.maximum(radius, 2 * far)
            return ProjectedState(mean, mean, mean, state.epoch + 1, 0, radius, torch.zeros_like(far))
        return ProjectedState(x, state.home, mean, state.epoch, k, radius, far)

    def answer(self, state: ProjectedState) -> Tensor:
        return state.mean

    def report(self, state: ProjectedState) -> dict[str, float]:
        figures = {"epoch": float(state.epoch + 1)} if len(self.epochs) > 1 else {}
        return figures | ({"radius": float(state.radius)} if self.grow else {})
