"""`harden` on DDP when things go wrong: too many faults, scalers, buffers, uneven data, refusals, watches."""

from __future__ import annotations

import gc
import warnings

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.debugging_hooks import noop_hook
from torch.nn.parallel import DistributedDataParallel

from byzopt import harden
from byzopt.errors import ByzoptError, InvalidInput, TooManyFaults
from tests.ranks import play_ranks

pytestmark = pytest.mark.slow  # many processes

N = 4


def network(norm=False, **settings):
    torch.manual_seed(0)
    middle = [nn.BatchNorm1d(10)] if norm else []
    module = nn.Sequential(nn.Linear(6, 10), *middle, nn.Tanh(), nn.Linear(10, 2))
    return DistributedDataParallel(module, bucket_cap_mb=0.0003, **settings)


def batch(rank, t=0):
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(100 * rank + t))


def backward(model, rank, t=0, factor=1.0, scaler=None):
    model.zero_grad()
    loss = model(batch(rank, t)).square().mean() * factor
    (scaler.scale(loss) if scaler else loss).backward()


def gradient(model):
    return torch.cat([p.grad.reshape(-1) for p in model.parameters()])


def error_of(call):
    try:
        call()
    except Exception as error:
        return type(error), str(error)
    return None


def excess(rank):
    """Two of four ranks send NaN in step 1; step 0 and 2 are fine."""
    out = {}
    for mode in ("raise", "skip"):
        model = network()
        guard, seen = harden(model, "nnm >> rfa", f=1, excess=mode), []
        for t in range(3):
            factor = torch.nan if t == 1 and rank < 2 else 1.0
            seen.append((error_of(lambda: backward(model, rank, t, factor)), gradient(model)))  # noqa: B023
        out[mode] = seen, guard.skipped, guard.dropped, guard.rounds
    return out


def scaled(rank, fused=False):
    """Every rank overflows until the scale is small enough, then rank 1 alone does."""
    model = network()
    guard = harden(model, "nnm >> rfa", f=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-40, growth_interval=100)
    scales = []
    for t in range(5):
        backward(model, rank, t, 1e4 if t < 2 or rank == 1 else 1.0, scaler)
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    forced = error_of(optimizer.step)
    backward(model, rank, 9, torch.nan, scaler)
    stopped = error_of(optimizer.step)  # without asking the scaler
    end = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    backward(model, rank, 9, 1.0, scaler)
    return scales, end, guard.skipped, forced, stopped, error_of(optimizer.step)


def buffers(rank):
    """Rank 0's batch holds NaN in step 1."""
    out = {}
    for mode in ("median", "local"):
        model = network(norm=True)
        harden(model, "nnm >> rfa", f=1, buffers=mode)
        own = []
        for t in range(3):
            x = batch(rank, t)
            x = x * torch.nan if (rank, t) == (0, 1) else x
            model.zero_grad()
            with torch.no_grad():
                entered = torch.cat([b.double().reshape(-1) for b in model.module[1].buffers()])
            model(x).square().mean().backward()
            own.append((entered, torch.cat([b.double().reshape(-1) for b in model.module[1].buffers()])))
        out[mode] = own, {k: v.clone() for k, v in model.module.state_dict().items()}
    model = network(norm=True)
    guard = harden(model, "nnm >> rfa", f=1)
    backward(model, rank)
    agreed = {k: v.clone() for k, v in model.module[1].state_dict().items()}
    model.zero_grad()
    x = batch(rank) * (torch.nan if rank < 2 else 1.0)
    found = error_of(lambda: model(x).square().mean().backward())
    out["excess"] = found, agreed, model.module[1].state_dict(), guard.restored
    guard.remove()
    out["broadcast"] = model.broadcast_buffers
    out["refuse"] = error_of(lambda: harden(network(norm=True), "median", f=1, buffers="refuse"))
    return out


def plain_buffers(rank):
    """Without faults and with equal data, buffers and gradients are DDP's own."""
    ends = []
    for hardened in (False, True):
        model = network(norm=True)
        if hardened:
            harden(model, "mean")
        for t in range(3):
            backward(model, 0, t)
        model(batch(0, 5))
        ends.append({k: v.double() for k, v in model.module.state_dict().items()})
    return max(float((ends[0][k] - ends[1][k]).abs().max()) for k in ends[0])


