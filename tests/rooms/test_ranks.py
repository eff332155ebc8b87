"""Selecting among the distances of many rows, by counting."""

from __future__ import annotations

from math import fsum

import numpy as np
import pytest

from byzopt import kernels
from byzopt.aggregators.numerics import distances


def kinds_of_rows(n):
    generator = np.random.default_rng(n)
    spread = generator.standard_normal((n, 30))
    scaled = spread.copy()
    scaled[: n // 4] *= 1e60
    scaled[n // 4 : n // 3] *= 1e-60
    yield from (
        spread,
        scaled,
        generator.integers(-1, 2, (n, 3)).astype(float),
        np.ones((n, 2)),
        spread * 1e-160,
    )


@pytest.mark.parametrize("n", [1, 2, 7, 33, 40, 301])
def test_rows_selected_by_counting_are_those_of_a_stable_sort(n):
    if not kernels.selects():
        pytest.skip("no kernels")
    for rows in kinds_of_rows(n):
        gram = rows @ rows.T
        within = np.zeros((n + 3, n + 5))  # part of a larger matrix
        within[:n, :n] = gram = (gram + gram.T) / 2
        dists = distances.squared(gram)
        ordered, own = np.sort(dists, axis=1), dists.copy()
        np.fill_diagonal(own, -1)
        nearest = own.argsort(axis=1, kind="stable")
        for rank in {0, n // 3, n // 2, n - 1}:
            assert np.array_equal(kernels.reaches(within[:n, :n], rank), ordered[:, rank])
            chosen = np.zeros((n, n), dtype=bool)
            np.put_along_axis(chosen, nearest[:, : rank + 1], True, axis=1)
            assert np.array_equal(kernels.nearest_rows(within[:n, :n], rank + 1), chosen)
            sums = kernels.nearest_sums(within[:n, :n], rank + 1)
            exact = np.array([fsum(row[: rank + 1]) for row in ordered])
            assert (np.abs(sums - exact) <= 4e-16 * exact + 1e-320).all()
            order = np.random.default_rng(1).permutation(n)  # the same distances in another order
            assert np.array_equal(kernels.nearest_sums(gram[np.ix_(order, order)], rank + 1), sums[order])
