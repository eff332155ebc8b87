"""How rows on an accelerator are worked on: whole rows at once, in few operations, and nothing is fetched.

On a CPU operations are cut to its caches, and looking at a number is free. On an accelerator every operation
costs a launch, every look makes the host wait, and memory is wide: so the functions here take whole rows (or
blocks of half a gigabyte), and leave what they find on the device. Callers choose by `holds(rows)`; they
fetch once, with `fetch`, what decisions on the host need.

**Kernels go here.** Each of `products`, `columns`, `blended` and `squares` is one pass over the rows whose
meaning its docstring states in full. A kernel for a device (`kernels.gpu`) takes the place of the body of one
of them, for the rows that it can read; the lines that are there in plain torch stay as what runs without it.
Nobody else chooses between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from byzopt.kernels import RankWindow, gpu

BLOCK_BYTES = 1 << 29  # of rows that are worked on at once; sorting takes four times as much beside them
_SPAN = 1 << 12  # columns whose products are summed in the rows' dtype; sums of spans are float64


def holds(rows: Tensor) -> bool:
    """Whether `rows` lie on an accelerator: on any device but the CPU, unless it plays one in a test."""
    return rows.device.type != "cpu" or gpu.interpreting()


def fetch(*parts: Tensor) -> tuple[Tensor, ...]:
    """Copies of `parts` on the CPU, float64, in one transfer: the host waits once."""
    flat = joined([part.flatten().to(torch.float64) for part in parts]).cpu()
    pieces = torch.split(flat, [part.numel() for part in parts])
    return tuple(piece.view(part.shape) for piece, part in zip(pieces, parts, strict=True))


def blocks(rows: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """Column blocks of `rows` `[n, d]` in `dtype`: all columns, unless they take more than `BLOCK_BYTES`."""
    n, d = rows.shape
    width = min(d, max(1, BLOCK_BYTES // (n * dtype.itemsize)))
    for start in range(0, max(d, 1), max(width, 1)):  # where there are no columns, one block of none
        piece = slice(start, min(start + width, d))
        yield piece, (rows if width == d else rows[:, piece]).to(dtype)


@contextmanager
def full_float32() -> Iterator[None]:
    """float32 products are float32 products while it lasts, whatever the script has set for its model.

    TF32 keeps ten bits: distances of rows that are near to each other would be noise.
    """
    if not _coarse():
        yield
        return
    newer = hasattr(torch.backends, "fp32_precision")  # since torch 2.9
    name, exact = ("fp32_precision", "ieee") if newer else ("allow_tf32", False)
    before = getattr(torch.backends.cuda.matmul, name)
    setattr(torch.backends.cuda.matmul, name, exact)
    try:
        yield
    finally:
        setattr(torch.backends.cuda.matmul, name, before)


def _coarse() -> bool:
    try:  # a microsecond, where the next line takes ten
        return torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # it was set in the newer of torch's two ways
        return bool(torch.backends.cuda.matmul.fp32_precision == "tf32")


@full_float32()
def products(rows: Tensor, pivot: Tensor | None, dtype: torch.dtype) -> Tensor:
    """`<x_i - p, x_j - p>` `[n, n]`, float64 on the device, symmetric; p is `pivot`, or the origin (None).

    Products are taken in `dtype` over spans of columns, and sums of spans in float64. Without a pivot the
    rows are read once and no copy of them is written.
    """
    found = gpu.products(rows, pivot, dtype)
    if found is not None:
        return found
    total: Tensor | None = None
    for piece, block in blocks(rows, dtype):
        part = _products(block if pivot is None else block - pivot[piece].to(dtype))
        total = part if total is None else total + part
    assert total is not None
    return torch.maximum(total, total.T)  # equal but for rounding


def _products(block: Tensor) -> Tensor:
    n, d = block.shape
    span = max(_SPAN, 8 * n)  # so that the products of all spans are few beside the rows
    spans = d // span
    if d <= span:
        return (block @ block.T).double()
    parts = block[:, : spans * span].view(n, spans, span).transpose(0, 1)
    total = torch.bmm(parts, parts.mT).sum(dim=0, dtype=torch.float64)
    rest = block[:, spans * span :]
    return total + rest @ rest.T if rest.shape[1] else total


def squares(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Squared Euclidean norms `[n]` float64 on the device. Squares are taken in `dtype`, over spans of
    columns, and sums of spans in float64."""
    found = gpu.squares(rows, dtype)
    if found is not None:
        return found
    total: Tensor | None = None
    for _, block in blocks(rows, dtype):
        part = span_squares(block)
        total = part if total is None else total + part
    assert total is not None
    return total


