"""Numbers that several cells give together: slopes, level crossings, the better of some settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from math import exp, isfinite, log, nan, sqrt
from statistics import fmean, linear_regression
from typing import NamedTuple

from byzopt.reproductions.reproduction import Expected, Fit, Part
from byzopt.reproductions.verdict import ComparedCell

Labels = tuple[str, ...]
Points = list[tuple[float, float]]  # (size, mean), by size


class FittedValue(NamedTuple):
    """What a fit gives for the cells with labels `at` on the axes that it leaves, and what to say of it.

    `spread` is the standard error by the jackknife, one seed left out at a time; None for one seed.
    """

    part: Part
    fit: Fit
    at: Labels
    value: float | None
    spread: float | None
    expected: Expected | None
    verdict: str

    @property
    def labels(self) -> dict[str, str]:
        """Axis to label, of the axes that are left."""
        return dict(zip(_left(self.part, self.fit), self.at, strict=True))


def fit_values(part: Part, fit: Fit, lines: Sequence[ComparedCell]) -> list[FittedValue]:
    """A fit's numbers from the lines of its part."""
    measure = fit.measure or part.measures[0].name
    cells = {line.cell.at: line for line in lines if line.measure.name == measure}
    seeds = [seed for seed in part.seeds if all(seed in line.values for line in cells.values())]
    numbers = _values(part, fit, cells, seeds)
    others = [_values(part, fit, cells, [s for s in seeds if s != left]) for left in seeds if len(seeds) > 1]
    values = []
    for at, value in numbers.items():
        spread = _jackknife([other.get(at) for other in others])
        expected = next((one for one in fit.printed if one.at == at), None)
        missing = sum("to come" in line.verdict for line in cells.values())
        verdict = _verdict(part, fit, value, expected, missing)
        values.append(FittedValue(part, fit, at, value, spread, expected, verdict))
    return values


def means_by_size(
    part: Part, fit: Fit, lines: Mapping[Labels, ComparedCell], seeds: Sequence[int]
) -> dict[Labels, Points]:
    """For each setting of the axes other than `over`: size and mean over `seeds` of every cell, by size.

    The mean is NaN where one of these seeds has no value.
    """
    place, points = part.axes.index(fit.over), dict[Labels, Points]()
    for at, line in lines.items():
        values = [line.values.get(seed) for seed in seeds]
        known = [value for value in values if value is not None]
        size = float(at[place]) if fit.how != "least" else 0.0
        mean = fmean(known) if known and len(known) == len(values) else nan
        points.setdefault(at[:place] + at[place + 1 :], []).append((size, mean))
    return {at: sorted(pairs) for at, pairs in points.items()}


def log_log_slope(pairs: Points) -> float | None:
    """The log-log slope by least squares; None for fewer than two points, or one that has no logarithm."""
    if len(pairs) < 2 or not all(number > 0 for pair in pairs for number in pair):
        return None
    xs, ys = [log(x) for x, _ in pairs], [log(y) for _, y in pairs]
    return linear_regression(xs, ys).slope


def level_crossing(pairs: Points, level: float) -> float | None:
    """The size at which the values first cross `level`, on log axes between two points."""
    for (x, y), (xx, yy) in pairwise(pairs):
        if y > 0 and yy > 0 and (y - level) * (yy - level) <= 0 and y != yy:
            return exp(log(x) + log(xx / x) * log(level / y) / log(yy / y))
    return None


def _values(
    part: Part, fit: Fit, lines: Mapping[Labels, ComparedCell], seeds: Sequence[int]
) -> dict[Labels, float | None]:
    means = means_by_size(part, fit, lines, seeds)
    take: Mapping[str, Callable[[Points], float | None]] = {
        "slope": log_log_slope,
        "crossing": lambda pairs: level_crossing(pairs, fit.level),
        "least": lambda pairs: min((y for _, y in pairs if isfinite(y)), default=None),
    }
    numbers = {at: take[fit.how](pairs) for at, pairs in means.items()}
    if not fit.then:
        return numbers
    rest = [axis for axis in part.axes if axis != fit.over]
    place, groups = rest.index(fit.then), dict[Labels, Points]()
    for at, value in numbers.items():
        pair = float(at[place]), nan if value is None else value
        groups.setdefault(at[:place] + at[place + 1 :], []).append(pair)
    return {at: log_log_slope(sorted(pairs)) for at, pairs in groups.items() if len(pairs) > 1}


def _left(part: Part, fit: Fit) -> list[str]:
    return [axis for axis in part.axes if axis not in (fit.over, fit.then)]


def _jackknife(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    if len(known) < 2 or len(known) < len(values):
        return None
    mean, count = fmean(known), len(known)
    return sqrt((count - 1) / count * sum((value - mean) ** 2 for value in known))


def _verdict(part: Part, fit: Fit, value: float | None, expected: Expected | None, missing: int) -> str:
    if missing:
        return f"runs of {missing} cells to come"
    if value is None:
        return "no value"
    if part.shortened:
        return "shortened, not compared"
    if expected is None:
        return "nothing expected"
    apart = value - expected.value
    room = fit.tolerance + fit.relative * abs(expected.value)
    return "agrees" if (apart if expected.or_less else abs(apart)) <= room else "differs"
