"""Models that average the gradients of a hardened one past the rule: refused, or noticed when called."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.optim import _apply_optimizer_in_backward
from torch.nn.parallel import DistributedDataParallel

from byzopt import harden
from byzopt.errors import InvalidInput
from tests.ranks import play_ranks


class Holder(nn.Module):
    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, x):
        return self.part(x)


def layer():
    torch.manual_seed(0)
    return nn.Linear(4, 2)


def refusal(make):
    """What `make` is refused with; None where it is not."""
    try:
        make()
    except InvalidInput as error:
        return str(error)
    return None


def step(model, rank):
    """A pass in which rank 1 lies, and the largest number of its gradient."""
    model.zero_grad()
    lie = -1e6 if rank == 1 else 1.0
    model(torch.ones(3, 4) * (rank + 1)).square().mean().mul(lie).backward()
    return max(float(p.grad.abs().max()) for p in model.parameters())


def others(rank):
    found = {}
    harden_ = {"rule": "median", "f": 1}
    inner = DistributedDataParallel(layer())
    outer = DistributedDataParallel(Holder(inner))
    found["a part"] = refusal(lambda: harden(outer, **harden_))
    guard = harden(inner, **harden_)
    found["around, before"] = refusal(lambda: step(outer, rank))
    found["around, after"] = refusal(lambda: step(DistributedDataParallel(Holder(inner)), rank))
    found["inside"] = step(inner, rank)
    again = DistributedDataParallel(inner.module)
    found["again"] = refusal(lambda: step(again, rank))
    with torch.no_grad():
        again(torch.ones(1, 4))
    with again.no_sync():
        again(torch.ones(1, 4)).sum().backward()
    second = harden(again, **harden_)  # both are defended
    found["both"] = step(again, rank), step(inner, rank)
    second.remove()
    found["removed"] = refusal(lambda: step(again, rank))
    guard.remove()
    found["all removed"] = step(again, rank)
    alone = dist.new_group([rank], use_local_synchronization=True)
    harden(inner, **harden_)
    within = DistributedDataParallel(inner.module, process_group=alone)  # averages over nobody
    found["within"] = step(within, rank) > 0
    model = DistributedDataParallel(layer())
    harden(model, **harden_)
    model = DistributedDataParallel(model.module)  # the hardened one is no more
    found["forgotten"] = refusal(lambda: step(model, rank))
    found["held"] = refusal(lambda: harden(Holder(DistributedDataParallel(layer())), **harden_))
    early = layer()
    _apply_optimizer_in_backward(torch.optim.SGD, early.parameters(), {"lr": 0.1})
    found["in backward"] = refusal(lambda: harden(DistributedDataParallel(early), **harden_))
    return found


def test_gradients_are_not_averaged_past_the_rule_without_a_sign():
    for found in play_ranks(3, others):
        assert "part, a DistributedDataParallel" in found["a part"]
        for case in ("around, before", "around, after", "again", "removed"):
            assert "averages them past the rule" in found[case], case
        assert found["inside"] < 1e3
        assert max(found["both"]) < 1e3
        assert found["all removed"] > 1e3
        assert found["within"]
        assert found["forgotten"] is None
        assert "Its part 'part' is one: give that." in found["held"]
        assert "an optimizer that steps within it" in found["in backward"]
