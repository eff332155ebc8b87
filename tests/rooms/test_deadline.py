"""Ranks that die, stop or are late: real processes, killed and stopped, and what the others go on with."""

from __future__ import annotations

import random
import signal
import time
import warnings

import pytest
import torch
import torch.distributed as dist
from torch import nn

from byzopt.aggregators import rule_from
from byzopt.distributed import DeadlineTransport, RobustDM21, RobustSGD, robust_all_reduce
from byzopt.distributed.deadline import Behind
from byzopt.distributed.deadline import inbox as inboxes
from byzopt.distributed.deadline import transport as transports
from byzopt.errors import InvalidInput, TooManyFaults
from tests.jobs import Job
from tests.ranks import play_ranks

pytestmark = pytest.mark.slow  # many processes

# The least that keeps a loaded machine from making a healthy rank late, in tests whose verdict would change.
GENEROUS = 30.0
PASSING = 5.0  # one that passes in the test, for ranks that are stopped; a healthy one is never so late


def small_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 3)).double()


def backward(model, rank, t):
    generator = torch.Generator().manual_seed(1000 * rank + t)
    inputs = torch.randn(8, 5, generator=generator, dtype=torch.float64)
    model.zero_grad()
    model(inputs).square().sum().backward()


def vector(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()]).clone()


def trained(rank, place, rounds, deadline, pauses=(), settings=None):
    """Train until `rounds` are finished, waiting at each of the `pauses` {(rank, round): file} for that file;
    the parameters after each round, who was missing, and warnings."""
    model = small_model()
    options = {"rule": "trimmed_mean", "f": 1, "momentum": 0.5} | (settings or {})
    optimizer = RobustSGD(model, 0.05, deadline=deadline, **options)
    path, missing, said = {}, {}, []
    while optimizer.rounds < rounds:
        t = optimizer.rounds + 1
        (place / f"{rank} at {t}").touch()
        while (rank, t) in dict(pauses) and not (place / dict(pauses)[rank, t]).exists():
            time.sleep(0.01)
        backward(model, rank, t)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                optimizer.step()
            except TooManyFaults as error:
                return path, missing, said, vector(model), (str(error), error.rows)
        said += [str(w.message) for w in caught]
        path[optimizer.rounds] = vector(model)
        missing[optimizer.rounds] = sorted(optimizer.malformed)
    optimizer.transport.close()
    return path, missing, said, vector(model), None


def alike(results):
    """Whether all ranks had the same parameters after every round that they saw, to the bit."""
    for t in set().union(*(path for path, *_ in results.values())):
        seen = [path[t] for path, *_ in results.values() if t in path]
        assert all(torch.equal(x, seen[0]) for x in seen), t


def test_without_trouble_it_is_the_plain_exchange():
    def plain(rank):
        model = small_model()
        optimizer = RobustSGD(model, 0.05, 0.5, rule="trimmed_mean", f=1, topology="replicated")
        for t in range(1, 6):
            backward(model, rank, t)
            optimizer.step()
        return vector(model)

    expected = play_ranks(4, plain)[0]
    with Job(4, trained, 5, GENEROUS) as job:
        results = job.results(range(4))
    alike(results)
    for _, missing, said, x, error in results.values():
        assert torch.equal(x, expected)
        assert (said, error) == ([], None)
        assert not any(missing.values())


