"""A rule that raises on one rank alone, while others wait for its part of the answer."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from byzopt import harden
from byzopt.aggregators import NNM, CoordinateRule, GeometricRule
from byzopt.distributed import robust_all_reduce
from byzopt.errors import ByzoptError
from tests.ranks import play_ranks

N, ODD = 4, 1
WHY = f"Found rank {ODD} unable: no room left"
raising = [False]


def raise_on_one():
    if raising[0] and dist.get_rank() == ODD:
        raise RuntimeError("no room left")


@dataclass(frozen=True)
class Average(GeometricRule):
    f: int = 1
    positional = False

    def weights(self, geometry):
        raise_on_one()
        return torch.full((geometry.m,), 1 / geometry.m, dtype=torch.float64)


@dataclass(frozen=True)
class Middle(CoordinateRule):
    f: int = 1
    positional = False

    def columns(self, block):
        raise_on_one()
        return block.median(dim=0).values


def rules(f=1):
    return {
        "weights": Average(f),
        "columns": Middle(f),
        "columns of mixed rows": NNM(f) >> Middle(f),
    }


class Numbers(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.x = nn.Parameter(torch.zeros(d))

    def forward(self, y):
        return (self.x - y).square().mean()


def error_of(call):
    try:
        call()
    except ByzoptError as error:
        return str(error)
    return None


def message(call):
    """What the call ends in when the rule raises on one rank, between two calls that go well."""
    raising[0] = False
    assert error_of(call) is None
    raising[0] = True
    found = error_of(call)
    raising[0] = False
    assert error_of(call) is None  # ranks are in step
    return found


def sample(rank, d):
    return torch.randn(d, generator=torch.Generator().manual_seed(rank))


def trained(model, y):
    model.zero_grad()
    model(y).square().sum().backward()


def hardened(rank, d, wire):
    found = {}
    for name, rule in rules().items():
        model = DistributedDataParallel(Numbers(d), bucket_cap_mb=0.0001)
        harden(model, rule, wire=wire)
        found[name] = message(lambda m=model: trained(m, sample(rank, d)))
    return found


def assert_told(found, d):
    for name, text in found.items():
        asked = d > 1 or name == "weights"  # of one number the odd rank has no column to answer
        assert (text is not None and WHY in text) if asked else text is None, (name, text)


slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("d", "wire"), [(50, None), pytest.param(50, "int8", marks=slow), pytest.param(1, None, marks=slow)]
)
def test_behind_harden_all_ranks_hear_of_it(d, wire):
    for found in play_ranks(N, hardened, d, wire):
        assert_told(found, d)


def reduced(rank, d):
    return {
        name: message(lambda r=rule: robust_all_reduce(sample(rank, d), r)) for name, rule in rules().items()
    }


@pytest.mark.parametrize("d", [pytest.param(50, marks=slow), 1])
def test_in_the_sharded_topology_all_ranks_hear_of_it(d):
    for found in play_ranks(N, reduced, d):
        assert_told(found, d)


def with_deadline(rank):
    model = DistributedDataParallel(Numbers(8))
    harden(model, Average(), deadline=60.0)
    raising[0] = True
    with suppress(RuntimeError):
        model(sample(rank, 8)).backward()
    return bool(model.module.x.grad.isfinite().all())


@slow
def test_with_a_deadline_it_is_that_ranks_own():
    results = play_ranks(N, with_deadline)
    assert results == [rank != ODD for rank in range(N)]


def sharded(rank, scope, mesh):
    from torch.distributed.fsdp import fully_shard

    found = {}
    for name, rule in rules(f=1 if len(mesh) == 1 else 0).items():
        model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 1))
        for part in (model[0], model):
            fully_shard(part, mesh=init_device_mesh("cpu", mesh, mesh_dim_names=("a", "b")[: len(mesh)]))
        harden(model, rule, scope=scope)
        found[name] = message(lambda m=model: trained(m, sample(rank, 8)))
    return found


@slow
@pytest.mark.parametrize(("scope", "mesh"), [("unit", (4,)), ("model", (4,)), ("unit", (2, 2))])
def test_with_sharded_models_all_ranks_hear_of_it_in_the_same_round(scope, mesh):
    for found in play_ranks(N, sharded, scope, mesh):
        assert_told(found, 8)
