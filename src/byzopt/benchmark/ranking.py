"""Ranks in a cell and overall; what differs by less than the seeds tell is a tie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from byzopt.benchmark.protocol import REFERENCE, cells
from byzopt.benchmark.rows import Row, is_current, once, trusts
from byzopt.benchmark.scoring import Score, apart, interval, resampled, score, share
from byzopt.stress.catalogue import NO_ATTACK


class Place(NamedTuple):
    """A row with its score and its rank among its rivals: one more than how many are better beyond chance,
    and no better than that of a rival with a better score.

    Args:
        row: The row.
        score: Its score.
        rank: From 1.
        tied: Whether it is neither better nor worse than some rival beyond chance.
        share: Its score as a share, see `scoring.share`.
    """

    row: Row
    score: Score
    rank: int
    tied: bool
    share: float


class Overall(NamedTuple):
    """A defence over the cells that count: those in which at least half of the defences were measured.

    Args:
        entry: Its name.
        title: What it is.
        share: The mean of its shares over cells.
        low: Lower end of the interval.
        high: Upper end of the interval.
        cells: Number of those cells in which it has a score.
        counted: Number of those cells.
        rank: From 1; None: cells are missing.
        tied: Whether it is neither better nor worse than some rival beyond chance.
    """

    entry: str
    title: str
    share: float
    low: float
    high: float
    cells: int
    counted: int
    rank: int | None
    tied: bool


def current(rows: Sequence[Row]) -> list[Row]:
    """The rows of this protocol and attack set, each once. Errors: `InvalidInput` where two differ."""
    return [row for row in once(rows) if is_current(row)]


def places(rows: Sequence[Row]) -> list[Place]:
    """The complete rows of one cell, best first. Defences with trusted data are ranked among themselves.

    Args:
        rows: Rows of one cell.

    Returns:
        Their places; rows without a score have none.
    """
    reference = _references(rows).get(rows[0].cell) if rows else None
    scored = [(row, found) for row in rows if (found := score(row)) is not None]
    drawn = {row.entry: _signed(row, resampled(row)) for row, _ in scored}
    out = []
    for row, found in scored:
        rivals = [other.entry for other, _ in scored if other is not row and trusts(other) == trusts(row)]
        rank, tied = _rank(row.entry, rivals, drawn)
        out.append(Place(row, found, rank, tied, share(row, reference, found.value)))
    out.sort(key=lambda one: (trusts(one.row), -_signed(one.row, [one.score.value])[0], one.row.entry))
    least = {False: 1, True: 1}
    for i, one in enumerate(out):
        least[trusts(one.row)] = rank = max(least[trusts(one.row)], one.rank)
        out[i] = one._replace(rank=rank)
    return out


def by_cell(rows: Sequence[Row]) -> dict[str, list[Place]]:
    """The places in every cell that has a complete row.

    Args:
        rows: Rows of any cells.

    Returns:
        The places by the cell's name, in the order in which cells are run.
    """
    here = {row.cell for row in rows}
    known = [cell.name for cell in cells("full") if cell.name in here]
    names = [*known, *sorted(here - set(known))]
    found = {name: places([row for row in rows if row.cell == name]) for name in names}
    return {name: placed for name, placed in found.items() if placed}


def overall(rows: Sequence[Row], cells: Mapping[str, Sequence[Place]]) -> list[Overall]:
    """Every defence over the cells that count, best first; ranks are for those with a score in all of them.

    A cell counts where at least half of the defences that were measured anywhere have a score, so that
    neither a cell that has just been begun nor an entry that was tried in one takes the others' ranks away.

    Args:
        rows: The rows of the table.
        cells: What `by_cell` says of them.

    Returns:
        The defences without trusted data first, then those with, each kind ranked for itself.
    """
    references = _references(rows)
    out: list[Overall] = []
    for trusted in (False, True):
        mine = _counting([[one for one in placed if trusts(one.row) == trusted] for placed in cells.values()])
        entries = list(dict.fromkeys(one.row.entry for one in mine))
        of = {entry: [one for one in mine if one.row.entry == entry] for entry in entries}
        every = {one.row.cell for one in mine}
        full = [entry for entry in entries if len(of[entry]) == len(every)]
        drawn = {entry: _shares([one.row for one in of[entry]], references) for entry in entries}
        ranked = []
        for entry in entries:
            low, high = interval(drawn[entry])
            rivals = [other for other in full if other != entry]
            rank, tied = _rank(entry, rivals, drawn) if entry in full else (None, False)
            mean = fmean(one.share for one in of[entry])
            title, count = of[entry][0].row.title, len(of[entry])
            ranked.append(Overall(entry, title, mean, low, high, count, len(every), rank, tied))
        least = 1
        for one in sorted(ranked, key=lambda one: (one.rank is None, -one.share, one.entry)):
            least = max(least, one.rank or 1)
            out.append(one if one.rank is None else one._replace(rank=least))
    return out


def _counting(cells: Sequence[Sequence[Place]]) -> list[Place]:
    """The places in cells that count: in which half of all that have any were measured, or as many as in none
    other."""
    every, most = len({one.row.entry for placed in cells for one in placed}), max(map(len, cells), default=0)
    return [one for placed in cells if len(placed) >= min(most, every / 2) for one in placed]


def _rank(entry: str, rivals: Sequence[str], drawn: Mapping[str, Sequence[float]]) -> tuple[int, bool]:
    """The rank among rivals, and whether one of them is neither better nor worse beyond chance."""
    above = {other: apart(drawn[other], drawn[entry]) for other in rivals}
    return 1 + sum(above.values()), any(
        not above[other] and not apart(drawn[entry], drawn[other]) for other in rivals
    )


def _shares(rows: Sequence[Row], references: Mapping[str, Row]) -> list[float]:
    """The mean share over cells in each resample of the seeds, the same seeds in all cells."""
    each = [[share(row, references.get(row.cell), value) for value in resampled(row)] for row in rows]
    return [fmean(values) for values in zip(*each, strict=True)]


def _references(rows: Sequence[Row]) -> dict[str, Row]:
    """The rows of the mean without attack, by cell."""
    return {row.cell: row for row in rows if row.entry == REFERENCE and NO_ATTACK in row.hits}


def _signed(row: Row, values: Sequence[float]) -> list[float]:
    """Figures of which more is better."""
    return list(values) if row.rises else [-value for value in values]