@pytest.mark.parametrize("victim", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_rank_counts_against_f_and_the_others_go_on(victim):
    pauses = {(victim, 3): "never"}
    with Job(4, trained, 6, GENEROUS, pauses) as job:
        job.wait_until(victim, 3)
        job.signal(victim, signal.SIGKILL)
        results = job.results(set(range(4)) - {victim})
    alike(results)
    for _, missing, _, _, error in results.values():
        assert error is None
        assert missing[2] == []
        assert missing[6] == [victim]


@pytest.mark.slow
def test_a_stopped_rank_is_left_out_and_takes_the_state_of_the_others_when_it_comes_back():
    pauses = {(3, 3): "never", **{(rank, 14): "on" for rank in range(3)}}
    with Job(4, trained, 17, PASSING, pauses) as job:
        job.wait_until(3, 3)
        job.signal(3, signal.SIGSTOP)
        for rank in range(3):
            job.wait_until(rank, 14)
        (job.path / "never").touch()
        job.signal(3, signal.SIGCONT)
        job.wait_until(3, 14)  # it is back, although the others are busy with their gradients
        (job.path / "on").touch()
        results = job.results(range(4))
    alike(results)
    path, _, said, _, _ = results[3]
    assert any("Rank 3 was away from round" in text for text in said)
    for _, others, _, _, error in (results[rank] for rank in range(3)):
        assert error is None
        assert others[8] == [3]
    assert max(path) > 13


@pytest.mark.slow
def test_a_late_rank_is_missing_and_back_as_soon_as_it_keeps_step():
    pauses = {(1, 3): "late"}
    with Job(4, trained, 12, PASSING, pauses) as job:
        for rank in (0, 2, 3):
            job.wait_until(rank, 4)  # the others have gone on without it
        (job.path / "late").touch()
        results = job.results(range(4))
    alike(results)
    for rank, (_, missing, _, _, error) in results.items():
        assert error is None or rank == 1  # alone at the end it finds nobody
        assert missing.get(3, [1]) == [1]


def test_with_more_gone_than_the_rule_tolerates_all_that_live_say_so():
    pauses = {(1, 3): "never", (4, 3): "never"}
    with Job(5, trained, 8, GENEROUS, pauses) as job:
        for victim in (1, 4):
            job.wait_until(victim, 3)
            job.signal(victim, signal.SIGKILL)
        results = job.results((0, 2, 3))
    alike(results)
    for _, _, _, _, (message, blamed) in results.values():
        assert {1, 4} <= set(blamed)  # who comes later finds the others gone, too
        assert "not heard" in message or "gone" in message


def test_without_more_than_half_nobody_goes_on():
    pauses = {(rank, 2): "never" for rank in (0, 1, 2)}
    with Job(4, trained, 8, GENEROUS, pauses, {"rule": "mean", "f": None}) as job:
        for victim in (0, 1, 2):
            job.wait_until(victim, 2)
            job.signal(victim, signal.SIGKILL)
        message, blamed = job.results([3])[3][4]
    assert "More than half of 4 ranks should be alive" in message
    assert set(blamed) <= {0, 1, 2}
    assert len(blamed) >= 2


def reduced(rank, place):
    transport, found = DeadlineTransport(GENEROUS), []
    row = torch.full((6,), float(rank))
    found.append(robust_all_reduce(row, "median", group=transport))
    mistakes = {
        "list": lambda: robust_all_reduce([1.0] if rank == 2 else row, "median", group=transport),
        "rule": lambda: robust_all_reduce(row, "medain" if rank == 2 else "median", group=transport),
        "size": lambda: robust_all_reduce(row[:3] if rank == 2 else row, "median", group=transport),
    }
    for mistake in mistakes.values():
        try:
            mistake()
        except InvalidInput as error:
            found.append(str(error))
    seen = []
    nan = row * (torch.nan if rank == 1 else 1)
    found.append(robust_all_reduce(nan, "trimmed_mean", f=1, group=transport, watch=seen.append))
    found.append(seen[0].dropped)
    (place / f"{rank} here").touch()
    if rank == 3:
        while True:
            time.sleep(1)
    while not (place / "3 gone").exists():
        time.sleep(0.01)
    found.append(robust_all_reduce(row, rule_from("trimmed_mean", f=1), group=transport))
    try:
        robust_all_reduce(row, "mean", group=transport)
    except TooManyFaults as error:
        found.append((str(error), error.rows))
    transport.close()
    return found


def test_reductions_have_the_same_errors_and_drop_who_is_missing():
    with Job(4, reduced) as job:
        job.wait_for("3 here")
        job.signal(3, signal.SIGKILL)
        job.ranks[3].join()
        (job.path / "3 gone").touch()
        results = job.results(range(3))
    for first, listed, rule, size, out, dropped, after, (message, rows) in results.values():
        assert torch.equal(first, torch.full((6,), 1.5))
        assert "rank 2 unable" in listed
        assert "medain" in rule
        assert "rank 2 has [3]" in size
        assert torch.equal(out, torch.full((6,), 5 / 3, dtype=torch.float32))
        assert dropped == (1,)
        assert torch.equal(after, torch.full((6,), 1.0))
        assert rows == (3,)
        assert "Rank 3: It was gone, or not heard within" in message
        assert [listed, rule, size, message] == [*results[0][1:4], results[0][7][0]]


class Clock:
    """Time as a transport sees it: for the healthy ranks it stands still, so that none is late whatever the
    load, but for the round in which all have come but the one that sleeps. There the leader's goes on by a
    deadline, twice at most. For that one, which waits for nobody's row, it goes ten times as slow."""

    def __init__(self, rank, place):
        self.rank, self.place, self.transport = rank, place, None
        self.now, self.left = 1.0, 2 * (rank == 0)

    def __call__(self):
        if self.rank == 1:
            return time.monotonic() / 10
        box = self.transport and self.transport._inbox
        come = set(box.rows.get(box.serial + 1, {})) if box else set()
        if self.left and come == {0, 2, 3} and (self.place / "1 sleeps").exists():
            self.left -= 1
            self.now += self.transport.deadline
        self.now += 1e-6  # what happens later is later
        return self.now


def away(rank, place, numbered):
    """Reduce until rank 1, which sleeps through many rounds, counts again, or has failed three times."""
    clock = transports.monotonic = inboxes.monotonic = Clock(rank, place)
    transport, missing, errors, said, calls = DeadlineTransport(PASSING), [], [], [], 0
    clock.transport = transport
    while not (place / "end").exists():
        calls += 1
        if rank == 1 and calls == 3:
            (place / "1 sleeps").touch()
            while not (place / "1 wakes").exists():
                time.sleep(0.01)
        seen, row = [], torch.full((6,), float(rank))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                way = {"t": calls if numbered else 0}
                robust_all_reduce(row, "trimmed_mean", transport, f=1, watch=seen.append, **way)
                missing.append(1 in seen[0].dropped)
                if rank == 0 and calls > 15:
                    (place / "1 wakes").touch()
                if rank == 1 and said and not missing[-1]:
                    (place / "end").touch()
            except Behind as error:
                errors.append(str(error))
                if len(errors) == 3:
                    (place / "end").touch()
            except TooManyFaults:
                break  # the others have seen the end before
        said += [str(w.message) for w in caught if w.filename == __file__]  # they point at the script
        # The others hold rows of eight rounds. Who comes back must be scheduled once in so long, also on a
        # machine with much else to do.
        time.sleep(0.3 if rank != 1 and (place / "1 wakes").exists() else 0.02)
    transport.close()
    return missing, errors, said


@pytest.mark.parametrize("numbered", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_rank_that_was_away_for_long_counts_again_in_reductions(numbered):
    with Job(4, away, numbered) as job:
        results = job.results(range(4))
    missing, errors, said = results[1]
    if numbered:  # its rounds cannot be those of the others, whom it must not stop
        assert len(errors) == 3
        own, quick = "another rule, shape, dtype or `t`", "are not to be had"  # or the others are on already
        assert all(own in each or quick in each for each in errors)
        assert len(results[0][0]) > 15
    else:
        assert not errors
        assert "Rank 1 was away from round" in said[0]
        assert not missing[-1]
    assert not any(errors for rank, (_, errors, _) in results.items() if rank != 1)


def far_behind(rank):
    transport = DeadlineTransport(1.0)
    transport.exchange(b"first")
    dist.barrier()
    if rank < 2:
        with transport._inbox.change:
            transport._inbox.advance(5000)
    dist.barrier()
    found = None
    if rank == 2:
        try:
            transport.exchange(b"second")
        except Behind as error:
            found = str(error)
    dist.barrier()
    transport.close()
    return found


def test_a_rank_whose_round_is_long_forgotten_is_told_so():
    assert "Round 2 was decided so long ago" in play_ranks(3, far_behind)[2]


def refused(rank):
    model = small_model()
    found = []
    for make in (
        lambda: RobustSGD(model, 0.1, rule="median", deadline=0.0),
        lambda: RobustSGD(model, 0.1, rule="median", deadline="soon" if rank else 1.0),
        lambda: RobustDM21(model, 0.1, rule="median", f=0, deadline=1.0),
        lambda: RobustSGD(nn.parallel.DistributedDataParallel(model), 0.1, rule="median", deadline=1.0),
    ):
        try:
            make()
            found.append("")
        except InvalidInput as error:
            found.append(str(error))
    return found


def test_what_would_wait_for_the_dead_is_refused():
    results = play_ranks(2, refused)
    for found in results:
        assert found == results[0]
        for message, part in zip(found, ("deadline", "deadline", "whole vectors", "broadcast"), strict=True):
            assert part in message


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_killed_and_stopped_at_random_the_rest_ends_alike_or_named(seed):
    draw = random.Random(seed)
    n = draw.choice((4, 5, 7))
    with Job(n, trained, 12, 2.0, (), {"f": (n - 1) // 2}) as job:
        job.wait_until(draw.randrange(n), draw.randrange(2, 6))
        killed, stopped = draw.sample(range(n), 2)
        time.sleep(draw.random() / 2)
        job.signal(killed, signal.SIGKILL)
        job.signal(stopped, signal.SIGSTOP)
        time.sleep(draw.random() * 8)
        job.signal(stopped, signal.SIGCONT)
        results = job.results(set(range(n)) - {killed})
    alike(results)
    ends = [error for *_, error in results.values()]
    if n > 4:  # of four, two that live for a while alone may say that they are too few
        assert sum(error is None for error in ends) >= n - 2
    assert all(error is None or error[1] for error in ends)
