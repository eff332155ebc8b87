"""`harden(..., wire="int8")`: all ranks decide on the numbers that the 8-bit codes stand for."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from byzopt import harden
from byzopt.aggregators import rule_from
from byzopt.distributed.harden import transfer
from byzopt.distributed.harden.block_scaled import decode, encoded
from byzopt.errors import TooManyFaults
from tests.ranks import play_ranks

pytestmark = pytest.mark.slow  # many processes

N, D = 4, 613  # columns that no number of ranks or blocks divides


class Sum(nn.Module):
    """Its gradient is its input."""

    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.zeros(D))

    def forward(self, gradient):
        return (self.x * gradient).sum()


def gradient_of(rank, t=0):
    generator = torch.Generator().manual_seed(100 * t + rank)
    return torch.randn(D, generator=generator) * torch.linspace(1e-3, 1e3, D)


def spans(n=N):
    width = -(-D // n)
    return [(r * width, min(D, (r + 1) * width)) for r in range(n)]


def arrived(values):
    """What the codes of `values` stand for, a rank's columns at a time."""
    out = torch.empty_like(values)
    for a, b in spans():
        decode(encoded(values[a:b].contiguous()), out[a:b])
    return out


def one(model, rank, t=0, factor=1.0):
    model.zero_grad()
    model(gradient_of(rank, t) * factor).backward()
    return model.module.x.grad.clone()


RULES = ("mean", "median", "nnm >> rfa", "trimmed_mean", "norm_clipping", "centered_clipping")


def by_hand(rank, rule):
    """Gradients of three rounds, and what arrives in each; rank 1 is not finite in the last."""
    model, f = DistributedDataParallel(Sum()), int(rule != "mean")
    guard, found, rows = harden(model, rule, f=f, wire="int8"), [], []
    for t in range(3):
        factors = [torch.nan if (r, t, f) == (1, 2, 1) else 1.0 for r in range(N)]
        found.append(one(model, rank, t, factors[rank]))
        rows.append(torch.stack([arrived(gradient_of(r, t) * factors[r]) for r in range(N)]))
    return torch.stack(found), torch.stack(rows), guard.dropped


