"""What scripts do to optimizers over ranks: groups, schedules, scalers, changed parameters, uneven data."""

from __future__ import annotations

import io
import warnings

import pytest
import torch
from torch import nn
from torch.distributed.algorithms.join import Join
from torch.nn.parallel import DistributedDataParallel

from byzopt.aggregators import Mean
from byzopt.distributed import RobustDM21, RobustNSGDM, RobustOptimizer, RobustSGD
from byzopt.errors import InvalidInput, TooManyFaults
from byzopt.methods import Method
from byzopt.servers import Descent, LMOStep, NesterovMomentum, ServerMomentum, ThreeSequences
from byzopt.wire import Direct
from byzopt.workers import Plain
from tests.ranks import play_ranks

N, STEPS = 4, 6
# Both sides sum the same few float64 numbers in another order.
NEAR = {"rtol": 1e-12, "atol": 1e-13}


def small_model(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).to(dtype)


def backward(model, rank, t, scale=1.0):
    generator = torch.Generator().manual_seed(1000 * rank + t)
    dtype = next(model.parameters()).dtype
    inputs = torch.randn(8, 5, generator=generator, dtype=torch.float64).to(dtype)
    labels = torch.randint(3, (8,), generator=generator)
    model.zero_grad()
    loss = nn.functional.cross_entropy(model(inputs), labels) * scale
    loss.backward()
    return loss.detach()


def vector(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()]).clone()


def groups_of(model):
    first, last = model.module[0], model.module[2]
    return [
        {"params": list(first.parameters()), "lr": 0.2, "weight_decay": 0.1},
        {"params": [last.weight], "lr": 0.05},
        {"params": [last.bias], "lr": 0.1, "weight_decay": 0.01},
    ]


def with_groups(rank, robust):
    """Groups with their own rates and decays, a schedule through 0, clamping and a restored model."""
    if robust:
        model = DistributedDataParallel(small_model())
        optimizer = RobustSGD(model, 0.1, momentum=0.9, rule=Mean())
        optimizer.param_groups.clear()
        for group in groups_of(model):
            optimizer.add_param_group(group)
    else:
        model = DistributedDataParallel(small_model())
        optimizer = torch.optim.SGD(groups_of(model), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: abs(t - 2) / 2)  # 1, 1/2, 0, 1/2, ...
    early = None
    for t in range(STEPS):
        backward(model, rank, t)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            for p in model.parameters():
                p.data.clamp_(-0.3, 0.3)
        if t == 1:
            early = {name: value.clone() for name, value in model.state_dict().items()}
        if t == 4:
            model.load_state_dict(early)
    return vector(model)


def test_groups_decay_schedules_and_changed_parameters_are_those_of_torchs_sgd():
    ours, theirs = play_ranks(N, with_groups, True), play_ranks(N, with_groups, False)
    for out in ours:
        assert torch.equal(out, ours[0])
        torch.testing.assert_close(out, theirs[0], **NEAR)


def unfrozen(rank, robust):
    model = small_model()
    model[0].requires_grad_(False)
    model = DistributedDataParallel(model, find_unused_parameters=True) if robust else model
    inner = model.module if robust else model
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = RobustSGD(model, 0.1, rule=Mean()) if robust else sgd
    for t in range(STEPS):
        if t == 2:
            inner[0].requires_grad_(True)
        if t == 4:
            inner[2].requires_grad_(False)
        if robust:
            backward(model, rank, t)
        else:  # the mean over ranks, by hand: torch's DDP takes no parameters that are unfrozen later
            sums = [torch.zeros_like(p) for p in model.parameters()]
            for each in range(N):
                backward(model, each, t)
                for total, p in zip(sums, model.parameters(), strict=True):
                    total.add_(0 if p.grad is None else p.grad, alpha=1 / N)
            for total, p in zip(sums, model.parameters(), strict=True):
                p.grad = total if p.requires_grad else None
        optimizer.step()
    return vector(inner)


def test_what_is_unfrozen_or_frozen_later_moves_or_stays():
    ours, theirs = play_ranks(N, unfrozen, True), unfrozen(0, False)
    for out in ours:
        torch.testing.assert_close(out, theirs, **NEAR)


def error_of(call):
    try:
        call()
    except (InvalidInput, TooManyFaults) as error:
        return str(error)
    return ""


def changed_alone(rank, topology):
    model = small_model()
    optimizer = RobustSGD(model.parameters(), 0.1, momentum=0.5, rule="trimmed_mean", f=1, topology=topology)
    heard = []
    for t in range(3):
        if t == 1 and rank == 2:
            model[0].weight.data.mul_(2)
        backward(model, rank, t)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            optimizer.step()
        heard.append((sorted(optimizer.malformed), [str(w.message) for w in caught]))
    x, before = vector(model), optimizer.rounds
    for t, changed in ((3, (0, 1)), (4, (0, 1, 2))):
        if rank in changed:
            model[0].weight.data.fill_(float(t))
        backward(model, rank, t)
        heard.append(error_of(optimizer.step))
        with torch.no_grad():
            nn.utils.vector_to_parameters(x, model.parameters())
    three = rank in (0, 1, 2)  # most have new ones, alike: one that missed it takes them over
    if three:
        model[0].weight.data.fill_(0.25)
    backward(model, rank, 5)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        optimizer.step()
    return heard, x, optimizer.rounds - before, vector(model), sorted(optimizer.malformed)


