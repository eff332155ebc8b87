"""`harden` with a deadline: ranks that die, stop or are late, and what all go on with."""

from __future__ import annotations

import os
import random
import signal
import time
import warnings
from contextlib import nullcontext

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

from byzopt import harden
from byzopt.distributed import RankCheckpoints
from byzopt.errors import ByzoptError, InvalidInput, TooManyFaults
from tests.halves import Halves
from tests.jobs import Job, leave_together
from tests.ranks import play_ranks

pytestmark = pytest.mark.slow  # many processes

GENEROUS = 30.0  # seconds in which no healthy rank is late, whatever the load
PASSING = 5.0  # for ranks that are stopped


def network():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 10), nn.BatchNorm1d(10), nn.Tanh(), nn.Linear(10, 2))
    return DistributedDataParallel(module, bucket_cap_mb=0.0003)


def batch(rank, t):
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(100 * rank + t))


def everything(model):
    """Parameters and buffers."""
    return torch.cat([each.detach().double().reshape(-1) for each in model.state_dict().values()])


def trained(rank, place, rounds, deadline, pauses=(), settings=None):
    """Train with AdamW and a schedule until `rounds` are finished, or those in the file "end", waiting at
    each of the `pauses` {(rank, round): file} for that file; the model after each round, counters, warnings,
    an error. In the round `settings["spoilt"]` rank 1 has lost a bit of its parameters."""
    settings = dict(settings or {})
    spoilt = settings.pop("spoilt", 0)
    model = network()
    guard = harden(model, **{"rule": "nnm >> rfa", "f": 1, "deadline": deadline} | settings)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.95)
    path, said, error, counted = {}, [], None, 0
    while guard.rounds < rounds and error is None:
        t = guard.rounds + 1
        (place / f"{rank} at {t}").touch()
        while (rank, t) in dict(pauses) and not (place / dict(pauses)[rank, t]).exists():
            time.sleep(0.01)
        optimizer.zero_grad()
        late, before = guard.missing[rank], len(said)
        if (rank, t) == (1, spoilt):
            with torch.no_grad():
                model.module[0].weight[0, 0] += 2.0**-20
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                model(batch(rank, t)).square().mean().backward()
            except ByzoptError as raised:
                error = type(raised).__name__, str(raised), getattr(raised, "rows", ())
                break
        said += [str(w.message) for w in caught if "behind" in str(w.message)]
        optimizer.step()
        schedule.step()
        path[guard.rounds] = everything(model), schedule.get_last_lr()
        counted = counted + 1 if guard.missing[rank] == late and len(said) == before else 0
        if said and counted == 3 and not (place / "end").exists():  # it is back, and others wait for it
            (place / "end.part").write_text(str(guard.rounds + 4))
            (place / "end.part").rename(place / "end")
        if (place / "end").exists():
            rounds = min(rounds, int((place / "end").read_text()))
    guard.remove()
    return path, guard.missing, guard.returned, said, error


def alike(results):
    """Whether all ranks had the same model after every round that they saw, to the bit."""
    for t in set().union(*(path for path, *_ in results.values())):
        seen = [path[t] for path, *_ in results.values() if t in path]
        assert all(torch.equal(x, seen[0][0]) and lr == seen[0][1] for x, lr in seen), t


def test_a_killed_rank_counts_against_f_and_the_others_go_on():
    with Job(4, trained, 6, GENEROUS, {(2, 1): "never"}) as job:
        job.wait_until(2, 1)
        job.signal(2, signal.SIGKILL)
        results = job.results((0, 1, 3))
    alike(results)
    for path, missing, returned, said, error in results.values():
        assert (error, returned, said, sorted(path)) == (None, 0, [], [1, 2, 3, 4, 5, 6])
        assert missing == [0, 0, 6, 0]


