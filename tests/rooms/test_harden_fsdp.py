"""`harden` on FSDP2 and HSDP: the plain script when nobody lies, and one that goes on when a worker does."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from byzopt.distributed.harden import harden
from byzopt.errors import InvalidInput, TooManyFaults
from tests.ranks import play_ranks

pytestmark = pytest.mark.slow  # many processes

N, STEPS = 4, 5
# Sums over ranks are taken in another order than in FSDP's own reduce-scatter: a few roundings a step.
CLOSE = 2e-6


def network(dtype=torch.float32):
    torch.manual_seed(0)
    layers = [nn.Linear(11, 30), nn.Tanh(), nn.Linear(30, 13), nn.Tanh(), nn.Linear(13, 3)]
    return nn.Sequential(*layers).to(dtype)  # 30, 13 and 3 rows do not divide evenly among four ranks


def sharded(hybrid=False, **settings):
    mesh = init_device_mesh(
        "cpu", (2, 2) if hybrid else (N,), mesh_dim_names=("replica", "shard")[-1 - hybrid :]
    )
    model = network()
    for layer in model:
        if isinstance(layer, nn.Linear) and layer.in_features == 30:
            fully_shard(layer, mesh=mesh, **settings)
    return fully_shard(model, mesh=mesh, **settings)


def whole(model):
    return torch.cat([p.full_tensor().detach().reshape(-1).double() for p in model.parameters()])


def data(worker, t):
    generator = torch.Generator().manual_seed(1000 * worker + t)
    x = torch.randn(8, 11, generator=generator)
    return x, x[:, :3].sin()


def train(worker, model, lie=None, accumulate=1, clip=0.5):
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.1)
    for t in range(STEPS):
        optimizer.zero_grad()
        for k in range(accumulate):
            x, y = data(worker, STEPS * k + t)
            model.set_requires_gradient_sync(k == accumulate - 1)
            loss = (model(x) - y).square().mean() / accumulate
            (loss * (lie(worker, t) if lie else 1.0)).backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return whole(model)


def mean_is_plain(rank):
    out = {}
    for name, settings in {
        "plain": {},
        "bf16": {"mp_policy": MixedPrecisionPolicy(torch.bfloat16, torch.float32)},
        "fp16 reduced": {"mp_policy": MixedPrecisionPolicy(torch.float32, torch.float16)},
    }.items():
        expected = train(rank, sharded(**settings))
        for scope in ("unit", "model"):
            model = sharded(**settings)
            guard = harden(model, "mean", scope=scope)
            out[name, scope] = float((train(rank, model) - expected).abs().max()), guard.rounds
    expected = train(rank, sharded(), accumulate=3)
    for scope in ("unit", "model"):
        model = sharded()
        harden(model, "mean", scope=scope)
        out["accumulated", scope] = float((train(rank, model, accumulate=3) - expected).abs().max()), STEPS
    for shape in ((N, 1), (N // 2, 2)):
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=("replica", "shard"))
        ends = []
        for hardened in (False, True):
            model = fully_shard(network(), mesh=mesh)
            guard = harden(model, "mean") if hardened else None
            ends.append(train(rank, model))
        out[f"{shape} hybrid", "unit"] = float((ends[0] - ends[1]).abs().max()), guard.rounds
    model = sharded()
    harden(model, "median", f=1).remove()
    out["removed", "unit"] = float((train(rank, model) - train(rank, sharded())).abs().max()), STEPS
    return out


def test_with_the_mean_a_script_is_what_it_was():
    for found in play_ranks(N, mean_is_plain):
        for (name, scope), (away, rounds) in found.items():
            close = 2e-3 if name == "fp16 reduced" else CLOSE
            assert away <= close, (name, scope)
            assert rounds == STEPS, (name, scope)


LIES = {
    "times -10": lambda w, t: -10.0 if w == 1 else 1.0,
    "NaN": lambda w, t: float("nan") if w == 1 and t == 2 else 1.0,
    "1e30": lambda w, t: 1e30 if w == 1 else 1.0,
}


def survives(rank, hybrid):
    out = {}
    worker = rank // 2 if hybrid else rank
    clean = train(worker, sharded(hybrid))
    for name, lie in LIES.items():
        for scope in ("unit",) if hybrid else ("unit", "model"):
            model = sharded(hybrid)
            rule = "median" if hybrid else "nnm >> rfa"
            guard = harden(model, rule, f=0 if hybrid else 1, scope=None if hybrid else scope)
            try:
                found = train(worker, model, lie)
            except TooManyFaults:
                found = torch.full_like(clean, torch.inf)
            out[name, scope] = float((found - clean).abs().max()), guard.dropped
    return out


def test_one_liar_among_four_moves_no_one():
    for found in play_ranks(N, survives, False):
        for (name, scope), (away, dropped) in found.items():
            assert away < 0.1, (name, scope)
            assert dropped[1] == (1 if name == "NaN" else 0), (name, scope, dropped)


def replicas(rank):
    """HSDP of three replicas of two shards: the rule stands between replicas."""
    mesh = init_device_mesh("cpu", (3, 2), mesh_dim_names=("replica", "shard"))

    def built():
        model = network()
        fully_shard(model[2], mesh=mesh)
        return fully_shard(model, mesh=mesh)

    worker = rank // 2
    plain = train(rank, built())
    model = built()
    harden(model, "mean")
    out = {"mean": float((train(rank, model) - plain).abs().max())}
    clean = train(worker, built())
    for name, lie in LIES.items():
        model = built()
        guard = harden(model, "median", f=1)
        out[name] = float((train(worker, model, lie) - clean).abs().max()), guard.dropped
    weights = whole(model)
    out["same"] = bool((weights == weights.clone()).all())
    return out, whole(model)


def test_replicas_are_the_workers_of_hybrid_sharding():
    results = play_ranks(6, replicas)
    for found, weights in results:
        assert found["mean"] <= CLOSE
        for name in LIES:
            away, dropped = found[name]
            assert away < 0.15, name
            assert dropped == ([0, 1, 0] if name == "NaN" else [0, 0, 0]), name
        assert torch.equal(weights, results[0][1])


def excess(rank):
    out = {}
    for scope in ("unit", "model"):
        for policy in ("raise", "skip"):
            model = sharded()
            guard = harden(model, "median", f=1, excess=policy, scope=scope)
            before, said = whole(model), ""
            optimizer = torch.optim.SGD(model.parameters(), 0.1)
            x, y = data(rank, 0)
            try:
                ((model(x) - y).square().mean() * (float("nan") if rank < 2 else 1.0)).backward()
                optimizer.step()
            except TooManyFaults as error:
                said = str(error)
            optimizer.zero_grad()
            (model(x) - y).square().mean().backward()  # the next round is sound
            out[scope, policy] = said, float((whole(model) - before).abs().max()), guard.skipped, guard.rounds
    return out


def test_more_faults_than_f_are_one_error_on_all_ranks_or_no_step():
    for found in play_ranks(N, excess):
        for (scope, policy), (said, moved, skipped, rounds) in found.items():
            assert ("ranks [0, 1]" in said) == (policy == "raise"), (scope, policy, said)
            assert moved == 0
            assert (skipped, rounds) == (1, 2)


def refused(rank):
    out = []
    for make, settings in (
        (lambda: sharded(), {"rule": "krum", "f": 2}),
        (lambda: sharded(True), {"rule": "median", "f": 0, "scope": "model"}),
        (lambda: sharded(), {"rule": "median", "scope": "layer"}),
        (lambda: sharded(), {"rule": "median" if rank else "mean"}),
        (lambda: network(), {"rule": "median"}),
    ):
        with pytest.raises(InvalidInput) as caught:
            harden(make(), **settings)
        out.append(str(caught.value))
    return out


def test_what_cannot_be_hardened_is_refused_on_all_ranks():
    results = play_ranks(N, refused)
    for whys in zip(*results, strict=True):
        assert all("should" in why for why in whys)
    assert "n >= 2 f + 3" in results[0][0] or "f = 2" in results[0][0]


class Branches(nn.Module):
    """Two branches of one size, of which every pass uses one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.passes = nn.Linear(6, 2), nn.Linear(6, 2), 0

    def forward(self, x):
        self.passes += 1
        return (self.a if self.passes % 2 else self.b)(x)


