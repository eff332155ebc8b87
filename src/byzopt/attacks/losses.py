"""The loss of attackers' own data, at points that they choose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from byzopt.errors import InvalidInput, require
from byzopt.layout import Layout


@dataclass(frozen=True)
class OwnLoss:
    """The mean loss of the Byzantine workers' own data as a function of the point, and its gradient.

    What an attack that declares `"loss"` in `knows` is handed as `view.loss`. The data are the task's, as the
    attack has poisoned them, all of them and not this round's sample; no honest worker's are among them.

    Args:
        value: The loss at a point `[d]`.
        slope: Its gradient `[d]` at a point `[d]`.
        layout: The model's tensors within a point; None: one vector.

    Examples:
        >>> import torch
        >>> from byzopt.attacks import OwnLoss
        >>> loss = OwnLoss.of(lambda x: x @ x)
        >>> points = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
        >>> loss(points).tolist(), loss.slopes(points).tolist()
        ([5.0, 9.0], [[2.0, 4.0], [0.0, 6.0]])
    """

    value: Callable[[Tensor], float]
    slope: Callable[[Tensor], Tensor]
    layout: Layout | None = None

    @classmethod
    def on(cls, task: Any, workers: tuple[int, ...]) -> OwnLoss:
        """That of these workers of a task. Asking it raises `InvalidInput` where the task cannot tell.

        Args:
            task: Whose data they are.
            workers: Who attacks.

        Returns:
            The loss that they know.
        """
        return cls(
            lambda x: task.loss_of(x, workers),
            lambda x: task.slope_of(x, workers),
            task.layout,
        )

    @classmethod
    def of(cls, function: Callable[[Tensor], Tensor]) -> OwnLoss:
        """That of a differentiable function, for an attack outside a run.

        Args:
            function: `[d]` to one number.

        Returns:
            The loss that attackers know.
        """

        def slope(x: Tensor) -> Tensor:
            point = x.detach().clone().requires_grad_()
            with torch.enable_grad():
                (row,) = torch.autograd.grad(function(point), point)
            return row

        return cls(lambda x: float(function(x)), slope)

    def __call__(self, points: Tensor) -> Tensor:
        """The loss at each of `points` `[p, d]`: `[p]` in float64."""
        values = [self.value(point) for point in _checked(points)]
        return torch.tensor(values, dtype=torch.float64, device="cpu").to(points.device)

    def slopes(self, points: Tensor) -> Tensor:
        """Its gradient at each of `points` `[p, d]`: `[p, d]`.

        Args:
            points: Where it is asked for.

        Returns:
            A row for each point.

        Raises:
            InvalidInput: Points of another shape.
        """
        return torch.stack([self.slope(point).to(point) for point in _checked(points)])


def missing() -> InvalidInput:
    """The error of an attack that asks for a loss where there are rows alone."""
    return InvalidInput(
        "An attack that knows its own loss should have a task. Found rows alone. Use it in a run, or give "
        "`loss`, a differentiable function of the point, when you call it on rows."
    )


def _checked(points: Tensor) -> Tensor:
    good, found = points.ndim == 2 and len(points) > 0, f"shape {list(points.shape)}"
    require(good, "Points at which a loss is asked for", "have shape [p, d] with p >= 1", found)
    return points
