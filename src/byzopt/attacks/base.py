"""What an attack is. Attackers stand outside and look in through a read-only View.

The attacker speaks last, in the server's space: it sees the rows that honest workers sent this round and
then forges one row for each Byzantine worker. Data poisoning is no row attack: `poison` wraps the task.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from byzopt.attacks.losses import OwnLoss
from byzopt.attacks.view import Knowledge, View, put
from byzopt.cohort import Cohort
from byzopt.errors import require
from byzopt.registry import Registry
from byzopt.rng import stream

__all__ = ["ATTACKS", "Adversary", "Attack", "Base", "Knowledge", "Placement", "Remembering", "State", "View"]

Placement: TypeAlias = Literal["free", "state", "message"]
Base: TypeAlias = Literal["own", "last_honest"]
State = Any  # a typed tuple of tensors and numbers, fixed in structure for the whole run


class Attack(ABC):
    """A recipe that forges the Byzantine rows of a round.

    Stateless attacks write `forge`; attacks with memory extend `Remembering`. `knows` declares what they
    read of the View. The generator passed in, one for each round, is their only source of randomness.
    Those that are written over the last two dimensions and draw nothing may say that they are `batched`:
    then many runs' rows `[R, ., d]` are forged in one call, but for those that know a loss, which is of one
    run. `finite`: finite messages become finite rows.
    `indexed`: it tells honest workers apart, and wants a row for each of them also where some are absent.

    Examples:
        An attack is called on the rows that all workers would send if they were honest:

        >>> import torch
        >>> from byzopt import SignFlip
        >>> rows = torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]])
        >>> SignFlip()(rows, byzantine=1)  # the last worker lies
        tensor([[ 1.,  2.],
                [ 3.,  4.],
                [-2., -3.]])
    """

    name: ClassVar[str]
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"own", "honest"})
    finite: ClassVar[bool] = True
    indexed: ClassVar[bool] = False

    def __call__(
        self,
        rows: Tensor,
        byzantine: int | Iterable[int],
        f: int | None = None,
        rule: Callable[[Tensor], Tensor] | None = None,
        t: int = 1,
        seed: int = 0,
        loss: Callable[[Tensor], Tensor] | None = None,
        x: Tensor | None = None,
    ) -> Tensor:
        """What the server would receive if some workers attacked: to try an attack outside a run.

        Attacks with memory are in their first round, whatever `t` is. Attacks that poison data send rows as
        they are.

        Args:
            rows: What all workers would send if they were honest, `[n, d]`. Left as it is.
            byzantine: How many workers attack, the last ones; or which, by index.
            f: How many faulty rows the server tolerates; by default as many as attack.
            rule: The server's rule `[n, d] -> [d]`, for attacks that search against it; by default the mean.
            t: The round, from 1.
            seed: Of what the attack draws.
            loss: That of the attackers' own data, a differentiable function of the point, for attacks that
                know it.
            x: The point at which workers were asked, `[d]`; None: 0.

        Returns:
            All rows `[n, d]`, those of the attackers forged.

        Raises:
            InvalidInput: Rows that are no floating tensor `[n, d]`, attackers that there cannot be, and an
                attack that knows a loss without one.
        """
        good = rows.ndim == 2 and rows.is_floating_point()
        kind = f"shape {list(rows.shape)} of {rows.dtype}"
        require(good, "Rows", "be a floating tensor of shape [n, d]", kind)
        cohort = Cohort.of(len(rows), byzantine)
        tolerated = len(cohort.byzantine) if f is None else f
        adversary = Adversary(self, cohort, tolerated)
        x = rows.new_zeros(rows.shape[-1]) if x is None else x
        fits = x.shape == rows.shape[-1:]
        require(fits, "The point `x`", f"have shape {list(rows.shape[-1:])}", list(x.shape))
        losses = None if loss is None else OwnLoss.of(loss)

        def defence(rows: Tensor) -> Tensor:  # a plain function, whatever else the rule is
            return rows.mean(0) if rule is None else rule(rows)

        return adversary.forge_rows(
            adversary.start(x),
            t,
            x,
            rows,
            stream(seed, "attack", t, device=rows.device),
            defence,
            losses=losses,
        )[0]

    @property
    def batched(self) -> bool:
        """Whether it is written over leading dimensions, so that one call serves many runs."""
        return False

    @property
    def searches(self) -> bool:
        """Whether it asks the server's rule for answers. Default: whether an attack inside it does."""
        return any(inner.searches for inner in vars(self).values() if isinstance(inner, Attack))

    def poison(self, task: Any, workers: tuple[int, ...]) -> Any:
        """The task as the Byzantine workers' data make it. Default: unchanged."""
        return task

    def start(self, cohort: Cohort, x: Tensor) -> State:
        """State before round 1; `x` `[d]` shows the dtype and device of messages. Default: none."""
        return ()

    def report(self, state: State) -> dict[str, float]:
        """Figures of the attack so far, for records. Default: none."""
        return {}

    @abstractmethod
    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        """The Byzantine rows `[b, d]` of a stateless attack, in any floating dtype."""

    def step(self, state: State, view: View, generator: torch.Generator) -> tuple[Tensor, State]:
        """The Byzantine rows `[b, d]` and the next state."""
        return self.forge(view, generator), state


