"""Positive definite systems of some dozens of equations: LAPACK's threads would cost more than the work."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from byzopt.kernels.emit import Body
from byzopt.kernels.jit import Array, Run, address
from byzopt.kernels.square import body, widest


def solved(matrix: Array, right: Array) -> Array:
    """x with `matrix @ x = right`, all float64, `matrix` `[n, n]` symmetric and positive definite: by
    elimination, which needs no exchanges there. Not finite where a pivot proves to be 0."""
    n, width = len(matrix), widest(len(matrix))
    wide = -(-n // width) * width
    work = np.zeros((n + 2, wide))
    work[:n, :n], work[n, :n] = matrix, right
    first = address(work)
    _kernel(width)(first, first + 8 * n * wide, first + 8 * (n + 1) * wide, n, wide)
    return work[n + 1, :n]


@cache
def _kernel(width: int) -> Run:
    def write(k: Body, matrix: Any, right: Any, out: Any, n: Any, wide: Any) -> None:
        whole = k.whole(-width)
        with k.loop(0, n) as i:  # row i, above the diagonal, from those below it
            own = k.at(matrix, k.times(i, wide), k.double)
            pivot, value = k.number_at(own, i), k.number_at(right, i)
            with k.loop(k.add(i, 1), n) as j:
                factor = k.b.fdiv(k.number_at(own, j), pivot)
                less, row = k.b.fneg(k.everywhere(factor)), k.at(matrix, k.times(j, wide), k.double)
                k.increase(right, j, k.b.fneg(k.b.fmul(factor, value)))
                with k.loop(k.b.and_(j, whole), wide, width) as c:
                    k.store(k.fma(less, k.load(own, c), k.load(row, c)), row, c)
        with k.loop(0, n) as above:  # the last unknown first; those still to come are 0
            i = k.b.sub(k.add(n, -1), above)
            row, held = k.at(matrix, k.times(i, wide), k.double), k.zeros()
            left = k.number_at(right, i)
            with k.loop(k.b.and_(i, whole), wide, width) as c:
                k.b.store(k.fma(k.load(row, c), k.load(out, c), k.b.load(held)), held)
            k.put(k.b.fdiv(k.b.fsub(left, k.total(k.b.load(held))), k.number_at(row, i)), out, i)

    return body("definite", "pppii", width, write)