def one_mesh(module, n=N):
    return fully_shard(module, mesh=init_device_mesh("cpu", (n,)))


def branches(rank):
    """Norms of both branches' gradients; branch a's loss is a hundred times as large."""
    out = {}
    for rule, settings in (("mean", {"momentum": 0.9}), ("centered_clipping", {"f": 1})):
        for scope in ("unit", "model"):
            model = one_mesh(Branches())
            harden(model, rule, scope=scope, **settings)
            norms = []
            for t in range(4):
                model.zero_grad(set_to_none=t % 2 == 0)
                x, y = data(rank, t)
                factor = 100.0 if t % 2 == 0 else 1.0
                (factor * (model(x[:, :6]) - y[:, :2]).square().mean()).backward()
                branch = model.a if t % 2 == 0 else model.b
                norms.append(float(branch.weight.grad.full_tensor().norm()))
            out[rule, scope] = norms
    return out


def test_memory_and_momentum_are_of_parameters_and_not_of_places_in_a_buffer():
    for found in play_ranks(N, branches):
        for (rule, scope), (a, b, a_again, b_again) in found.items():
            assert a > 20 * b, (rule, scope)
            assert a_again > 20 * b_again, (rule, scope)


def misused(rank):
    out = {}
    model = sharded()
    first = harden(model, "median", f=1)
    with pytest.raises(InvalidInput) as caught:
        harden(model, "median", f=1)
    out["twice"] = str(caught.value)
    first.remove()
    harden(model, "median", f=1)
    model = sharded()
    with pytest.raises(InvalidInput) as caught:
        harden(model[2], "median", f=1)
    out["a part"] = str(caught.value)
    inner = fully_shard(nn.Linear(11, 3), mesh=init_device_mesh("cpu", (N,)))
    harden(inner, "median", f=1)  # its whole comes later
    model = fully_shard(nn.Sequential(nn.Linear(11, 11), inner), mesh=init_device_mesh("cpu", (N,)))
    x, y = data(rank, 0)
    with pytest.raises(InvalidInput) as caught:
        (model(x) - y).square().mean().backward()
    out["a part later"] = str(caught.value)
    model = sharded()
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: None)
    with pytest.raises(InvalidInput) as caught:
        harden(model, "median", f=1, scope="model")
    out["early"] = str(caught.value)
    return out