def beside_plain(rank):
    """Gradients and buffers of three rounds, with a deadline and without; a rank has NaN in the last."""
    found = {}
    for rule, settings in (
        ("nnm >> rfa", {}),
        ("nnm >> rfa", {"wire": "bf16", "momentum": 0.9}),
        ("trimmed_mean", {"buffers": "local"}),
        ("centered_clipping", {}),
        ("norm_clipping", {"excess": "skip"}),
    ):
        for deadline in (None, GENEROUS):
            model, seen = network(), []
            watch = seen.append
            guard = harden(model, rule, f=1, deadline=deadline, watch=watch, **settings)
            path = []
            for t in range(3):
                model.zero_grad()
                factor = torch.nan if t == 2 and rank == 1 else 1.0
                (model(batch(rank, t)).square().mean() * factor).backward()
                path.append(torch.cat([*(p.grad.reshape(-1) for p in model.parameters()), everything(model)]))
            found[rule, str(settings), deadline] = torch.stack(path), guard.dropped, [r.dropped for r in seen]
            guard.remove()
    return found


def test_without_trouble_it_is_the_plain_one():
    results = play_ranks(4, beside_plain)
    for found in results:
        for (rule, settings, deadline), (path, dropped, seen) in found.items():
            plain, as_dropped, as_seen = found[rule, settings, None]
            assert (dropped, seen) == (as_dropped, as_seen)
            same = slice(1 if rule == "centered_clipping" else None)  # afresh when DDP rebuilds its buckets
            # Products are summed in other pieces: some roundings of float32.
            assert torch.allclose(path[same], plain[same], rtol=1e-5, atol=1e-6), (rule, settings)
            if deadline is not None and "local" not in settings:
                assert torch.equal(path, results[0][rule, settings, deadline][0])


@pytest.mark.parametrize("settings", [{"buffers": "local"}, {"momentum": 0.9, "rule": "centered_clipping"}])
def test_a_stopped_rank_takes_the_state_of_the_others_when_it_comes_back(settings):
    with Job(4, trained, 10**6, PASSING, {(3, 3): "never"}, settings) as job:
        job.wait_until(3, 3)
        job.signal(3, signal.SIGSTOP)
        for rank in range(3):
            job.wait_until(rank, 12)
        (job.path / "never").touch()
        job.signal(3, signal.SIGCONT)
        results = job.results(range(4))
    if "buffers" not in settings:
        alike(results)
    path, _, returned, said, error = results[3]
    assert (error, returned) == (None, len(said))
    assert "AdamW of 0.weight, ExponentialLR of AdamW of 0.weight" in said[0]
    end = max(path)
    for rank in range(3):
        path, missing, returned, _, error = results[rank]
        assert (error, returned, max(path)) == (None, 0, end)
        assert 9 <= missing[3] <= end - 3  # it counts again


def test_a_late_rank_makes_the_steps_of_the_others_and_is_back_when_it_keeps_step():
    with Job(4, trained, 12, PASSING, {(1, 3): "late"}) as job:
        for rank in (0, 2, 3):
            job.wait_until(rank, 4)
        (job.path / "late").touch()
        results = job.results((0, 2, 3))
    alike(results)
    for path, missing, _, _, error in results.values():
        assert (error, max(path)) == (None, 12)
        assert 1 <= missing[1] < 12


def test_a_rank_whose_parameters_are_damaged_takes_those_of_the_others():
    with Job(4, trained, 10**6, GENEROUS, (), {"spoilt": 3}) as job:
        results = job.results(range(4))
    alike(results)
    _, _, returned, said, _ = results[1]
    assert returned == len(said) == 1
    assert all(missing[1] == 1 for rank, (_, missing, *_) in results.items() if rank != 1)


def test_with_more_gone_than_the_rule_tolerates_all_that_live_say_so():
    with Job(5, trained, 8, GENEROUS, {(1, 3): "never", (4, 3): "never"}, {"excess": "skip"}) as job:
        for victim in (1, 4):
            job.wait_until(victim, 3)
            job.signal(victim, signal.SIGKILL)
        results = job.results((0, 2, 3))
    alike(results)
    for *_, (kind, message, blamed) in results.values():
        assert kind == "TooManyFaults"
        assert {1, 4} <= set(blamed)
        assert "gone" in message


