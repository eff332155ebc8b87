"""Linear algebra shared by all rooms: column blocks, centred Gram products, mixing, norms, polar factors.

Rows may be float16, bfloat16, float32 or float64. Half precisions are reduced in float32; sums over
blocks, and everything n x n, are float64. Nothing here writes to its arguments.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from byzopt import accelerator, kernels

BLOCK_BYTES = 1 << 19
PIECE_BYTES = 1 << 24  # of rows that have to be converted before a kernel reads them
_ROWS = 256  # of a block for BLAS: of the blocks above the diagonal none is taken
_COPIED = 3  # times that a row is read or written where it is copied to be summed
_DEEP = 4096  # columns that BLAS sums in the rows' dtype, at least


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which sums over rows of `dtype` are taken."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def ordinary(weights: Tensor) -> bool:
    """Whether a sum with these weights may be taken in float32: what a weight cuts down was finite before."""
    sizes = weights[weights != 0].abs()
    return bool(((sizes > 1e-30) & (sizes < 1e30)).all())


def column_blocks(
    rows: Tensor, dtype: torch.dtype | None = None, size: int = BLOCK_BYTES
) -> Iterator[tuple[slice, Tensor]]:
    """Column blocks of `rows` `[n, d]`, about `size` bytes each, in `dtype` (default: the compute dtype).

    On an accelerator they are as large as `accelerator.blocks` has them.
    """
    n, d = rows.shape
    dtype = dtype or compute_dtype(rows.dtype)
    if accelerator.holds(rows):
        yield from accelerator.blocks(rows, dtype)
        return
    width = max(64, size // (max(n, 1) * dtype.itemsize))
    for start in range(0, d, width):
        piece = slice(start, min(start + width, d))
        yield piece, rows[:, piece].to(dtype)


def pieces(rows: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """`rows` `[n, d]` as kernels can read them: in one piece as they lie, else in converted column blocks."""
    if rows.stride(1) == 1 and rows.dtype == compute_dtype(rows.dtype):
        yield slice(0, rows.shape[1]), rows
        return
    for piece, block in column_blocks(rows, size=PIECE_BYTES):
        yield piece, lined(block)


def lined(rows: Tensor) -> Tensor:
    """`rows` `[n, d]` one after the other in memory: themselves, or a copy."""
    return kernels.turned_rows(rows) if kernels.turns(rows) and rows.stride(1) != 1 else rows.contiguous()


def gram(
    rows: Tensor,
    pivot: Tensor | None = None,
    dtype: torch.dtype | None = None,
    order: Any = None,
) -> Tensor:
    """Inner products `<x_i - p, x_j - p>` as `[n, n]` float64; `pivot` `[d]` defaults to no centring.

    Blocks are multiplied in `dtype` (default: the compute dtype) and accumulated in float64. `order`, indices
    `[n]`, is that in which rows are laid side by side to be multiplied, which torch's rounding may depend on;
    the products come in the order of the rows. On an accelerator rows are multiplied as they lie: there the
    elements of one product are summed alike. Cost: n^2 d.
    """
    dtype = dtype or compute_dtype(rows.dtype)
    if accelerator.holds(rows):
        return accelerator.products(rows, pivot, dtype)
    if one_order(rows):
        return kernels.fused_gram(rows, torch.zeros_like(rows[0]) if pivot is None else pivot, dtype)
    pivot = None if pivot is None or not pivot.any() else pivot  # about 0 nothing is copied
    total = torch.zeros(rows.shape[0], rows.shape[0], dtype=torch.float64, device=rows.device)
    for piece, block in pieces(rows) if rows.dtype == dtype else column_blocks(rows, dtype, PIECE_BYTES):
        about = None if pivot is None else pivot[piece].to(dtype)
        if one_order(block):
            total += kernels.fused_gram(block, torch.zeros_like(block[0]) if about is None else about)
        else:
            total += _gram(block, about, order)
    return total


def one_order(rows: Tensor) -> bool:
    """Whether `gram` sums all products of `rows` `[n, d]` in one order, so that equal rows have equal ones.

    Our kernels do. BLAS may sum another place in another order.
    """
    return kernels.supports(rows)


def _gram(rows: Tensor, pivot: Tensor | None, order: Any) -> Tensor:
    """The products by BLAS: of each two blocks of rows once, and of a block of columns at a time.

    Rows are copied only to be centred, or laid in an order.
    """
    n, d = rows.shape
    index = None if order is None else torch.as_tensor(order, device=rows.device)
    total = torch.zeros(n, n, dtype=torch.float64, device=rows.device)
    width = min(d, max(_DEEP, PIECE_BYTES // 4 // (n * rows.element_size())))
    blocks = [slice(start, min(start + _ROWS, n)) for start in range(0, n, _ROWS)]
    scratch: Tensor | None = None
    if not (pivot is None and index is None):
        scratch = torch.empty(n, width, dtype=rows.dtype, device=rows.device)
    for start in range(0, d, width):
        piece = slice(start, min(start + width, d))
        block = rows[:, piece] if scratch is None else scratch[:, : piece.stop - start]
        if index is not None:
            torch.index_select(rows[:, piece], 0, index, out=block)
        if pivot is not None:
            torch.sub(rows[:, piece] if index is None else block, pivot[piece], out=block)
        for some in blocks:  # tall products: of wide ones BLAS makes less
            total[some.start :, some] += block[some.start :] @ block[some].T
    for some in blocks:
        total[some, some] = (total[some, some] + total[some, some].T) / 2
        total[some, some.stop :] = total[some.stop :, some].T
    if index is None:
        return total
    back = index.argsort()
    return total[back][:, back]


def sq_dists_of(inner: Tensor) -> Tensor:
    """Squared distances `[..., n, n]` from inner products; symmetric, non-negative, zero diagonal."""
    norms = inner.diagonal(dim1=-2, dim2=-1)
    dists: Tensor = (norms.unsqueeze(-1) + norms.unsqueeze(-2) - 2 * inner).clamp_min_(0)
    dists = (dists + dists.mT) / 2
    dists.diagonal(dim1=-2, dim2=-1).zero_()
    return dists


def mix(weights: Tensor, rows: Tensor) -> Tensor:
    """`weights @ rows` in the rows' dtype, taken block by block: `[m, n] x [n, d] -> [m, d]`."""
    if accelerator.holds(rows):
        return accelerator.blended(weights, rows, compute_dtype(rows.dtype))
    out = torch.empty(weights.shape[0], rows.shape[1], dtype=rows.dtype, device=rows.device)
    weights = weights.to(rows.device, compute_dtype(rows.dtype))
    for piece, block in column_blocks(rows):
        out[:, piece] = weights @ block
    return out


