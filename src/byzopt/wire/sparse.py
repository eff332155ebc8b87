"""Compressors that send K of d coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, inf
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from byzopt import accelerator
from byzopt.errors import BadMessage, require
from byzopt.wire.bitstream import BitReader, BitWriter, Floats
from byzopt.wire.compressors import COMPRESSORS, FLOAT, Compressor, Draw, Scope
from byzopt.wire.link import Link

Places: TypeAlias = npt.NDArray[np.int64]


def address(d: int) -> int:
    """Bits of one index among d: ⌈log₂ d⌉."""
    return (d - 1).bit_length()


def check_count(what: str, k: int | None, ratio: float) -> None:
    """Raise `InvalidInput` unless a count and a ratio are in their ranges."""
    require(k is None or k >= 1, f"Parameter `k` of {what}", "be at least 1", k)
    require(0 < ratio <= 1, f"Parameter `ratio` of {what}", "lie in (0, 1]", ratio)


def largest(rows: Tensor, k: int) -> Tensor:
    """Mask of each row's k largest magnitudes; of equal ones the lowest index. NaN counts as infinite."""
    size = rows.abs().nan_to_num_(nan=inf, posinf=inf)
    if k == 1:
        return torch.zeros_like(size, dtype=torch.bool).scatter_(-1, size.argmax(-1, keepdim=True), True)
    least = _largest_but(size, k - 1)
    chosen = size >= least
    if not accelerator.holds(size) and bool((chosen.sum(dim=-1) == k).all()):  # nobody waits for the answer
        return chosen
    above, equal = size > least, size == least
    room = k - above.sum(dim=-1, keepdim=True)
    return above | (equal & (equal.cumsum(dim=-1) <= room))


def _largest_but(size: Tensor, k: int) -> Tensor:
    """Each row's largest number but k, `[..., 1]`."""
    place = size.shape[-1] - 1 - k
    if accelerator.holds(size) or size.dtype not in (torch.float32, torch.float64):
        return size.kthvalue(place + 1, dim=-1, keepdim=True).values
    # Partial sorting in NumPy takes half as long.
    return torch.from_numpy(np.partition(size.numpy(), place, axis=-1)[..., place : place + 1].copy())


@COMPRESSORS.register("top_k")
@dataclass(frozen=True)
class TopK(Compressor):
    """The K coordinates of largest magnitude, the rest 0. α = K/d; K (32 + ⌈log₂ d⌉) bits.

    `k` coordinates (at most all), or where it is not given `ratio` of them rounded down, at least 1. Ties:
    the lowest index. With `scope="tensor"` K is taken for each tensor on its own.

    Args:
        k: Number of coordinates kept; None: by `ratio`.
        ratio: Share of the coordinates kept, in (0, 1].
        scope: Whether it works on the "global" vector or by "tensor".

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.wire import Link, TopK
        >>> rows = torch.tensor([[1.0, -5.0, 2.0, 0.0]])
        >>> TopK(k=1)(rows, Link(t=1, seed=0, layout=Layout.flat(4)))
        tensor([[ 0., -5.,  0.,  0.]])
        >>> TopK(ratio=0.1).alpha(1000)
        0.1
    """

    k: int | None = None
    ratio: float = 0.1
    scope: Scope = "global"

    def __post_init__(self) -> None:
        check_count("top_k", self.k, self.ratio)

    def kept(self, d: int) -> int:
        return min(self.k, d) if self.k is not None else max(1, floor(self.ratio * d + 1e-9))

    def compress(self, rows: Tensor, noise: Tensor | None) -> Tensor:
        d = rows.shape[-1]
        k = self.kept(d)
        return rows if k == d else torch.where(largest(rows, k), rows, 0.0)

    def alpha(self, d: int) -> float:
        return self.kept(d) / d

    def size(self, d: int, width: int = FLOAT) -> int:
        return self.kept(d) * (width + address(d))

    @property
    def holds_any_scale(self) -> bool:
        return True

    def write(self, block: Floats, out: BitWriter, width: int, draw: Draw | None) -> None:
        _write_sparse(block, self.kept(len(block)), out, width)

    def read(self, k: int, source: BitReader, width: int, draw: Draw | None) -> Floats:
        return _read_sparse(k, self.kept(k), source, width)