def uneven(rank):
    """Rank r has 2 + r batches. Joined ranks are absent: no fault, and nobody waits."""
    out = {}
    for divide in (True, False):
        ends = []
        for hardened in (False, True):
            model = network(norm=hardened)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            guard = harden(model, "mean") if hardened else None
            with model.join(divide_by_initial_world_size=divide):
                for t in range(2 + rank):
                    backward(model, rank, t)
                    optimizer.step()
            ends.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
        out[divide] = ends, guard.dropped, guard.rounds
    return out


def uneven_plain(rank):
    """As `uneven`, without buffers, beside DDP's own average."""
    worst = 0.0
    for divide in (True, False):
        ends = []
        for hardened in (False, True):
            model = network()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            if hardened:
                harden(model, "mean")
            with model.join(divide_by_initial_world_size=divide):
                for t in range(2 + rank):
                    backward(model, rank, t)
                    optimizer.step()
            ends.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
        worst = max(worst, float((ends[0] - ends[1]).abs().max()))
    return worst


def uneven_few(rank):
    """With f = 1 three ranks are needed: when only two have data left all stop, by name."""
    model = network()
    harden(model, "median", f=1)

    def run():
        with model.join():
            for t in range(2 + rank):
                backward(model, rank, t)

    return error_of(run)


def uneven_lies(rank):
    """Rank 0 runs out of data while rank 3 lies: an absent rank does not use up the tolerance for a liar."""
    largest = 0.0
    for rule in ("trimmed_mean", "nnm >> rfa", "fail_closed(rule='nnm >> rfa')"):
        model = network()
        harden(model, rule, f=1)
        with model.join():
            for t in range(1 if rank == 0 else 4):
                backward(model, rank, t, 1e6 if rank == 3 else 1.0)
                largest = max(largest, float(gradient(model).abs().max()))
    return largest


