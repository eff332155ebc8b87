"""Gradients that DDP averaged before the rule sees them are refused in the first step, on all ranks."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from byzopt.distributed import RobustDM21, RobustNSGDM, RobustSGD
from byzopt.distributed.header import fingerprint
from byzopt.errors import InvalidInput
from tests.ranks import play_ranks

N = 4


def wrapped(rank):
    """A DDP model, and the function that leaves its gradients on this rank's own data."""
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 1)))

    def backward(t, scale=1.0):
        generator = torch.Generator().manual_seed(1000 * rank + t)
        model.zero_grad()
        (scale * model(torch.randn(8, 5, generator=generator)).square().mean()).backward()

    return model, backward


def refused(optimizer):
    before = [p.detach().clone() for p in optimizer.flat.parameters]
    try:
        optimizer.step()
    except InvalidInput as error:
        assert all(map(torch.equal, before, optimizer.flat.parameters))
        assert optimizer.rounds == 0
        return str(error)
    return ""


def averaged(rank):
    found = {}
    for topology in ("sharded", "replicated", "server"):
        for inner in (False, True):
            for f in (0, 1):
                model, backward = wrapped(rank)
                params = (model.module if inner else model).parameters()
                backward(0)
                found[topology, inner, f] = refused(RobustSGD(params, 0.1, f=f, topology=topology))
    model, backward = wrapped(rank)
    optimizer = RobustDM21(
        model.parameters(), 0.1, f=1, compressor={"name": "rand_k", "k": 2, "scaled": False}
    )
    backward(0)
    found["compressed"] = refused(optimizer)
    model, backward = wrapped(rank)
    optimizer = RobustNSGDM(model.parameters(), 0.1, rule="median")
    backward(0, scale=0.0)  # says nothing: the next step is looked at in its place
    optimizer.step()
    backward(1)
    with pytest.raises(InvalidInput) as error:
        optimizer.step()
    found["later"] = str(error.value)
    model, backward = wrapped(rank)
    optimizer = RobustSGD(model.parameters(), 0.1, f=1)
    backward(0)
    if rank == 3:  # a faulty rank that sends something else does not hide it
        for p in model.parameters():
            p.grad.neg_()
    found["hidden"] = refused(optimizer)
    return found


def test_averaged_gradients_are_refused_on_all_ranks_with_one_message():
    results = play_ranks(N, averaged)
    for found in results:
        assert found == results[0]
        for case, message in found.items():
            ranks = 3 if case == "hidden" else 4
            assert f"Found {ranks} of 4 ranks with the same gradient" in message, case
            assert "RobustSGD(model, ...)" in message
            assert "same_data=True" in message


def sound(rank):
    model, backward = wrapped(rank)
    optimizer = RobustSGD(model, 0.1, f=1)
    for t in range(2):
        backward(t)
        optimizer.step()
    x = nn.Parameter(torch.zeros(3))
    said = []
    for same, gradient in ((True, 1.0), (False, rank), (False, max(rank, 1)), (False, 0.0)):
        optimizer = RobustSGD([x], 0.1, rule="median", same_data=same)
        x.grad = torch.full((3,), float(gradient))
        said.append(refused(optimizer))
    return said


def test_local_gradients_some_copies_zeros_and_the_same_data_on_purpose_are_not():
    for said in play_ranks(N, sound):
        assert said == [""] * 4


def test_a_mark_tells_vectors_apart_to_the_last_bit():
    vec = torch.tensor([1.0, -2.0, 3.0])
    assert fingerprint(vec) == fingerprint(vec.clone()) > 0
    assert fingerprint(vec) != fingerprint(vec.nextafter(vec + 1))
    assert fingerprint(vec.bfloat16()) > 0
    assert fingerprint(torch.zeros(3)) == fingerprint(torch.tensor([1.0, torch.nan])) == 0
