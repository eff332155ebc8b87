"""Full-batch gradients of softmax regression, workers of any sizes, without copying samples each round."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from byzopt.layout import Layout
from byzopt.tasks.grads.losses import Loss, plain


class Softmax:
    """Mean cross-entropies of one linear layer on each worker's samples, which are laid end to end once.

    One product gives all scores, then one product a worker its gradient. Workers that hold the same shard
    (the same tensor) are computed once.
    """

    def __init__(
        self, inputs: Tensor, labels: Tensor, source: Tensor, shards: Sequence[Tensor], layout: Layout
    ) -> None:
        by_id = {id(shard): shard for shard in shards}
        place, unique = {key: i for i, key in enumerate(by_id)}, list(by_id.values())
        self.which = torch.tensor([place[id(shard)] for shard in shards], device=inputs.device)
        self.sizes = [len(shard) for shard in unique]
        order = torch.cat(unique)
        device = inputs.device
        self.features, self.labels = inputs[source[order].to(device)], labels[order.to(device)]
        self.counts = torch.tensor(self.sizes, device=device)
        self.share = torch.repeat_interleave(1 / self.counts.to(inputs.dtype), self.counts)
        self.weight, self.bias = layout.names[0], (layout.names[1:] or (None,))[0]
        self.layout = layout

    @staticmethod
    def fits(module: nn.Module, loss: Loss, layout: Layout, inputs: Tensor, labels: Tensor) -> bool:
        """Whether the module is one trained linear layer on flat inputs, under plain cross-entropy."""
        parts = [m for m in module.modules() if not isinstance(m, (nn.Sequential, nn.Identity))]
        alone = len(parts) == 1 and type(parts[0]) is nn.Linear
        whole = alone and len(layout.names) == sum(1 for _ in module.parameters())
        flat = inputs.ndim == 2 and labels.ndim == 1 and not labels.is_floating_point()
        return whole and flat and plain(loss) is functional.cross_entropy and bool((labels >= 0).all())

    def grads(self, x: Tensor) -> Tensor:
        """Gradients `[n, d]` of the workers' mean losses at `x` `[d]`."""
        _, pull = self._pulled(x)
        rows = x.new_empty(len(self.sizes), len(x))
        views = self.layout.views(rows)
        pulls, parts = torch.split(pull, self.sizes), torch.split(self.features, self.sizes)
        for i, (own, seen) in enumerate(zip(pulls, parts, strict=True)):
            torch.mm(own.T, seen, out=views[self.weight][i])
            if self.bias:
                views[self.bias][i] = own.sum(dim=0)
        return rows[self.which]

    def objective(self, x: Tensor, workers: Sequence[int]) -> tuple[float, Tensor]:
        """The mean over `workers` of their losses at `x`, and its gradient `[d]`."""
        weight = x.new_zeros(len(self.sizes))
        weight.index_add_(0, self.which[list(workers)], torch.full((len(workers),), 1 / len(workers)).to(x))
        losses, pull = self._pulled(x)
        by_sample = torch.repeat_interleave(weight, self.counts)
        pull = pull * by_sample.unsqueeze(1)
        found = {self.weight: pull.T @ self.features}
        if self.bias:
            found[self.bias] = pull.sum(dim=0)
        return float((losses * by_sample * self.share).sum(dtype=torch.float64)), self.layout.flatten(found)

    def _pulled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Each sample's loss `[m]`, and the slope by its scores over its owner's count `[m, classes]`."""
        named = self.layout.views(x)
        scores = functional.linear(self.features, named[self.weight], named[self.bias] if self.bias else None)
        logs = torch.log_softmax(scores, dim=1)
        losses = -logs.gather(1, self.labels.unsqueeze(1)).squeeze(1)
        pull = logs.exp_()
        pull[torch.arange(len(pull)), self.labels] -= 1
        return losses, pull.mul_(self.share.unsqueeze(1))
