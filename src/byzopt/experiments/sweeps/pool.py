"""Worker processes on this machine. When one dies, only the last rounds of its own batch are lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from time import sleep
from typing import Any

from byzopt.errors import ByzoptError, ChangedFile, InvalidInput
from byzopt.experiments.store.run_store import RunStore, Unwritable
from byzopt.experiments.sweeps.batch_runner import BatchStatus, OnEvent
from byzopt.experiments.sweeps.batches import RunBatch
from byzopt.experiments.sweeps.queue import BatchQueue
from byzopt.experiments.sweeps.run_batch import run_batch
from byzopt.waiting import WAITING

WAIT = 0.2  # seconds until signals are looked at again


def run_local(
    batches: Sequence[RunBatch],
    store: RunStore,
    tell: OnEvent,
    stopped: Callable[[], bool],
    every: float | None,
    jobs: int,
    threads: int,
) -> None:
    """Play all batches in `jobs` processes of `threads` threads each, or in this one if `jobs` is 0.

    Returns when all is done, or soon after `stopped()`. Errors: `Unwritable`.
    """
    work = BatchQueue(batches, store, tell)
    if jobs == 0:
        _here(work, store, tell, stopped, every, threads)
        return
    with _quiet(threads):
        apart = len({batch.id for batch in batches})  # what stands in the queue twice is one batch
        workers = [_Worker(store, every, threads) for _ in range(max(1, min(jobs, apart)))]
    try:
        _drive(work, workers, tell, stopped)
    finally:
        for worker in workers:
            worker.close(tell)


def _here(
    work: BatchQueue,
    store: RunStore,
    tell: OnEvent,
    stopped: Callable[[], bool],
    every: float | None,
    threads: int,
) -> None:
    while work.left and not stopped():
        batch = work.next()
        if batch is None:
            sleep(WAIT)
        else:
            work.ended(batch, run_batch(batch, store, tell, stopped, every, threads))


def _drive(work: BatchQueue, workers: list[_Worker], tell: OnEvent, stopped: Callable[[], bool]) -> None:
    while work.left:
        if stopped():
            return
        for worker in workers:
            if worker.batch is None and (batch := work.next()) is not None:
                worker.give(batch)
        ready = connection.wait([worker.pipe for worker in workers], WAIT)
        for worker in [worker for worker in workers if worker.pipe in ready]:
            worker.hear(work, tell)


class _Worker:
    """A process, what it is doing, and the pipe to it."""

    def __init__(self, store: RunStore, every: float | None, threads: int) -> None:
        self.store, self.every, self.threads = store, every, threads
        self.batch: RunBatch | None = None
        self._start()

    def _start(self) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_work, args=(theirs, self.store.root, self.every, self.threads), daemon=True
        )
        self.process.start()
        theirs.close()

    def give(self, batch: RunBatch) -> None:
        self.batch = batch
        with suppress(OSError):  # it has died: its pipe will say so
            self.pipe.send(batch)

    def hear(self, work: BatchQueue, tell: OnEvent) -> None:
        """Take in one message, or the process's death."""
        try:
            kind, content = self.pipe.recv()
        except (EOFError, OSError):
            self._died(work)
            return
        if kind == "refused":
            raise Unwritable(content)
        if kind == "changed":
            raise ChangedFile(f"{content} What has ended is stored.")
        if kind != "played":
            tell(kind, content)
        elif self.batch is not None:
            batch, self.batch = self.batch, None
            work.ended(batch, BatchStatus(content))

    def close(self, tell: OnEvent) -> None:
        """Let it keep its checkpoint and go; what it still says is heard."""
        with suppress(OSError, EOFError):
            self.pipe.send(None)
            while True:
                kind, content = self.pipe.recv()
                if kind in ("ended", "doubt"):
                    tell(kind, content)
        self.process.join()
        self.pipe.close()

    def _died(self, work: BatchQueue) -> None:
        self.process.join()
        reason = _reason(self.process.exitcode)
        batch, self.batch = self.batch, None
        if batch is None:
            raise ByzoptError(f"A worker process should start. Found that it died: {reason}.")
        work.crashed(batch, reason)
        self.pipe.close()
        with _quiet(self.threads):
            self._start()


def _work(pipe: Connection, root: Path, every: float | None, threads: int) -> None:
    """What a worker process does: batches, until it hears None or its parent is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent, who gets them too, says when to stop
    store = RunStore(root)

    def tell(kind: str, content: Any) -> None:
        with suppress(OSError):  # the parent is gone: poll() will say so
            pipe.send((kind, content))

    try:
        while True:
            try:
                batch = pipe.recv()
            except InvalidInput as error:  # a file with parts of a run was edited since the sweep began
                tell("changed", str(error))
                continue
            if batch is None:
                return
            try:
                tell("played", str(run_batch(batch, store, tell, pipe.poll, every, threads)))
            except Unwritable as error:
                tell("refused", str(error))
    except (EOFError, OSError):
        return


def _reason(code: int | None) -> str:
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit status {code}"


@contextmanager
def _quiet(threads: int) -> Iterator[None]:
    """The environment of a worker: threads that neither multiply nor spin for long."""
    wanted = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    wanted |= WAITING
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
