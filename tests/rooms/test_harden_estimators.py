"""Estimators in the place of worker momentum: what serves, what is refused, and what ranks send."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from byzopt import harden
from byzopt.distributed.harden.estimated import Estimated, check_estimator
from byzopt.distributed.harden.momentum import Momentum
from byzopt.errors import InvalidInput
from byzopt.schedules import Anytime
from byzopt.workers import ESTIMATORS, DoubleMomentum, Estimator, Plain, WorkerMomentum
from tests.ranks import play_ranks

SERVES = {"momentum", "plain", "double_momentum"}


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_every_estimator_serves_or_says_why_not(name):
    estimator = ESTIMATORS.build(name)
    if name in SERVES:
        check_estimator(estimator)
        return
    with pytest.raises(InvalidInput, match=r"one gradient a round|serve each number by itself"):
        check_estimator(estimator)


@dataclass(frozen=True)
class Odd(Estimator):
    """Does what cannot be done behind harden."""

    what: str

    def init(self, x, oracle):
        return self.step((), x, oracle)

    def step(self, state, x, oracle):
        if self.what == "never":
            return torch.zeros_like(x).unsqueeze(0), ()
        g = oracle(x)
        if self.what == "whole":
            return g / g.norm(), ()
        if self.what == "decay":
            return g + 0.1 * x, ()
        if self.what == "twice":
            return g + oracle(x + 1), ()
        if self.what == "full":
            return oracle.full(x), ()
        if self.what == "sample":
            return oracle.fresh(1)(x), ()
        if self.what == "shape":
            return g[0], ()
        if self.what == "dtype":
            return g.half(), ()
        if self.what == "draws":
            return g + torch.randn_like(g), ()
        raise RuntimeError("no luck")


REASONS = {
    "whole": "each number by itself",
    "decay": "looks at the parameters",
    "twice": "asks for 2",
    "full": "asks for full",
    "sample": "sample",
    "never": "asks for 0",
    "shape": "send \\[1, 6\\]",
    "dtype": "send \\[1, 6\\] of torch.float64",
    "draws": "each number by itself",
    "raises": "no luck",
}


@pytest.mark.parametrize("what", REASONS)
def test_what_is_tried_and_does_not_serve_is_refused_with_the_reason(what):
    with pytest.raises(InvalidInput, match=REASONS[what]):
        check_estimator(Odd(what))


def grads(t, dtype=torch.float32):
    generator = torch.Generator().manual_seed(t)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in ((3, 2), (5,))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_average_from_the_first_gradient_is_momentum(dtype):
    ours, theirs = Estimated(WorkerMomentum(eta=0.25, start="first_gradient")), Momentum(0.75)
    for t in range(5):
        one, other = grads(t, dtype), grads(t, dtype)
        scale = 2.0 ** (t % 3)
        ours.update(["a", "b"], one, scale)
        theirs.update(["a", "b"], other, scale)
        for a, b in zip(one, other, strict=True):
            # a + (b - a) w against a (1 - w) + b w: two roundings, and one of a message in half precision.
            torch.testing.assert_close(a, b, rtol=4 * torch.finfo(dtype).eps, atol=4 * torch.finfo(dtype).eps)


def test_states_are_kept_and_those_of_others_refused():
    whole, fresh = (Estimated(DoubleMomentum(0.3, 0.2)) for _ in range(2))
    for t in range(3):
        whole.update(["a", "b"], grads(t))
    fresh.load_state_dict(whole.state_dict())
    one, other = grads(7), grads(7)
    whole.update(["a", "b"], one)
    fresh.update(["a", "b"], other)
    assert all(map(torch.equal, one, other))
    for state in (Momentum(0.9).state_dict() | {"a": torch.zeros(3)}, {"a": (1, (torch.zeros(1, 6),))}, 3):
        with pytest.raises(InvalidInput, match="momentum in a state"):
            fresh.load_state_dict(state)


def test_a_schedule_goes_by_rounds():
    estimator = WorkerMomentum(eta=0.5, schedule=Anytime())
    check_estimator(estimator)
    ours, v = Estimated(estimator), torch.zeros(5)
    for t in range(1, 4):
        g = grads(t)[1]
        eta = estimator.schedule.eta(t, 0.5)
        v = (1 - eta) * v + eta * g
        ours.update(["b"], [g])
        torch.testing.assert_close(g, v)


def network(kind):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 2))
    if kind == "ddp":
        return DistributedDataParallel(module, bucket_cap_mb=0.0003)
    return fully_shard(module, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))


def gradient(model, rank, t, lie=1.0):
    model.zero_grad()
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(100 * rank + t))
    (lie * model(x).square().mean()).backward()
    full = [g.full_tensor() if hasattr(g := p.grad, "full_tensor") else g for p in model.parameters()]
    return torch.cat([g.detach().reshape(-1).clone() for g in full])


def sent(rank, kind, scope):
    """How far the mean of all ranks' messages is from that of estimators on whole vectors."""
    n = dist.get_world_size()
    module = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 2))
    settings = {} if scope is None else {"scope": scope}
    model = network(kind)
    guard = harden(model, "mean", momentum=DoubleMomentum(0.3, 0.4), **settings)
    module.load_state_dict({k.removeprefix("module."): v for k, v in whole(model).items()})
    estimators = [Estimated(DoubleMomentum(0.3, 0.4)) for _ in range(n)]
    worst = 0.0
    for t in range(4):
        if t == 2:  # a new guard goes on from this rank's own state, and says nothing
            state = guard.state_dict()
            guard.remove()
            guard = harden(model, "mean", momentum=DoubleMomentum(0.3, 0.4), **settings)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                guard.load_state_dict(state)
        found = gradient(model, rank, t)
        rows = [gradient(module, r, t) for r in range(n)]
        for estimator, row in zip(estimators, rows, strict=True):
            estimator.update(["x"], [row])
        worst = max(worst, float((found - torch.stack(rows).mean(dim=0)).abs().max()))
    return worst


def whole(model):
    return {k: v.full_tensor() if hasattr(v, "full_tensor") else v for k, v in model.state_dict().items()}


def all_kinds(rank):
    out = {(kind, scope): sent(rank, kind, scope) for kind, scope in KINDS}
    model = network("ddp")
    try:
        harden(model, "mean", momentum=WorkerMomentum() if rank else Plain())
    except InvalidInput as error:
        out["differ"] = str(error)
    return out


KINDS = [("ddp", None), ("fsdp", "unit"), ("fsdp", "model")]


@pytest.mark.slow
def test_ranks_send_what_the_estimator_makes_of_their_gradients():
    for found in play_ranks(3, all_kinds):
        assert "ranks [0]" in found.pop("differ")
        for kind, apart in found.items():
            assert apart < 1e-6, kind
