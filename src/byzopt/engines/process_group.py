"""The engine over processes: rank 0 is the server and plays some workers, the other ranks play the rest.

A simulated adversary must see the honest rows before it forges its own, so what workers want to say is
gathered at rank 0, which is trusted; both ends of the channel are there. Each process draws what all workers
draw and takes its own rows, so that the iterates are those of the simulated engine: to the last bit where a
task takes all gradients at once anyway, to rounding where a process takes those of its own workers alone
(modules: 1e-12 in float64).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from byzopt.distributed.communicator import Communicator
from byzopt.engines.simulated import GradientCount, Simulated, SimulatedState
from byzopt.errors import ByzoptError, require
from byzopt.tasks import Task
from byzopt.workers import Estimator

_STOP, _BEGIN, _GO_ON, _RESTORE = range(4)  # what rank 0 announces


class Announcement(NamedTuple):
    """What a round is about: what to do, in which of several runs, in which round."""

    what: int
    run: int
    t: int


class WorkerShare:
    """The workers that one process plays, and what they remember."""

    def __init__(self, task: Task, worker: Estimator, seed: int, comm: Communicator) -> None:
        require(comm.n <= task.n, "The number of processes", f"be at most n = {task.n}", comm.n)
        self.task, self.worker, self.seed, self.comm = task, worker, seed, comm
        self.width = -(-task.n // comm.n)
        start = min(comm.rank * self.width, task.n)
        self.mine = slice(start, min(start + self.width, task.n))
        self.state: Any = None
        self.whole: Any = None  # on rank 0: the state of all workers that all processes hold at present

    def play(self, what: int, w: Tensor, t: int) -> tuple[Tensor, float]:
        """What these workers want to say `[k, d]`, and gradients taken per worker."""
        count = GradientCount()
        oracle = count.oracle(self.task, t, self.seed, self.mine)
        if what == _BEGIN:
            said, self.state = self.worker.init(w, oracle)
        else:
            said, self.state = self.worker.step(self.state, w, oracle)
        return said, count.gradients

    def gathered(self, rows: Tensor) -> Tensor | None:
        """All workers' rows on rank 0, from those of every process."""
        short = self.width - len(rows)
        wide = torch.cat([rows, rows.new_zeros(short, *rows.shape[1:])]) if short else rows
        whole = self.comm.gather(wide)
        return None if whole is None else whole.flatten(0, 1)[: self.task.n].to(rows.device)

    def remembered(self) -> Any:
        """All workers' state on rank 0, in the structure of one process's."""
        return _mapped(self.state, self._of_rows, lambda own: self.gathered(own))

    def restore(self, whole: Any | None) -> None:
        """Take these workers' part of rank 0's `whole` state."""
        parts = iter([] if whole is None else _leaves(whole))

        def taken(own: Tensor) -> Tensor:
            blank = own.new_empty(self.task.n, *own.shape[1:]) if self._of_rows(own) else own
            sent = self.comm.broadcast(next(parts, blank)).to(own.device)
            return sent[self.mine] if self._of_rows(own) else sent

        self.state = _mapped(self.state, lambda own: True, taken)

    def _of_rows(self, own: Tensor) -> bool:
        return own.ndim > 0 and len(own) == self.mine.stop - self.mine.start


@dataclass(frozen=True)
class ProcessGroup(Simulated):
    """Rank 0's side, one of several runs; the other ranks are in `serve`. Use each round's state once."""

    share: WorkerShare | None = None
    run: int = 0

    def play(self, state: SimulatedState | None, w: Tensor, t: int) -> tuple[Tensor, Any, float]:
        share = self.share
        assert share is not None  # a default is needed only because those before it have some
        known = state is not None and state.worker is share.whole
        what = _BEGIN if state is None else _GO_ON if known else _RESTORE
        try:
            announce(share.comm, Announcement(what, self.run, t))
            said, gradients, share.whole = _round(share, what, w, t, None if state is None else state.worker)
        except RuntimeError as error:
            raise ByzoptError(f"All worker processes should answer. Found: {error}. Run it again.") from error
        assert said is not None  # this is rank 0
        return said, share.whole, gradients


def serve(comm: Communicator, shares: Sequence[WorkerShare]) -> None:
    """What ranks other than 0 do: play their workers of each run in the rounds that rank 0 announces."""
    while True:
        told = announce(comm, Announcement(_STOP, 0, 0))
        if told.what == _STOP:
            return
        share = shares[told.run]
        _round(share, told.what, torch.empty_like(share.task.start()), told.t, None)


def announce(comm: Communicator, own: Announcement | None = None) -> Announcement:
    """Rank 0's announcement; without one, that all is over."""
    told = torch.tensor(own or Announcement(_STOP, 0, 0), dtype=torch.int64, device="cpu")
    return Announcement(*comm.broadcast(told).tolist())


def _round(
    share: WorkerShare, what: int, w: Tensor, t: int, memory: Any | None
) -> tuple[Tensor | None, float, Any]:
    """A round as all processes make it: take the point, play, give rows and memories to rank 0."""
    w = share.comm.broadcast(w).to(w.device)
    if what == _RESTORE:
        share.restore(memory)
    said, gradients = share.play(what, w, t)
    return share.gathered(said), gradients, share.remembered()


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
