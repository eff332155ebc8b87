"""Buffers that come into a hardened model after it was hardened, or change their shape, with NaN in them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from byzopt import harden
from byzopt.errors import TooManyFaults
from tests.ranks import play_ranks

pytestmark = pytest.mark.slow  # many processes

N = 4


class Late(nn.Module):
    """Keeps what it has seen in a buffer that it first makes in a forward pass, or makes anew."""

    def __init__(self, made):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(6, 2)
        self.register_buffer("mean", torch.zeros(6))
        if made:
            self.register_buffer("seen", torch.zeros(3))

    def forward(self, x):
        self.mean += x.mean(dim=0)
        self.register_buffer("seen", x.mean(dim=0).detach())
        return self.layer(torch.ones(8, 6))


def late(rank, made, excess):
    model = DistributedDataParallel(Late(made))
    guard = harden(model, "median", f=1, excess=excess)
    told = []
    for liars in (2, 1, 2):
        model.zero_grad()
        x = torch.full((8, 6), rank + 1.0) * (torch.nan if rank < liars else 1.0)
        try:
            model(x).square().mean().backward()
            told.append("")
        except TooManyFaults as error:
            told.append(str(error))
        buffers = {name: value.clone() for name, value in model.module.named_buffers()}
        told.append((buffers, model.module.layer.weight.grad.abs().max().item()))
    return told, guard.restored


@pytest.mark.parametrize("excess", ["raise", "skip"])
@pytest.mark.parametrize("made", [False, True])
def test_a_new_buffer_with_nan_on_too_many_ranks_has_nothing_to_go_back_to_and_this_is_said(made, excess):
    for rank, (told, restored) in enumerate(play_ranks(N, late, made, excess)):
        said, (first, _), fine, (second, moved), again, (third, _) = told
        assert restored == 2
        if excess == "raise":
            assert "new ones have no earlier value, and stay as each rank has them: ['seen']" in said
            assert "new ones" not in again
        else:
            assert said == again == ""
        assert fine == ""
        assert moved > 0
        assert first["mean"].eq(0).all()
        assert first["seen"].isnan().any() == (rank < 2)  # its own
        assert second["seen"].eq(3).all()  # the median of 2, 3 and 4
        assert third["seen"].eq(3).all()  # what they agreed on before