def test_without_more_than_half_nobody_goes_on():
    pauses = {(rank, 2): "never" for rank in (0, 1, 2)}
    with Job(4, trained, 8, GENEROUS, pauses) as job:
        for victim in (0, 1, 2):
            job.wait_until(victim, 2)
            job.signal(victim, signal.SIGKILL)
        kind, message, _ = job.results([3])[3][4]
    assert kind == "TooManyFaults"
    assert "More than half of 4 ranks should be alive" in message


class Branches(nn.Module):
    """Layers of which a pass uses some."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))

    def forward(self, x, used):
        for k in used:
            x = torch.tanh(self.layers[k](x))
        return x


def branches(rank, t):
    """Nobody uses the last layer but in round 3, all use the first one, rank 2 alone another one."""
    return [0] + [1] * (rank == 2) + [2] * ((rank + t) % 2) + [3] * (t == 3 and rank == 0)


def gradients_of(model):
    return [None if p.grad is None else p.grad.clone() for p in model.parameters()]


def with_unused(rank, as_views):
    """Gradients of six rounds with AdamW, with a deadline and without; a rank has NaN in one of them."""
    found = []
    for deadline in (None, GENEROUS):
        settings = {"find_unused_parameters": True, "gradient_as_bucket_view": as_views}
        model = DistributedDataParallel(Branches(), bucket_cap_mb=0.0001, **settings)
        guard = harden(model, "trimmed_mean", f=1, deadline=deadline)
        optimizer, path = torch.optim.AdamW(model.parameters(), lr=1e-2), []
        for t in range(6):
            optimizer.zero_grad()
            for k in range(2):
                with model.no_sync() if k == 0 else nullcontext():
                    factor = torch.nan if (t, rank) == (4, 1) else 1.0
                    out = model(batch(rank, 2 * t + k), branches(rank, t if k else t + 1))
                    (out.square().mean() * factor).backward()
            optimizer.step()
            path.append((gradients_of(model), everything(model)))
        guard.remove()
        optimizer.zero_grad()
        model(batch(rank, 0), branches(rank, 0)).square().mean().backward()  # DDP asks all again
        found.append((path, gradients_of(model), guard.dropped))
    return found


@pytest.mark.parametrize("as_views", [False, True])
def test_unused_parameters_are_found_without_waiting(as_views):
    results = play_ranks(4, with_unused, as_views)
    for plain, timed in results:
        assert plain[2] == timed[2] == [0, 1, 0, 0]
        pairs = [
            *zip(plain[0], timed[0], strict=True),
            ((plain[1], plain[0][0][1]), (timed[1], plain[0][0][1])),
        ]
        for (gradients, model), (others, other) in pairs:
            assert [g is None for g in gradients] == [g is None for g in others]
            for g, h in zip(gradients, others, strict=True):
                assert g is None or torch.allclose(g, h, atol=1e-6)  # sums in another order
            assert torch.allclose(model, other, atol=1e-5)
        assert any(g is None for g in timed[0][0][0])
    for t in range(6):  # to the bit
        assert all(torch.equal(each[1][0][t][1], results[0][1][0][t][1]) for each in results)


def with_some_gone(rank, place, rounds, pauses):
    model = DistributedDataParallel(Branches(), bucket_cap_mb=0.0001, find_unused_parameters=True)
    guard = harden(model, "trimmed_mean", f=2, deadline=PASSING)
    optimizer, path, error = torch.optim.AdamW(model.parameters(), lr=1e-2), {}, None
    while guard.rounds < rounds:
        t = guard.rounds + 1
        (place / f"{rank} at {t}").touch()
        while (rank, t) in pauses and not (place / pauses[rank, t]).exists():
            time.sleep(0.01)
        if (place / "woken").exists():
            time.sleep(0.2)  # so that there are rounds for one that comes back
        optimizer.zero_grad()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                model(batch(rank, t), branches(rank, t)).square().mean().backward()
            except TooManyFaults as raised:
                error = str(raised)
                break
        optimizer.step()
        path[guard.rounds] = everything(model), None
    leave_together(place, rank, 4)
    return path, guard.missing, guard.returned, [], error


def test_with_unused_parameters_some_may_die_and_stop():
    with Job(5, with_some_gone, 40, {(1, 2): "never", (3, 3): "woken"}) as job:
        job.wait_until(1, 2)
        job.signal(1, signal.SIGKILL)
        job.wait_until(0, 8)
        (job.path / "woken").touch()
        results = job.results((0, 2, 3, 4))
    alike(results)
    if not any(error for *_, error in results.values()):  # a loaded machine may make healthy ranks late
        assert all(max(path) == 40 for path, *_ in results.values())
        assert results[3][2] >= 1


def refused(rank):
    found = []

    def attempt(make):
        try:
            make()
            found.append("")
        except (InvalidInput, TooManyFaults) as error:
            found.append(str(error))

    plain = {"rule": "median", "f": 0}
    module = nn.Linear(3, 2)
    attempt(lambda: harden(DistributedDataParallel(module), **plain, deadline=0.0))
    attempt(lambda: harden(DistributedDataParallel(module), **plain, deadline=1.0 + rank))
    static = DistributedDataParallel(module, static_graph=True)
    attempt(lambda: harden(static, **plain, deadline=GENEROUS))
    unused = DistributedDataParallel(module, find_unused_parameters=rank == 0)
    attempt(lambda: harden(unused, **plain, deadline=GENEROUS))
    attempt(lambda: harden(fully_shard(nn.Linear(3, 2)), **plain, deadline=GENEROUS))
    model = DistributedDataParallel(module)
    guard = harden(model, **plain, deadline=GENEROUS)
    attempt(lambda: model.join().__enter__())
    optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.SGD, lr=0.1)
    attempt(lambda: model(torch.ones(1, 3)).sum().backward())
    guard.remove()
    del optimizer
    model.zero_grad()
    guard = harden(model, **plain)  # without a deadline, in the same place
    model(torch.ones(1, 3) * (rank + 1)).sum().backward()
    with model.join():
        pass
    dist.barrier()
    return found, guard.rounds, guard.missing


def test_what_would_wait_for_the_dead_is_refused():
    parts = ("deadline", "alike", "static_graph", "alike", "shards", "`join`", "ZeroRedundancyOptimizer")
    results = play_ranks(2, refused)
    for found, rounds, missing in results:
        assert found == results[0][0]
        for message, part in zip(found, parts, strict=True):
            assert part in message
        assert (rounds, missing) == (1, [0, 0])


@pytest.mark.parametrize("seed", range(2))
def test_killed_and_stopped_at_random_rounds_the_rest_ends_alike(seed):
    draw = random.Random(seed)
    n = draw.choice((5, 6, 7))
    killed, stopped = draw.sample(range(n), 2)
    death, sleep = draw.randrange(1, 9), draw.randrange(1, 9)
    settings = {"f": (n - 1) // 2, "momentum": draw.choice((0.0, 0.9))}
    pauses = {(killed, death): "never", (stopped, sleep): "woken"}
    with Job(n, trained, 10**6, PASSING, pauses, settings) as job:
        for victim, t, what in ((killed, death, signal.SIGKILL), (stopped, sleep, signal.SIGSTOP)):
            job.wait_until(victim, t)
            job.signal(victim, what)
        others = set(range(n)) - {killed, stopped}
        for rank in others:
            job.wait_until(rank, sleep + draw.randrange(4, 9))
        (job.path / "woken").touch()
        job.signal(stopped, signal.SIGCONT)
        results = job.results(set(range(n)) - {killed})
    alike(results)
    errors = {rank: error for rank, (*_, error) in results.items()}
    # A loaded machine may make so many healthy ranks late that they have to say so.
    assert all(error is None or error[0] == "TooManyFaults" for error in errors.values())
    if not any(errors.values()):
        end = max(results[stopped][0])
        assert results[stopped][2] >= 1
        assert all(max(results[rank][0]) == end for rank in others)


def restarted(rank, place, folder, rounds, first):
    """Train until `rounds`, saving every second one; at first rank 1 stays in round 5 for ever."""
    model = network()
    guard = harden(model, "nnm >> rfa", f=1, momentum=0.5, deadline=GENEROUS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    checkpoints = RankCheckpoints(folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start = checkpoints.restore(model=model.module, optimizer=optimizer, guard=guard)
    said = [str(w.message) for w in caught]
    while guard.rounds < rounds:
        t = guard.rounds + 1
        (place / f"{rank} at {t}").touch()
        while first and (rank, t) == (1, 5):
            time.sleep(0.01)
        optimizer.zero_grad()
        model(batch(rank, t)).square().mean().backward()
        optimizer.step()
        if guard.rounds % 2 == 0:
            checkpoints.save(guard.rounds, model=model.module, optimizer=optimizer, guard=guard)
    guard.remove()
    return start, guard.rounds, everything(model), said


def test_after_a_death_all_start_again_from_checkpoints_with_the_ranks_that_are_left(tmp_path):
    with Job(4, restarted, tmp_path, 9, True) as job:
        job.wait_until(1, 5)
        job.signal(1, signal.SIGKILL)
        before = job.results((0, 2, 3))
    assert all(rounds == 9 for _, rounds, *_ in before.values())
    with Job(3, restarted, tmp_path, 12, False) as job:
        results = job.results(range(3))
    for start, rounds, model, said in results.values():
        assert (start, rounds) == (8, 12)
        assert torch.equal(model, results[0][2])
        assert any("Ranks [1] have no checkpoint of round 8" in text for text in said)


def raising(rank, place, rule, deadline):
    """Four rounds, in the second of which backward raises on rank 2, which then waits for the others' end."""
    model = DistributedDataParallel(Halves(), bucket_cap_mb=0.3)
    guard, error = harden(model, rule, f=1, deadline=deadline), None
    x = torch.randn(4, 300, generator=torch.Generator().manual_seed(rank))
    while guard.rounds < 4 and error is None:
        model.zero_grad()
        try:
            model(x, rank == 2 and guard.rounds == 1).square().mean().backward()
        except Exception as raised:
            error = type(raised).__name__, str(raised)
    (place / f"{rank} ended").touch()
    while not all((place / f"{each} ended").exists() for each in range(4)):
        time.sleep(0.01)
    return error, guard.missing


