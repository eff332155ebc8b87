"""The engine over processes: rank 0 is the server and plays some workers, the other ranks play the rest.

A simulated adversary must see the honest rows before it forges its own, so rows are gathered at rank 0, which
is trusted. Each process draws what all workers draw and takes its own rows, so that the iterates are those of
the simulated engine: to the last bit where a task takes all gradients at once anyway, to rounding where a
process takes those of its own workers alone (modules: 1e-12 in float64).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from byzopt.attacks import Adversary
from byzopt.distributed.link import Link
from byzopt.engines.base import Engine, Exchange
from byzopt.engines.simulated import SimulatedState
from byzopt.errors import ByzoptError, require
from byzopt.rng import stream
from byzopt.tasks import Task
from byzopt.wire import Channel
from byzopt.workers import Estimator, Oracle

_STOP, _BEGIN, _GO_ON, _RESTORE = range(4)  # what rank 0 announces


class Announcement(NamedTuple):
    """What a round is about: what to do, in which of several runs, in which round."""

    what: int
    run: int
    t: int


class Share:
    """The workers that one process plays, and what they remember."""

    def __init__(self, task: Task, worker: Estimator, wire: Channel, link: Link) -> None:
        require(link.n <= task.n, "The number of processes", f"be at most n = {task.n}", link.n)
        self.task, self.worker, self.wire, self.link = task, worker, wire, link
        self.width = -(-task.n // link.n)
        start = min(link.rank * self.width, task.n)
        self.mine = slice(start, min(start + self.width, task.n))
        self.state: Any = None

    def play(self, what: int, x: Tensor, t: int) -> tuple[Tensor, int, float]:
        """These workers' rows as received `[k, d]`, how often gradients were asked for, bits per worker."""
        sample, calls = self.task.draw(t), 0

        def grads(point: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return self.task.grads_of(point, sample, self.mine)

        def full(point: Tensor) -> Tensor:
            return self.task.grads_of(point, self.task.full(), self.mine)

        oracle = Oracle(t, grads, full)
        if what == _BEGIN:
            said, worker = self.worker.init(x, oracle)
            heard, wire, bits = self.wire.init(said)
        else:
            said, worker = self.worker.step(self.state[0], x, oracle)
            heard, wire, bits = self.wire.send(self.state[1], said)
        self.state = (worker, wire)
        return heard, calls, bits

    def gathered(self, rows: Tensor) -> Tensor | None:
        """All workers' rows on rank 0, from those of every process."""
        short = self.width - len(rows)
        wide = torch.cat([rows, rows.new_zeros(short, *rows.shape[1:])]) if short else rows
        whole = self.link.at_first(wide)
        return None if whole is None else whole.flatten(0, 1)[: self.task.n].to(rows.device)

    def remembered(self) -> Any:
        """All workers' state on rank 0, in the structure of one process's."""
        return _mapped(self.state, self._of_rows, lambda own: self.gathered(own))

    def restore(self, whole: Any | None) -> None:
        """Take these workers' part of rank 0's `whole` state."""
        parts = iter([] if whole is None else _leaves(whole))

        def taken(own: Tensor) -> Tensor:
            blank = own.new_empty(self.task.n, *own.shape[1:]) if self._of_rows(own) else own
            sent = self.link.from_first(next(parts, blank)).to(own.device)
            return sent[self.mine] if self._of_rows(own) else sent

        self.state = _mapped(self.state, lambda own: True, taken)

    def _of_rows(self, own: Tensor) -> bool:
        return own.ndim > 0 and len(own) == self.mine.stop - self.mine.start


class ProcessGroup(Engine):
    """Rank 0's side, one of several runs; the other ranks are in `serve`. Use each round's state once."""

    def __init__(
        self,
        task: Task,
        worker: Estimator,
        wire: Channel,
        adversary: Adversary,
        seed: int,
        link: Link,
        run: int,
    ) -> None:
        self.share = Share(task, worker, wire, link)
        self.adversary, self.seed, self.link, self.run = adversary, seed, link, run
        self.last: Any = None  # the state that all processes hold at present

    @property
    def n(self) -> int:
        return self.share.task.n

    def exchange(
        self, state: SimulatedState | None, x: Tensor, t: int, defence: Callable[[Tensor], Tensor]
    ) -> tuple[Exchange, SimulatedState]:
        known = state is not None and state is self.last
        what = _BEGIN if state is None else _GO_ON if known else _RESTORE
        try:
            announce(self.link, Announcement(what, self.run, t))
            heard, calls, bits, memory = _round(self.share, what, x, t, state)
        except RuntimeError as error:
            raise ByzoptError(f"All worker processes should answer. Found: {error}. Run it again.") from error
        attack = self.adversary.start(x) if state is None else state.attack
        generator = stream(self.seed, "attack", t, device=x.device)
        assert heard is not None  # this is rank 0
        rows, attack = self.adversary.speak(attack, t, x, heard, generator, defence)
        worker, wire = memory
        self.last = SimulatedState(worker, wire, attack)
        return Exchange(rows, calls, bits), self.last


def serve(link: Link, shares: Sequence[Share]) -> None:
    """What ranks other than 0 do: play their workers of each run in the rounds that rank 0 announces."""
    while True:
        told = announce(link, Announcement(_STOP, 0, 0))
        if told.what == _STOP:
            return
        share = shares[told.run]
        _round(share, told.what, torch.empty_like(share.task.start()), told.t, None)


def announce(link: Link, own: Announcement | None = None) -> Announcement:
    """Rank 0's announcement; without one, that all is over."""
    told = torch.tensor(own or Announcement(_STOP, 0, 0), dtype=torch.int64)
    return Announcement(*link.from_first(told).tolist())


def _round(
    share: Share, what: int, x: Tensor, t: int, state: SimulatedState | None
) -> tuple[Tensor | None, int, float, Any]:
    """A round as all processes make it: take the point, play, give rows and memories to rank 0."""
    x = share.link.from_first(x).to(x.device)
    if what == _RESTORE:
        share.restore(None if state is None else (state.worker, state.wire))
    rows, calls, bits = share.play(what, x, t)
    return share.gathered(rows), calls, bits, share.remembered()


def _leaves(state: Any) -> list[Tensor]:
    found: list[Tensor] = []
    _mapped(state, lambda own: True, lambda own: found.append(own) or own)  # type: ignore[func-returns-value]
    return found


def _mapped(state: Any, chosen: Callable[[Tensor], bool], change: Callable[[Tensor], Any]) -> Any:
    """`state` with every tensor that is `chosen` changed."""
    if isinstance(state, tuple):
        parts = [_mapped(part, chosen, change) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
    return change(state) if isinstance(state, Tensor) and chosen(state) else state
