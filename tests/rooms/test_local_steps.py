"""Local steps: reductions to plain training, one liar among four, faults beyond f, checkpoints."""

from __future__ import annotations

import gc

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from byzopt.distributed import LocalSteps
from byzopt.errors import InvalidInput, TooManyFaults
from tests.ranks import play_ranks

pytestmark = pytest.mark.slow  # many processes

N, STEPS = 4, 12


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 24), nn.Tanh(), nn.Linear(24, 3)).double()


def data(rank, t):
    generator = torch.Generator().manual_seed(1000 * rank + t)
    x = torch.randn(16, 10, generator=generator, dtype=torch.float64)
    return x, x[:, :3].sin()


def loss_of(model, x, y):
    return (model(x) - y).square().mean()


def train(rank, model, local, steps=STEPS, lr=0.3, factor=None, first=0):
    optimizer = torch.optim.SGD(model.parameters(), lr)
    for t in range(first, first + steps):
        optimizer.zero_grad()
        (loss_of(model, *data(rank, t)) * (factor(rank, t) if factor else 1.0)).backward()
        optimizer.step()
        local.step()
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def identity(parameters):
    return torch.optim.SGD(parameters, lr=1.0)


def reductions(rank):
    plain = DistributedDataParallel(network())
    optimizer = torch.optim.SGD(plain.parameters(), 0.3)
    for t in range(STEPS):
        optimizer.zero_grad()
        loss_of(plain, *data(rank, t)).backward()
        optimizer.step()
    expected = torch.cat([p.detach().reshape(-1) for p in plain.parameters()])
    model = network()
    every = train(rank, model, LocalSteps(model, 1, "mean", outer=identity))
    # By hand: H local steps, then the mean of where the ranks are.
    hand = network()
    optimizer = torch.optim.SGD(hand.parameters(), 0.3)
    for t in range(STEPS):
        optimizer.zero_grad()
        loss_of(hand, *data(rank, t)).backward()
        optimizer.step()
        if t % 4 == 3:
            for parameter in hand.parameters():
                torch.distributed.all_reduce(parameter.data)
                parameter.data /= N
    averaged = torch.cat([p.detach().reshape(-1) for p in hand.parameters()])
    model = network()
    fourth = train(rank, model, LocalSteps(model, 4, "mean", outer=identity))
    return float((every - expected).abs().max()), float((fourth - averaged).abs().max())


def test_one_step_is_plain_training_and_h_steps_are_model_averaging():
    for every, fourth in play_ranks(N, reductions):
        assert every < 1e-12  # sums over four ranks in another order, twelve times
        assert fourth < 1e-12


LIES = {
    "times -10": lambda r, t: -10.0 if r == 1 else 1.0,
    "NaN": lambda r, t: float("nan") if r == 1 else 1.0,
}


def held(rank):
    test = data(77, 0)
    out = {}
    for name, lie in (("none", None), *LIES.items()):
        for rule in ("mean", "median"):
            model, faults = network(), []
            local = LocalSteps(
                model, 3, rule, 1 if rule == "median" else None, on_fault=lambda seen=faults: seen.append(1)
            )
            try:
                weights = train(rank, model, local, steps=60, factor=lie)
            except TooManyFaults:
                weights = torch.full((1,), torch.nan)
            out[name, rule] = float(loss_of(model, *test)), weights, local.dropped, len(faults)
    return out


def test_one_liar_among_four_moves_no_one_where_a_rule_stands():
    results = play_ranks(N, held)
    clean = results[0]["none", "mean"][0]
    for rank, found in enumerate(results):
        for name in LIES:
            loss, weights, dropped, faults = found[name, "median"]
            assert loss < 3 * clean, name
            assert torch.equal(weights, results[0][name, "median"][1])
            assert dropped == ([0, 20, 0, 0] if name == "NaN" else [0] * N)
            assert faults == (20 if name == "NaN" and rank == 1 else 0)
        assert not found["times -10", "mean"][0] < 10 * clean


