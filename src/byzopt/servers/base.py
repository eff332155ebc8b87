"""What the server's step is: it asks workers for gradients at a point and is told the aggregate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from byzopt.layout import Layout
from byzopt.registry import Registry

State = Any  # a typed tuple of tensors, numbers and what the site gave, fixed in structure for the whole run


class Site(NamedTuple):
    """Where a step works: the names of its coordinates, and the loss that the server owns, if any."""

    layout: Layout
    proxy: Callable[[Tensor], Tensor] | None = None


class Step(ABC):
    """The server's optimiser as ask and tell; one round is one ask and one tell."""

    name: ClassVar[str]

    @property
    def batched(self) -> bool:
        """Whether it is written over leading dimensions, so that one call serves many runs."""
        return False

    @abstractmethod
    def init(self, x0: Tensor, site: Site) -> State:
        """State before round 1 at `x0` `[d]`. Errors: `InvalidInput` for a site that lacks what it needs."""

    @abstractmethod
    def ask(self, state: State) -> Tensor:
        """The point `[d]` at which workers evaluate next."""

    @abstractmethod
    def tell(self, state: State, g: Tensor) -> State:
        """The state after the aggregate `g` `[d]` of the round."""

    def answer(self, state: State) -> Tensor:
        """The iterate `[d]` that the method would return now. Default: where it asks next."""
        return self.ask(state)

    def report(self, state: State) -> dict[str, float]:
        """Figures of the step itself, for records. Default: none."""
        return {}


STEPS: Registry[Step] = Registry("step", Step)
