"""The layers that are known to split: linear, convolutions, embedding, layer and group norm."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from byzopt.tasks.grads.layers import Rule, Sheet


class LinearRule(Rule):
    """y = x Wᵀ + b over any leading dimensions: n products of `[out, k] @ [k, in]`."""

    kinds = (nn.Linear,)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.layer.weight, self.layer.bias)

    def pull(self, x: Tensor, weight: Tensor, g: Tensor) -> Tensor:
        return g @ weight

    def split(self, x: Tensor, weight: Tensor, g: Tensor, sheet: Sheet) -> None:
        g = g.reshape(sheet.n, -1, g.shape[-1])
        if self.weight:
            sheet.add_product(self.weight, g, x.reshape(sheet.n, -1, x.shape[-1]))
        if self.bias:
            sheet.add(self.bias, g.sum(dim=1))


class ConvRule(Rule):
    """Convolutions: one forward pass, one gradient of the input, n gradients of the kernel."""

    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

    @classmethod
    def fits(cls, layer: Any) -> bool:
        return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)

    def forward(self, x: Tensor) -> Tensor:
        conv = self.layer
        where = (conv.stride, conv.padding, conv.dilation, False, (0,) * len(conv.stride), conv.groups)
        return torch.convolution(x, conv.weight, conv.bias, *where)

    def pull(self, x: Tensor, weight: Tensor, g: Tensor) -> Tensor:
        return self._backward(x, weight, g, 0)

    def split(self, x: Tensor, weight: Tensor, g: Tensor, sheet: Sheet) -> None:
        x, parts = sheet.by_worker(x), sheet.by_worker(g)
        if self.weight:
            kernels = [self._backward(xi, weight, gi, 1) for xi, gi in zip(x, parts, strict=True)]
            sheet.add(self.weight, torch.stack(kernels))
        if self.bias:
            sheet.add(self.bias, parts.flatten(start_dim=3).sum(dim=(1, 3)))

    def _backward(self, x: Tensor, weight: Tensor, g: Tensor, which: int) -> Tensor:
        conv, mask = self.layer, [which == 0, which == 1, False]
        where = (conv.stride, conv.padding, conv.dilation, False, (0,) * len(conv.stride), conv.groups)
        gradient: Tensor = torch.ops.aten.convolution_backward(g, x, weight, None, *where, mask)[which]
        return gradient


class EmbeddingRule(Rule):
    """A table of vectors, one index tensor `[n b, ...]` in."""

    kinds = (nn.Embedding,)

    @classmethod
    def fits(cls, layer: Any) -> bool:
        return layer.max_norm is None and not layer.sparse and not layer.scale_grad_by_freq

    def forward(self, x: Tensor) -> Tensor:
        return functional.embedding(x, self.layer.weight)

    def pull(self, x: Tensor, weight: Tensor, g: Tensor) -> Tensor:
        raise NotImplementedError("indices have no gradient")

    def split(self, x: Tensor, weight: Tensor, g: Tensor, sheet: Sheet) -> None:
        size, padding = self.layer.num_embeddings, self.layer.padding_idx
        backward = torch.ops.aten.embedding_dense_backward
        parts = zip(sheet.by_worker(g), sheet.by_worker(x), strict=True)
        tables = [backward(gi, xi, size, -1 if padding is None else padding, False) for gi, xi in parts]
        sheet.add(str(self.weight), torch.stack(tables))


class _NormRule(Rule):
    """y = w x̂ + b, x̂ normalised within each sample; `shape` lets w meet x̂."""

    def shape(self, x: Tensor) -> tuple[int, ...]:
        return tuple(self.layer.weight.shape)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x if self.layer.weight is None else x * self.layer.weight.view(self.shape(x))
        return y if self.layer.bias is None else y + self.layer.bias.view(self.shape(x))

    def pull(self, x: Tensor, weight: Tensor, g: Tensor) -> Tensor:
        pulled: Tensor = g * weight.view(self.shape(x))
        return pulled

    def split(self, x: Tensor, weight: Tensor, g: Tensor, sheet: Sheet) -> None:
        if self.weight:
            sheet.add(self.weight, self._summed(g * x, weight, sheet.n))
        if self.bias:
            sheet.add(self.bias, self._summed(g, weight, sheet.n))

    @abstractmethod
    def _summed(self, terms: Tensor, weight: Tensor, n: int) -> Tensor:
        """Terms `[n b, ...]` summed to `[n, *weight.shape]`."""


class LayerNormRule(_NormRule):
    """LayerNorm: w and b cover the last dimensions."""

    kinds = (nn.LayerNorm,)

    def prepare(self, x: Tensor, n: int) -> Tensor:
        return functional.layer_norm(x, self.layer.normalized_shape, eps=self.layer.eps)

    def _summed(self, terms: Tensor, weight: Tensor, n: int) -> Tensor:
        return terms.reshape(n, -1, *weight.shape).sum(dim=1)


class GroupNormRule(_NormRule):
    """GroupNorm: w and b have one number a channel."""

    kinds = (nn.GroupNorm,)

    def prepare(self, x: Tensor, n: int) -> Tensor:
        return functional.group_norm(x, self.layer.num_groups, eps=self.layer.eps)

    def shape(self, x: Tensor) -> tuple[int, ...]:
        return (-1,) + (1,) * (x.ndim - 2)

    def _summed(self, terms: Tensor, weight: Tensor, n: int) -> Tensor:
        return terms.reshape(n, -1, len(weight), terms[0, 0].numel()).sum(dim=(1, 3))


class BatchNormRule(_NormRule):
    """BatchNorm: w and b have one number a channel; each worker's samples are a batch of their own."""

    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

    def prepare(self, x: Tensor, n: int) -> Tensor:
        """x̂, by the statistics of each worker's samples, or by the layer's own where it is frozen."""
        layer = self.layer
        if layer.training or layer.running_mean is None:
            parts = [
                functional.batch_norm(part, None, None, training=True, eps=layer.eps) for part in x.chunk(n)
            ]
            return torch.cat(parts)
        return functional.batch_norm(x, layer.running_mean, layer.running_var, training=False, eps=layer.eps)

    def shape(self, x: Tensor) -> tuple[int, ...]:
        return (-1,) + (1,) * (x.ndim - 2)

    def _summed(self, terms: Tensor, weight: Tensor, n: int) -> Tensor:
        return terms.reshape(n, -1, len(weight), terms[0, 0].numel()).sum(dim=(1, 3))


RULES: dict[type, type[Rule]] = {
    kind: rule
    for rule in (LinearRule, ConvRule, EmbeddingRule, LayerNormRule, GroupNormRule, BatchNormRule)
    for kind in rule.kinds
}
