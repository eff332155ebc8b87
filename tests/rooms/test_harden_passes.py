"""Worker momentum behind `harden` and steps of several backward passes: counted once, or told."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from byzopt import harden
from byzopt.errors import InvalidInput
from byzopt.workers import WorkerMomentum
from tests.ranks import play_ranks

pytestmark = pytest.mark.slow  # many processes

N = 2


def network(**settings):
    torch.manual_seed(0)
    return DistributedDataParallel(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)), **settings)


def inputs(rank, t, k=0):
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(1000 * rank + 10 * t + k))


def gradient(model):
    return torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None]).clone()


def at_once(model, rank, t):
    model(torch.cat([inputs(rank, t, 0), inputs(rank, t, 1)])).square().sum().backward()


def under_no_sync(model, rank, t):
    with model.no_sync():
        model(inputs(rank, t, 0)).square().sum().backward()
    model(inputs(rank, t, 1)).square().sum().backward()


def graph_kept(model, rank, t):
    """Two passes through one graph, of which DDP synchronises the first, so that it takes both losses."""
    out = model(torch.cat([inputs(rank, t, 0), inputs(rank, t, 1)]))
    out.square().sum().backward(retain_graph=True)
    (0.0 * out).sum().backward()


def twice(model, rank, t):
    for k in range(2):
        model(inputs(rank, t, k)).square().sum().backward()


def followed(rank, step, keep=True, **settings):
    """Gradients of four steps, or the error; and what was warned of."""
    model = network(**settings.pop("wrap", {}))
    harden(model, "mean", **{"momentum": 0.5} | settings)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    path = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            for t in range(4):
                optimizer.zero_grad(set_to_none=keep)
                step(model, rank, t)
                path.append(gradient(model))
                optimizer.step()
        except InvalidInput as error:
            return str(error), len(path)
    return torch.stack(path), [str(w.message) for w in caught if "momentum" in str(w.message)]


def twice_zeroed(model, rank, t):
    """As a generator that trains through this model would leave it, whose gradients are zeroed then."""
    model(inputs(rank, t, 0)).square().sum().backward()
    model.zero_grad()
    model(inputs(rank, t, 1)).square().sum().backward()


class Branches(nn.Module):
    """Of two layers an input goes through one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.both, self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 1), nn.Linear(4, 1)

    def forward(self, x, first):
        return (self.one if first else self.other)(self.both(x))


def in_turn(rank, zeroed):
    """Two passes a step, through one layer and then through another."""
    model = DistributedDataParallel(Branches(), find_unused_parameters=True)
    harden(model, "mean", momentum=0.5)
    try:
        for t in range(3):
            for first in (True, False):
                if zeroed or first:
                    model.zero_grad()
                model(inputs(rank, t), first).sum().backward()
    except InvalidInput as error:
        return str(error)
    return None


def sharded(rank, scope, second):
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))
    model = fully_shard(module, mesh=init_device_mesh("cpu", (N,)))
    harden(model, "mean", momentum=0.5, scope=scope)
    try:
        for t in range(2):
            model.zero_grad()
            for k in range(2):
                if second == "not synchronised":
                    model.set_requires_gradient_sync(k == 1)
                model(inputs(rank, t, k)).square().sum().backward()
    except InvalidInput as error:
        return str(error)
    return None


def everything(rank):
    out = {
        "at once": followed(rank, at_once),
        "no_sync": followed(rank, under_no_sync),
        "no_sync, zeros": followed(rank, under_no_sync, keep=False),
        "no_sync, views": followed(rank, under_no_sync, wrap={"gradient_as_bucket_view": True}),
        "graph kept": followed(rank, graph_kept),
        "twice": followed(rank, twice),
        "twice, zeros": followed(rank, twice, keep=False),
        "twice, views": followed(rank, twice, wrap={"gradient_as_bucket_view": True}),
        "twice, estimator": followed(rank, twice, momentum=WorkerMomentum(eta=0.5)),
        "twice, deadline": followed(rank, twice, deadline=60.0),
        "twice, no momentum": followed(rank, twice, momentum=0.0),
        "twice, zeroed": followed(rank, twice_zeroed),
        "in turn, zeroed": in_turn(rank, True),
        "in turn": in_turn(rank, False),
    }
    for scope in ("unit", "model"):
        for second in ("synchronised", "not synchronised"):
            out[scope, second] = sharded(rank, scope, second)
    return out


@pytest.fixture(scope="module")
def played():
    return play_ranks(N, everything)


@pytest.mark.parametrize("way", ["no_sync", "no_sync, zeros", "no_sync, views", "graph kept"])
def test_passes_that_are_synchronised_once_are_one_step(way, played):
    for found in played:
        path, said = found[way]
        assert not said
        # Sums of a batch in two parts: some roundings of float32.
        assert torch.allclose(path, found["at once"][0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "way", ["twice", "twice, zeros", "twice, views", "twice, estimator", "twice, deadline"]
)
def test_a_second_synchronised_pass_onto_an_answer_is_an_error_on_all_ranks(way, played):
    for found in played:
        message, done = found[way]
        assert "holds the answer of an earlier one" in message
        assert "under no_sync()" in message
        assert done == 0


def test_without_momentum_it_stays_what_it_was(played):
    for found in played:
        path, said = found["twice, no momentum"]
        assert not said
        assert torch.equal(path, played[0]["twice, no momentum"][0])


def test_a_second_pass_of_a_step_whose_gradients_were_zeroed_is_warned_of_once(played):
    for found in played:
        path, said = found["twice, zeroed"]
        assert len(path) == 4
        assert len(said) == 1
        assert "as if they were two steps" in said[0]
    assert not played[0]["at once"][1]


def test_parameters_that_a_pass_does_not_reach_are_looked_at_too(played):
    for found in played:
        assert found["in turn, zeroed"] is None
        assert "holds the answer of an earlier one" in found["in turn"]


@pytest.mark.parametrize("scope", ["unit", "model"])
def test_with_fully_shard_too(scope, played):
    for found in played:
        assert "holds the answer of an earlier one" in found[scope, "synchronised"]
        assert found[scope, "not synchronised"] is None
