"""An asynchronous server over a process group: rank 0 hears the others one at a time, whoever is first.

Worker i is rank i + 1. Points and rows cross by the authenticated connections of `deadline.network`, as bytes
of a fixed length; nobody waits for anybody but the server for the next row. A worker that is dead, stopped
or silent costs its rows and nothing else, as far as the intake does without them. A row answers a job: one
that nobody asked for is dropped and counted, so that a worker cannot send faster than it is asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from threading import Condition
from time import monotonic
from typing import Any, NamedTuple

import torch
from torch import Tensor

from byzopt.distributed.communicator import Communicator
from byzopt.distributed.deadline.network import GONE, ROW, Message, Network
from byzopt.distributed.deadline.transport import check_seconds
from byzopt.errors import TooManyFaults, require
from byzopt.intakes import Intake
from byzopt.layout import Layout
from byzopt.methods import Method
from byzopt.methods.serving import Serving
from byzopt.servers import ServerContext


class Job(NamedTuple):
    """What a worker is asked for: its row at a point.

    Args:
        x: The point, `[d]`.
        sample: On which of the task's samples, from 1: what a simulation draws for the same job.
        number: Of this worker's jobs, from 1.

    Examples:
        >>> import torch
        >>> from byzopt.distributed import Job
        >>> Job(torch.zeros(2), sample=1, number=1).sample
        1
    """

    x: Tensor
    sample: int
    number: int


class AsynchronousServer:
    """Rank 0: the server's side of a method behind an intake. A collective with the workers' construction.

    `step()` hears workers until the intake gives a step, and returns the iterate. `missing` says who is gone,
    and `unasked` how many rows were dropped that answered no job. Where `step` is given an order it hears
    workers in that order, and does to the bit what a simulation on the clock `script` does.

    Args:
        method: What workers compute and how the server steps; it sends rows as they are.
        intake: When the server takes a step, and with what.
        x0: The starting point, `[d]`, on the CPU; of one shape and dtype on all ranks.
        f: How many faulty workers the server tolerates.
        deadline: Seconds without any row after which a step is given up, > 0.
        proxy: The loss that the server owns; None: it owns none.
        patience: Rows without a step after which it is given up, once n - f workers, or all that are left,
            have each sent so many.
        seed: Of rules that draw.
        group: Process group of the ranks; None: all.

    Raises:
        InvalidInput: Parts that do not fit, and a rank other than 0.

    Examples:
        A complete program is in docs/asynchrony.md; alone in its group a server has no workers.

        >>> from byzopt.distributed import AsynchronousServer
        >>> AsynchronousServer.step.__name__
        'step'
    """

    def __init__(
        self,
        method: Method,
        intake: Intake,
        x0: Tensor,
        f: int,
        deadline: float = 60.0,
        proxy: Any = None,
        patience: int = 100,
        seed: int = 0,
        group: Any = None,
    ) -> None:
        check_seconds(deadline)
        comm = Communicator(group)
        require(comm.rank == 0, "An asynchronous server", "be rank 0", comm.rank)
        require(comm.n > 1, "An asynchronous server", "have workers, which are the other ranks", comm.n - 1)
        require(x0.ndim == 1, "The starting point", "be a vector [d]", f"shape {list(x0.shape)}")
        self.n, self.deadline, self.patience, self.proxy = comm.n - 1, deadline, patience, proxy
        self._serving = Serving(method, intake, self.n, f, seed)
        rule = getattr(method.filter, "rule", None)
        if rule is not None:
            intake.check(self.n, f, rule)
        self._state = self._serving.begin(x0.detach().cpu(), ServerContext(Layout.flat(len(x0)), proxy))
        self.missing: dict[int, str] = {}
        self.unasked = 0
        self._change, self._came = Condition(), deque[tuple[int, bytes]]()
        self._numbers, self._open = [0] * self.n, [False] * self.n
        self._length = len(_packed(x0))
        self._links = Network(comm, self._heard, self._gone, limit=max(self._length, 1))
        self._send(range(self.n))

    @property
    def x(self) -> Tensor:
        """The iterate, `[d]`."""
        return self._serving.method.step.answer(self._state.step)

    @property
    def t(self) -> int:
        """Finished steps."""
        return self._state.t

    def report(self) -> dict[str, float]:
        """`arrivals`, `staleness`, `staleness_max`, `unsound_rows`; what step, rule and intake report; and
        `unasked_rows`."""
        return self._serving.report(self._state) | {"unasked_rows": float(self.unasked)}

    def step(self, order: Iterator[int] | None = None) -> Tensor:
        """Hear workers until the server has taken a step: the iterate after it, `[d]`.

        Args:
            order: Who is heard next, by worker number; None: whoever comes first.

        Returns:
            The iterate.

        Raises:
            TooManyFaults: The rows of a step hold more faulty ones than the rule tolerates, or the intake
                gives no step: nothing comes for `deadline` seconds but from workers that have each sent
                `patience` rows, or too many workers have.
        """
        end = monotonic() + self.deadline
        while True:
            worker, row = self._next(None if order is None else next(order))
            if self._state.since[worker] < self.patience:
                end = monotonic() + self.deadline
            spent = monotonic() >= end
            self._state, g, restart = self._serving.hear(self._state, worker, row, self.proxy)
            self._send(range(self.n) if restart else (worker,))
            if g is not None:
                return self.x
            if spent or self._serving.held_up(self._state, self.patience, len(self.missing)):
                raise self._stalled(f"{sum(self._state.since)} rows without one")

    def close(self) -> None:
        """Tell the workers that it is over. What is on its way still leaves, within the deadline."""
        for rank in range(1, self.n + 1):
            self._links.send(rank, Message(GONE, 0))
        self._links.close(self.deadline)

    def _send(self, workers: Any) -> None:
        """Send the present point to workers, as a job each."""
        here = [i for i in workers if i not in self.missing]
        self._state = self._serving.send(self._state, here)
        payload = _packed(self._serving.x(self._state))
        with self._change:
            for i in here:
                self._numbers[i] += 1
                self._open[i] = True
            if here:  # answers to what these workers were at before are no answers any more
                self._came = deque(one for one in self._came if one[0] not in here)
        for i in here:
            sample = self._state.samples[i]
            self._links.send(i + 1, Message(ROW, self._numbers[i], sample, payload=payload))

    def _next(self, wanted: int | None) -> tuple[int, Tensor]:
        """The next worker, or the one that is wanted, and its row."""
        end = monotonic() + self.deadline
        with self._change:
            while True:
                for place, (worker, payload) in enumerate(self._came):
                    if wanted is None or worker == wanted:
                        del self._came[place]
                        return worker, self._read(payload)
                left = end - monotonic()
                if left <= 0 or len(self.missing) == self.n or wanted in self.missing:
                    raise self._stalled(f"no row within {self.deadline:g} s" if left <= 0 else "nobody left")
                self._change.wait(left)

    def _read(self, payload: bytes) -> Tensor:
        """A worker's row; NaN, which is its fault, where it is not of the right length."""
        x = self._serving.x(self._state)
        if len(payload) != self._length:
            return torch.full_like(x, torch.nan)
        return torch.frombuffer(bytearray(payload), dtype=x.dtype)

    def _stalled(self, found: str) -> TooManyFaults:
        intake, gone = self._serving.intake.name, sorted(self.missing)
        silent = [i for i in range(self.n) if self._open[i] and i not in self.missing]
        return TooManyFaults(
            f"Intake {intake!r} should give step {self.t + 1}. Found {found}; gone are workers {gone}, and "
            f"{silent} have not answered. Let it need fewer workers, or wait longer.",
            (*gone, *silent),
        )

    def _heard(self, rank: int, message: Message) -> None:
        worker = rank - 1
        with self._change:
            asked = message.kind == ROW and message.serial == self._numbers[worker] and self._open[worker]
            if not asked:
                self.unasked += 1
                return
            self._open[worker] = False
            self._came.append((worker, bytes(message.payload)))
            self._change.notify_all()

    def _gone(self, rank: int) -> None:
        with self._change:
            self.missing[rank - 1] = "It is gone."
            self._change.notify_all()


