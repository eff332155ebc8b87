"""A spec over processes: spawned on this machine, or those that torchrun has started already.

python -m byzopt.experiments.trials.processes PORT RANK RANKS < spec.json  # how a process is spawned
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch exports it without a word

from byzopt.attacks import Adversary
from byzopt.distributed.communicator import Communicator
from byzopt.engines.process_group import WorkerShare, announce, serve
from byzopt.errors import require, said
from byzopt.experiments.specs.spec import Spec
from byzopt.experiments.trials.memory import build_task, check_processes

HERE = "127.0.0.1"
PATIENCE = timedelta(seconds=60)  # until a process that does not find rank 0 gives up


@contextmanager
def worker_processes(spec: Spec, count: int | None = None) -> Iterator[Communicator | None]:
    """The link of `count` processes (default: one for each worker) to rank 0, while they serve `spec`.

    Under torchrun they are the ranks that it started; there the others get None, when all is over.
    """
    ranks = [variant.n for variant in spec.variants().values()]
    count = _launched_ranks() if under_torchrun() else count or min(ranks)
    require(1 <= count <= min(ranks), "The number of processes", f"lie in 1..n = {min(ranks)}", count)
    check_processes(spec, 1 if under_torchrun() else count)
    meeting = None if under_torchrun() else _meeting(count)
    children = [_start(spec, meeting.port, rank, count) for rank in range(1, count)] if meeting else []
    try:
        comm = _joined(meeting, 0, count)
        if comm.rank:
            serve(comm, worker_shares(spec, comm))
            yield None
        else:
            try:
                yield comm
            finally:
                with suppress(RuntimeError):  # a process that is gone has been told of already
                    announce(comm)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        for child in children:
            _end(child)


def under_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def _launched_ranks() -> int:
    for name in ("RANK", "WORLD_SIZE"):
        text = os.environ[name]
        require(text.isascii() and text.isdigit(), f"{name}, as torchrun sets it,", "be a number", said(text))
    return int(os.environ["WORLD_SIZE"])


def worker_shares(spec: Spec, comm: Communicator) -> list[WorkerShare]:
    """This process's workers in every variant of the spec, in order."""
    found = []
    for variant in spec.variants().values():
        adversary = Adversary(variant.attack, variant.cohort, variant.f)
        task = adversary.poison(build_task(variant))
        method = variant.built()
        found.append(WorkerShare(task, method.worker, variant.seed, comm, method.participants))
    return found


def _meeting(count: int) -> TCPStore:
    """Where the processes meet: a port that only this machine reaches, and that is gone with this process,
    however it ends. A file would stay behind."""
    with socket.socket() as listening:
        listening.bind((HERE, 0))
        listening.listen(count)
        port, handle = listening.getsockname()[1], listening.detach()
    return TCPStore(HERE, port, count, True, wait_for_workers=False, master_listen_fd=handle)


def _joined(meeting: TCPStore | None, rank: int, count: int) -> Communicator:
    if meeting is None:
        dist.init_process_group("gloo")
    else:
        dist.init_process_group("gloo", store=meeting, rank=rank, world_size=count)
    return Communicator()


def _start(spec: Spec, port: int, rank: int, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "byzopt.experiments.trials.processes", *map(str, (port, rank, count))]
    # A session of its own: an interrupt from the terminal is for rank 0, which stops in good order.
    child = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)
    assert child.stdin is not None
    with child.stdin:
        child.stdin.write(json.dumps(spec.data))
    return child


def _end(child: subprocess.Popen[str]) -> None:
    try:
        child.wait(timeout=10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def main() -> None:
    """One spawned process: reads the spec, joins, plays its workers until rank 0 is done."""
    port, rank, count = map(int, sys.argv[1:])
    spec = Spec.of(json.load(sys.stdin))
    torch.set_num_threads(1)
    try:
        comm = _joined(TCPStore(HERE, port, count, False, timeout=PATIENCE), rank, count)
    except RuntimeError:
        sys.exit(1)
    try:
        serve(comm, worker_shares(spec, comm))
    except RuntimeError:
        sys.exit(1)  # rank 0 is gone; it has said why
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
