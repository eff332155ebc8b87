"""Sums of distances from each of many rows to all, by their products, with no temporary n x n numbers."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch

from byzopt.kernels.emit import Body
from byzopt.kernels.jit import Array, Run, address, compiled, parallel_for

_WORK = 8  # numbers elsewhere that take as long as a root and a quotient


def sums_beyond(gram: Array, row_weights: Array) -> Array:
    """Each row's sum of distances to rows with weights `[n]`, less that of the origin, `[n]`, by finite
    products `gram` `[n, n]` about it.

    A difference of two distances is that of their squares over their sum, so that huge ones cost no digits.
    """
    n = len(gram)
    gram = gram if gram.strides[1] == gram.itemsize else np.ascontiguousarray(gram)
    own, found, row_weights = (
        np.ascontiguousarray(gram.diagonal()),
        np.empty(n),
        np.ascontiguousarray(row_weights),
    )
    far, run = np.sqrt(np.maximum(own, 0)), _kernel()
    where = address(gram), gram.strides[0] // gram.itemsize, *map(address, (own, far, row_weights, found))
    parallel_for(n, _WORK * n * n, 1, lambda start, stop: run(*where, n, start, stop))
    return found


@cache
def _kernel() -> Run:
    def emit(builder: Any, function: Any) -> None:
        k, one = (Body(builder, function, torch.float64, width) for width in (0, 1))
        gram, stride, own, far, row_weights, out, n, start, stop = function.args
        full = k.b.and_(n, k.whole(-k.lanes))
        with k.loop(start, stop) as i:
            products, total = k.at(gram, k.times(i, stride), k.double), k.double(0.0)
            for body, begin, end in ((k, k.whole(0), full), (one, full, n)):
                held, nothing, square = body.zeros(), body.const(0.0), body.spread(own, i)
                with k.loop(begin, end, body.lanes) as j:
                    product, there = body.load(products, j), body.load(far, j)
                    change = k.b.fsub(square, k.b.fadd(product, product))
                    apart = body.greater(k.b.fadd(change, body.load(own, j)), nothing)
                    both = k.b.fadd(body.root(apart), there)
                    share = k.b.fdiv(change, both)
                    share = k.b.select(k.b.fcmp_ordered(">", both, nothing), share, nothing)
                    k.b.store(body.fma(share, body.load(row_weights, j), k.b.load(held)), held)
                total = k.b.fadd(total, body.total(k.b.load(held)))
            k.put(total, out, i)

    return compiled("sums_beyond", "pippppiii", emit)