def beyond(rank):
    out = {}
    for policy in ("raise", "skip"):
        model = network()
        local = LocalSteps(model, 2, "median", 1, excess=policy)
        said = ""
        try:
            train(rank, model, local, steps=2, factor=lambda r, t: float("nan") if r < 2 else 1.0)
        except TooManyFaults as error:
            said = str(error)
        back = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
        out[policy] = said, bool(torch.equal(back, local.point)), local.skipped
        train(rank, model, local, steps=2, first=2)
        out[policy] += (bool(local.point.isfinite().all()),)
    return out


def test_more_faults_than_f_are_one_error_on_all_ranks_and_all_are_back_at_the_common_point():
    for found in play_ranks(N, beyond):
        for policy, (said, back, skipped, finite) in found.items():
            assert ("[0, 1]" in said) == (policy == "raise")
            assert (back, skipped, finite) == (True, 1, True)


def resumed(rank):
    model = network()
    whole = train(rank, model, LocalSteps(model, 3, "nnm >> rfa", 1))
    model = network()
    local = LocalSteps(model, 3, "nnm >> rfa", 1)
    train(rank, model, local, steps=7)
    kept, state = model.state_dict(), local.state_dict()
    again = network()
    fresh = LocalSteps(again, 3, "nnm >> rfa", 1)
    again.load_state_dict(kept)
    fresh.load_state_dict(state)
    return bool(torch.equal(train(rank, again, fresh, steps=STEPS - 7, first=7), whole))


def test_a_checkpoint_goes_on_to_the_same_bits():
    assert all(play_ranks(N, resumed))


def refused(rank):
    model = network()
    odd = network()
    with torch.no_grad():
        odd[0].bias += float(rank == 2)
    out = []
    for build in (
        lambda: LocalSteps(DistributedDataParallel(model), 2, "median", 1),
        lambda: LocalSteps(model, 0, "median", 1),
        lambda: LocalSteps(model, 2, "krum" if rank == 3 else "median", 1),
        lambda: LocalSteps(odd, 2, "median", 1),
        lambda: LocalSteps(model, 2, "median", 1, excess="ignore"),
    ):
        with pytest.raises(InvalidInput) as caught:
            build()
        out.append(str(caught.value))
    return out


def test_what_cannot_work_is_refused_on_all_ranks():
    results = play_ranks(N, refused)
    assert all("ranks [2] that differ" in said[3] for said in results)
    for said in results:
        assert "wrapped" in said[0]
        assert "every" in said[1]


