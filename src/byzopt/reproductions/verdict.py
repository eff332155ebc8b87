"""Whether what we measured agrees with what a paper prints."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, pstdev, variance
from typing import NamedTuple

from byzopt.reproductions.reproduction import Cell, Part, TableMeasure

WIDTH = 2.0  # standard errors of the difference of two means


class ComparedCell(NamedTuple):
    """A cell beside ours: values by seed (None: that run failed or has no such value), mean and deviation
    with divisor k - `ddof` of the part, what is printed, and what to say of the two."""

    part: Part
    cell: Cell
    measure: TableMeasure
    values: dict[int, float | None]
    verdict: str

    @property
    def known(self) -> list[float]:
        """The values of runs that have one."""
        return [value for value in self.values.values() if value is not None]

    @property
    def mean(self) -> float | None:
        """The mean over seeds, if every run has a value."""
        known = self.known
        return fmean(known) if known and len(known) == len(self.values) else None

    @property
    def deviation(self) -> float | None:
        """The deviation over seeds, as the paper takes it; None for a single run."""
        return None if self.mean is None else standard_deviation(self.known, self.part.ddof)

    @property
    def printed(self) -> tuple[float, float | None] | None:
        """The paper's mean and deviation."""
        return self.cell.printed.get(self.measure.name)

    @property
    def difference(self) -> float | None:
        """Our mean minus the paper's; None beside a limit."""
        if self.mean is None or self.printed is None or self.cell.limit:
            return None
        return self.mean - self.printed[0]


def compare_cell(
    part: Part, cell: Cell, measure: TableMeasure, values: dict[int, float | None], missing: int
) -> ComparedCell:
    """The line of a cell of which `missing` runs are not there yet."""
    line = ComparedCell(part, cell, measure, values, "")
    return line._replace(verdict=_verdict(line, missing))


def _verdict(line: ComparedCell, missing: int) -> str:
    """What the runs that are there say, and how many are not."""
    to_come = f"{missing} of {missing + len(line.values)} runs to come" if missing else ""
    return "; ".join(filter(None, (_compared(line) if line.values else "", to_come)))


def _compared(line: ComparedCell) -> str:
    """What to say of a line.

    "to the digit": mean and deviation round to what is printed. "agrees": the means differ by no more than
    WIDTH standard errors of their difference, half a printed digit and the part's own room; or no run lies
    beyond the cell's limit. A single run has no spread to be judged by, and the paper's says nothing of ours:
    "one run", where the paper prints one.
    """
    part, cell = line.part, line.cell
    lost = len(line.values) - len(line.known)
    if cell.kind == "bimodal" and line.printed and not lost and not part.shortened:
        above = sum(value > part.mode for value in line.known)
        return f"bimodal: {above} of {len(line.known)} above {part.mode:g}"
    if part.shortened and not _unchanged(line):
        return "shortened, not compared"
    if lost:
        return f"no value in {lost} of {len(line.values)} runs"
    if line.printed is None or line.mean is None:
        return "nothing printed"
    if cell.kind == "chaotic":
        return "chaotic, not compared"
    mean, spread = line.printed
    if cell.limit:
        kept = min(line.known) >= mean if cell.limit == "at_least" else max(line.known) <= mean
        return "agrees" if kept else "differs"
    deviation = line.deviation
    if deviation is not None and (_round(line.mean, line), _round(deviation, line)) == (mean, spread):
        return "to the digit"
    if spread and len(line.known) == 1:
        return "one run"
    room = WIDTH * _error(line, spread) + 0.5 * 10.0**-line.measure.digits
    room += part.tolerance if cell.tolerance is None else cell.tolerance
    room += part.relative * abs(mean)
    return "agrees" if abs(line.mean - mean) <= room else "differs"


def _unchanged(line: ComparedCell) -> bool:
    """Whether a shortened run has what the whole one would: what happens before its end."""
    measure, before = line.measure, line.part.unchanged
    if measure.how == "at":
        return measure.at < before
    known = line.known
    reached = bool(known) and len(known) == len(line.values)
    return measure.how == "first_below" and reached and max(known) < measure.scale * before


def _error(line: ComparedCell, spread: float | None) -> float:
    """The standard error of the difference of the two means; 0 for one run beside one."""
    theirs = (spread or 0.0) ** 2 * _unbiased(line.part)
    ours = variance(line.known) if len(line.known) > 1 else 0.0
    return sqrt(theirs / line.part.runs + ours / len(line.known))


def _unbiased(part: Part) -> float:
    """From the paper's squared deviation to an unbiased variance."""
    return (part.runs - part.ddof) / (part.runs - 1) if part.runs > 1 else 1.0


def standard_deviation(values: Sequence[float], ddof: int) -> float | None:
    """With divisor k - ddof; None for fewer than two values."""
    if len(values) < 2:
        return None
    return pstdev(values) if ddof == 0 else sqrt(variance(values))


def _round(value: float, line: ComparedCell) -> float:
    return round(value, line.measure.digits)
