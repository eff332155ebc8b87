"""What an engine is: it carries a point to all workers and brings back rows, row i from worker i."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

from torch import Tensor

from byzopt.aggregators.core.filters import RoundContext
from byzopt.attacks import Adversary
from byzopt.errors import require, said
from byzopt.methods import Method
from byzopt.registry import Registry
from byzopt.tasks import Task

MethodPart = Literal["worker", "wire", "down", "participants"]  # what of a method an engine has to run


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

    `runs`: which parts of a method it runs as the method has them: `"worker"`, `"wire"`, `"down"` and
    `"participants"`. A method is refused when a part that is not named here is more than plain gradients of
    everybody, sent as they are.

    Examples:
        >>> from byzopt.engines import Engine, Simulated
        >>> issubclass(Simulated, Engine), Simulated.forges, sorted(Simulated.runs)
        (True, True, ['down', 'participants', 'wire', 'worker'])
    """

    forges: ClassVar[bool] = False
    runs: ClassVar[frozenset[MethodPart]] = frozenset()

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

    def present(self, t: int) -> Tensor | None:
        """Who takes part in round t, a mask `[n]` on the CPU; None: everybody. Default: everybody.

        The rows of those who do not take part say nothing.
        """
        return None

    def context(self, t: int, x: Tensor) -> RoundContext:
        """What the server's rule knows of round t, in which workers are asked at `x` `[d]`."""
        return RoundContext(t, x, self.present(t))

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
        (what crosses in either direction), as far as the engine says so in `runs`. `adversary` acts for the
        Byzantine workers, if the engine `forges`. All randomness comes from streams of `seed`.
        Errors: `InvalidInput` for parts that do not fit one another or the task.
        """


def check_rows(what: str, rows: Any, n: int, x: Tensor) -> None:
    """Raise `InvalidInput` unless `rows` are n rows of the shape, dtype and device of `x` `[d]`."""
    if not isinstance(rows, Tensor):
        require(False, what, "be a tensor [n, d], row i from worker i", said(rows))
    wanted = (n, *x.shape), x.dtype, x.device
    if (rows.shape, rows.dtype, rows.device) != wanted:
        shape, dtype, device = wanted
        require(
            False,
            what,
            f"have shape {list(shape)}, {dtype} on {device}, row i from worker i",
            f"shape {list(rows.shape)}, {rows.dtype} on {rows.device}",
        )


ENGINES: Registry[EngineRecipe] = Registry("engine", EngineRecipe)
