"""Order statistics of columns, means around a centre, and weighted sums of rows: read once, written once.

A thread holds all values of its columns in registers. Rows are mixed on the way: then a thread holds the
mixed values, and the rows pass by one after the other.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from byzopt.kernels.answers import RankWindow, column_answer
from byzopt.kernels.gpu.launching import attempted, launch, runs_on
from byzopt.kernels.gpu.source import HEAD, Source

TALL = 64  # values of a column for a network; making a kernel for more takes Triton minutes
TALLEST = 4096  # values of a column whose ranks are found bit by bit
_HELD = 32  # of those in the registers of a thread
_BLOCK = 4  # columns of a program, found best on an H200
SEVERAL = 16  # weighted sums at a time
_WARPS = 4
_ARGUMENTS = "rows, stride_n, stride_d, mixing, pivot, n, out, stride_o, spoilt, d"
_ANY = ("pivot", "n", "stride_o")


def columns(
    rows: Tensor, plan: RankWindow, mixing: Tensor | None, pivot: int | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor] | None:
    """What `plan` makes of every column of `rows` `[n, d]`, or of `mixing @ rows`: `[d]` in the rows' dtype.

    Beside it a number `[1]`, on the device, that is NaN where a row or an answer is not finite, else 0.
    `mixing` `[m, n]` is applied in `dtype`, about row `pivot` if one is given. None where no kernel fits:
    of a column that is no plain mean more than 64 values that are mixed or float64, or more than 4096; or
    rows that kernels cannot read.
    """
    n = len(rows)
    m = n if mixing is None else len(mixing)
    mean = mixing is None and plan == (0, n, None)
    if not runs_on(rows):
        return None
    if not mean and m > TALL:
        return _tall(rows, plan) if mixing is None and dtype == torch.float32 and m <= TALLEST else None
    key = ("mean", _wide(dtype)) if mean else (m, plan, _wide(dtype), mixing is not None, pivot is not None)

    def run() -> tuple[Tensor, Tensor]:
        kernel = _mean(_wide(dtype)) if mean else _columns(*key)
        out = torch.empty(1, rows.shape[1], dtype=rows.dtype, device=rows.device)
        spoilt = torch.zeros(1, dtype=torch.float32, device=rows.device)
        _run(kernel, rows, mixing, pivot, out, spoilt, dtype, 1 if mean else m)
        return out[0], spoilt

    return attempted(("columns", *key), run)


def _tall(rows: Tensor, plan: RankWindow) -> tuple[Tensor, Tensor] | None:
    n, d = rows.shape

    def run() -> tuple[Tensor, Tensor]:
        from byzopt.kernels.gpu.tall import ranked

        out = torch.empty(d, dtype=rows.dtype, device=rows.device)
        spoilt = torch.zeros(1, dtype=torch.float32, device=rows.device)
        held, block, warps = shape(n)
        ends = (plan.first, plan.last, plan.around or 0)
        settings = {"RANKS": min(3, plan.last - plan.first), "AROUND": plan.around is not None, "N": held}
        where = (*rows.stride(), out, spoilt, n, d, *ends)
        launch(ranked, -(-d // block), rows, *where, **settings, BLOCK=block, num_warps=warps)
        return out, spoilt

    return attempted(("tall", n > TALL, rows.dtype), run)


def shape(n: int) -> tuple[int, int, int]:
    """Values that a program for tall columns of n has places for, its columns, and its warps."""
    held = 1 << (n - 1).bit_length()
    return held, _BLOCK, max(1, held * _BLOCK // (32 * _HELD))


def blends(weights: Tensor, rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
    """`weights @ rows`, `[m, n] x [n, d] -> [m, d]` in the rows' dtype, summed in `dtype`; a row that has no
    weight in any sum is not read.

    Beside it a number as from `columns`, of the sums alone. None where no kernel fits: for more than 16 sums.
    """
    if not runs_on(rows) or len(weights) > SEVERAL:
        return None

    def run() -> tuple[Tensor, Tensor]:
        out = torch.empty(len(weights), rows.shape[1], dtype=rows.dtype, device=rows.device)
        spoilt = torch.zeros(1, dtype=torch.float32, device=rows.device)
        _run(_blends(len(weights), _wide(dtype)), rows, weights, None, out, spoilt, dtype, len(weights))
        return out, spoilt

    return attempted(("blends", len(weights), _wide(dtype)), run)


def _run(
    kernel: Any,
    rows: Tensor,
    mixing: Tensor | None,
    pivot: int | None,
    out: Tensor,
    spoilt: Tensor,
    dtype: torch.dtype,
    held: int,
) -> None:
    """`held` values of each column are in registers at a time."""
    n, d = rows.shape
    block = block_of(held * dtype.itemsize // 4)
    # A row's weights lie side by side: one after the other is read.
    shares = rows if mixing is None else mixing.to(dtype).T.contiguous().to(rows.device, non_blocking=True)
    where = (*rows.stride(), shares, pivot or 0, n, out, out.stride(0), spoilt, d)
    launch(kernel, -(-d // block), rows, *where, BLOCK=block, num_warps=_WARPS)


def block_of(held: int) -> int:
    """Columns of a program whose threads hold so many float32 numbers of each column."""
    return 32 * _WARPS * (4 if held <= 24 else 2 if held <= 48 else 1)


def _wide(dtype: torch.dtype) -> str:
    return "tl.float64" if dtype == torch.float64 else "tl.float32"


def _begun(name: str, wide: str) -> Source:
    source = Source(name, _ARGUMENTS, wide)
    source.line("first = tl.program_id(0).to(tl.int64) * BLOCK")
    for line in HEAD:
        source.line(line)
    source.line("step = tl.cast(stride_n, tl.int64)")
    return source


@lru_cache(maxsize=256)
def _columns(m: int, plan: RankWindow, wide: str, mixes: bool, about: bool) -> Any:
    source = _begun("columns", wide)
    values = _mixed(source, m, about, skips=False) if mixes else _as_they_lie(source, m)
    answer, trace = column_answer(source, values, plan, source.zeros())
    source.line("tl.store(out + at, " + answer + ".to(out.dtype.element_ty), mask=inside)")
    return _ended(source, trace)


@lru_cache(maxsize=256)
def _blends(m: int, wide: str) -> Any:
    source = _begun("blends", wide)
    trace = source.zeros()
    for i, value in enumerate(_mixed(source, m, about=False, skips=True)):
        source.line(f"sum_{i} = {value}.to(out.dtype.element_ty)")
        source.line(f"tl.store(out + {i} * tl.cast(stride_o, tl.int64) + at, sum_{i}, mask=inside)")
        trace = source.fma(f"sum_{i}.to({wide})", "0.0", trace)  # half precision may overflow here
    return _ended(source, trace)


@lru_cache(maxsize=2)
def _mean(wide: str) -> Any:
    """The mean of any number of rows."""
    source = _begun("means", wide)
    total, trace = source.zeros(), source.zeros()
    with source.loop("for j in range(n):"):
        value = source.loaded("place")
        source.line(f"{total} += {value}")
        source.line("place += step")
    answer = source.over(total, f"tl.cast(n, {wide})")
    trace = source.fma(answer, "0.0", trace)
    source.line("tl.store(out + at, " + answer + ".to(out.dtype.element_ty), mask=inside)")
    return _ended(source, trace)


def _as_they_lie(source: Source, n: int) -> list[str]:
    return [source.loaded(f"place + {i} * step") for i in range(n)]


def _mixed(source: Source, m: int, about: bool, skips: bool) -> list[str]:
    """The sums of rows by the weights `mixing` `[n, m]`, while the rows pass by."""
    sums = [source.zeros() for _ in range(m)]
    centre = source.loaded("place + tl.cast(pivot, tl.int64) * step") if about else ""
    with source.loop("for j in range(n):"):
        shares = [source.value(f"tl.load(mixing + j * {m} + {i})") for i in range(m)]
        value = source.loaded("place", _where_used(source, shares) if skips else "inside")
        value = source.minus(value, centre) if about else value
        for total, share in zip(sums, shares, strict=True):
            source.line(f"{total} = tl.fma({share}, {value}, {total})")
        source.line("place += step")
    return [source.plus(total, centre) for total in sums] if about else sums


def _where_used(source: Source, shares: list[str]) -> str:
    """The columns that are read of a row with these weights: none where all are 0."""
    most = source.value(f"tl.abs({shares[0]})")
    for share in shares[1:]:
        most = source.value(f"tl.maximum({most}, tl.abs({share}))")
    return "at < " + source.value(f"tl.where({most} > 0, d, 0)")


def _ended(source: Source, trace: str) -> Any:
    """The trace is 0, or NaN in a column that holds NaN or Inf."""
    source.line(f"bad = tl.max(({trace} != 0).to(tl.int32), axis=0)")
    source.line('tl.store(spoilt, float("nan"), mask=bad != 0)')
    return source.kernel(_ANY)