@pytest.mark.parametrize("topology", ["sharded", "replicated", "server"])
def test_parameters_changed_on_some_ranks_alone_are_never_undone_in_silence(topology):
    results = play_ranks(N, changed_alone, topology)
    for heard, x, _, after, malformed in results:
        assert torch.equal(x, results[0][1])
        (first, quiet), (second, said), (third, none), two, three = heard
        assert (first, quiet, second, third, none) == ([], [], [2], [], [])
        assert len(said) == 1
        assert "ranks [2] with other parameters" in said[0]
        assert "changed alike on all ranks" in two
        assert three == ""
        assert malformed == [3]
        assert torch.equal(after, results[0][3])


def scaled(rank, faulty):
    """As scripts write it: `scaler.scale(loss).backward()`, `step`, `update`."""
    model = DistributedDataParallel(small_model(torch.float32))
    optimizer = RobustSGD(model, 0.1, rule="trimmed_mean", f=1)
    scaler, seen = torch.amp.GradScaler("cpu", init_scale=2.0**10), []
    for t in range(STEPS):
        generator = torch.Generator().manual_seed(1000 * rank + t)
        inputs, labels = torch.randn(8, 5, generator=generator), torch.randint(3, (8,), generator=generator)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss = loss * float("inf") if (rank, t) in faulty else loss
        scaler.scale(loss).backward()
        if t % 2:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        scaler.step(optimizer)
        scaler.update()
        seen.append(scaler.get_scale())
    return vector(model), seen, optimizer.rounds, optimizer.skipped


