"""The handle that `harden` returns: what happened in the rounds, and what is carried from one to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast
from warnings import warn
from weakref import WeakMethod

import torch
from torch import Tensor

from byzopt.aggregators import Aggregator
from byzopt.aggregators.core.filters import StatelessFilter
from byzopt.distributed.communicator import Communicator
from byzopt.distributed.diagnostics import RoundDiagnostics
from byzopt.distributed.harden.carried import Stateful, check_part
from byzopt.distributed.harden.estimated import momentum_of
from byzopt.distributed.harden.leaving import Farewell, is_marked
from byzopt.distributed.harden.round import Guess, Round
from byzopt.distributed.harden.settings import Settings
from byzopt.errors import TooManyFaults, require
from byzopt.states import freeze, thaw


class Guard:
    """A hardened model's rounds, one for each synchronised `backward`.

    `rounds` counts them. `dropped` `[n]` says in how many of them a rank's gradient was not finite and was
    left out, `skipped` how many had more faults than the rule tolerates and gave no step, `restored` after
    how many all ranks went back to earlier buffers, because more than f had NaN in theirs, `diagnostics` what
    the last watched round made of every rank. `active` is False after `remove`.

    With a deadline `missing` `[n]` says in how many rounds nothing came of a rank in time, which `dropped`
    counts, too, and `returned` how often this rank was so far behind that it took the state of the others.

    As a context (`with guard:` around the training) it tells the other ranks of an error that leaves the
    block: with `DistributedDataParallel` they raise `ByzoptError`, which names this rank and its error, in
    the round that they are in or begin next, even where this process lives on. With a deadline this rank is
    missing from then on. Afterwards the guard is of no use on this rank. A block that ends without an error
    changes nothing.

    Args:
        comm: The model's process group.
        settings: Those of `harden`, which makes guards.
    """

    def __init__(self, comm: Communicator, settings: Settings) -> None:
        self.comm, self.settings, self.filter = comm, settings, settings.filter
        self.rounds, self.skipped, self.restored, self.dropped = 0, 0, 0, [0] * comm.n
        self.missing, self.returned = [0] * comm.n, 0
        self.diagnostics: RoundDiagnostics | None = None
        self.momentum = momentum_of(settings.momentum)
        self.active = True
        self.undo: list[Callable[[], None]] = []  # what `remove` has to put back
        self.goodbye: WeakMethod[Callable[[BaseException], Farewell | None]] | None = None  # a wrapper's
        self.parts: dict[str, Stateful] = {}
        self._left: Farewell | None = None
        self._state: Any = None
        self._begun = 0  # backward passes in this process, whatever has been loaded
        self.guess: Guess | None = None

    # What a wrapper calls, once a round each, in this order.

    def begin(self, d: int, part: bool = True) -> Round:
        """A round over gradients of d numbers; `part` is False on a rank that has run out of data."""
        if self._state is None:
            self._state = self.filter.init(torch.zeros(0, device="cpu"), self.comm.n)
        count, t = self._begun + 1, self.rounds + 1
        return Round(self.comm, self.filter, self._state, t, d, self.guess, part, count)

    def finished(self, done: Round, pieces: list[Tensor]) -> None:
        """Take over what the round proved, and tell the watch.

        `pieces` are this rank's columns of the answer. A collective. Errors, on all ranks: what a watch
        raised on any of them.
        """
        self.rounds, self._begun = done.t, done.count
        for rank in done.faulty:
            self.dropped[rank] += 1
        self.guess = done.next_guess()
        if not isinstance(self.filter, StatelessFilter):
            self._state = self.filter.after(done.state, torch.cat(pieces))
        self._tell(done)

    def failed(self, done: Round, error: Exception) -> None:
        """Count a round that has no answer."""
        self.rounds, self._begun = done.t, done.count
        if isinstance(error, TooManyFaults):
            self.skipped += 1
            for rank in done.faulty:
                self.dropped[rank] += 1

    @property
    def memory(self) -> tuple[Any, ...]:
        """What the rule remembers, and what the next round begins with: the same on all ranks."""
        guess = None if self.guess is None else tuple(self.guess)
        return freeze(self._state), guess

    def take_over(self, rounds: int, memory: tuple[Any, Any], answer: Tensor) -> None:
        """Go on after so many rounds, of which the last had this answer, with the `memory` of other ranks."""
        state, guess = memory
        self._state = thaw(state, self.filter.after(self._state, answer))
        self.guess = None if guess is None else Guess(*guess)
        self.rounds = rounds
        self.returned += 1

    def forget_layout(self) -> None:
        """What is remembered by columns begins afresh, because columns are dealt otherwise from now on."""
        self._state = None

    def _tell(self, done: Round) -> None:
        watch = self.settings.watch
        if watch is None or done.t % int(getattr(watch, "every", 1)):
            return
        with done.trouble.noted():
            self.diagnostics = done.diagnostics()
            watch(self.diagnostics)
        done.trouble.shared(done.comm.everyone)

    # What the user calls.

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, (Exception, KeyboardInterrupt)):
            self.leave(error)
            if self._left is not None:
                self._left.wait()

    def leave(self, error: BaseException) -> None:
        """This rank goes no further, because of `error`: the others are told, beside what this script does
        now. Nothing is told of an error that all ranks have raised alike."""
        goodbye = None if self.goodbye is None else self.goodbye()
        if self._left is None and self.active and goodbye is not None and not is_marked(error):
            self._left = goodbye(error)

    @property
    def is_over(self) -> bool:
        """Whether this rank has left, and it is not its farewell that asks."""
        return self._left is not None and not self._left.is_here()

    def also(self, **parts: Stateful) -> None:
        """Have a rank that comes back (`deadline`) take these over, too, by names that all ranks give them:
        anything with `state_dict` and `load_state_dict` whose state is the same on all ranks, such as an
        average of the weights, an optimizer that is none of `torch.optim`'s, or one of two schedulers of a
        kind. Without a deadline no rank comes back, and nothing is done with them.

            guard.also(ema=averaged, warmup=first_schedule, decay=second_schedule)

        Args:
            parts: The objects by name. A name that has been given before is given anew.

        Raises:
            InvalidInput: An object without these methods, or with a state that is no plain data and tensors.
        """
        for name, part in parts.items():
            check_part(name, part)
        self.parts |= parts

    def remove(self) -> None:
        """The model is as it was before `harden`: gradients are averaged from now on. On all ranks alike."""
        self.active = False
        for step in self.undo:
            step()
        self.undo = []

    @property
    def tolerance(self) -> int:
        """How many ranks may be faulty."""
        n = self.comm.n
        return min(cast(Aggregator, self.settings.rule).tolerance(n), (n - 1) // 2)

    def state_dict(self) -> dict[str, Any]:
        """This rank's momentum and the counters, as tensors and plain data, beside the script's own
        checkpoint. Every rank keeps its own."""
        momentum = None if self.momentum is None else self.momentum.state_dict()
        who = {"rank": self.comm.rank, "ranks": self.comm.n, "plan": self.settings.plan}
        counts: dict[str, Any] = {"rounds": self.rounds, "skipped": self.skipped}
        counts |= {"dropped": list(self.dropped), "missing": list(self.missing)}
        return {**who, **counts, "momentum": momentum}

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Go on from what `state_dict` gave. With another rank's, or None, momentum starts afresh, and a
        warning says so: the momentum of one rank is not that of another. Where ranks have loaded different
        counts of rounds, the next round takes the one that most have.

        Errors: `InvalidInput` for what is no such state.
        """
        state = state or {}
        require(isinstance(state, Mapping), "A state of a guard", "be a dictionary", type(state).__name__)
        least = {"rounds", "skipped", "dropped", "momentum", "rank", "ranks", "plan"}
        require(not state or least <= set(state), "A state of a guard", "be one", sorted(map(str, state)))
        own = bool(state) and (state["rank"], state["ranks"]) == (self.comm.rank, self.comm.n)
        if state:
            self.rounds, self.skipped = int(state["rounds"]), int(state["skipped"])
            fits = state["ranks"] == self.comm.n
            for name in ("dropped", "missing"):
                counts = list(map(int, state.get(name, ()))) if fits else []
                setattr(self, name, counts or [0] * self.comm.n)
        if self.momentum is None:
            return
        if own and state["momentum"] is not None:
            self.momentum.load_state_dict(state["momentum"])
        else:
            self.momentum.clear()
            others = f"of rank {state['rank']} among {state['ranks']}" if state else "none"
            warn(
                f"Worker momentum starts afresh on rank {self.comm.rank}: the state loaded is {others}"
                f"{' and holds no momentum' if own else ''}.",
                stacklevel=2,
            )
