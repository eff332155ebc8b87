"""What a client computes: its own gradients, at any point, on the sample of a round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from byzopt.errors import InvalidInput
from byzopt.layout import Layout
from byzopt.tasks import ModuleTask, Task


@dataclass(frozen=True)
class Local:
    """A client's side of a task.

    `gradient(x, t)` `[d]` at `x` `[d]` on round t's sample: the same sample whenever t is the same, since
    some methods ask twice. `full(x)` the gradient on all data, for methods that need it. `measure(x)`
    metrics for Flower's evaluation. `layout` names the coordinates, to be checked against the server's model.

    Args:
        gradient: Called with a point `[d]` and a round, gives the gradient `[d]` on that round's sample.
        full: Gradient `[d]` on all data at a point; None: methods that need it are refused.
        measure: Metrics at a point, by name.
        layout: Names of the coordinates; None: they are not checked.

    Examples:
        >>> import torch
        >>> from byzopt.flower import Local
        >>> local = Local(lambda x, t: 2 * x)
        >>> local.gradient(torch.ones(2), 1)
        tensor([2., 2.])
    """

    gradient: Callable[[Tensor, int], Tensor]
    full: Callable[[Tensor], Tensor] | None = None
    measure: Callable[[Tensor], dict[str, float]] | None = None
    layout: Layout | None = None

    @classmethod
    def of_task(cls, task: Task, i: int = 0) -> Local:
        """Worker i of a task: what the simulated engine computes for it."""
        worker = slice(i, i + 1)
        return cls(
            lambda x, t: task.grads_of(x, task.draw(t), worker)[0],
            lambda x: task.grads_of(x, task.full(), worker)[0],
            task.measure,
            task.layout,
        )

    @classmethod
    def of_module(
        cls,
        module: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        data: tuple[Tensor, Tensor],
        *,
        batch: int = 64,
        seed: int = 0,
        **settings: Any,
    ) -> Local:
        """A module with a loss on this client's (inputs, targets); `settings` as in `byzopt.ModuleTask`.

        The sample of a round is drawn from `seed` and the round. Give each client its own seed.
        """
        return cls.of_task(ModuleTask(module, loss, [data], batch=batch, seed=seed, **settings))

    def full_gradient(self, x: Tensor) -> Tensor:
        """The full gradient `[d]`. Errors: `InvalidInput` where there is none."""
        if self.full is None:
            raise InvalidInput(
                "This method's estimator should be given a full gradient. Found none. "
                "Give the client's `Local` a `full`."
            )
        return self.full(x)
