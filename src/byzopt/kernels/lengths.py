"""Squared lengths of rows, of their distances to one vector, and their products with it, in one pass."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from byzopt.kernels.emit import Body
from byzopt.kernels.jit import PARALLEL, Array, Run, address, compiled, parallel_for

_SPAN = 1 << 14  # columns at a time: those of the vector stay in the cache while all rows are read beside it
_LONG = 1 << 17  # the same, where there is no vector
_BLOCK = 512  # columns whose squares are summed in float32: eight or sixteen in each lane of a vector
_DEEP = 4  # vectors at a time
_FEW = 1 << 17  # numbers that cost no more in float64
_TINY = 1e-30  # float32 squares whose sum is below this may have lost digits
COUNTS: dict[str, int] = {"squares": 1, "apart": 2, "inner": 2, "lean": 2, "signs": 4}

Figures: TypeAlias = Literal["squares", "apart", "inner", "lean", "signs"]


def row_figures(rows: Tensor, centre: Tensor | int | None, asked: Figures) -> Array:
    """What is `asked` of each usable row x_i, and in the last row of the answer <x_i, x_i>: `[k, n]` float64.

    "squares" asks for nothing more; "apart" for ‖x_i - p‖², subtracted before it is squared, "inner" for
    <x_i, p> and "lean" for <x_i - p, p>, with p the `centre`, a vector `[d]` or the index of a row; "signs"
    for how many numbers of a row are positive, zero, and negative. What is summed of float32 is summed in
    float32 over 512 columns, then in float64: squares to a relative error below 1e-6. They are taken again in
    float64 alone where they overflowed or may have vanished, and for few numbers at once; "inner", which
    cancels, always is. All rows are summed in one order, however many threads there are: equal rows have
    equal figures. NaN or Inf in a row shows in its square, as does a square of float64 that overflows.
    """
    (n, d), stride, given = rows.shape, rows.stride(0), rows.dtype
    first, about = rows.data_ptr(), 0
    if isinstance(centre, int):
        about = first + range(n)[centre] * stride * given.itemsize
    elif centre is not None:
        if centre.shape != (d,):  # machine code reads beyond the end of a shorter one
            raise ValueError(f"A centre should be [{d}], as rows are. Found {list(centre.shape)}.")
        centre = centre.to(given).contiguous()
        about = centre.data_ptr()
    size, width = n * d, _LONG if centre is None else _SPAN
    exact = asked == "inner" or given == torch.float64 or size <= _FEW
    run = _kernel(given, torch.float64 if exact else given, asked)
    if exact and d <= width and size < PARALLEL:  # as below, with less about it
        found = np.empty((COUNTS[asked], n))
        run(first, stride, about, address(found), n, 0, n, 0, d)
        return found
    sums = _Sums(n, d, width, COUNTS[asked], (first, stride, about))
    found = sums.taken(run)
    return found if exact else sums.mended(found, asked == "apart", _kernel(given, torch.float64, asked))


class _Sums:
    """Sums over spans of `width` of d columns, `[spans, count, n]`, of rows that lie at `where`."""

    def __init__(self, n: int, d: int, width: int, count: int, where: tuple[int, int, int]) -> None:
        self.n, self.d, self.width, self.where = n, d, width, where
        self.sums = np.empty((max(1, -(-d // width)), count, n))
        self.place, self.size = address(self.sums), 8 * count * n

    def taken(self, run: Run) -> Array:
        """The figures `[count, n]` by one kernel."""
        work = lambda start, stop: self._units(run, start, stop)  # noqa: E731
        parallel_for(len(self.sums) * self.n, self.n * self.d, 1, work)
        return self._total()

    def mended(self, found: Array, apart: bool, run: Run) -> Array:
        """`found` in float32, where squares overflowed or may have vanished by a kernel for float64."""
        squares = found if apart else found[-1:]
        lost = np.flatnonzero(np.logical_not((squares >= _TINY) & (squares < np.inf)).any(axis=0))
        if 4 * len(lost) > self.n:
            return self.taken(run)
        for i in lost.tolist():
            for span in range(len(self.sums)):
                self._units(run, span * self.n + i, span * self.n + i + 1)
        return self._total() if len(lost) else found

    def _units(self, run: Run, start: int, stop: int) -> None:
        """Takes units start .. stop, of which u is row u % n of span u // n."""
        n = self.n
        for span in range(start // n, (stop - 1) // n + 1):
            some = max(start - span * n, 0), min(stop - span * n, n)
            columns = span * self.width, min((span + 1) * self.width, self.d)
            run(*self.where, self.place + span * self.size, n, *some, *columns)

    def _total(self) -> Array:
        """The sum over all spans, in their order."""
        if len(self.sums) == 1:
            only: Array = self.sums[0]
            return only
        with np.errstate(all="ignore"):  # rows may hold anything
            total: Array = np.add.reduce(self.sums, axis=0)
        return total


@cache
def _kernel(given: torch.dtype, dtype: torch.dtype, asked: Figures) -> Run:
    """Figures of the rows first .. last over columns begin .. end, into `sums` `[k, n]`."""
    count = COUNTS[asked]

    def emit(builder: Any, function: Any) -> None:
        rows, stride, centre, sums, n, first, last, begin, end = function.args
        k, one = Body(builder, function, dtype), Body(builder, function, torch.float64, 1)
        length, step = k.b.sub(end, begin), _DEEP * k.lanes
        deep, even = (k.add(begin, k.b.and_(length, k.whole(-size))) for size in (step, k.lanes))

        def added(body: Body, row: Any, at: Any, places: list[Any]) -> None:
            source = Body(builder, function, given, body.lanes)
            value, p = source.widened(source.load(rows, k.add(row, at)), body), None
            if asked in ("apart", "inner", "lean"):
                p = source.widened(source.load(centre, at), body)
            for factors, place in zip(_factors(body, asked, value, p), places, strict=True):
                body.b.store(body.fma(*factors, body.b.load(place)), place)

        with k.loop(first, last) as i:
            row = k.times(i, stride)
            totals = [k.local(k.double, k.double(0.0)) for _ in range(count)]
            with k.loop(begin, deep, _BLOCK) as column:
                held = [[k.zeros() for _ in range(_DEEP)] for _ in range(count)]
                with k.loop(column, k.least(k.add(column, _BLOCK), deep), step) as c:
                    for a in range(_DEEP):
                        added(k, row, k.add(c, a * k.lanes), [each[a] for each in held])
                for each, total in zip(held, totals, strict=True):
                    low, high = (k.b.fadd(*map(k.b.load, pair)) for pair in (each[:2], each[2:]))
                    k.b.store(k.b.fadd(k.b.load(total), k.total(k.b.fadd(low, high))), total)
            for start, stop, body in (deep, even, k), (even, end, one):
                rest = [body.zeros() for _ in range(count)]
                with k.loop(start, stop, body.lanes) as c:
                    added(body, row, c, rest)
                for each, total in zip(rest, totals, strict=True):
                    k.b.store(k.b.fadd(k.b.load(total), body.total(k.b.load(each))), total)
            for j, total in enumerate(totals):
                k.put(k.b.load(total), sums, k.add(k.times(j, n), i))

    return compiled(f"figures_{given.itemsize}_{dtype.itemsize}_{asked}", "pippiiiii", emit)


def _factors(body: Body, asked: Figures, value: Any, p: Any) -> list[tuple[Any, Any]]:
    """The factors of what is added up: in the last place those of the square."""
    found = []
    if asked == "apart":
        away = body.b.fsub(value, p)
        found = [(away, away)]
    elif asked == "inner":
        found = [(value, p)]
    elif asked == "lean":
        found = [(body.b.fsub(value, p), p)]
    elif asked == "signs":
        none, ones = body.const(0.0), body.const(1.0)
        signs = (body.b.fcmp_ordered(sign, value, none) for sign in (">", "==", "<"))
        found = [(body.b.select(each, ones, none), ones) for each in signs]
    return [*found, (value, value)]
