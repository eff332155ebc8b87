"""Local steps with a deadline: ranks that die, stop or are late count against f, and the others go on."""

from __future__ import annotations

import signal
import time
import warnings

import pytest
import torch
from torch import nn

from byzopt.distributed import LocalSteps
from byzopt.errors import InvalidInput, TooManyFaults
from tests.jobs import Job, leave_together
from tests.ranks import play_ranks

pytestmark = pytest.mark.slow  # many processes

GENEROUS = 30.0  # seconds in which no healthy rank is late, whatever the load
PASSING = 4.0  # for ranks that are stopped
EVERY = 3


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 2))


def batch(rank, t):
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(100 * rank + t))


def flat(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def trained(rank, place, rounds, deadline, pauses=(), pace=0.0, living=4):
    """The point after each exchange, the counters, and an error."""
    model = network()
    local = LocalSteps(model, EVERY, "nnm >> rfa", 1, deadline=deadline)
    optimizer, path, error, t = torch.optim.AdamW(model.parameters(), lr=1e-2), {}, None, 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while local.rounds < rounds and error is None:
            r = local.rounds + 1
            (place / f"{rank} at {r}").touch()
            while (rank, r) in dict(pauses) and not (place / dict(pauses)[rank, r]).exists():
                time.sleep(0.01)
            if (place / "woken").exists():
                time.sleep(pace)  # so that there are exchanges for one that comes back
            optimizer.zero_grad()
            model(batch(rank, t)).square().mean().backward()
            optimizer.step()
            t += 1
            try:
                if local.step():
                    path[local.rounds] = (
                        flat(model),
                        local.outer.state_dict()["state"][0]["momentum_buffer"].clone(),
                    )
            except TooManyFaults as raised:
                error = str(raised), raised.rows
    leave_together(place, rank, living)
    local.close()
    return path, local.missing, local.returned, local.dropped, error


def alike(results):
    """Whether all ranks had the same point and outer momentum after every exchange, to the bit."""
    for r in set().union(*(path for path, *_ in results.values())):
        seen = [path[r] for path, *_ in results.values() if r in path]
        assert all(torch.equal(x, seen[0][0]) and torch.equal(m, seen[0][1]) for x, m in seen), r


def beside(rank):
    """Where nobody is missing: with a deadline and without."""
    found = []
    for rule in ("nnm >> rfa", "trimmed_mean", "centered_clipping"):
        for deadline in (None, GENEROUS):
            model = network().double()
            local = LocalSteps(model, EVERY, rule, 1, deadline=deadline)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for t in range(4 * EVERY):
                optimizer.zero_grad()
                factor = torch.nan if (rank, t) == (2, 7) else 1.0
                model(batch(rank, t).double()).square().mean().mul(factor).backward()
                optimizer.step()
                local.step()
            found.append((flat(model), local.dropped, local.missing))
            local.close()
    return found


def test_without_trouble_it_is_the_plain_one():
    for found in play_ranks(4, beside):
        for plain, timed in zip(found[::2], found[1::2], strict=True):
            assert torch.allclose(plain[0], timed[0], rtol=0, atol=1e-12)  # sums in another order, float64
            assert plain[1] == timed[1] == [0, 0, 1, 0]
            assert timed[2] == [0] * 4


def test_a_killed_rank_counts_against_f_and_the_others_go_on():
    with Job(4, trained, 6, GENEROUS, {(2, 2): "never"}, 0.0, 3) as job:
        job.wait_until(2, 2)
        job.signal(2, signal.SIGKILL)
        results = job.results((0, 1, 3))
    alike(results)
    for path, missing, returned, dropped, error in results.values():
        assert (error, returned, sorted(path)) == (None, 0, [1, 2, 3, 4, 5, 6])
        assert missing == dropped == [0, 0, 5, 0]


@pytest.mark.parametrize("away", [5, 20])
def test_a_stopped_rank_makes_the_outer_steps_of_the_others_when_it_comes_back(away):
    with Job(4, trained, away + 12, PASSING, {(1, 3): "woken"}, 0.1) as job:
        job.wait_until(0, 3 + away)
        (job.path / "woken").touch()
        results = job.results(range(4))
    alike(results)
    end = away + 12
    if not any(error for *_, error in results.values()):  # a loaded machine may make healthy ranks late
        assert all(max(path) >= end for path, *_ in results.values())
        assert results[0][1][1] >= 1


def test_with_more_gone_than_the_rule_tolerates_all_that_live_say_so():
    pauses = {(1, 2): "never", (4, 3): "never"}
    with Job(5, trained, 8, GENEROUS, pauses, 0.0, 3) as job:
        for victim, t in ((1, 2), (4, 3)):
            job.wait_until(victim, t)
            job.signal(victim, signal.SIGKILL)
        results = job.results((0, 2, 3))
    alike(results)
    for *_, (message, blamed) in results.values():
        assert {1, 4} <= set(blamed)
        assert "gone" in message


def refused(rank):
    found = []
    for settings in ({"deadline": 0.0}, {"deadline": 1.0 + rank}, {"deadline": GENEROUS}):
        norm = settings["deadline"] == GENEROUS
        try:
            LocalSteps(nn.BatchNorm1d(3) if norm else network(), 2, "median", 1, **settings)
        except InvalidInput as error:
            found.append(str(error))
    return found


def test_what_cannot_work_is_refused_on_all_ranks():
    results = play_ranks(3, refused)
    for zero, differs, buffers in results:
        assert "deadline" in zero
        assert "their deadlines" in differs
        assert "Say buffers='local'" in buffers
        assert [zero, differs, buffers] == results[0]
