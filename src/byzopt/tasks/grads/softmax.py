"""Full-batch losses and gradients of softmax regression, workers of any sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from byzopt import accelerator
from byzopt.layout import Layout
from byzopt.tasks.grads.losses import Loss, unwrap_loss

PIECE = 512  # samples that stay in a CPU's caches between their scores and their gradient


class _Found(NamedTuple):
    x: Tensor
    losses: Tensor
    rows: Tensor


class Softmax:
    """Mean cross-entropies of one linear layer on each worker's samples, which are laid end to end once.

    On a CPU they go through in pieces, each read once for scores and gradient; workers who share a tensor of
    places are computed once. What was found at the latest point is kept, so that looking at the loss where
    gradients are asked for next costs nothing.
    """

    def __init__(
        self, inputs: Tensor, labels: Tensor, source: Tensor, shards: Sequence[Tensor], layout: Layout
    ) -> None:
        by_id = {id(shard): shard for shard in shards}
        place, unique = {key: i for i, key in enumerate(by_id)}, list(by_id.values())
        device = inputs.device
        self.which = torch.tensor([place[id(shard)] for shard in shards], device="cpu").to(device)
        self.counts = torch.tensor([len(shard) for shard in unique], device="cpu").to(device)
        order = torch.cat(unique)
        sizes, most = [len(shard) for shard in unique], PIECE if device.type == "cpu" else len(order)
        everything = (inputs[source[order].to(device)], labels[order.to(device)])
        owned = zip(*(torch.split(part, sizes) for part in everything), strict=True)
        self._pieces = [
            (k, seen, true.unsqueeze(0))
            for k, parts in enumerate(owned)
            for seen, true in zip(*(torch.split(part, most) for part in parts), strict=True)
        ]
        self.weight, self.bias = layout.names[0], (layout.names[1:] or (None,))[0]
        self.layout = layout
        self._latest: _Found | None = None

    @staticmethod
    def all_count(labels: Tensor) -> bool:
        """Whether these are labels `[m]` that all count."""
        return labels.ndim == 1 and not labels.is_floating_point() and bool((labels >= 0).all())

    @staticmethod
    def fits(module: nn.Module, loss: Loss, layout: Layout) -> bool:
        """Whether the module looks like one trained linear layer, under plain cross-entropy."""
        parts = [m for m in module.modules() if not isinstance(m, (nn.Sequential, nn.Identity))]
        alone = len(parts) == 1 and type(parts[0]) is nn.Linear
        whole = alone and len(layout.names) == sum(1 for _ in module.parameters())
        return whole and unwrap_loss(loss) is functional.cross_entropy

    def grads(self, x: Tensor) -> Tensor:
        """Gradients `[n, d]` of the workers' mean losses at `x` `[d]`, in memory of the caller's."""
        return self._at(x).rows[self.which]

    def objective(self, x: Tensor, workers: Sequence[int]) -> tuple[float, Tensor]:
        """The mean over `workers` of their losses at `x`, and its gradient `[d]`."""
        some = torch.tensor(list(workers), device="cpu").to(x.device)
        at_point, which = self._at(x), self.which.index_select(0, some)
        return float(at_point.losses[which].mean()), at_point.rows[which].mean(dim=0)

    def loss(self, x: Tensor) -> Tensor:
        """The mean over all workers at `x`, a scalar that autograd can go through once."""
        whole = range(len(self.which))
        value: Tensor = _Known.apply(x, lambda at: self.objective(at, whole))  # type: ignore[no-untyped-call]
        return value

    @torch.no_grad()
    def _at(self, x: Tensor) -> _Found:
        # A GPU computes them again sooner than the host has looked whether they are known.
        known = self._latest is not None and not accelerator.holds(x) and torch.equal(self._latest.x, x)
        if self._latest is None or not known:
            self._latest = _Found(x.clone(), *self._computed(x))
        return self._latest

    def _computed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean losses `[k]` in float64 and gradients `[k, d]` on the k shards."""
        named = self.layout.views(x)
        rows = x.new_zeros(len(self.counts), len(x))
        losses = x.new_zeros(len(self.counts), dtype=torch.float64)
        places = self.layout.views(rows)
        bias = named[self.bias].unsqueeze(1) if self.bias else x.new_zeros(1, 1)
        for k, seen, true in self._pieces:
            logs = torch.log_softmax(torch.addmm(bias, named[self.weight], seen.T), dim=0)
            losses[k] -= logs.gather(0, true).sum(dtype=torch.float64)
            pull = logs.exp_()  # slopes by scores `[classes, b]`
            pull.scatter_(0, true, pull.gather(0, true) - 1)
            places[self.weight][k].addmm_(pull, seen)
            if self.bias:
                places[self.bias][k].add_(pull.sum(dim=1))
        return losses / self.counts, rows.div_(self.counts.unsqueeze(1))


class _Known(torch.autograd.Function):
    """A function that comes with its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], tuple[float, Tensor]]) -> Tensor:
        value, slope = function(x.detach())
        ctx.save_for_backward(slope)
        return x.new_tensor(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.saved_tensors[0], None
