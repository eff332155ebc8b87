"""Measured figures: their names for people, their units, and which way is better."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from byzopt.experiments.specs.spec import RISING
from byzopt.experiments.trials.outcome import has_finite_square
from byzopt.experiments.trials.per_worker import worker_figure
from byzopt.reports.study.cases import Case


class Figure(NamedTuple):
    """A quantity in records: its key, its name with unit, the factor to that unit."""

    key: str
    label: str
    scale: float = 1.0

    @property
    def columns(self) -> tuple[str, str, str]:
        """The names of a table's columns of mean, spread and count."""
        return f"{self.label}, mean", f"{self.label}, sd", f"{self.label}, count"

    @property
    def digits(self) -> str:
        """How people write it; empty for four digits."""
        return ".1f" if self.scale == 100 else ""

    def unit(self, value: float) -> float:
        """A value in records in the figure's unit, without the last digits that the factor blurs."""
        return value if self.scale == 1 else float(f"{self.scale * value:.15g}")

    @property
    def rises(self) -> bool:
        """Whether larger is better."""
        one = worker_figure(self.key)
        return (one.figure if one else self.key).removeprefix("validation_") in RISING

    def final(self, case: Case) -> float | None:
        """A case's last value in the figure's unit; None where the run failed or has none."""
        value = case.outcome.metrics.get(self.key)
        failed = case.outcome.status.failed or value is None or not has_finite_square(value)
        return None if failed or value is None else self.unit(value)

    def mean(self, cases: Sequence[Case]) -> float | None:
        """The mean of the last values; None unless every one of the cases has one."""
        whole = self.finals(cases)
        return fmean(whole) if whole and len(whole) == len(cases) else None

    def finals(self, cases: Sequence[Case]) -> list[float]:
        """The last values of the cases that have one."""
        return [value for case in cases if (value := self.final(case)) is not None]

    def spread(self, cases: Sequence[Case]) -> float | None:
        """The standard deviation of the last values, with divisor k - 1; None where there is no mean, and
        for a single case."""
        return stdev(self.finals(cases)) if self.mean(cases) is not None and len(cases) > 1 else None

    def pair(self, cases: Sequence[Case]) -> str:
        """Mean and spread for people."""
        mean, spread = self.mean(cases), self.spread(cases)
        if mean is None:
            failed = sum(case.outcome.status.failed for case in cases)
            return f"{failed} of {len(cases)} failed" if failed else "-"
        digits = self.digits or ".4g"
        return f"{mean:{digits}}" + ("" if spread is None else f" ± {spread:{self.digits or '.2g'}}")


KNOWN = (
    Figure("accuracy", "Test accuracy (%)", 100.0),
    Figure("perplexity", "Perplexity (symbols)"),
    Figure("grad_norm", "Gradient norm ‖∇f(x)‖"),
)
GAP = Figure("gap", "Gap f(x) - f*")
LOSS = Figure("loss", "Loss")


def figure_of(key: str) -> Figure:
    """The figure that records call `key`. Shares are shown in percent, as accuracy is everywhere."""
    if (one := worker_figure(key)) is not None:
        of_all = figure_of_workers(one.figure)
        return Figure(key, f"{of_all.label}, worker {one.worker}", of_all.scale)
    known = next((one for one in (*KNOWN, GAP, LOSS) if one.key == key), None)
    plain = key.replace("_", " ").capitalize()
    if known is None and (key.removeprefix("validation_") in RISING or key == "backdoor_success"):
        return Figure(key, f"{plain} (%)", 100.0)
    return known or Figure(key, plain)


def figure_of_workers(key: str) -> Figure:
    """A figure of single workers, who are measured on what they train on."""
    return Figure("accuracy", "Accuracy (%)", 100.0) if key == "accuracy" else figure_of(key)


def shown_figures(cases: Sequence[Case]) -> list[Figure]:
    """The figures that tables hold of these cases: the main one, then the others known that any has."""
    keys = {key for case in cases for key in case.outcome.metrics}
    others = [one for one in (*KNOWN, GAP, LOSS) if one.key in keys]
    return list(dict.fromkeys([main_figure(cases), *others]))


def main_figure(cases: Sequence[Case]) -> Figure:
    """The figure that these cases are judged by: the first known one that all that ran have."""
    ran = [case for case in cases if case.outcome.records]
    for figure in KNOWN:
        if ran and all(figure.key in case.outcome.records[0] for case in ran):
            return figure
    return LOSS


def worst_place(figure: Figure, means: Sequence[float | None]) -> int:
    """The place of the worst mean: a group in which a run failed is worse than any number."""

    def rank(i: int) -> float:
        value = means[i]
        return float("inf") if value is None else -value if figure.rises else value

    return max(range(len(means)), key=rank)