def blend(weights: Tensor, rows: Tensor, order: Any = None, place: Tensor | None = None) -> Tensor:
    """`weights @ rows` for one row of weights, `[n] x [n, d] -> [d]`. Rows of weight 0 are not read.

    `order`, indices `[n]`, is that in which rows are summed. `place` `[d]`, of the rows' dtype, is memory
    apart from the rows that the sum may be written to.
    """
    if accelerator.holds(weights):  # nobody looks at them
        return mix(weights.unsqueeze(0), rows)[0]
    values = weights.detach().numpy()
    plain = order is None and place is None and not (kernels.supports(rows) or accelerator.holds(rows))
    if plain and rows.dtype == compute_dtype(rows.dtype) and values.min() > 0 and len(values) > 1:
        return weights.to(rows.dtype) @ rows  # as below, with less about it
    chosen = values.nonzero()[0] if order is None else order[values[order] != 0]
    if len(chosen) == 1 and values.item(chosen[0]) == 1.0:
        return rows[int(chosen[0])].clone()
    if accelerator.holds(rows):
        return mix(weights.unsqueeze(0), rows)[0]
    out = torch.empty(rows.shape[1], dtype=rows.dtype, device=rows.device) if place is None else place
    if kernels.supports(rows):
        kernels.fused_blend(rows, chosen, values[chosen], out)
        return out
    for piece, block in pieces(rows):
        if kernels.supports(block):
            with written(out[piece], block.dtype) as part:
                kernels.fused_blend(block, chosen, values[chosen], part)
        else:
            out[piece] = _blend(weights, block, chosen, order is None)
    return out


