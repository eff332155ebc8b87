"""What the server's step is: it asks workers for gradients at a point and is told the aggregate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from byzopt.errors import require
from byzopt.layout import Layout
from byzopt.registry import Registry

State = Any  # a typed tuple of tensors, numbers and what the site gave, fixed in structure for the whole run


class ServerContext(NamedTuple):
    """Where a step works: the names of its coordinates, and the loss that the server owns, if any.

    Args:
        layout: Names and shapes of the tensors that the flat iterate `[d]` is made of.
        proxy: The loss that the server owns, `[d]` to a number; None: it owns none.

    Examples:
        >>> from byzopt.layout import Layout
        >>> from byzopt.servers import ServerContext
        >>> ServerContext(Layout.flat(3)).layout.d
        3
    """

    layout: Layout
    proxy: Callable[[Tensor], Tensor] | None = None


class Step(ABC):
    """The server's optimiser as ask and tell; one round is one ask and one tell.

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.servers import ServerContext, Step
        >>> class Halving(Step):
        ...     def init(self, x0, site):
        ...         return (x0, 1.0)
        ...
        ...     def ask(self, state):
        ...         return state[0]
        ...
        ...     def tell(self, state, g):
        ...         return (state[0] - state[1] * g, state[1] / 2)
        >>> step = Halving()
        >>> state = step.init(torch.zeros(2), ServerContext(Layout.flat(2)))
        >>> for _ in range(2):
        ...     state = step.tell(state, torch.ones(2))
        >>> step.answer(state)
        tensor([-1.5000, -1.5000])
    """

    name: ClassVar[str]

    @property
    def batched(self) -> bool:
        """Whether it is written over leading dimensions, so that one call serves many runs."""
        return False

    @property
    def scales(self) -> bool:
        """Whether `lr` does nothing but scale the move of the iterate, the field `x` of the state."""
        return False

    @property
    def needs_proxy(self) -> bool:
        """Whether it needs a loss that the server owns, `ServerContext.proxy`."""
        return False

    @abstractmethod
    def init(self, x0: Tensor, site: ServerContext) -> State:
        """State before round 1 at `x0` `[d]`. Errors: `InvalidInput` for a site that lacks what it needs."""

    @abstractmethod
    def ask(self, state: State) -> Tensor:
        """The point `[d]` at which workers evaluate next."""

    @abstractmethod
    def tell(self, state: State, g: Tensor) -> State:
        """The state after the aggregate `g` `[d]` of the round."""

    def place(self, state: State, x: Tensor) -> State:
        """The state with the iterate, its field `x`, at another place: on a graph nodes move when they mix.
        What the step remembers (momentum, counts) stays.

        Errors: `InvalidInput` for a step whose iterate is not that field alone.
        """
        what = f"The step {type(self).__name__}, whose iterate others move,"
        require(self.scales, what, "keep it in the field `x` of its state alone", "one that does not")
        return state._replace(x=x)

    def answer(self, state: State) -> Tensor:
        """The iterate `[d]` that the method would return now. Default: where it asks next."""
        return self.ask(state)

    def report(self, state: State) -> dict[str, float]:
        """Figures of the step itself, for records. Default: none."""
        return {}


STEPS: Registry[Step] = Registry("step", Step)
