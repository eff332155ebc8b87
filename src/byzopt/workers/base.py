"""What an estimator is: what honest workers compute from gradients, and send."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from byzopt.registry import Registry
from byzopt.rng import coin

Need = Literal["replay", "full"]
State = Any  # a typed tuple of tensors [n, d], fixed in structure for the whole run


@dataclass(frozen=True)
class Oracle:
    """Round t's gradients: `oracle(x)` gives `[n, d]` at `x` `[d]`, always on this round's one sample.

    `full(x)` gives full gradients where the task has them. `seed` is the run's, for coins.

    Args:
        t: The round, from 1.
        grads: Gradients of all workers at a point: `[d] -> [n, d]`, always on this round's one sample.
        full: Full gradients of all workers: `[d] -> [n, d]`.
        seed: The run's, for common coins.

    Returns:
        Called at `x` `[d]`, the gradients `[n, d]`.

    Examples:
        >>> import torch
        >>> from byzopt.workers import Oracle
        >>> targets = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> oracle = Oracle(1, grads=lambda x: x - targets, full=lambda x: x - targets)
        >>> oracle(torch.zeros(2))
        tensor([[-1.,  0.],
                [ 0., -1.]])
    """

    t: int
    grads: Callable[[Tensor], Tensor]
    full: Callable[[Tensor], Tensor]
    seed: int = 0

    def __call__(self, x: Tensor) -> Tensor:
        return self.grads(x)

    def coin(self, p: float) -> bool:
        """The round's common coin, 1 with probability p: the one that the wire sees too."""
        return coin(self.seed, self.t, p)


class Estimator(ABC):
    """All workers' side of a method, vectorised: worker i's state is row i and touches no other row.

    `init` is round 1 and already emits rows, so that no gradient and no message goes uncounted. `needs` says
    what it asks of a task: `"replay"` gradients at two points on one sample, `"full"` full gradients.
    `coined`: the server tosses a coin for all each round, one bit of the broadcast.

    Examples:
        >>> import torch
        >>> from byzopt.workers import Estimator, Oracle
        >>> class Clipped(Estimator):
        ...     def init(self, x, oracle):
        ...         return oracle(x).clamp(-1, 1), ()
        ...
        ...     def step(self, state, x, oracle):
        ...         return self.init(x, oracle)
        >>> oracle = Oracle(1, grads=lambda x: 5 * x.expand(3, -1), full=None)
        >>> Clipped().init(torch.tensor([0.1, 1.0]), oracle)[0][0]
        tensor([0.5000, 1.0000])
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[Need]] = frozenset()
    coined: ClassVar[bool] = False

    @property
    def batched(self) -> bool:
        """Whether it is written over leading dimensions, so that one call serves many runs."""
        return False

    @abstractmethod
    def init(self, x: Tensor, oracle: Oracle) -> tuple[Tensor, State]:
        """The first messages `[n, d]` and the state after them."""

    @abstractmethod
    def step(self, state: State, x: Tensor, oracle: Oracle) -> tuple[Tensor, State]:
        """The messages `[n, d]` of a later round and the state after them."""


ESTIMATORS: Registry[Estimator] = Registry("estimator", Estimator)