@COMPRESSORS.register("rand_k")
@dataclass(frozen=True)
class RandK(Compressor):
    """K coordinates drawn uniformly without replacement, the rest 0.

    `scaled=True`: times d/K, unbiased with ω = d/K - 1, and not contractive: no wire with feedback takes it.
    `scaled=False`: as they are, contractive with α = K/d. `k` coordinates, or where it is not given `ratio`
    of them rounded up. Bits: K (32 + ⌈log₂ d⌉) as for top_k; `seeded=True`: 32 K + 32, a seed in place of
    the indices, which the receiver draws again.

    Args:
        k: Number of coordinates kept; None: by `ratio`.
        ratio: Share of the coordinates kept, in (0, 1].
        scaled: Whether they are multiplied by d/K, which makes it unbiased.
        seeded: Whether a seed is sent in place of indices.
        scope: Whether it works on the "global" vector or by "tensor".

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.wire import Link, RandK
        >>> sent = RandK(k=2)(torch.ones(1, 8), Link(t=1, seed=0, layout=Layout.flat(8)))
        >>> sorted(sent[0].tolist())
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 4.0, 4.0]
        >>> RandK(k=2).omega(8)
        3.0
    """

    k: int | None = None
    ratio: float = 0.1
    scaled: bool = True
    seeded: bool = False
    scope: Scope = "global"

    def __post_init__(self) -> None:
        check_count("rand_k", self.k, self.ratio)

    @property
    def unbiased(self) -> bool:
        return self.scaled

    @property
    def contracts(self) -> bool:
        return not self.scaled

    @property
    def random(self) -> bool:
        return True

    def kept(self, d: int) -> int:
        return min(self.k, d) if self.k is not None else max(1, ceil(self.ratio * d - 1e-9))

    def compress(self, rows: Tensor, noise: Tensor | None) -> Tensor:
        assert noise is not None
        d = rows.shape[-1]
        k = self.kept(d)
        if k == d:
            return rows
        # `where` and not a product: what is not sent must not spoil a row, whatever it is.
        return torch.where(largest(noise, k), rows * (d / k) if self.scaled else rows, 0.0)

    def alpha(self, d: int) -> float | None:
        k = self.kept(d)
        return None if self.scaled and k < d else k / d

    def omega(self, d: int) -> float | None:
        return d / self.kept(d) - 1 if self.scaled else None

    def size(self, d: int, width: int = FLOAT) -> int:
        k = self.kept(d)
        return k * width + FLOAT if self.seeded else k * (width + address(d))

    @property
    def holds_any_scale(self) -> bool:
        return True

    @property
    def shares_draw(self) -> bool:
        return self.seeded

    def write(self, block: Floats, out: BitWriter, width: int, draw: Draw | None) -> None:
        if not self.seeded:
            return _write_sparse(block, self.kept(len(block)), out, width)
        places, seed = self._drawn_places(draw, len(block))
        out.integers(seed, FLOAT)
        return out.floats(block[places], width)

    def read(self, k: int, source: BitReader, width: int, draw: Draw | None) -> Floats:
        if not self.seeded:
            return _read_sparse(k, self.kept(k), source, width)
        places, seed = self._drawn_places(draw, k)
        named = int(source.integers(1, FLOAT)[0])
        if named != seed:
            raise BadMessage(f"A seeded message should name this round's draw. Found seed {named}.")
        block = np.zeros(k)
        block[places] = source.floats(len(places), width)
        return block

    def _drawn_places(self, draw: Draw | None, d: int) -> tuple[Places, int]:
        """The indices that both ends draw, and the seed of the draw."""
        assert draw is not None  # `messages` asks for it
        return np.flatnonzero(largest(draw.noise, self.kept(d)).cpu().numpy()), draw.seed


@COMPRESSORS.register("shared_rand_k")
@dataclass(frozen=True)
class SharedRandK(RandK):
    """`rand_k` with one draw for all workers in a round: the same K coordinates of everybody, times d/K.

    Rows that lie together stay together: what is between two rows is multiplied by d/K at most, where draws
    of their own add (d/K - 1)‖row‖² to each. Messages hold their indices, as those of `rand_k` do, though
    both ends could draw them. Source: arXiv:2508.17129.

    Args:
        k: Number of coordinates kept; None: by `ratio`.
        ratio: Share of the coordinates kept, in (0, 1].
        scaled: Whether they are multiplied by d/K, which makes it unbiased.
        seeded: Must be false: no seed is sent.
        scope: Whether it works on the "global" vector or by "tensor".

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.wire import Link, SharedRandK
        >>> sent = SharedRandK(k=1)(torch.ones(3, 4), Link(t=1, seed=0, layout=Layout.flat(4)))
        >>> bool((sent == sent[0]).all()), float(sent.sum())
        (True, 12.0)
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        require(not self.seeded, "Parameter `seeded` of shared_rand_k", "be false", self.seeded)

    @property
    def one_draw(self) -> bool:
        return True

    def __call__(self, rows: Tensor, link: Link) -> Tensor:
        return super().__call__(rows, link._replace(shared=True))


def _write_sparse(block: Floats, k: int, out: BitWriter, width: int) -> None:
    """K ascending indices that hold all non-zeros, filled up with the lowest free ones, then their values."""
    held = np.flatnonzero(block)
    require(len(held) <= k, "A compressed row", f"have at most {k} coordinates", len(held))
    free = np.flatnonzero(block == 0)[: k - len(held)]
    places = np.sort(np.concatenate([held, free]))
    out.integers(places, address(len(block)))
    out.floats(block[places], width)


def _read_sparse(d: int, k: int, source: BitReader, width: int) -> Floats:
    places = source.integers(k, address(d)).astype(np.int64)
    if places.max(initial=0) >= d:
        raise BadMessage(f"Indices should lie in 0 .. {d - 1}. Found {places.max()}.")
    if (np.diff(places) <= 0).any():
        raise BadMessage("Indices should be distinct and ascending. Found others.")
    block = np.zeros(d)
    block[places] = source.floats(k, width)
    return block
