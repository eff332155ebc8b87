"""Norm balls and their linear minimisation oracles: argmin over ‖d‖ <= 1 of ⟨v, d⟩.

`direction` returns -argmin, the direction to walk against, so that x <- x - γ direction(v).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from byzopt import linalg
from byzopt.errors import require
from byzopt.layout import Layout
from byzopt.registry import Registry


class Norm(ABC):
    """A norm on parameter space. `direction(v, layout)` has norm one, or is 0 where v is.

    `[d] -> [d]`, and the same over any leading dimensions: one direction for each of several runs.

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.servers import Norm
        >>> class Largest(Norm):  # of the l1 ball: one coordinate
        ...     def direction(self, v, layout):
        ...         return torch.where(v.abs() == v.abs().max(), v.sign(), 0)
        >>> Largest().direction(torch.tensor([1.0, -3.0]), Layout.flat(2))
        tensor([ 0., -1.])
    """

    name: ClassVar[str]

    @abstractmethod
    def direction(self, v: Tensor, layout: Layout) -> Tensor:
        """Minus the linear minimiser of v over the unit ball."""


NORMS: Registry[Norm] = Registry("norm", Norm)


def rescaled(v: Tensor) -> Tensor:
    """v `[..., k]` over its largest magnitude, in the compute dtype: no square of it overflows. 0 for 0."""
    wide = v.to(linalg.compute_dtype(v.dtype))
    low, high = torch.aminmax(wide, dim=-1, keepdim=True)
    largest = torch.maximum(-low, high)
    return wide / torch.where(largest == 0, 1.0, largest)


def unit(v: Tensor) -> Tensor:
    """v / ‖v‖ over the last dimension, ‖v‖ reduced in float64; any scale, no epsilon; 0 for 0."""
    scaled = rescaled(v)
    length = linalg.norm(scaled).unsqueeze(-1)
    return (scaled / torch.where(length == 0, 1.0, length).to(scaled.dtype)).to(v.dtype)


@NORMS.register("euclidean")
@dataclass(frozen=True)
class Euclidean(Norm):
    """v / ‖v‖ over the whole flat vector: Algorithm 1 of arXiv:2603.12512.

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.servers import Euclidean
        >>> Euclidean().direction(torch.tensor([3.0, 4.0]), Layout.flat(2))
        tensor([0.6000, 0.8000])
    """

    def direction(self, v: Tensor, layout: Layout) -> Tensor:
        return unit(v)


@NORMS.register("sign")
@dataclass(frozen=True)
class Sign(Norm):
    """sign(v): the l-infinity ball, signed descent (Remark 1 of arXiv:2603.12512).

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.servers import Sign
        >>> Sign().direction(torch.tensor([3.0, -4.0]), Layout.flat(2))
        tensor([ 1., -1.])
    """

    def direction(self, v: Tensor, layout: Layout) -> Tensor:
        return torch.sign(v)


@NORMS.register("spectral")
@dataclass(frozen=True)
class Spectral(Norm):
    """Layer-wise operator norm, a Byzantine-robust Muon: P Q^T for every matrix block P S Q^T.

    The ball is max over tensors of ‖·‖_l / r_l. Matrices, and convolution kernels reshaped to
    `[out, in k k]`, use the operator norm with radius `radius`; vectors, and the tensors whose name contains
    one of `keep`, use `vectors` (`"euclidean"` or `"sign"`) with radius `vector_radius`. `exact` takes the
    SVD; else Newton-Schulz with Muon's coefficients and `steps` iterations, whose singular values end in
    about [0.7, 1.2]. Remark 1 of arXiv:2603.12512; the layer-wise form is our reading of it.

    Args:
        exact: Whether to take the SVD, not Newton-Schulz.
        steps: Iterations of Newton-Schulz.
        radius: r_l of matrices.
        vector_radius: r_l of vectors.
        vectors: Norm of vectors: "euclidean" or "sign".
        keep: Parts of names of tensors that count as vectors.

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.servers import Spectral
        >>> layout = Layout.of({"weight": torch.zeros(2, 2)})
        >>> Spectral(exact=True).direction(torch.tensor([3.0, 0.0, 0.0, 5.0]), layout).round(decimals=4) + 0
        tensor([1., 0., 0., 1.])
    """

    exact: bool = False
    steps: int = 5
    radius: float = 1.0
    vector_radius: float = 1.0
    vectors: Literal["euclidean", "sign"] = "euclidean"
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(self.steps >= 1, "Parameter `steps` of spectral", "be at least 1", self.steps)
        radii = (self.radius, self.vector_radius)
        require(min(radii) > 0, "The radii of spectral", "be positive", radii)
        vectors = ("euclidean", "sign")
        require(self.vectors in vectors, "Parameter `vectors` of spectral", f"be in {vectors}", self.vectors)

    def direction(self, v: Tensor, layout: Layout) -> Tensor:
        lead, parts = v.ndim - 1, layout.views(v)
        return layout.flatten({name: self._block(name, part, lead) for name, part in parts.items()}, lead)

    def _block(self, name: str, part: Tensor, lead: int) -> Tensor:
        flat = part.flatten(start_dim=lead) if part.ndim > lead else part.unsqueeze(-1)
        if part.ndim < lead + 2 or any(word in name for word in self.keep):
            way = torch.sign(flat) if self.vectors == "sign" else unit(flat)
            return self.vector_radius * way.reshape(part.shape)
        matrix = rescaled(flat).reshape(*part.shape[: lead + 1], -1)
        factor = linalg.polar(matrix) if self.exact else linalg.newton_schulz(matrix, self.steps)
        return self.radius * factor.reshape(part.shape).to(part.dtype)