class AsynchronousWorker:
    """Rank i + 1, which is worker i: iterate over it for jobs, and answer each.

    An intake that calls workers back (`throttle`) gives up jobs that a worker may have begun: what its script
    remembers of them, momentum for instance, is then not what a simulation remembers.

    Args:
        x0: The starting point, `[d]`, of one shape and dtype on all ranks.
        group: Process group of the ranks; None: all.

    Raises:
        InvalidInput: Rank 0, which is the server.

    Examples:
        >>> from byzopt.distributed import AsynchronousWorker
        >>> AsynchronousWorker.answer.__name__
        'answer'
    """

    def __init__(self, x0: Tensor, group: Any = None) -> None:
        comm = Communicator(group)
        require(comm.rank > 0, "An asynchronous worker", "be a rank above 0", comm.rank)
        self.worker, self.dtype = comm.rank - 1, x0.dtype
        self._change, self._jobs, self._over = Condition(), deque[Message](), False
        self._length = len(_packed(x0))
        self._links = Network(comm, self._heard, self._gone, limit=max(self._length, 1))

    def __iter__(self) -> Iterator[Job]:
        """Jobs, until the server says that it is over or is gone. Of several that wait the last is taken."""
        while True:
            with self._change:
                while not self._jobs and not self._over:
                    self._change.wait()
                if self._over:
                    return
                message = self._jobs.pop()
                self._jobs.clear()
            x = torch.frombuffer(bytearray(message.payload), dtype=self.dtype)
            yield Job(x, message.a, message.serial)

    def answer(self, job: Job, row: Tensor) -> None:
        """Send the row `[d]` of a job.

        Args:
            job: Which is answered.
            row: The answer, `[d]`, of the points' dtype.
        """
        self._links.send(0, Message(ROW, job.number, payload=_packed(row.to(self.dtype))))

    def close(self, patience: float = 5.0) -> None:
        """Close the connections, once what is on its way has left.

        Args:
            patience: Seconds for that.
        """
        self._links.close(patience)

    def _heard(self, rank: int, message: Message) -> None:
        if rank:
            return  # workers have nothing to say to one another
        with self._change:
            if message.kind == GONE:
                self._over = True
            elif message.kind == ROW and len(message.payload) == self._length:
                self._jobs.append(message)
            self._change.notify_all()

    def _gone(self, rank: int) -> None:
        with self._change:
            self._over = self._over or rank == 0
            self._change.notify_all()


def _packed(row: Tensor) -> bytes:
    """A row's bytes, in the order of this machine."""
    return row.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
