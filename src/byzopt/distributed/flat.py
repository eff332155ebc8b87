"""A model's parameters and their gradients as one vector, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from byzopt import accelerator
from byzopt.errors import require
from byzopt.layout import Layout

Groups = Sequence[Mapping[str, Any]]


class FlatParameters:
    """The parameters of all `groups` that require a gradient, in order: of one dtype, on one device.

    Vectors given out are copies. Errors: `InvalidInput` for none, for several dtypes or devices, and for
    parameters that are themselves sharded over ranks.
    """

    def __init__(self, groups: Groups) -> None:
        self.parameters = trainable(groups)
        require(len(self.parameters) > 0, "The parameters", "hold one that requires a gradient", "none")
        kinds = {(p.dtype, p.device) for p in self.parameters}
        require(len(kinds) == 1, "The parameters", "have one dtype and device", sorted(map(str, kinds)))
        sharded = any(hasattr(p, "device_mesh") for p in self.parameters)
        found = "DTensors (FSDP2, tensor parallelism)"
        require(not sharded, "Parameters", "be whole on every rank", found, "Harden the model in its place.")
        self.layout = Layout.of((str(i), p) for i, p in enumerate(self.parameters))

    @property
    def device(self) -> torch.device:
        return self.parameters[0].device

    def spans(self, groups: Groups) -> list[slice]:
        """The groups' parts of the vector."""
        ends = list(accumulate(sum(p.numel() for p in trainable([group])) for group in groups))
        return [slice(start, stop) for start, stop in zip([0, *ends], ends, strict=False)]

    def serves(self, groups: Groups) -> bool:
        """Whether these are still the parameters of the groups that require a gradient."""
        present = trainable(groups)
        return len(present) == len(self.parameters) and all(
            one is other for one, other in zip(present, self.parameters, strict=True)
        )

    def read(self) -> Tensor:
        """The parameters, `[d]`."""
        return torch.cat([p.detach().reshape(-1) for p in self.parameters])

    def write(self, vec: Tensor) -> None:
        """Set the parameters to `vec` `[d]`."""
        with torch.no_grad():
            for parameter, view in self._with(vec):
                parameter.copy_(view)

    def holds(self, vec: Tensor) -> bool:
        """Whether the parameters equal `vec` `[d]`."""
        if accelerator.holds(vec):  # one look, however many parameters there are
            return torch.equal(self.read(), vec)
        return all(torch.equal(parameter.detach(), view) for parameter, view in self._with(vec))

    def gradient(self) -> Tensor:
        """The gradients, `[d]`; a parameter without one counts as zeros. Errors: sparse gradients."""
        grads = [p.grad for p in self.parameters]
        dense = all(g is None or g.layout == torch.strided for g in grads)
        require(dense, "Gradients", "be dense", "a sparse one", "Use sparse=False in embeddings.")
        parts = [
            p.detach().new_zeros(p.numel()) if g is None else g.detach().reshape(-1)
            for p, g in zip(self.parameters, grads, strict=True)
        ]
        return torch.cat(parts)

    def decayed(self, g: Tensor, x: Tensor, groups: Groups) -> Tensor:
        """`g` `[d]` with each group's `weight_decay` times `x` `[d]` added, as in `torch.optim.SGD`: not for
        parameters that have no gradient."""
        if not any(group.get("weight_decay") for group in groups):
            return g
        rates = [float(group.get("weight_decay", 0)) for group in groups for _ in trainable([group])]
        for rate, parameter, part, point in zip(
            rates, self.parameters, self.layout.views(g).values(), self.layout.views(x).values(), strict=True
        ):
            if rate and parameter.grad is not None:
                part.add_(point, alpha=rate)
        return g

    def _with(self, vec: Tensor) -> zip[tuple[Tensor, Tensor]]:
        return zip(self.parameters, self.layout.views(vec).values(), strict=True)


def trainable(groups: Groups) -> list[Tensor]:
    """The parameters of the groups that require a gradient, in order."""
    return [p for group in groups for p in group["params"] if p.requires_grad]
