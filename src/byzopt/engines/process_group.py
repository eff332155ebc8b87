"""The engine over processes: rank 0 is the server and plays some workers, the other ranks play the rest.

A simulated adversary must see the honest rows before it forges its own, so all workers' vectors are
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

from byzopt.attacks import Adversary
from byzopt.distributed.communicator import Communicator
from byzopt.engines.absence import played
from byzopt.engines.base import EngineRecipe
from byzopt.engines.simulated import GradientCount, Simulated, SimulatedState
from byzopt.errors import ByzoptError, require
from byzopt.methods import Method
from byzopt.methods.base import EVERYBODY
from byzopt.states import map_leaves
from byzopt.tasks import Task
from byzopt.workers import Estimator, Participants

_STOP, _BEGIN, _GO_ON, _RESTORE = range(4)  # what rank 0 announces


class Announcement(NamedTuple):
    """What a round is about: what to do, in which of several runs, in which round."""

    what: int
    run: int
    t: int


OVER = Announcement(_STOP, 0, 0)


class WorkerShare:
    """The workers that one process plays, and what they remember."""

    def __init__(
        self,
        task: Task,
        worker: Estimator,
        seed: int,
        comm: Communicator,
        participants: Participants = EVERYBODY,
    ) -> None:
        require(comm.n <= task.n, "The number of processes", f"be at most n = {task.n}", comm.n)
        self.task, self.worker, self.seed, self.comm = task, worker, seed, comm
        self.participants = participants
        self.width = -(-task.n // comm.n)
        start = min(comm.rank * self.width, task.n)
        self.mine = slice(start, min(start + self.width, task.n))
        self.state: Any = None
        self.whole: Any = None  # on rank 0: the state of all workers that all processes hold at present

    def play(self, what: int, w: Tensor, t: int) -> tuple[Tensor, float]:
        """These workers' vectors `[k, d]`, and gradients taken per worker."""
        count, present = GradientCount(), self.participants.mask(self.seed, t, self.task.n)
        oracle = count.oracle(self.task, t, self.seed, self.mine, self.worker.samples, present)
        vectors, self.state = played(self.worker, self.state, what == _BEGIN, w, oracle, oracle.present)
        return vectors, count.gradients

    def gather(self, rows: Tensor) -> Tensor | None:
        """All workers' rows on rank 0, from those of every process."""
        short = self.width - len(rows)
        wide = torch.cat([rows, rows.new_zeros(short, *rows.shape[1:])]) if short else rows
        whole = self.comm.gather(wide)
        return None if whole is None else whole.flatten(0, 1)[: self.task.n].to(rows.device)

    def gather_state(self) -> Any:
        """All workers' state on rank 0, in the structure of one process's."""
        return _map_tensors(lambda part: self.gather(part) if self._of_rows(part) else part, self.state)

    def restore(self, whole: Any | None) -> None:
        """Take these workers' part of rank 0's `whole` state."""
        parts = iter([] if whole is None else _tensors(whole))

        def taken(part: Tensor) -> Tensor:
            by_worker = self._of_rows(part)
            blank = part.new_empty(self.task.n, *part.shape[1:]) if by_worker else part
            sent = self.comm.broadcast(next(parts, blank)).to(part.device)
            return sent[self.mine] if by_worker else sent

        self.state = _map_tensors(taken, self.state)

    def _of_rows(self, part: Tensor) -> bool:
        return part.ndim > 0 and len(part) == self.mine.stop - self.mine.start


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
            vectors, gradients, share.whole = _round(
                share, what, w, t, None if state is None else state.worker
            )
        except RuntimeError as error:
            raise ByzoptError(f"All worker processes should answer. Found: {error}. Run it again.") from error
        assert vectors is not None  # this is rank 0
        return vectors, share.whole, gradients


@dataclass(frozen=True)
class OverProcesses(EngineRecipe):
    """The simulated engine with its workers in the processes that `comm` leads to, which are in `serve`;
    `run` is the run's number among those that they play. No name leads to it: a communicator cannot be
    written down."""

    comm: Communicator
    run: int

    def build(self, task: Task, method: Method, adversary: Adversary, seed: int) -> ProcessGroup:
        share = WorkerShare(task, method.worker, seed, self.comm, method.participants)
        parts = (task, method.worker, method.wire, adversary, seed, method.down, method.participants)
        return ProcessGroup(*parts, share, self.run)


def serve(comm: Communicator, shares: Sequence[WorkerShare]) -> None:
    """What ranks other than 0 do: play their workers of each run in the rounds that rank 0 announces."""
    while True:
        announced = announce(comm)
        if announced.what == _STOP:
            return
        share = shares[announced.run]
        _round(share, announced.what, torch.empty_like(share.task.start()), announced.t, None)


def announce(comm: Communicator, announcement: Announcement = OVER) -> Announcement:
    """Rank 0's announcement, on every rank; on the others the argument does not count."""
    numbers = torch.tensor(announcement, dtype=torch.int64, device="cpu")
    return Announcement(*comm.broadcast(numbers).tolist())


def _round(
    share: WorkerShare, what: int, w: Tensor, t: int, memory: Any | None
) -> tuple[Tensor | None, float, Any]:
    """A round as all processes make it: take the point, play, give rows and memories to rank 0."""
    w = share.comm.broadcast(w).to(w.device)
    if what == _RESTORE:
        share.restore(memory)
    vectors, gradients = share.play(what, w, t)
    return share.gather(vectors), gradients, share.gather_state()


def _map_tensors(change: Callable[[Tensor], Any], state: Any) -> Any:
    return map_leaves(lambda leaf: change(leaf) if isinstance(leaf, Tensor) else leaf, state)


def _tensors(state: Any) -> list[Tensor]:
    """The tensors of a state, in order."""
    tensors: list[Tensor] = []
    _map_tensors(tensors.append, state)
    return tensors
