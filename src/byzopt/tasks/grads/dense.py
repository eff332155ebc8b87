"""Gradients of a chain of linear layers with ReLU between them, written out: no graph, one product a layer.

The products go straight into the workers' rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from byzopt.layout import Layout
from byzopt.tasks.grads.losses import ELEMENTWISE, slope, unwrap_loss
from byzopt.tasks.grads.pure import Pure
from byzopt.tasks.grads.randomness import CannotGroupError


class Affine(NamedTuple):
    """One layer: the names of its weight `[out, in]` and bias, and whether ReLU follows."""

    weight: str
    bias: str | None
    relu: bool


class Dense:
    """An `nn.Sequential` of `nn.Linear` (all trained) and `nn.ReLU`, perhaps with `nn.Flatten` before them,
    under a loss that is a mean of elementwise terms. Errors: `CannotGroupError` for anything else."""

    def __init__(self, pure: Pure) -> None:
        self.module, self.loss, self.layout = pure.module, unwrap_loss(pure.loss), pure.layout
        self.layers = _layers(self.module, self.layout)
        if self.loss not in ELEMENTWISE:
            raise CannotGroupError("its loss is not a mean of known terms")

    @torch.no_grad()
    def fill(
        self, rows: Tensor, x: Tensor, inputs: Tensor, targets: Tensor, most: int, seeds: Sequence[int]
    ) -> None:
        """Write into `rows` `[n, d]` the gradients at `x` `[d]` on `inputs`, `targets` `[n, b, ...]`.

        All samples go through at once, whatever `most` says, and nothing is drawn.
        """
        parameters = self.layout.views(x)
        seen = self._forward(parameters, inputs.reshape(targets.shape[:2].numel(), -1))
        delta = slope(self.loss, seen.pop(), targets)
        places = self.layout.views(rows)
        for k in range(len(self.layers) - 1, -1, -1):
            layer, h = self.layers[k], seen[k]
            mine = delta.view(len(rows), -1, delta.shape[-1])
            places[layer.weight].baddbmm_(mine.mT, h.view(len(rows), -1, h.shape[-1]), beta=0)
            if layer.bias:
                torch.sum(mine, dim=1, out=places[layer.bias])
            if k:
                delta = delta @ parameters[layer.weight]
                if self.layers[k - 1].relu:
                    delta = torch.ops.aten.threshold_backward(delta, h, 0)

    @torch.no_grad()
    def fill_at(
        self, rows: Tensor, points: Tensor, inputs: Tensor, targets: Tensor, most: int, seeds: Sequence[int]
    ) -> None:
        """As `fill`, worker i at its own `points[i]`: `[n, d]`, one batched product a layer."""
        parameters, (n, b) = self.layout.views(points), targets.shape[:2]
        h = inputs.reshape(n, b, -1)
        seen = []
        for layer in self.layers:
            weight = parameters[layer.weight].mT
            if weight.shape[1] != h.shape[2]:
                raise CannotGroupError("its samples are not the vectors that its first layer takes")
            seen.append(h)
            bias = parameters[layer.bias].unsqueeze(1) if layer.bias else None
            h = torch.bmm(h, weight) if bias is None else torch.baddbmm(bias, h, weight)
            h = h.relu_() if layer.relu else h
        delta = slope(self.loss, h.flatten(0, 1), targets).view(n, b, -1)
        places = self.layout.views(rows)
        for k in range(len(self.layers) - 1, -1, -1):
            layer = self.layers[k]
            places[layer.weight].baddbmm_(delta.mT, seen[k], beta=0)
            if layer.bias:
                torch.sum(delta, dim=1, out=places[layer.bias])
            if k:
                delta = torch.bmm(delta, parameters[layer.weight])
                if self.layers[k - 1].relu:
                    delta = torch.ops.aten.threshold_backward(delta, seen[k], 0)

    def _forward(self, parameters: dict[str, Tensor], h: Tensor) -> list[Tensor]:
        """What each layer is fed, and the last output: `[n b, .]`."""
        seen = [h]
        for layer in self.layers:
            weight = parameters[layer.weight]
            if weight.shape[1] != h.shape[1]:
                raise CannotGroupError("its samples are not the vectors that its first layer takes")
            h = functional.linear(h, weight, parameters[layer.bias] if layer.bias else None)
            seen.append(h.relu_() if layer.relu else h)
        return seen


def _layers(module: nn.Module, layout: Layout) -> list[Affine]:
    if type(module) is not nn.Sequential:
        raise CannotGroupError(f"{type(module).__name__} is not a chain of linear layers")
    names = {id(p): name for name, p in module.named_parameters() if p.requires_grad}
    layers: list[Affine] = []
    for place, layer in enumerate(module):
        if type(layer) is nn.Linear and all(id(p) in names for p in layer.parameters()):
            bias = None if layer.bias is None else names[id(layer.bias)]
            layers.append(Affine(names[id(layer.weight)], bias, False))
        elif type(layer) is nn.ReLU and layers and not layers[-1].relu:
            layers[-1] = layers[-1]._replace(relu=True)
        elif not (type(layer) is nn.Flatten and place == 0 and (layer.start_dim, layer.end_dim) == (1, -1)):
            raise CannotGroupError(f"{type(layer).__name__} is not part of a chain of linear layers")
    if not layers or layers[-1].relu:
        raise CannotGroupError("it does not end in a linear layer")
    used = [name for layer in layers for name in (layer.weight, layer.bias) if name]
    if sorted(used) != sorted(layout.names):
        raise CannotGroupError("its parameters are not those of its layers, once each")
    return layers
