"""What a hardened backward pass holds afterwards: nothing of its round, and its buckets' columns once."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from byzopt.distributed.harden import harden
from byzopt.distributed.harden.round import Round
from tests.ranks import play_ranks

# By products, by columns, by columns of mixed rows, and by whole rows.
RULES = ("rfa", "median", "nnm >> median", "norm_clipping")


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2))


def replicated():
    return DistributedDataParallel(network(), bucket_cap_mb=0.0005)


def sharded():
    model, mesh = network(), init_device_mesh("cpu", (3,))
    for layer in (model[0], model[2], model):
        fully_shard(layer, mesh=mesh)
    return model


CASES = {
    "DDP": (replicated, {}),
    "FSDP2": (sharded, {}),
    "FSDP2, whole model": (sharded, {"scope": "model"}),
}


def left(rank):
    """How many rounds are alive behind three backward passes without a collection, by case and rule."""
    found = {}
    for case, (wrapped, settings) in CASES.items():
        for rule in RULES:
            model = wrapped()
            harden(model, rule, f=1, **settings)
            gc.collect()
            gc.disable()
            for t in range(3):
                x = torch.randn(4, 6, generator=torch.Generator().manual_seed(10 * rank + t))
                model(x).square().mean().backward()
            found[f"{case}, {rule}"] = sum(type(each) is Round for each in gc.get_objects())
            gc.enable()
    return found


@pytest.mark.slow
def test_nothing_of_a_round_is_left_behind_it_and_no_collection_is_needed_for_that():
    pytest.importorskip("torch.distributed.fsdp")
    for found in play_ranks(3, left):
        assert not any(found.values()), found
