"""A few numbers of each row, from one pass over the rows: their lengths, distances to one row, signs.

Rules that need no more take no products of all rows with each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from byzopt import accelerator, lengths
from byzopt.aggregators.numerics.distances import Array, Index
from byzopt.aggregators.numerics.measuring import ExtremeRows
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.aggregators.numerics.ordering import keys, order_of
from byzopt.kernels import EXTREME, Figures

Ask: TypeAlias = Callable[[], Index]  # asks for the places of rows in the order of their values

_END = torch.finfo(torch.float32).max ** 2  # squares of float32 rows that leave its range
_SORTED = 256  # rows up to which sorting costs no more than selecting


def figures_of(mixed: Mixed, asked: Figures, about: Tensor | int | None = None) -> Array:
    """What is `asked` (`kernels.row_figures`) of each of the rows, which nothing has mixed: `[k, n]`.

    `about` is the row, or the columns held here of the vector, that they are measured against. Raises
    `ExtremeRows` of rows that are not admitted and prove not to be finite, or so large or small that another
    unit is called for.
    """
    rows = mixed.rows
    found = lengths.figures(rows, about, asked)
    values: Array = mixed.total(found).cpu().numpy()
    if not (mixed.admitted or in_range(values[-1], rows.dtype)):
        raise ExtremeRows
    return values


def measures(mixed: Mixed) -> bool:
    """Whether `figures_of` takes the figures of these rows: they are as they were sent, and on the CPU."""
    return mixed.mixing is None and not accelerator.holds(mixed.rows)


def measures_all(mixed: Mixed) -> bool:
    """As `measures`, and the rows' geometry is their own, and no sketch of them."""
    return measures(mixed) and not mixed.sketched


def in_range(squares: Array, dtype: torch.dtype) -> bool:
    """Whether squared lengths `[n]` of rows of `dtype` are finite and may be squared, those of the bulk do
    not vanish, and no sum of the rows leaves the range of their compute dtype."""
    n, largest = len(squares), squares.item(squares.argmax())  # a NaN, if there is one
    if dtype == torch.float64:
        return largest < 1 / EXTREME and int(np.count_nonzero(squares > EXTREME)) >= n - n // 2
    return bool(largest * 16 * n * n < _END)


def value_order(mixed: Mixed) -> Index:
    """The order of rows that nothing has mixed by their values, whether they are looked at in it or not."""
    if mixed.order is not None:
        return mixed.order
    return order_of(mixed.total(keys(mixed.rows, mixed.first, mixed.d)))


def least(values: Array, count: int, order: Ask | None = None) -> Array:
    """Weights `[m]` of the mean of the `count` rows whose `values` `[m]` are least. Of equal ones the first
    in the `order` that is asked for where it decides, or as they come."""
    limit = np.partition(values, count - 1)[count - 1]
    chosen = values <= limit
    if np.count_nonzero(chosen) == count:
        weights: Array = chosen / count
        return weights
    places = np.arange(len(values)) if order is None else order()
    weights = np.zeros(len(values))
    weights[places[values[places].argsort(kind="stable")[:count]]] = 1 / count
    return weights


def middle(values: Array) -> Array:
    """The medians `[..., 1]` of values `[..., m]`; the mean of the two middle ones for an even number."""
    m = values.shape[-1]
    low, high = (m - 1) // 2, m // 2
    ranked = np.sort(values) if m <= _SORTED else np.partition(values, (low, high))
    below, above = ranked[..., low : low + 1], ranked[..., high : high + 1]
    found: Array = below + (above - below) / 2
    return found


def cut(norms: Array, bound: Array | float) -> Array:
    """Factors min(1, bound / norm) that cut lengths `[..., m]` to `bound`."""
    largest = np.maximum(norms, bound)
    if largest.item(largest.argmin()) > 0:
        factors: Array = bound / largest
        return factors
    return np.divide(bound, norms, out=np.ones_like(norms), where=norms > bound)


def ordinary(weights: Array) -> bool:
    """As `linalg.ordinary`, of an array of weights that are all at least 0."""
    some = weights if weights.item(weights.argmin()) > 0 else weights[weights != 0]
    if not len(some):
        return True
    return bool(some.item(some.argmin()) > 1e-30 and some.item(some.argmax()) < 1e30)