def test_what_would_leave_units_averaged_or_be_read_too_early_is_refused():
    for found in play_ranks(N, misused):
        assert "replaced already" in found["twice"]
        assert "outermost module" in found["a part"]
        assert "outermost module" in found["a part later"]
        assert "scope='unit'" in found["early"]


def two_models(rank):
    """Generator and judge in one backward: an error of one leaves the other as it was."""
    one, two = one_mesh(nn.Linear(11, 11)), one_mesh(nn.Linear(11, 3))
    guards = [harden(model, "median", f=1) for model in (one, two)]
    x, y = data(rank, 0)
    said = []
    for bad in (False, True, False):
        one.zero_grad()
        two.zero_grad()
        try:
            loss = (two(one(x)) - y).square().mean()
            (loss * (float("nan") if bad and rank < 2 else 1.0)).backward()
            said.append("")
        except TooManyFaults as error:
            said.append(str(error))
    sound = all(
        bool(p.grad.full_tensor().isfinite().all()) for model in (one, two) for p in model.parameters()
    )
    return said, [guard.rounds for guard in guards], sound


def test_two_hardened_models_in_one_backward_survive_an_error_of_either():
    for said, rounds, sound in play_ranks(N, two_models):
        assert [bool(each) for each in said] == [False, True, False]
        assert rounds == [3, 3]
        assert sound


def test_a_mesh_gathers_from_its_own_ranks_alone():
    from byzopt.distributed.harden.mesh import MeshCommunicator

    for told in play_ranks(6, gathered, MeshCommunicator):
        assert told == [[0.0, 1.0, 2.0, 3.0], 4]


def gathered(rank, kind):
    """Ranks 4 and 5 are outside of the mesh, and are waited for by nobody."""
    groups = {ranks: torch.distributed.new_group(list(ranks)) for ranks in ((0, 1), (2, 3), (0, 2), (1, 3))}
    if rank > 3:
        return [[0.0, 1.0, 2.0, 3.0], 4]
    shards, replicas = (0, 1) if rank < 2 else (2, 3), (0, 2) if rank % 2 == 0 else (1, 3)
    comm = kind(groups[replicas], groups[shards])
    told = comm.everyone.all_gather(torch.tensor([float(rank)], dtype=torch.float64))
    return [told.flatten().tolist(), comm.everyone.n]
