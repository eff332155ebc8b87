"""A model's parameters and their gradients as one vector, and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from byzopt.errors import require
from byzopt.layout import Layout


class FlatParameters:
    """Parameters of one dtype on one device, in order. Vectors given out are copies."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        require(len(parameters) > 0, "The parameters", "hold one that requires a gradient", "none")
        kinds = {(p.dtype, p.device) for p in parameters}
        require(len(kinds) == 1, "The parameters", "have one dtype and device", sorted(map(str, kinds)))
        self.parameters = list(parameters)
        self.layout = Layout.of((str(i), p) for i, p in enumerate(self.parameters))

    @property
    def device(self) -> torch.device:
        return self.parameters[0].device

    def read(self) -> Tensor:
        """The parameters, `[d]`."""
        return torch.cat([p.detach().reshape(-1) for p in self.parameters])

    def write(self, vec: Tensor) -> None:
        """Set the parameters to `vec` `[d]`."""
        with torch.no_grad():
            for parameter, view in zip(self.parameters, self.layout.views(vec).values(), strict=True):
                parameter.copy_(view)

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