def lying(rank, step):
    """Gradients of two rounds with a rule of either kind. In the first all steps of the rows that rank 1
    sends are `step`, though its gradient is sound; it goes on to answer as it should."""
    out, sound = {}, transfer.encoded
    for rule in ("median", "nnm >> rfa"):
        model = DistributedDataParallel(Sum())
        guard, left = harden(model, rule, f=1, wire="int8"), [N]

        def lie(values, left=left):
            data = sound(values)
            if left[0]:
                left[0] -= 1
                data[: -(-len(values) // 64) * 4].view(torch.float32).fill_(step)
            return data

        transfer.encoded = lie if rank == 1 else sound
        out[rule] = torch.stack([one(model, rank), one(model, rank, 1)]), guard.dropped
        transfer.encoded = sound
    return out


def too_many(rank):
    model = DistributedDataParallel(Sum())
    guard = harden(model, "median", f=1, wire="int8")
    try:
        one(model, rank, 0, torch.inf if rank < 2 else 1.0)
    except TooManyFaults as error:
        return str(error), error.rows, guard.skipped
    return None


def late(rank):
    """With a deadline every rank decodes all rows by itself; rank 2 is not finite in the second round."""
    model = DistributedDataParallel(Sum())
    guard = harden(model, "median", f=1, wire="int8", deadline=60.0)
    out = [one(model, rank, t, torch.nan if (rank, t) == (2, 1) else 1.0) for t in range(2)]
    guard.remove()
    return torch.stack(out), guard.dropped, guard.missing


def sharded(rank):
    """The largest difference from the mean with FSDP2 and with HSDP, over the largest magnitude of all."""
    out = {}
    for name, shape, scope in (("unit", (N,), "unit"), ("model", (N,), "model"), ("hybrid", (2, 2), None)):
        names = ("replicate", "shard")[-len(shape) :]
        ends = []
        for wire in (None, "int8"):
            torch.manual_seed(0)
            module = nn.Sequential(nn.Linear(30, 40), nn.Tanh(), nn.Linear(40, 8))
            mesh = init_device_mesh("cpu", shape, mesh_dim_names=names)
            fully_shard(module, mesh=mesh)
            guard = harden(module, "mean", scope=scope, wire=wire)
            before = guard.comm.sent
            x = torch.randn(16, 30, generator=torch.Generator().manual_seed(rank))
            module(x).square().mean().backward()
            flat = torch.cat([p.grad.full_tensor().reshape(-1) for p in module.parameters()])
            ends.append((flat, guard.comm.sent - before))
            guard.remove()
        (plain, whole), (coded, few) = ends
        out[name] = float((plain - coded).abs().max() / plain.abs().max()), few / whole
    return out


def everything(rank):
    out = {("rule", rule): by_hand(rank, rule) for rule in RULES}
    out |= {("lie", str(step)): lying(rank, step) for step in STEPS}
    model = DistributedDataParallel(Sum())
    guard = harden(model, "median", f=1, wire="int8")
    one(model, rank)
    out |= {"bytes": guard.comm.sent, "many": too_many(rank), "late": late(rank), "sharded": sharded(rank)}
    dist.barrier()
    return out


STEPS = (torch.nan, torch.inf, 3e38, -1.0, 0.0, 1e30)


@pytest.fixture(scope="module")
def played():
    return play_ranks(N, everything)


@pytest.mark.parametrize("rule", RULES)
def test_the_gradient_is_the_rules_answer_to_what_arrives(rule, played):
    first, rows, dropped = played[0]["rule", rule]
    assert all(torch.equal(found["rule", rule][0], first) for found in played)
    f = int(rule != "mean")
    assert dropped == [0, f, 0, 0]
    if rule == "centered_clipping":
        return  # remembers: its answer is not that of the rule on rows alone
    for t in range(3):
        expected = arrived(rule_from(rule, f=f)(rows[t]))
        step = torch.cat([part.abs().max().expand(len(part)) for part in _blocks(expected)]) / 127
        apart = (first[t] - expected).abs()
        # Sums over ranks are taken in another order: a few roundings of float32, or the next code where an
        # answer lies between two.
        assert (apart <= 1.01 * step).all()
        assert (apart <= 1e-3 * step).double().mean() > 0.95


def _blocks(values):
    return [block for a, b in spans() for block in values[a:b].split(64)]


@pytest.mark.parametrize("step", STEPS)
def test_a_lying_step_is_the_fault_of_its_sender(step, played):
    for rule in ("median", "nnm >> rfa"):
        first, dropped = played[0]["lie", str(step)][rule]
        assert all(torch.equal(found["lie", str(step)][rule][0], first) for found in played)
        assert first.isfinite().all()
        # 3e38 times a code overflows; the others are rows like any, and the rule's business.
        assert dropped == [0, int(step not in (-1.0, 0.0, 1e30)), 0, 0]
        honest = torch.stack([gradient_of(rank) for rank in (0, 2, 3)])
        assert first[0].norm() <= 3 * honest.norm(dim=1).max()


def test_more_that_are_not_finite_than_f_are_told_on_all_ranks(played):
    for found in played:
        message, rows, skipped = found["many"]
        assert "ranks [0, 1]" in message
        assert (list(rows), skipped) == ([0, 1], 1)


def test_with_a_deadline_all_ranks_have_the_same_bits(played):
    first = played[0]["late"][0]
    for found in played:
        gradients, dropped, missing = found["late"]
        assert torch.equal(gradients, first)
        assert (dropped, missing) == ([0, 0, 1, 0], [0, 0, 0, 0])
    rows = torch.stack([gradient_of(rank) for rank in range(N)])
    block = torch.cat([part.abs().max().expand(len(part)) for part in rows.abs().amax(dim=0).split(64)])
    # A median moves no further than the rows do.
    assert ((first[0] - rule_from("median", f=1)(rows)).abs() <= block / 254 * (1 + 1e-4)).all()


@pytest.mark.parametrize("kind", ["unit", "model", "hybrid"])
def test_sharded_models_send_codes_too(kind, played):
    for found in played:
        error, share = found["sharded"][kind]
        # Once before the mean; with HSDP once more behind it. Each time 1/254 of a rank's largest, which may
        # be a few times the mean's.
        assert 0 < error <= 5 * 2 / 254
        assert share < 0.5


def test_a_round_sends_a_little_more_than_a_quarter(played):
    for found in played:
        width = -(-D // N)
        codes = 2 * (N - 1) * (width + 4 * -(-width // 64))
        # Beside the columns a few numbers cross: what ranks tell, and a tag when the model is hardened.
        assert codes - 2 * N * 5 <= found["bytes"] <= codes + 8 * N * 30
