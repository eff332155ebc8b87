"""Layers whose parameter gradients split by worker: all share one forward pass, each gets its own products.

A rule computes its layer on the samples of n workers at once, `[n b, ...]`, and in the backward pass writes
the gradient of each worker's samples to that worker's row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from byzopt.layout import Layout


class Sheet:
    """Where one pass writes: `rows` `[n, d]`, by parameter name. A name written twice (tied weights) adds up.

    `anchor` makes a layer's output need a gradient even when its input does not.
    """

    def __init__(self, layout: Layout, rows: Tensor) -> None:
        self.n = len(rows)
        self.anchor = rows.new_zeros((), requires_grad=True)
        self._views, self._blank = layout.views(rows), set(layout.names)

    def by_worker(self, samples: Tensor) -> Tensor:
        """`[n b, ...]` as `[n, b, ...]`."""
        return samples.reshape(self.n, -1, *samples.shape[1:])

    def add(self, name: str, gradient: Tensor) -> None:
        """Add `gradient` `[n, *shape]`."""
        if self._first(name):
            self._views[name].copy_(gradient)
        else:
            self._views[name].add_(gradient)

    def add_product(self, name: str, left: Tensor, right: Tensor) -> None:
        """Add Σ_k left[i, k]ᵀ right[i, k]: `[n, k, r]`, `[n, k, c]` to `[n, r, c]`."""
        self._views[name].baddbmm_(left.mT, right, beta=0 if self._first(name) else 1)

    def close(self) -> None:
        """Parameters that the pass never met have gradient zero."""
        for name in self._blank:
            self._views[name].zero_()

    def _first(self, name: str) -> bool:
        first = name in self._blank
        self._blank.discard(name)
        return first


class Rule(ABC):
    """One layer's rule; `weight` and `bias` name its parameters in the layout, None where not trained."""

    kinds: ClassVar[tuple[type, ...]]

    def __init__(self, layer: Any, weight: str | None, bias: str | None) -> None:
        self.layer, self.weight, self.bias = layer, weight, bias

    @classmethod
    def fits(cls, layer: Any) -> bool:
        """Whether the layer uses only options that the rule knows."""
        return True

    def prepare(self, x: Tensor, n: int) -> Tensor:
        """The part of the layer before its parameters, left to autograd, on the samples of n workers."""
        return x

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The part with parameters, on all samples."""

    @abstractmethod
    def pull(self, x: Tensor, weight: Tensor, g: Tensor) -> Tensor:
        """The gradient with respect to `x`, from that of the output."""

    @abstractmethod
    def split(self, x: Tensor, weight: Tensor, g: Tensor, sheet: Sheet) -> None:
        """Write the parameters' gradients by worker."""


class Split(torch.autograd.Function):
    """A rule's layer in autograd's graph, its parameters left out of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, rule: Rule, sheet: Sheet) -> Tensor:
        ctx.save_for_backward(x, rule.layer.weight)
        ctx.rule, ctx.sheet = rule, sheet
        return rule.forward(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, None]:
        x, weight = ctx.saved_tensors
        ctx.rule.split(x, weight, grads[0], ctx.sheet)
        return ctx.rule.pull(x, weight, grads[0]) if ctx.needs_input_grad[0] else None, None, None, None
