"""What distances between many short rows decide, without n x n numbers: some rows at a time, to all others.

Rows lie side by side: a vector holds one column of as many rows as it has lanes. Squared distances of a few
rows to all, by products as in `panels`, stay in the cache until what is asked of them is known.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch

from byzopt.kernels.emit import Body
from byzopt.kernels.jit import Array, Run, address, aligned, compiled, lanes, parallel_for
from byzopt.kernels.ranks import tighten
from byzopt.kernels.selecting import DEEP

_HEIGHT = 4  # rows at a time
_FAR = 1e12  # squares beyond so many times the median: of longer rows sums are taken as differences
_PARTS = 8  # of sums, whoever takes them
_WORK = 6  # numbers elsewhere that take as long as what is done with a distance


class SideBySide:
    """Rows by the `ways` `[n, d]` to them from a place among them; their squared lengths are `own`."""

    def __init__(self, ways: Array) -> None:
        self.n, self.d = ways.shape
        self.ways, step = ways, DEEP * lanes(torch.float64)
        self.full = -(-self.n // step) * step
        padded = np.zeros((self.full, self.d))
        padded[: self.n] = ways
        tiles = padded.reshape(-1, step, self.d).transpose(0, 2, 1)
        self.across = aligned(padded.size).reshape(tiles.shape)
        self.across[:] = tiles
        self.own = np.empty(self.full)
        _squares()(address(self.across), address(self.own), self.full, self.d)

    def tightest(self, rank: int) -> Array:
        """As `ranks.tightest`."""
        own = self.own.copy()
        own[self.n :] = np.inf
        first = int(own.argmin())
        near = ((self.ways - self.ways[first]) ** 2).sum(axis=1)
        # That row is measured once more, perhaps with other roundings: the bound is loose.
        found = np.full(self.full, np.partition(near, rank)[rank] * (1 + 1e-6) + np.finfo(float).tiny)
        self._run("tight", own, own, own, found, rank)
        return found[: self.n]

    def sums_beyond(self, row_weights: Array) -> Array:
        """As `excess.sums_beyond`: where no row is far plain sums keep all digits that count."""
        weights, far = np.zeros(self.full), np.sqrt(self.own)
        weights[: self.n] = row_weights
        if self.own.max() <= _FAR * np.median(self.own[: self.n]):
            sums = np.zeros((_PARTS, self.full))
            run, where = _both(), [address(each) for each in (self.across, self.own, weights)]

            def part(start: int, stop: int) -> None:
                for i in range(start, stop):
                    run(*where, address(sums[i]), self.full, self.d, i, _PARTS)

            parallel_for(_PARTS, self._work // 2, 1, part)
            found: Array = sums.sum(axis=0) - weights @ far
        else:
            found = np.empty(self.full)
            self._run("sums", self.own, far, weights, found, 0)
        return found[: self.n]

    @property
    def _work(self) -> int:
        return int(self.n * self.n * (self.d // 2 + _WORK) // 4)  # by vectors

    def _run(self, what: str, own: Array, far: Array, row_weights: Array, out: Array, rank: int) -> None:
        run, arrays = _kernel(what), (self.across, own, far, row_weights)
        where = [address(each) for each in arrays]

        def part(start: int, stop: int) -> None:
            room = aligned(_HEIGHT * self.full)
            run(*where, address(room), address(out), self.n, self.full, self.d, rank, start, stop)

        parallel_for(self.n, self._work, _HEIGHT, part)


@cache
def _kernel(what: str) -> Run:
    """ "tight" or "sums": see above."""

    def emit(builder: Any, function: Any) -> None:
        k = Body(builder, function, torch.float64)
        across, own, far, row_weights, room, out, n, full, d, rank, start, stop = function.args
        bound = k.local(k.double, k.number_at(out, start) if what == "tight" else k.double(0.0))
        with k.loop(start, stop, _HEIGHT) as i:  # within a tile: beyond the last row there are rows of zeros
            rows = _Rows(k, across, own, full, d, i)
            if what == "sums":
                for a, total in enumerate(rows.sums(far, row_weights)):
                    k.put(total, out, k.add(i, a))
            else:
                rows.store(room)
                for a in range(_HEIGHT):
                    line = k.at(room, k.times(a, full), k.double)
                    k.put(k.double(0.0), line, k.add(i, a))
                    tighten(k, line, full, n, rank, bound, k.at(out, k.add(i, a), k.double))

    return compiled(f"between_{what}", "ppppppiiiiii", emit)


class _Rows:
    """The few rows from row i on, and their distances to all."""

    def __init__(self, k: Body, across: Any, own: Any, full: Any, d: Any, i: Any) -> None:
        self.k, self.across, self.own, self.full, self.d, self.i = k, across, own, full, d, i

    def _products(self, j: Any) -> list[list[Any]]:
        """Twice the products with some vectors of rows from row j on."""
        k = self.k
        held = [[k.zeros() for _ in range(DEEP)] for _ in range(_HEIGHT)]
        step = DEEP * k.lanes
        tile, inside = k.times(j, self.d), k.b.and_(self.i, k.whole(step - 1))
        mine = k.add(k.times(k.b.sub(self.i, inside), self.d), inside)
        with k.loop(0, self.d) as c:
            line = k.times(c, step)
            values = [k.load(self.across, k.add(tile, line, v * k.lanes)) for v in range(DEEP)]
            for a, places in enumerate(held):
                one = k.spread(self.across, k.add(mine, line, a))
                for value, at in zip(values, places, strict=True):
                    k.b.store(k.fma(one, value, k.b.load(at)), at)
        return [[k.b.fmul(k.b.load(at), k.const(2.0)) for at in places] for places in held]

    def store(self, room: Any) -> None:
        """Writes squared distances to all rows to the room, a line for each row."""
        k = self.k
        with k.loop(0, self.full, DEEP * k.lanes) as j:
            for a, products in enumerate(self._products(j)):
                mine = k.spread(self.own, k.add(self.i, a))
                for v, product in enumerate(products):
                    there = k.add(j, v * k.lanes)
                    apart = k.b.fsub(k.b.fadd(mine, k.load(self.own, there)), product)
                    k.store(k.greater(apart, k.const(0.0)), room, k.add(k.times(a, self.full), there))

    def sums(self, far: Any, row_weights: Any) -> list[Any]:
        """Weighted sums of what distances to rows are longer than how `far` these rows are."""
        k, held = self.k, [self.k.zeros() for _ in range(_HEIGHT)]
        with k.loop(0, self.full, DEEP * k.lanes) as j:
            for (a, v), (change, root) in self._lengths(j).items():
                there = k.add(j, v * k.lanes)
                both = k.b.fadd(root, k.load(far, there))
                share = k.b.select(k.b.fcmp_ordered(">", both, k.const(0.0)), k.b.fdiv(change, both), both)
                k.b.store(k.fma(share, k.load(row_weights, there), k.b.load(held[a])), held[a])
        return [k.total(k.b.load(at)) for at in held]

    def add_both(self, row_weights: Any, sums: Any, tile: Any) -> None:
        """Adds weighted distances to rows of their own tile to the sums of these rows, and those to rows
        beyond it to both rows' sums."""
        k, step = self.k, DEEP * self.k.lanes
        held = [k.zeros() for _ in range(_HEIGHT)]
        ours = [k.spread(row_weights, k.add(self.i, a)) for a in range(_HEIGHT)]
        for beyond, begin, end in ((False, tile, k.add(tile, step)), (True, k.add(tile, step), self.full)):
            with k.loop(begin, end, step) as j:
                found = self._lengths(j)
                for (a, v), (_, root) in found.items():
                    weight = k.load(row_weights, k.add(j, v * k.lanes))
                    k.b.store(k.fma(root, weight, k.b.load(held[a])), held[a])
                for v in range(DEEP if beyond else 0):
                    there = k.add(j, v * k.lanes)
                    total = k.load(sums, there)
                    for a, weight in enumerate(ours):
                        total = k.fma(found[a, v][1], weight, total)
                    k.store(total, sums, there)
        for a, at in enumerate(held):
            k.increase(sums, k.add(self.i, a), k.total(k.b.load(at)))

    def _lengths(self, j: Any) -> dict[tuple[int, int], tuple[Any, Any]]:
        """For each row and vector of rows from row j on by what squares change, and the distances."""
        k, found = self.k, {}
        for a, products in enumerate(self._products(j)):
            mine = k.spread(self.own, k.add(self.i, a))
            for v, product in enumerate(products):
                change = k.b.fsub(mine, product)
                square = k.b.fadd(change, k.load(self.own, k.add(j, v * k.lanes)))
                found[a, v] = change, k.root(k.greater(square, k.const(0.0)))
        return found


