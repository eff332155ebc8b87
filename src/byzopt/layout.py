"""Layout: the correspondence between one flat vector and named tensors, by views and without copies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from byzopt.errors import require

__all__ = ["Layout"]


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the tensors that a flat vector `[d]` (or rows `[n, d]`) holds, in order.

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> layout = Layout.of({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)})
        >>> layout.d, layout.sizes
        (8, (6, 2))
        >>> layout.views(torch.arange(8.0))["bias"]
        tensor([6., 7.])
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        counts = (len(self.names), len(set(self.names)), len(self.shapes))
        require(len(set(counts)) == 1, "A layout", "give distinct names, one for each shape", self.names)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> Layout:
        """The layout of named tensors, for instance `module.named_parameters()`."""
        pairs = list(tensors.items() if isinstance(tensors, Mapping) else tensors)
        return cls(tuple(k for k, _ in pairs), tuple(tuple(v.shape) for _, v in pairs))

    @classmethod
    def flat(cls, d: int) -> Layout:
        """One vector of length d, named `x`."""
        return cls(("x",), ((d,),))

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(prod(shape) for shape in self.shapes)

    @property
    def d(self) -> int:
        """Total number of coordinates."""
        return sum(self.sizes)

    def views(self, vec: Tensor) -> dict[str, Tensor]:
        """Views of `vec` `[..., d]` as named tensors `[..., *shape]`; writing to them writes to `vec`."""
        require(vec.shape[-1] == self.d, "A flat vector", f"have last size {self.d}", tuple(vec.shape))
        parts = torch.split(vec, list(self.sizes), dim=-1)
        lead = vec.shape[:-1]
        return {k: p.view((*lead, *s)) for k, p, s in zip(self.names, parts, self.shapes, strict=True)}

    def flatten(self, tensors: Mapping[str, Tensor], lead: int = 0) -> Tensor:
        """Inverse of `views`: named tensors with `lead` leading batch dimensions to `[..., d]`."""
        require(set(tensors) == set(self.names), "The tensors", f"be named {self.names}", tuple(tensors))
        parts = []
        for k, shape, size in zip(self.names, self.shapes, self.sizes, strict=True):
            found = tuple(tensors[k].shape)
            require(
                found[lead:] == shape, f"Tensor {k!r}", f"have shape {shape} after {lead} batch sizes", found
            )
            parts.append(tensors[k].reshape(*found[:lead], size))
        return torch.cat(parts, dim=-1)