@pytest.mark.parametrize("rule", ["nnm >> rfa", "median"])
def test_a_backward_that_raises_on_one_rank_is_heard_of_on_all(rule):
    with Job(4, raising, rule, None) as job:
        results = job.results(range(4))
    assert results[2][0] == ("RuntimeError", "its own")
    for rank in (0, 1, 3):
        assert results[rank][0][0] == "ByzoptError"
        assert "Found rank 2 unable: Its backward pass ended" in results[rank][0][1]


def test_with_a_deadline_a_backward_that_raises_is_a_missing_row():
    with Job(4, raising, "nnm >> rfa", PASSING) as job:
        results = job.results(range(4))
    assert results[2][0] == ("RuntimeError", "its own")
    for rank in (0, 1, 3):
        assert results[rank] == (None, [0, 0, 3, 0])


def lost(rank, place):
    model = DistributedDataParallel(Halves())
    harden(model, "median", f=1)
    try:
        for t in range(3):  # DDP has built its buckets before the second
            model(torch.ones(1, 300), False).sum().backward()
            if (rank, t) == (1, 1):
                os.kill(os.getpid(), signal.SIGKILL)
    except ByzoptError as error:
        return str(error)
    return None


def test_without_a_deadline_a_death_is_told_in_words():
    with Job(4, lost) as job:
        results = job.results((0, 2, 3))
    for said in results.values():
        assert "All ranks should live through a round" in said
        assert "deadline=seconds" in said
