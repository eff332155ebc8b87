"""Buffers of the models that optimizers over ranks are given: no rank can spoil those of the others."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.distributed.algorithms.join import Join
from torch.nn.parallel import DistributedDataParallel

from byzopt.distributed import RobustDM21, RobustNSGDM, RobustSGD
from byzopt.errors import InvalidInput, TooManyFaults
from tests.ranks import play_ranks

pytestmark = pytest.mark.slow  # many processes


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 1)).double()


def backward(model, rank, t, bad=()):
    generator = torch.Generator().manual_seed(100 * rank + t)
    inputs = torch.randn(8, 4, generator=generator, dtype=torch.float64)
    model.zero_grad()
    model(inputs * float("nan") if rank in bad else inputs).square().mean().backward()


def statistics(model):
    return torch.cat([buffer.double().reshape(-1) for buffer in model.buffers()])


def wrapped():
    return DistributedDataParallel(network())


MAKERS = {
    "sgd": lambda: (model := wrapped(), RobustSGD(model, 0.05, rule="nnm >> rfa", f=1)),
    "nsgdm": lambda: (model := wrapped(), RobustNSGDM(model, 0.05, rule="nnm >> rfa", f=1)),
    "dm21": lambda: (model := wrapped(), RobustDM21(model, 0.05, rule="nnm >> rfa", f=1)),
    "inside": lambda: (model := nn.Sequential(wrapped()), RobustSGD(model, 0.05, rule="median", f=1)),
    "bare": lambda: (model := network(), RobustSGD(model, 0.05, rule="median", f=1)),
}


def poisoned(rank):
    out = {}
    for name, make in MAKERS.items():
        model, optimizer = make()
        for t in range(4):
            backward(model, rank, t, bad=[0] if t == 1 else [])
            if t == 3:
                own = statistics(model)
            optimizer.step()
        model.eval()
        loss = model(torch.ones(2, 4, dtype=torch.float64)).sum()
        out[name] = own, statistics(model), bool(loss.isfinite())
    return out


def test_nan_on_rank_0_spoils_nobodys_running_statistics():
    results = play_ranks(4, poisoned)
    for name in MAKERS:
        rows = torch.stack([found[name][0] for found in results])
        for found in results:
            _, buffers, finite = found[name]
            assert finite, name
            # The median of an even number is the mean of the middle two: exact but for one rounding.
            assert torch.allclose(buffers, rows.quantile(0.5, dim=0), rtol=1e-14, atol=0), name
            assert torch.equal(buffers, results[0][name][1]), name


def too_many(rank):
    model = wrapped()
    optimizer = RobustSGD(model, 0.05, rule="median", f=1)
    backward(model, rank, 0)
    optimizer.step()
    before = statistics(model), [p.detach().clone() for p in model.parameters()]
    backward(model, rank, 1, bad=[0, 2])
    with pytest.raises(TooManyFaults) as caught:
        optimizer.step()
    same = torch.equal(before[0], statistics(model)) and all(
        torch.equal(a, b) for a, b in zip(before[1], model.parameters(), strict=True)
    )
    # A second optimizer of one model still defends what the first took over from DDP.
    optimizer = RobustSGD(model, 0.05, rule="median", f=1)
    backward(model, rank, 2, bad=[0])
    optimizer.step()
    return tuple(caught.value.rows), same, model.broadcast_buffers, statistics(model)


def test_with_more_than_f_all_ranks_raise_and_nothing_has_moved():
    results = play_ranks(4, too_many)
    for rows, same, broadcast, buffers in results:
        assert rows == (0, 2)
        assert same
        assert not broadcast
        assert buffers.isfinite().all()
        assert torch.equal(buffers, results[0][-1])


def modes(rank):
    out = {}
    for name in ("local", "off"):
        model = DistributedDataParallel(network(), broadcast_buffers=name != "off")
        way = {"buffers": "local"} if name == "local" else {}
        optimizer = RobustSGD(model, 0.05, rule="median", f=1, **way)
        backward(model, rank, 0)
        own = statistics(model)
        optimizer.step()
        backward(model, rank, 1)  # a broadcast would come with this forward pass
        twin = network()
        backward(twin, rank, 0)
        out[name] = torch.equal(own, statistics(twin)), statistics(model)
    for word, match in (("refuse", "running statistics"), ("mean", "be one of")):
        with pytest.raises(InvalidInput, match=match):
            RobustSGD(wrapped(), 0.05, rule="median", f=1, buffers=word)
    with pytest.raises(InvalidInput, match="be checked at every step"):
        RobustSGD(nn.Linear(2, 1), 0.05, rule="median", f=1, buffers="refuse", deadline=30.0)
    with pytest.raises(InvalidInput, match="rank"):
        RobustSGD(network(), 0.05, rule="median", f=1, buffers="local" if rank else "median")
    return out


def test_local_ones_stay_each_ranks_own_and_what_cannot_be_is_refused():
    results = play_ranks(3, modes)
    for name in ("local", "off"):
        assert all(found[name][0] for found in results)
        assert not torch.equal(results[0][name][1], results[1][name][1])


def uneven(rank):
    model = wrapped()
    optimizer = RobustSGD(model, 0.05, rule="median", f=1)
    with Join([model, optimizer]):
        for t in range(2 if rank == 3 else 4):
            backward(model, rank, t, bad=[0] if t == 3 else [])
            optimizer.step()
    return statistics(model)


def test_ranks_that_have_no_more_batches_take_the_others_buffers():
    results = play_ranks(4, uneven)
    for buffers in results:
        assert buffers.isfinite().all()
        assert torch.equal(buffers, results[0])