def unscaled(rank):
    model = DistributedDataParallel(small_model(torch.float32))
    optimizer = RobustSGD(model, 0.1, rule="trimmed_mean", f=1)
    for t in range(STEPS):
        generator = torch.Generator().manual_seed(1000 * rank + t)
        inputs, labels = torch.randn(8, 5, generator=generator), torch.randint(3, (8,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    return vector(model)


def test_with_a_scaler_every_rank_takes_part_whatever_overflows():
    plain = play_ranks(N, unscaled)
    clean = play_ranks(N, scaled, ())
    for (x, scales, rounds, skipped), expected in zip(clean, plain, strict=True):
        # A power of two scales float32 gradients without error.
        assert torch.equal(x, expected)
        assert (rounds, skipped, set(scales)) == (STEPS, 0, {2.0**10})
    one = play_ranks(N, scaled, ((3, 1), (2, 3)))
    for rank, (x, scales, rounds, skipped) in enumerate(one):
        assert torch.equal(x, one[0][0])
        assert x.isfinite().all()
        assert (rounds, skipped) == (STEPS, 0)
        assert scales[-1] == (2.0**9 if rank in (2, 3) else 2.0**10)
    most = play_ranks(N, scaled, ((0, 2), (1, 2), (3, 2)))
    for x, _, rounds, skipped in most:
        assert torch.equal(x, most[0][0])
        assert (rounds, skipped) == (STEPS - 1, 1)


def uneven(rank, both):
    model = DistributedDataParallel(small_model())
    watch = []
    optimizer = RobustSGD(model, 0.1, momentum=0.9, rule="trimmed_mean", f=1, watch=watch.append)
    said = ""
    with Join([model, optimizer] if both else [model]):
        for t in range(5 if rank < 3 else 2):
            backward(model, rank, t)
            if not both:
                said = error_of(optimizer.step)
                break
            optimizer.step()
    return vector(model), optimizer.rounds, [d.absent for d in watch], said


def test_a_rank_with_fewer_batches_takes_the_steps_of_the_others():
    results = play_ranks(N, uneven, True)
    for x, rounds, absent, _ in results:
        assert torch.equal(x, results[0][0])
        assert rounds == 5
        assert absent == [(), (), (3,), (3,), (3,)]


def reference_of_uneven():
    """Three workers go on by themselves: the rule sees 3 rows, of which 1 may lie."""
    from byzopt.aggregators import rule_from

    rule, x = rule_from("trimmed_mean", f=1), vector(small_model())
    v = None
    for t in range(5):
        rows = []
        for rank in range(N if t < 2 else 3):
            model = small_model()
            nn.utils.vector_to_parameters(x, model.parameters())
            backward(model, rank, t)
            rows.append(torch.cat([p.grad.reshape(-1) for p in model.parameters()]))
        v = rows if v is None else [0.9 * old + new for old, new in zip(v, rows, strict=False)]
        x = x - 0.1 * rule(torch.stack(v))
    return x


def test_an_absent_rank_is_no_row_of_the_rule():
    torch.testing.assert_close(play_ranks(N, uneven, True)[0][0], reference_of_uneven(), **NEAR)


def test_a_context_that_knows_the_model_alone_is_refused_and_not_waited_in():
    def both_sides(rank):
        try:
            return uneven(rank, False)
        except RuntimeError as error:  # the context's own collectives, once all have left it
            return None, 0, [], str(error)

    for _, rounds, _, said in play_ranks(N, both_sides):
        assert rounds == 0
        assert "with Join([model, optimizer])" in said


def wrapped(rank, how):
    model = small_model()
    if how == "compiled outside":
        model = torch.compile(DistributedDataParallel(model), backend="eager")
    elif how == "compiled inside":
        model = DistributedDataParallel(torch.compile(model, backend="eager"))
    elif how == "in another module":
        model = nn.Sequential(DistributedDataParallel(model))
    elif how == "wrapped":
        model = DistributedDataParallel(model)
    optimizer = RobustSGD(model, 0.1, rule="trimmed_mean", f=1)
    for t in range(3):
        backward(model, rank, t, 1.0 if rank else -10.0)
        optimizer.step()
    return vector(model)


@pytest.mark.slow
def test_models_however_wrapped_or_compiled_keep_gradients_local():
    ways = ("wrapped", "not wrapped", "in another module", "compiled outside", "compiled inside")
    first = None
    for how in ways:
        for x in play_ranks(N, wrapped, how):
            first = x if first is None else first
            torch.testing.assert_close(x, first, **NEAR)


def hooked(rank):
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook

    model = DistributedDataParallel(small_model())
    model.register_comm_hook(None, fp16_compress_hook)
    other = DistributedDataParallel(small_model())
    RobustSGD(other, 0.1, rule=Mean())
    again = RobustSGD(other, 0.2, rule=Mean())  # a second phase of training
    return error_of(lambda: RobustSGD(model, 0.1, rule=Mean())), again.rounds


def test_a_model_with_another_hook_is_refused():
    for said, rounds in play_ranks(2, hooked):
        assert "fp16_compress_hook" in said
        assert rounds == 0


def one_checkpoint(rank, kind, topology):
    settings = {"momentum": 0.9} if kind is RobustSGD else {"eta": 0.5}
    settings = {} if kind is RobustDM21 else settings

    def fresh():
        model = small_model()
        return model, kind(model.parameters(), 0.1, rule="trimmed_mean", f=1, topology=topology, **settings)

    model, optimizer = fresh()
    for t in range(3):
        backward(model, rank, t)
        optimizer.step()
    x, buffer = vector(model), io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    states = [None] * N
    torch.distributed.all_gather_object(states, buffer.getvalue())
    model, optimizer = fresh()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer.load_state_dict(torch.load(io.BytesIO(states[0]), weights_only=True))
    start = vector(model)
    for t in range(3, 6):
        backward(model, rank, t)
        optimizer.step()
    return x, start, [str(w.message) for w in caught], optimizer.rounds, vector(model)


@pytest.mark.parametrize(
    "kind, topology",
    [(RobustSGD, "sharded"), (RobustNSGDM, "replicated"), (RobustDM21, "server"), (RobustDM21, "replicated")],
)
def test_one_ranks_checkpoint_serves_all_with_fresh_momentum_and_one_warning(kind, topology):
    results = play_ranks(N, one_checkpoint, kind, topology)
    for rank, (x, start, said, rounds, after) in enumerate(results):
        assert torch.equal(x, start)
        assert len(said) == (rank > 0)
        assert not said or f"rank 0 of 4 and not of rank {rank} of 4" in said[0]
        assert rounds == 6
        assert torch.equal(after, results[0][4])
        assert after.isfinite().all()


STEPS_OF_SERVERS = {
    "descent": Descent(1.0),
    "lmo": LMOStep(1.0),
    "server momentum": ServerMomentum(1.0),
    "nesterov": NesterovMomentum(1.0),
    "three sequences": ThreeSequences(1.0),
}


def still(rank, name):
    x = nn.Parameter(torch.arange(4.0, dtype=torch.float64))
    method = Method(Plain(), Direct(), Mean().as_filter(), STEPS_OF_SERVERS[name])
    optimizer = RobustOptimizer([x], method, 0.0)
    found = []
    for lr in (0.0, 0.1, 0.0):
        optimizer.param_groups[0]["lr"] = lr
        before = x.detach().clone()
        x.grad = x.detach() + rank
        optimizer.step()
        found.append(torch.equal(before, x))
    y = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    optimizer.add_param_group({"params": [y], "lr": 0.3})
    x.grad, y.grad = torch.ones_like(x), torch.ones_like(y)
    return found, error_of(optimizer.step)


@pytest.mark.parametrize("name", STEPS_OF_SERVERS)
def test_a_rate_of_zero_is_a_step_of_length_zero(name):
    for found, said in play_ranks(2, still, name):
        assert found == [True, False, True]
        assert ("one lr for all groups" in said) == (name == "three sequences")
