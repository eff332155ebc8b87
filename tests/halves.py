"""A model of two buckets, between which backward may raise."""

from __future__ import annotations

import torch
from torch import nn


class Raising(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, raises):
        ctx.raises = raises
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        if ctx.raises:
            raise RuntimeError("its own")
        return gradient, None


class Halves(nn.Module):
    """Two buckets, between which backward may raise."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(300, 300), nn.Linear(300, 300)

    def forward(self, x, raises=False):
        return self.last(Raising.apply(self.first(x), raises))