class Odd(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.a, self.b = nn.Linear(6, width), nn.Embedding(5, 3, sparse=True)


def refused(rank):
    model = network()
    odd = rank == 2
    out = {
        "unknown": error_of(lambda: harden(network(), "nnm >> rfaa" if odd else "nnm >> rfa", f=1)),
        "settings": error_of(lambda: harden(network(), "median", f=1, momentum=0.9 if odd else 0.0)),
        "few": error_of(lambda: harden(network(), "krum", f=1)),
        "memory": error_of(lambda: harden(network(), "median", f=1, momentum=1.5)),
        "plain module": error_of(lambda: harden(model.module, "median", f=1)),
        "trusting": error_of(lambda: harden(network(), "median", f=1, buffers="mean")),
        "sparse": error_of(lambda: harden(DistributedDataParallel(Odd(3)), "median", f=1)),
        "wire": error_of(lambda: harden(network(), "median", f=1, wire="int3")),
    }
    model.register_comm_hook(None, noop_hook)
    out["hook"] = error_of(lambda: harden(model, "median", f=1))
    built_in = network()
    built_in._register_builtin_comm_hook(dist.BuiltinCommHookType.ALLREDUCE)
    out["built-in hook"] = error_of(lambda: harden(built_in, "median", f=1))
    frozen = network()
    frozen.module[0].weight.requires_grad_(not odd)
    out["parameters"] = error_of(lambda: harden(frozen, "median", f=1))
    twice = network()
    harden(twice, "median", f=1)
    out["twice"] = error_of(lambda: harden(twice, "median", f=1))
    return out


def watched(rank):
    """A watch hears of every round; one that raises on one rank ends the step on all."""
    out = {}
    for rule in ("nnm >> rfa", "median", "norm_clipping"):
        model, told = network(), []
        harden(model, rule, f=1, watch=told.append)
        backward(model, rank, 0, 100.0 if rank == 3 else 1.0)
        backward(model, rank, 1, torch.nan if rank == 3 else 1.0)
        out[rule] = [(each.t, each.weights.tolist(), each.dropped) for each in told]
    model = network()

    def broken(diagnostics):
        if rank == 1:
            raise ValueError("disk full")

    harden(model, "median", f=1, watch=broken)
    out["broken"] = error_of(lambda: backward(model, rank))
    out["again"] = error_of(lambda: backward(model, rank))
    return out


def remembered(rank):
    """Momentum is that of each rank's own gradients, whatever the loss is scaled by, and can be kept."""
    beta, out = 0.8, {}
    local = network()
    local.register_comm_hook(None, noop_hook)
    model = network()
    guard = harden(model, "mean", momentum=beta)
    other = network()
    harden(other, "mean", momentum=beta)
    expected, worst, scaler = None, 0.0, None
    for t in range(4):
        backward(local, rank, t)
        own = gradient(local)
        expected = own if expected is None else beta * expected + (1 - beta) * own
        mean = expected.clone()
        dist.all_reduce(mean)
        backward(model, rank, t)
        if scaler is None:  # `model`, which has no scaler, has not found this one
            scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
        backward(other, rank, t, 1.0, scaler)
        for found in (gradient(model), gradient(other) / scaler.get_scale()):
            worst = max(worst, float((found - mean / N).abs().max() / mean.abs().max()))
        scaler.update(2 * scaler.get_scale())
    state = guard.state_dict()
    fresh = network()
    unscaled = torch.amp.GradScaler("cpu", enabled=False)  # that of `other` is alive
    again = harden(fresh, "mean", momentum=beta, scaler=unscaled)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        again.load_state_dict(state)
    backward(model, rank, 7)
    backward(fresh, rank, 7)
    out["kept"] = torch.equal(gradient(model), gradient(fresh)), len(caught)
    shared = [state if rank == 0 else None]
    dist.broadcast_object_list(shared)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        again.load_state_dict(shared[0])
    backward(fresh, rank, 8)
    out["rank 0's"] = [str(each.message) for each in caught], again.rounds
    return worst, out


def left_over(rank):
    """A training that is over has left its scaler in a circle of references: it counts for nobody."""
    gc.collect()
    gc.disable()
    before = len([each for each in gc.get_objects() if type(each) is torch.amp.GradScaler])
    old, own = torch.amp.GradScaler("cpu", init_scale=2.0**9), torch.amp.GradScaler("cpu", init_scale=2.0**3)
    old.circle = old
    del old
    model = network()
    guard = harden(model, "mean", momentum=0.5)
    backward(model, rank, 0, 1.0, own)
    gc.enable()
    held = guard.momentum.state_dict()["0.weight"]
    local = network()
    local.register_comm_hook(None, noop_hook)
    backward(local, rank)
    return before, float((held - local.module[0].weight.grad).abs().max())


def compressed(rank):
    """Columns in bfloat16: every number of the mean is off by at most two roundings of it."""
    ends = []
    for wire in (None, "bf16"):
        model = network()
        guard = harden(model, "mean", wire=wire)
        before = guard.comm.sent
        backward(model, rank)
        ends.append((gradient(model), guard.comm.sent - before))
    local = network()
    local.register_comm_hook(None, noop_hook)
    backward(local, rank)
    rows = [torch.empty_like(ends[0][0]) for _ in range(N)]
    dist.all_gather(rows, gradient(local))
    sizes = torch.stack(rows).abs().mean(dim=0)
    return (ends[0][0] - ends[1][0]).abs(), sizes, ends[0][1], ends[1][1]


def removed(rank):
    model, plain = network(), network()
    guard = harden(model, "median", f=1)
    backward(model, rank)
    guard.remove()
    backward(model, rank, 1)
    backward(plain, rank, 1)
    away = float((gradient(model) - gradient(plain)).abs().max())
    harden(model, "mean")
    backward(model, rank, 2)
    backward(plain, rank, 2)
    return away, float((gradient(model) - gradient(plain)).abs().max())


def loaded(rank):
    """Rank 1 loads nothing, rank 2 counters of its own, beside a model that goes on without a break."""
    out = {}
    for rule in ("dnc", "median"):
        whole, fresh = network(), network()
        guard = harden(whole, rule, f=1)
        for t in range(3):
            backward(whole, rank, t)
        again = harden(fresh, rule, f=1)
        state = guard.state_dict()
        again.load_state_dict(None if rank == 1 else {**state, "rounds": 70} if rank == 2 else state)
        errors, away = [], 0.0
        for t in range(3, 6):
            backward(whole, rank, t)
            errors.append(error_of(lambda: backward(fresh, rank, t)))  # noqa: B023
            away = max(away, float((gradient(whole) - gradient(fresh)).abs().max()))
        out[rule] = errors, away, again.rounds
    return out


def optimized(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


def removed_after_excess(rank):
    """A scaler should have skipped the step; then the guard, or the whole model, goes."""
    out, scaler = [], torch.amp.GradScaler("cpu", init_scale=4.0)
    for gone in (False, True):
        model = network()
        guard, optimizer = harden(model, "median", f=1), optimized(model)
        backward(model, rank, 0, torch.nan if rank < 2 else 1.0, scaler)
        out.append((error_of(optimizer.step) or ("nothing",))[0])
        if gone:
            del model, guard
        else:
            guard.remove()
            backward(model, rank, 1, 1.0, scaler)
        out.append(error_of(optimizer.step))
    return out


def scaled_buffers(rank):
    """Batches of NaN on two ranks, BatchNorm and a scaler: a scaler's business, and none of `backward`."""
    out = {}
    for mode in ("raise", "skip"):
        model, scaler = network(norm=True), torch.amp.GradScaler("cpu", init_scale=4.0)
        guard, optimizer = harden(model, "median", f=1, excess=mode), optimized(model)
        errors = []
        for t in range(3):
            optimizer.zero_grad()
            loss = model(batch(rank, t) * (torch.nan if t == 1 and rank < 2 else 1.0)).square().mean()
            errors.append(error_of(scaler.scale(loss).backward))
            scaler.step(optimizer)
            scaler.update()
        finite = all(bool(each.isfinite().all()) for each in model.state_dict().values())
        # Buffers alone: their NaN comes after the forward pass.
        optimizer.zero_grad()
        loss = model(batch(rank)).square().mean()
        model.module[1].running_mean.data += torch.nan if rank < 2 else 0.0  # autograd does not look
        errors.append(error_of(scaler.scale(loss).backward))
        scaler.step(optimizer)
        scaler.update()
        finite &= all(bool(each.isfinite().all()) for each in model.state_dict().values())
        out[mode] = errors, finite, scaler.get_scale(), guard.skipped, guard.restored
    return out


def another_scaler(rank):
    """A scaler is enabled, but does not drive this model's optimizer."""
    stray, out = torch.amp.GradScaler("cpu"), {}
    none = torch.amp.GradScaler("cpu", enabled=False)
    for name, settings in {"skip": {"excess": "skip"}, "raise": {}, "told": {"scaler": none}}.items():
        model = network()
        harden(model, "median", f=1, **settings)
        optimizer = optimized(model)
        before = [p.detach().clone() for p in model.parameters()]
        errors = error_of(lambda: backward(model, rank, 0, torch.nan if rank < 2 else 1.0))  # noqa: B023
        errors = errors, error_of(optimizer.step)
        out[name] = errors, all(map(torch.equal, before, model.parameters()))
    return out, stray.is_enabled()


class Unwritten(nn.Module):
    """Has places that nothing has been written to yet."""

    def __init__(self, size):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(6, 2)
        self.register_buffer("last", torch.full((size,), torch.nan))
        self.register_buffer("flag", torch.tensor(True))
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x):
        return self.layer(x)


def unwritten(rank):
    """Buffers with NaN since before; then one rank writes there, all do, and all have NaN anew."""
    out = {}
    for size, mode in ((1, "median"), (70_000, "median"), (1, "refuse")):
        model = DistributedDataParallel(Unwritten(size))
        harden(model, "median", f=1, buffers=mode)
        found = [error_of(lambda: backward(model, rank))]  # noqa: B023
        for writers in (1, N) if mode == "median" else ():
            model.module.last += 0
            if rank < writers:
                model.module.last.fill_(7.0)
            found.append((error_of(lambda: backward(model, rank)), model.module.last[0].item()))  # noqa: B023
        if mode == "median":
            model.module.mean.fill_(torch.nan)
            found.append((error_of(lambda: backward(model, rank)), model.module.mean[0].item()))  # noqa: B023
        out[size, mode] = found
    return out


PLAYED = (
    left_over,
    loaded,
    unwritten,
    excess,
    scaled,
    buffers,
    plain_buffers,
    uneven,
    uneven_plain,
    uneven_few,
    uneven_lies,
    refused,
    watched,
    remembered,
    compressed,
    removed,
    removed_after_excess,  # scalers at work from here on
    scaled_buffers,
    another_scaler,
)


def everything(rank):
    return {play.__name__: play(rank) for play in PLAYED}


@pytest.fixture(scope="module")
def played():
    return play_ranks(N, everything)


@pytest.mark.parametrize("mode", ["raise", "skip"])
def test_more_faults_than_f_end_alike_on_all_ranks_and_the_next_step_goes_on(played, mode):
    for found in played:
        steps, skipped, dropped, rounds = found["excess"][mode]
        assert (skipped, dropped, rounds) == (1, [1, 1, 0, 0], 3)
        errors = [error for error, _ in steps]
        assert errors[0] is errors[2] is None
        assert all(gradient.isfinite().all() for _, gradient in (steps[0], steps[2]))
        assert torch.equal(steps[2][1], played[0]["excess"][mode][0][2][1])
        if mode == "raise":
            assert errors[1][0] is TooManyFaults
            assert "ranks [0, 1]" in errors[1][1]
        else:
            assert errors[1] is None
        assert not steps[1][1].any()


def test_scalers_back_off_together_and_one_overflow_is_its_ranks_fault(played):
    for found in played:
        scales, end, skipped, forced, stopped, after = found["scaled"]
        assert scales == [2.0**87] + [2.0**87] * 4
        assert skipped == 2
        assert torch.equal(end, played[0]["scaled"][1])
        assert end.isfinite().all()
        assert forced is after is None
        assert stopped[0] is TooManyFaults


def test_bad_data_on_rank_0_spoil_no_buffer(played):
    for found in played:
        for (_, left), (_, others) in zip(
            found["buffers"]["median"][0], played[1]["buffers"]["median"][0], strict=True
        ):
            assert left.isfinite().all()
            assert torch.equal(left, others)
    assert played[0]["buffers"]["local"][0][1][1].isnan().any()
    assert played[1]["buffers"]["local"][0][1][1].isfinite().all()
    error, agreed, left, restored = played[3]["buffers"]["excess"]
    assert restored == 1
    assert error[0] is TooManyFaults
    assert all(torch.equal(agreed[k], left[k]) for k in agreed)
    assert played[0]["buffers"]["broadcast"] is True
    assert "1" in played[0]["buffers"]["refuse"][1]


def test_buffers_are_those_of_a_plain_run_when_ranks_agree(played):
    assert all(found["plain_buffers"] < 1e-6 for found in played)


def test_ranks_without_data_are_absent(played):
    for found in played:
        assert found["uneven_plain"] < 1e-6
        for divide in (True, False):
            ends, dropped, rounds = found["uneven"][divide]
            assert dropped == [0] * N
            assert rounds == 5
            assert torch.equal(ends[1], played[0]["uneven"][divide][0][1])
        assert found["uneven_lies"] < 10
        assert found["uneven_few"][0] is TooManyFaults
        assert "no data left" in found["uneven_few"][1]


REFUSALS = {
    "unknown": (InvalidInput, "rank 2 unable: Unknown"),
    "settings": (InvalidInput, "ranks [2]"),
    "few": (InvalidInput, "2 f + 3"),
    "memory": (InvalidInput, "momentum"),
    "plain module": (InvalidInput, "DistributedDataParallel"),
    "trusting": (InvalidInput, "buffers"),
    "sparse": (InvalidInput, "sparse"),
    "wire": (InvalidInput, "wire"),
    "hook": (InvalidInput, "noop_hook"),
    "built-in hook": (InvalidInput, "comm hook"),
    "parameters": (InvalidInput, "ranks [2]"),
    "twice": (InvalidInput, "comm hook"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_hardened_is_refused_on_all_ranks_in_the_same_words(played, name):
    kind, words = REFUSALS[name]
    for found in played:
        error = found["refused"][name]
        assert error == played[0]["refused"][name]
        assert issubclass(error[0], kind)
        assert words in error[1]


def test_a_watch_hears_of_every_round_and_may_raise(played):
    for found in played:
        told = found["watched"]
        for rule in ("nnm >> rfa", "median", "norm_clipping"):
            (t, weights, dropped), (u, _, lost) = told[rule]
            assert (t, u, dropped, lost) == (1, 2, (), (3,))
            assert weights[3] < 0.15
            assert abs(sum(weights) - 1) < 1e-6 or rule == "norm_clipping"
        for name in ("broken", "again"):
            assert issubclass(told[name][0], ByzoptError)
            assert "rank 1" in told[name][1]
            assert "disk full" in told[name][1]


def test_momentum_is_each_ranks_own_whatever_the_scale(played):
    for rank, found in enumerate(played):
        worst, out = found["remembered"]
        assert worst < 1e-5
        assert out["kept"] == (True, 0)
        messages, rounds = out["rank 0's"]
        assert len(messages) == (rank > 0)
        assert rounds == 5
        assert all("afresh" in message for message in messages)


def test_a_scaler_that_nobody_holds_any_more_is_not_asked_for_its_scale(played):
    for found in played:
        others, apart = found["left_over"]
        assert others == 0
        assert apart < 1e-6


def test_columns_of_half_the_bytes_cost_two_roundings(played):
    for found in played:
        error, sizes, whole, half = found["compressed"]
        # bfloat16 rounds by 2^-8 of a number at most: once before the rule, once after it.
        assert (error <= 2 * 2.0**-8 * sizes + 1e-7).all()
        assert error.any()
        assert half < 0.75 * whole


def test_a_removed_guard_leaves_a_plain_model_that_can_be_hardened_again(played):
    assert all(away < 1e-6 and again < 1e-6 for away, again in (found["removed"] for found in played))


@pytest.mark.parametrize("rule", ["dnc", "median"])
def test_counters_that_differ_after_a_load_stop_nobody_and_most_ranks_go_on(rule, played):
    for found in played:
        errors, away, rounds = found["loaded"][rule]
        assert errors == [None] * 3
        assert away < 1e-6
        assert rounds == 6


def test_what_would_stop_a_step_goes_with_the_guard_and_with_the_model(played):
    for found in played:
        assert found["removed_after_excess"] == [TooManyFaults, None, TooManyFaults, None]


def test_under_a_scaler_nan_batches_raise_nothing_because_of_buffers(played):
    for found in played:
        errors, finite, scale, skipped, restored = found["scaled_buffers"]["raise"]
        assert errors == [None] * 4
        assert finite
        assert (scale, skipped, restored) == (1.0, 1, 2)  # backed off twice
        errors, finite, scale, skipped, restored = found["scaled_buffers"]["skip"]
        assert errors == [None] * 4
        assert finite
        assert (scale, skipped, restored) == (2.0, 1, 2)  # the gradient beside bad buffers has an answer


def test_a_scaler_of_another_model_does_not_take_the_step_away_from_excess(played):
    for found in played:
        out, enabled = found["another_scaler"]
        assert enabled
        assert all(unmoved for _, unmoved in out.values())
        assert out["skip"][0] == (None, None)
        backward_error, step_error = out["raise"][0]
        assert backward_error is None
        assert step_error[0] is TooManyFaults
        assert "scaler=scaler" in step_error[1]
        backward_error, step_error = out["told"][0]
        assert backward_error[0] is TooManyFaults
        assert step_error is None


def test_nan_that_buffers_have_had_since_before_is_no_fault(played):
    for found in played:
        for (_, mode), steps in found["unwritten"].items():
            assert steps[0] is None
            if mode == "refuse":
                continue
            (one, outvoted), (all_, written), (new, back) = steps[1:]
            assert one is all_ is None
            assert outvoted != outvoted
            assert written == 7.0
            assert new[0] is TooManyFaults
            assert back == 0.0
