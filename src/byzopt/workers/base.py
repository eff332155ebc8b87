"""What an estimator is: what honest workers want to say, from what they are asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from byzopt.registry import Registry

State = Any  # a typed tuple of tensors [n, d], fixed in structure for the whole run


@dataclass(frozen=True)
class Oracle:
    """Round t's gradients: `oracle(x)` gives `[n, d]` at `x` `[d]`, always on this round's one sample.

    `full(x)` gives full gradients where the task has them.
    """

    t: int
    grads: Callable[[Tensor], Tensor]
    full: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        return self.grads(x)


class Estimator(ABC):
    """All workers' side of a method, vectorised: worker i's state is row i and touches no other row.

    `init` is round 1 and already emits rows, so that no gradient and no message goes uncounted.
    """

    name: ClassVar[str]

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