def span_squares(block: Tensor) -> Tensor:
    """Squared norms `[n]` float64 of the rows of `block`, in whose dtype squares of a span are summed."""
    n, spans = len(block), block.shape[1] // _SPAN
    if not spans:
        found: Tensor = torch.linalg.vector_norm(block, dim=1).double().square()
        return found
    whole, rest = block[:, : spans * _SPAN].view(n, spans, _SPAN), block[:, spans * _SPAN :]
    parts = [torch.linalg.vector_norm(whole, dim=2)] if spans else []
    if rest.shape[1] or not spans:
        parts.append(torch.linalg.vector_norm(rest, dim=1, keepdim=True))
    lengths: Tensor = torch.linalg.vector_norm(joined(parts).double(), dim=1)
    return lengths.square()


@full_float32()
def blended(weights: Tensor, rows: Tensor, dtype: torch.dtype) -> Tensor:
    """`weights @ rows` in the rows' dtype, summed in `dtype`: `[m, n] x [n, d] -> [m, d]`, on the device."""
    found = gpu.blends(weights, rows, dtype)
    if found is not None:
        return found[0]
    weights = weights.to(rows.device, dtype)
    return joined([(weights @ block).to(rows.dtype) for _, block in blocks(rows, dtype)])


@full_float32()
def columns(
    rows: Tensor, plan: RankWindow, mixing: Tensor | None, pivot: int | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """What `plan` makes of every column of `rows` `[n, d]`, or of `mixing @ rows`: `[d]` in the rows' dtype.

    Beside it a number, on the device, that is finite only where all rows and answers are (and their range).
    `mixing` `[m, n]` is applied in `dtype`, on the way; where it is given a `pivot`, about that row, which it
    may be only where it takes means.
    """
    found = gpu.columns(rows, plan, mixing, pivot, dtype)
    if found is not None:
        return found
    mixing = None if mixing is None else mixing.to(rows.device, dtype)
    answers: list[Tensor] = []
    traces: list[Tensor] = []
    for _, block in blocks(rows, dtype):
        mixed = _mixed(block, mixing, pivot)
        answer, trace = gpu.columns(mixed, plan, None, None, dtype) or answered(mixed, plan)
        answers.append(answer.to(rows.dtype))
        traces.append(trace)
    return joined(answers), joined(traces).sum(dtype=torch.float64)


def _mixed(block: Tensor, mixing: Tensor | None, pivot: int | None) -> Tensor:
    if mixing is None:
        return block
    return mixing @ block if pivot is None else (mixing @ (block - block[pivot])).add_(block[pivot])


def answered(block: Tensor, plan: RankWindow) -> tuple[Tensor, Tensor]:
    """The plan's answer to each column, and numbers whose sum is finite only where all are.

    In a sorted column NaN comes last and infinities stand at the ends, so that the range shows them.
    """
    m, (first, last, around) = len(block), plan
    if plan == (0, m, None):
        mean = block.mean(dim=0)
        return mean, mean
    ordered = block.sort(dim=0).values
    spread = ordered[-1] - ordered[0]
    answer = ordered[first].clone() if last - first == 1 else ordered[first:last].mean(dim=0)
    if around is not None:
        # Value s makes way for value s + around when that one is nearer to the centre.
        moved = answer - ordered[: m - around] > ordered[around:] - answer
        ordered[: m - around].masked_fill_(moved, 0)
        ordered[around:].masked_fill_(~moved, 0)
        answer = ordered.sum(dim=0).div_(around)
    return answer, spread.add_(answer)


def joined(parts: list[Tensor]) -> Tensor:
    """`parts` side by side; one that is alone is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