@cache
def _squares() -> Run:
    """Squared lengths, rounded as products are: a row and its twins are at distance 0."""

    def emit(builder: Any, function: Any) -> None:
        k = Body(builder, function, torch.float64)
        across, own, full, d = function.args
        step = DEEP * k.lanes
        with k.loop(0, full, step) as tile:
            held = [k.zeros() for _ in range(DEEP)]
            with k.loop(0, d) as c:
                line = k.add(k.times(tile, d), k.times(c, step))
                for v, at in enumerate(held):
                    value = k.load(across, k.add(line, v * k.lanes))
                    k.b.store(k.fma(value, value, k.b.load(at)), at)
            for v, at in enumerate(held):
                k.store(k.b.load(at), own, k.add(tile, v * k.lanes))

    return compiled("between_squares", "ppii", emit)


@cache
def _both() -> Run:
    """Adds weighted distances to `sums`, of every one of so many `parts` of the tiles of rows."""

    def emit(builder: Any, function: Any) -> None:
        k = Body(builder, function, torch.float64)
        across, own, row_weights, sums, full, d, part, parts = function.args
        step = DEEP * k.lanes
        tiles = k.loop(k.times(part, step), full, k.times(parts, step))
        with tiles as tile, k.loop(tile, k.add(tile, step), _HEIGHT) as i:
            _Rows(k, across, own, full, d, i).add_both(row_weights, sums, tile)

    return compiled("between_both", "ppppiiii", emit)
