"""An asynchronous server over processes: to the bit what a simulation gives in a written order of arrivals,
and who dies, is silent or lies about the length of a row."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable
from datetime import timedelta
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from byzopt.aggregators import rule_from
from byzopt.attacks import Adversary, BitFlip
from byzopt.clocks import Script
from byzopt.cohort import Cohort
from byzopt.distributed import AsynchronousServer, AsynchronousWorker
from byzopt.distributed.deadline.network import ROW, Message
from byzopt.engines import Asynchrony, OnClock, rounds_on_clock
from byzopt.errors import InvalidInput, TooManyFaults
from byzopt.intakes import BASGD, FedBuff, Intake, Kardam, Latest, Throttle, Unique
from byzopt.methods import RobustGD, RobustSGDM
from byzopt.tasks import Quadratic, Task
from tests.ranks import play_ranks

WORKERS, LIAR, STEPS, LR, SEED = 5, 4, 12, 0.1, 0
ORDER = (0, 1, 0, 2, 4, 4, 3, 1, 0, 4, 2)  # who is heard; from its start again
INTAKES: dict[str, tuple[Intake, str]] = {
    "unique": (Unique(size=3), "median"),
    "fed_buff": (FedBuff(size=4, repeats=True), "median"),
    "latest": (Latest(), "trimmed_mean"),
    "basgd": (BASGD(boxes=3), "median"),
    "kardam": (Kardam(), "mean"),
    "throttle": (Throttle(radius=0.5, bound=2.0, q=3.0), "mean"),
}


def order_of(name: str) -> tuple[int, ...]:
    """Where workers are called back a script's times are those of workers in turn alone."""
    return tuple(range(WORKERS)) if name == "throttle" else ORDER


def task_of() -> Task:
    return Quadratic(d=6, noise=0.5).build(Cohort.of(WORKERS, [LIAR]), SEED)


def eta_of(name: str) -> float:
    """The weight of new gradients. Workers who are called back may have begun what is given up, which moves a
    memory of theirs, so that there they have none."""
    return 1.0 if name == "throttle" else 0.5


def method_of(name: str) -> Any:
    return RobustSGDM(eta=eta_of(name)).build(rule_from(INTAKES[name][1], f=1), LR)


def rank_of(rank: int, name: str) -> list[Tensor]:
    """The server, an honest worker with momentum, or the liar, which sends it reversed."""
    intake, eta = INTAKES[name][0], eta_of(name)
    task = task_of()
    if rank == 0:
        server = AsynchronousServer(method_of(name), intake, task.start(), f=1, deadline=30.0)
        order = cycle(order_of(name))
        path = [server.step(order).clone() for _ in range(STEPS)]
        server.close()
        return path
    worker = AsynchronousWorker(task.start())
    i, v = worker.worker, torch.zeros(6, dtype=torch.float64)
    for job in worker:
        g = task.grads_at(job.x[None], task.draw(job.sample), slice(i, i + 1))[0]
        v = (v * (1 - eta)).add_(g, alpha=eta)
        worker.answer(job, -v if i == LIAR else v)
    worker.close()
    return []


@pytest.mark.slow
@pytest.mark.parametrize("name", INTAKES)
def test_ranks_heard_in_a_written_order_equal_the_simulation_to_the_bit(name: str) -> None:
    found = play_ranks(WORKERS + 1, rank_of, name)[0]
    intake = INTAKES[name][0]
    task = task_of()
    adversary = Adversary(BitFlip(), task.cohort, 1)
    clock = Script(order=order_of(name))
    run = OnClock(task, method_of(name), Asynchrony(clock, intake), adversary, 1, SEED)
    for t, snapshot in enumerate(rounds_on_clock(run, run.begin(), STEPS)):
        assert torch.equal(found[t], snapshot.x), t


# Who dies, is silent, or sends what is no row.


