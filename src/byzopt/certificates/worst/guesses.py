"""With what a search begins: the families, for a rule's sake away from the origin and in other units."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from byzopt.aggregators import Aggregator
from byzopt.certificates.worst.families import afar, bulks, drawn, two_clusters
from byzopt.certificates.worst.populations import Rows


def first_guesses(
    rule: Aggregator,
    n: int,
    f: int,
    about_origin: bool,
    starts: Iterable[Rows],
    numbers: np.random.Generator,
) -> Iterator[Rows]:
    """Rows `[n, d]`, the first f faulty, without end: by turns those of `starts`, families that can be
    counted, in any order, and families that are drawn. `about_origin`: the error minds the origin."""
    known = iter(starts)
    for guess in _guesses(rule, n, f, about_origin, numbers):
        yield from islice(known, 2)
        yield guess


def _guesses(
    rule: Aggregator, n: int, f: int, about_origin: bool, numbers: np.random.Generator
) -> Iterator[Rows]:
    minds = about_origin or not rule.translation_equivariant
    first = [*two_clusters(n, f), *bulks(n, f)]
    far = [] if rule.translation_equivariant else list(afar(n, f))
    for at in numbers.permutation(len(first)):
        if far:
            yield far.pop(int(numbers.integers(len(far))))
        yield _moved(first[at], rule.scale_equivariant, minds, numbers)
        yield _moved(drawn(n, f, numbers), rule.scale_equivariant, minds, numbers)
    while True:
        yield _moved(drawn(n, f, numbers), rule.scale_equivariant, minds, numbers)


def _moved(rows: Rows, scales: bool, minds: bool, numbers: np.random.Generator) -> Rows:
    """Rows in another unit and away from the origin, where that counts."""
    if not scales:
        rows = rows * 10 ** numbers.uniform(-2, 2)
    if minds:
        if rows.shape[1] == 1 and numbers.random() < 0.5:
            rows = np.pad(rows, ((0, 0), (0, 1)))
        size = numbers.choice([0.0, 0.5, 1.0, 3.0, 10.0, 1e4])
        way = numbers.standard_normal(rows.shape[1])
        if numbers.random() < 0.5:
            way = rows[numbers.integers(len(rows))] - rows.mean(axis=0)
        length = float(np.linalg.norm(way))
        rows = rows + size * way / length if length > 0 else rows
    return rows