def _blend(weights: Tensor, rows: Tensor, chosen: Any, any_order: bool) -> Tensor:
    """The weighted sum of the rows `chosen`, in that order or in any, by torch.

    Where many are chosen a product with all rows, some of weight 0, takes less than copying those chosen.
    Where that is not finite the others may hold what is not, and are left out.
    """
    if any_order and len(chosen) * _COPIED >= len(rows):
        out: Tensor = weights.to(rows.dtype) @ rows
        if len(chosen) == len(rows) or isfinite(float(out.sum(dtype=torch.float64))):
            return out
    shares, index = weights[chosen].to(rows.dtype), torch.from_numpy(chosen).to(rows.device)
    sums = [
        shares @ block.index_select(0, index)
        for _, block in column_blocks(rows, rows.dtype, PIECE_BYTES // 4)
    ]
    return torch.cat(sums)


@contextmanager
def written(out: Tensor, dtype: torch.dtype) -> Iterator[Tensor]:
    """Memory of `dtype` whose content is in `out` `[d]` afterwards: that of `out` itself where that fits."""
    if out.dtype == dtype:
        yield out
        return
    part = torch.empty(len(out), dtype=dtype, device=out.device)
    yield part
    out.copy_(part)


def norm(vec: Tensor) -> Tensor:
    """Euclidean norm over the last dimension, reduced in float64."""
    length: Tensor = torch.linalg.vector_norm(vec, dim=-1, dtype=torch.float64)
    return length


def product(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right` of `[..., p, q]` and `[..., q, r]`, a call for each two matrices: those of a run among
    others have the bits of one alone."""
    if left.ndim == 2:
        return left @ right
    pairs = zip(left.flatten(0, -3), right.flatten(0, -3), strict=True)
    return torch.stack([a @ b for a, b in pairs]).view(*left.shape[:-1], right.shape[-1])


def row_mean(rows: Tensor) -> Tensor:
    """The mean `[..., d]` of rows `[..., n, d]`, a call for each set of them, as in `product`."""
    if rows.ndim == 2:
        return rows.mean(dim=0)
    means = torch.stack([each.mean(dim=0) for each in rows.flatten(0, -3)])
    return means.view(*rows.shape[:-2], rows.shape[-1])


def clip(vectors: Tensor, radius: float | Tensor) -> Tensor:
    """min(1, λ/‖v‖) v for each vector `[..., d]` with λ = `radius`, one or `[...]`, also where squares
    overflow. Vectors that are not finite stay as they are."""
    radius = radius.unsqueeze(-1) if isinstance(radius, Tensor) else radius
    top = vectors.abs().amax(dim=-1, keepdim=True)
    units = vectors / top.where(top > 0, 1.0)
    lengths = norm(units).unsqueeze(-1)
    scale = (radius / lengths.clamp_min(1.0)).to(vectors.dtype)  # a unit vector's largest magnitude is 1
    return vectors.where(~(lengths * top > radius), units * scale)


def clip_all(vectors: Tensor, radius: float | Tensor) -> tuple[Tensor, Tensor]:
    """`clip` of vectors `[..., d]` with 0 for those that are not finite, which no clipping bounds: what comes
    out is never longer than the radius. And which these were, `[...]`."""
    bad = ~vectors.isfinite().all(dim=-1)
    return clip(vectors.masked_fill(bad.unsqueeze(-1), 0.0), radius), bad


def project_ball(x: Tensor, centre: Tensor, radius: float | Tensor) -> Tensor:
    """The point of the ball of `radius` (one, or `[...]`) around `centre` nearest to `x` `[..., d]`: `x`
    itself when inside."""
    radius = radius.unsqueeze(-1) if isinstance(radius, Tensor) else radius
    offset = x - centre
    length = norm(offset).unsqueeze(-1)
    scale = (radius / length.clamp_min(torch.finfo(torch.float64).tiny)).clamp_max(1.0)
    return torch.where(scale < 1, centre + offset * scale.to(x.dtype), x)


def polar(matrix: Tensor) -> Tensor:
    """The exact polar factor P Q^T of a matrix with thin SVD P S Q^T. Zero singular values count as zero."""
    p, s, qt = torch.linalg.svd(matrix, full_matrices=False)
    keep = s > s.amax(-1, keepdim=True) * max(matrix.shape[-2:]) * torch.finfo(matrix.dtype).eps
    out: Tensor = (p * keep.to(p.dtype).unsqueeze(-2)) @ qt
    return out


MUON_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def newton_schulz(
    matrix: Tensor, steps: int = 5, coefficients: tuple[float, float, float] = MUON_COEFFICIENTS
) -> Tensor:
    """Approximate polar factor of `[r, c]` by X <- aX + b(XX')X + c(XX')^2 X on the matrix over its norm.

    With Muon's coefficients the singular values end in about [0.7, 1.2], not at 1: five steps give a
    direction, not a limit. A zero matrix gives zero. Steps: Jordan et al., Muon.
    """
    a, b, c = coefficients
    scale = torch.linalg.matrix_norm(matrix, keepdim=True)
    x = matrix / torch.where(scale > 0, scale, torch.ones_like(scale))
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    out: Tensor = x.mT if tall else x
    return out