def faulty(rank: int, deadline: float) -> Any:
    """Worker 0 kills itself in its third job, worker 1 never answers, worker 2 sends short rows and rows that
    nobody asked for, worker 7 bytes that are no message; four are sound."""
    x0 = torch.ones(3, dtype=torch.float64)
    if rank == 0:
        method = RobustGD().build(rule_from("median", f=1), 0.2)
        server = AsynchronousServer(method, Unique(size=4), x0, f=1, deadline=deadline)
        path = [server.step() for _ in range(30)]
        end = {"x": path[-1], "missing": dict(server.missing), "report": server.report()}
        server.close()
        return end
    worker = AsynchronousWorker(x0)
    for job in worker:
        if (worker.worker, job.number) == (0, 3):
            os.kill(os.getpid(), signal.SIGKILL)
        if worker.worker == 1:
            continue
        if worker.worker == 2:
            worker._links.send(0, Message(ROW, job.number + 7, payload=b"12345678"))
            worker._links.send(0, Message(ROW, job.number, payload=b"1234"))
            continue
        if worker.worker == 7:
            worker._links._links[0].send_bytes(b"\xff" * 37)
            continue
        worker.answer(job, job.x)
    worker.close()
    return {}


def alone(rank: int, deadline: float) -> Any:
    """Nobody answers."""
    x0 = torch.ones(3, dtype=torch.float64)
    if rank:
        worker = AsynchronousWorker(x0)
        for _ in worker:
            pass
        worker.close()
        return {}
    method = RobustGD().build(rule_from("median", f=0), 0.2)
    server = AsynchronousServer(method, Unique(size=1), x0, f=0, deadline=deadline)
    with pytest.raises(TooManyFaults, match="no row within") as told:
        server.step()
    server.close()
    return list(told.value.rows)


def start(rank: int, n: int, place: str, play: Callable[..., Any], deadline: float) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(Path(place, "store")), n)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=n, timeout=timedelta(seconds=60))
    torch.save(play(rank, deadline), Path(place, f"{rank}.pt"))
    os._exit(0)  # a barrier would wait for the dead


def served(n: int, play: Callable[..., Any], deadline: float) -> tuple[list[int | None], Any]:
    with tempfile.TemporaryDirectory() as place:
        context = mp.get_context("fork")
        ranks = [context.Process(target=start, args=(rank, n, place, play, deadline)) for rank in range(n)]
        for one in ranks:
            one.start()
        for one in ranks:
            one.join(60)
        codes = [one.exitcode for one in ranks]
        return codes, torch.load(Path(place, "0.pt"), weights_only=False)


@pytest.mark.slow
def test_a_killed_a_silent_and_a_malformed_worker_cost_their_rows_only() -> None:
    """Nothing here depends on the clock: the deadline is for the case that nobody answers."""
    codes, end = served(9, faulty, 60.0)
    assert codes == [0, -signal.SIGKILL, *[0] * 7]
    assert set(end["missing"]) <= {0, 7}
    assert end["report"]["unasked_rows"] > 0
    assert end["report"]["unsound_rows"] > 0
    # Sound rows are the points themselves: each is between 0 and the start, so steps shrink x.
    assert 0 < float(end["x"].max()) < 0.2


@pytest.mark.slow
def test_where_nobody_answers_the_server_says_so() -> None:
    codes, silent = served(3, alone, 1.0)
    assert codes == [0, 0, 0]
    assert silent == [0, 1]


def single(rank: int) -> list[str]:
    """What is refused before any connection is made."""
    method, x0, told = RobustGD().build(rule_from("median", f=0), 0.1), torch.ones(2), []
    for make in (
        lambda: AsynchronousServer(method, Unique(), x0, 0),
        lambda: AsynchronousServer(method, Unique(), x0, 0, deadline=0.0),
        lambda: AsynchronousWorker(x0),
    ):
        with pytest.raises(InvalidInput) as error:
            make()
        told.append(str(error.value))
    return told


def test_what_cannot_serve_is_refused() -> None:
    told = play_ranks(1, single)[0]
    assert "have workers" in told[0]
    assert "deadline" in told[1]
    assert "above 0" in told[2]