def round_of(model, forward, rank):
    """Two local steps; rank 0 lies."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for t in range(2):
        optimizer.zero_grad()
        (loss_of(forward, *data(rank, t)) * (-50.0 if rank == 0 else 1.0)).backward()
        optimizer.step()


def said_by(work):
    try:
        work()
    except InvalidInput as error:
        return str(error)
    return ""


def wrapped(rank):
    def build(model):
        return said_by(lambda: LocalSteps(model, 2, "median", 0))

    gc.freeze()  # a look through all that is alive is quicker without what other tests have left
    replica = DistributedDataParallel(network())
    tied = network()
    around = DistributedDataParallel(nn.Sequential(tied, nn.Linear(3, 3).double()))
    head = nn.Sequential(nn.Linear(10, 10).double(), tied[2])
    out = {
        "module": build(replica.module),
        "nested": build(nn.Sequential(DistributedDataParallel(network()))),
        "around": build(tied),
        "shared parameters": build(head),
    }
    del around
    later = network()
    local = LocalSteps(later, 2, "median", 0)
    replica = DistributedDataParallel(later)
    round_of(later, replica, rank)
    before = [p.detach().clone() for p in later.parameters()]
    out["built later"] = said_by(local.sync)
    assert all(map(torch.equal, before, later.parameters()))
    del replica
    latest = network()
    local = LocalSteps(latest, 2, "median", 0)
    for _ in range(2):
        round_of(latest, latest, rank)
        local.sync()
    replica = DistributedDataParallel(latest)
    round_of(latest, replica, rank)
    out["built after two exchanges"] = said_by(local.sync)
    return out


def test_a_wrapper_that_averages_the_same_parameters_is_refused_wherever_it_is():
    results = play_ranks(2, wrapped)
    for found in results:
        assert found == results[0]
        for case, message in found.items():
            assert "Found DistributedDataParallel over the same parameters" in message, case


def unwrapped(rank):
    """What no wrapper shows, and what is no average over workers."""
    gc.freeze()

    def averaged(model, **settings):
        local = LocalSteps(model, 2, "median", 1, **settings)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for t in range(2):
            optimizer.zero_grad()
            loss_of(model, *data(rank, t)).backward()
            for parameter in model.parameters():
                dist.all_reduce(parameter.grad)
            optimizer.step()
        if rank == 0:  # a faulty rank that has another one does not hide it
            with torch.no_grad():
                model[0].bias.add_(1.0)
        return said_by(local.sync)

    out = {"by hand": averaged(network()), "on purpose": averaged(network(), same_data=True)}
    model = network()
    replica = DistributedDataParallel(model)
    replica.itself = replica
    del replica  # nobody can call it, though a circle keeps it
    local = LocalSteps(model, 2, "median", 1)
    round_of(model, model, rank)
    out["let go"] = said_by(local.sync)
    machines = [dist.new_group(ranks) for ranks in ([0, 1], [2, 3])]
    across = [dist.new_group(ranks) for ranks in ([0, 2], [1, 3])]
    replica = DistributedDataParallel(network(), process_group=machines[rank // 2])
    local = LocalSteps(replica.module, 2, "mean", group=across[rank % 2])
    round_of(replica.module, replica, rank)
    out["machine"] = said_by(local.sync)
    out["machines"] = said_by(lambda: LocalSteps(replica.module, 2, "median", 1))
    return out


def test_equal_pseudo_gradients_are_refused_and_averages_within_a_worker_are_not():
    for found in play_ranks(N, unwrapped):
        assert "Pseudo-gradients of the ranks should differ in the first exchange" in found["by hand"]
        assert "Found 3 of 4 ranks" in found["by hand"]
        assert "same_data=True" in found["by hand"]
        assert found["on purpose"] == found["let go"] == found["machine"] == ""
        assert "DistributedDataParallel" in found["machines"]


def whole_or_none(rank):
    """Ranks 0 and 1 have NaN, in their batch or in their buffers alone, once, in the second exchange."""
    out = {}
    for policy in ("raise", "skip"):
        for where in ("batch", "buffers"):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(10, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).double()
            optimizer, told = torch.optim.AdamW(model.parameters(), 1e-2), []

            def mend(optimizer=optimizer, told=told):
                told.append(1)
                optimizer.state.clear()

            local = LocalSteps(model, 2, "median", 1, excess=policy, on_fault=mend)
            raised, back = [], None
            for t in range(8):
                if t == 2:
                    agreed = {name: value.clone() for name, value in model.state_dict().items()}
                x, y = data(rank, t)
                bad = t == 3 and rank < 2
                optimizer.zero_grad()
                loss_of(model, x * torch.nan if bad and where == "batch" else x, y).backward()
                optimizer.step()
                if bad and where == "buffers":
                    model[1].running_mean.fill_(torch.nan)
                try:
                    local.step()
                except TooManyFaults as error:
                    raised.append((t, error.rows))
                if t == 3:
                    back = all(torch.equal(agreed[name], value) for name, value in model.state_dict().items())
            whole = all(bool(value.isfinite().all()) for value in model.state_dict().values())
            moved = not torch.equal(agreed["0.weight"], model[0].weight)
            counts = local.skipped, local.dropped, len(told)
            out[policy, where] = raised, back, counts, whole and moved
    expected, state = model[1].running_mean.clone(), local.state_dict()
    model[1].reset_running_stats()
    resumed = LocalSteps(model, 2, "median", 1, excess="skip")
    resumed.load_state_dict(state)
    with torch.no_grad():
        for value in (model[1].running_mean, model[0].bias):
            value.fill_(torch.nan)
    resumed.sync()
    out["resumed"] = bool(torch.equal(model[1].running_mean, expected))
    return out


def test_an_exchange_with_too_many_faults_takes_all_back_and_tells_the_faulty():
    for rank, found in enumerate(play_ranks(N, whole_or_none)):
        assert found.pop("resumed")
        for (policy, where), (raised, back, counts, sound) in found.items():
            assert raised == ([(3, (0, 1))] if policy == "raise" else []), where
            assert (back, sound) == (True, True), (policy, where)
            assert counts == (1, [1, 1, 0, 0], int(rank < 2)), (policy, where)
