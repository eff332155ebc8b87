"""What an engine is: it carries a point to all workers and brings back rows, row i from worker i."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from byzopt.attacks import Adversary
from byzopt.methods import Method
from byzopt.registry import Registry
from byzopt.tasks import Task


class Exchange(NamedTuple):
    """One round's rows `[n, d]`, and what it cost one worker.

    `gradients` of a minibatch; a full pass counts as many as it holds minibatches (`Task.passes`). `bits` and
    `coordinates` sent up, `bits_down` and `coordinates_down` received.

    Args:
        rows: What the workers sent, `[n, d]`.
        gradients: Minibatch gradients that a worker took.
        bits: Bits that a worker sent.
        coordinates: Coordinates that a worker sent.
        bits_down: Bits that a worker received.
        coordinates_down: Coordinates that a worker received.

    Examples:
        >>> import torch
        >>> from byzopt.engines import Exchange
        >>> Exchange(torch.zeros(4, 2), gradients=1.0, bits=64.0).bits_down
        0.0
    """

    rows: Tensor
    gradients: float
    bits: float
    coordinates: float = 0.0
    bits_down: float = 0.0
    coordinates_down: float = 0.0


class Engine(ABC):
    """Transport and workers, seen from the loop.

    `forges`: whether it lets a simulated attack forge the Byzantine workers' rows. Runs under an attack are
    refused on an engine that does not say so.

    Examples:
        >>> from byzopt.engines import Engine, Simulated
        >>> issubclass(Simulated, Engine), Simulated.forges
        (True, True)
    """

    forges: ClassVar[bool] = False

    @property
    @abstractmethod
    def n(self) -> int:
        """Number of workers."""

    @abstractmethod
    def exchange(
        self,
        state: Any | None,
        x: Tensor,
        t: int,
        defence: Callable[[Tensor], Tensor],
        last: Tensor | None = None,
    ) -> tuple[Exchange, Any]:
        """Ask all workers at `x` `[d]` in round t >= 1: this round's rows `[n, d]`, and the next state.

        `state` is None before the first round, then what the last call returned: nested tuples of tensors,
        numbers and None, with the same structure after every round, because checkpoints keep it. `last` is
        the aggregate of the round before, which some channels build on. `defence` is the server's rule as a
        pure function, for simulated attackers that may know it.
        """

    def report(self, state: Any) -> dict[str, float]:
        """Figures of the engine itself after a round, for records. Default: none."""
        return {}


class EngineRecipe(ABC):
    """An engine as plain data; `build` makes the engine of one run.

    Examples:
        >>> from byzopt.engines import ENGINES, EngineRecipe
        >>> isinstance(ENGINES.build("simulated"), EngineRecipe)
        True
    """

    name: ClassVar[str]

    @abstractmethod
    def build(self, task: Task, method: Method, adversary: Adversary, seed: int) -> Engine:
        """The engine over a task whose Byzantine workers' data are as the attack wants them.

        The workers' side of the `method` is its to run: `worker` (what workers compute), `wire` and `down`
        (what crosses in either direction). `adversary` acts for the Byzantine workers, if the engine
        `forges`. All randomness comes from streams of `seed`.
        Errors: `InvalidInput` for parts that do not fit one another or the task.
        """


ENGINES: Registry[EngineRecipe] = Registry("engine", EngineRecipe)