class Remembering(Attack):
    """An attack with memory: it writes `start` and `step`. Alone, `forge` is its first round.

    Examples:
        >>> import torch
        >>> from byzopt import Remembering
        >>> class Growing(Remembering):
        ...     def start(self, cohort, x):
        ...         return (1.0,)
        ...
        ...     def step(self, state, view, generator):
        ...         return -state[0] * view.own, (2 * state[0],)
        >>> rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> Growing()(rows, byzantine=1)[1]
        tensor([-3., -4.])
    """

    indexed: ClassVar[bool] = True

    @abstractmethod
    def start(self, cohort: Cohort, x: Tensor) -> State:
        """State before round 1, a NamedTuple of tensors and numbers whose structure stays as it is."""

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        return self.step(self.start(view.cohort, view.x), view, generator)[0]

    @abstractmethod
    def step(self, state: State, view: View, generator: torch.Generator) -> tuple[Tensor, State]:
        """The Byzantine rows `[b, d]` and the next state."""


ATTACKS: Registry[Attack] = Registry("attack", Attack)


@dataclass(frozen=True)
class Adversary:
    """An attack in the hands of a cohort's Byzantine workers. Their number need not be the server's f.

    `placement` says what the attack sees and forges. `"free"`: the rows as the server believes them, and the
    server believes what is forged, whatever the wire could carry. `"state"`: the same rows, of which the wire
    carries what its compressor leaves: c_j = C(τ_j - g_j). `"message"`: the messages themselves, compressed
    differences for instance, and C(forged) is sent. `base="last_honest"` adds Byzantine messages to what the
    server remembered of the last honest worker (released code of arXiv:2603.15144, for parity only).

    Args:
        attack: What the Byzantine workers do.
        cohort: Who they are.
        f: Number of faulty rows that the server tolerates.
        placement: Where the attack acts: "free", "state" or "message".
        base: "own", or "last_honest" for parity with released code.

    Raises:
        InvalidInput: An unknown place or base, and base "last_honest" with placement "free".

    Examples:
        >>> from byzopt import ALIE, Adversary, Cohort
        >>> Adversary(ALIE(), Cohort.of(20, byzantine=3), f=3).placement
        'free'
    """

    attack: Attack
    cohort: Cohort
    f: int
    placement: Placement = "free"
    base: Base = "own"

    def __post_init__(self) -> None:
        places, bases = get_args(Placement), get_args(Base)
        require(self.placement in places, "The placement", f"be in {places}", repr(self.placement))
        require(self.base in bases, "The base", f"be in {bases}", repr(self.base))
        good = self.base == "own" or self.placement != "free"
        require(good, "Base 'last_honest'", "have placement 'state' or 'message'", repr(self.placement))

    def liars(self, device: torch.device) -> Tensor:
        """A mask `[n, 1]` of the Byzantine workers."""
        return _mask(self.cohort, device)

    def poison(self, task: Any) -> Any:
        """The task with the Byzantine workers' data as the attack wants them."""
        return self.attack.poison(task, self.cohort.byzantine) if self.cohort.byzantine else task

    def losses(self, task: Any) -> OwnLoss | None:
        """The loss of the Byzantine workers' own data in a task, if the attack knows it."""
        return OwnLoss.on(task, self.cohort.byzantine) if "loss" in self.attack.knows else None

    def start(self, x: Tensor) -> State:
        """The attack's state before round 1."""
        return self.attack.start(self.cohort, x)

    def forge_rows(
        self,
        state: State,
        t: int,
        x: Tensor,
        rows: Tensor,
        generator: torch.Generator,
        defence: Callable[[Tensor], Tensor],
        present: Tensor | None = None,
        losses: OwnLoss | None = None,
        places: bool = False,
    ) -> tuple[Tensor, State]:
        """The rows `[n, d]` as sent, Byzantine ones forged, and the attack's next state. In a round in which
        none of the liars is `present` the attack is not asked. `losses` are for an attack that knows its own.
        `places`: rows are points, as those of a graph's nodes, and `x` is where these were.

        Errors: `InvalidInput` for forged rows of a wrong shape or without a floating dtype.
        """
        if not self.cohort.byzantine or not _any_of(self.cohort.byzantine, present):
            return rows, state
        some = (present, self.attack.indexed and present is not None)
        view = View(t, x, rows, self.cohort, self.f, self.attack.knows, defence, *some, losses, places)
        forged, state = self.attack.step(state, view, generator)
        wanted = (*rows.shape[:-2], view.b, rows.shape[-1])
        if forged.shape != wanted or not forged.is_floating_point():
            require(
                False,
                f"The rows forged by {type(self.attack).__name__}",
                f"be a floating tensor of shape {list(wanted)}, one row for each Byzantine worker",
                f"shape {list(forged.shape)} of {forged.dtype}",
            )
        return put(rows, self.cohort.byzantine, forged), state


def _any_of(workers: tuple[int, ...], present: Tensor | None) -> bool:
    return present is None or bool(present[list(workers)].any())


@lru_cache(maxsize=64)
def _mask(cohort: Cohort, device: torch.device) -> Tensor:
    mask = torch.zeros(cohort.n, 1, dtype=torch.bool, device="cpu")
    mask[list(cohort.byzantine)] = True
    return mask.to(device)
