"""What is measured: a figure's name for people, its unit, which way is better."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from statistics import fmean
from typing import NamedTuple

from byzopt.experiments.spec import RISING
from byzopt.reports.study.cases import Case


class Figure(NamedTuple):
    """A quantity in records: its key, its name with unit, the factor to that unit."""

    key: str
    label: str
    scale: float = 1.0

    @property
    def rises(self) -> bool:
        """Whether larger is better."""
        return self.key.removeprefix("validation_") in RISING

    def final(self, case: Case) -> float | None:
        """A case's last value in the figure's unit; None where the run failed or has none."""
        value = case.outcome.metrics.get(self.key)
        failed = case.outcome.status.failed or value is None or not isfinite(value)
        return None if failed or value is None else self.scale * value

    def mean(self, cases: Sequence[Case]) -> float | None:
        """The mean of the last values; None unless every one of the cases has one."""
        values = [self.final(case) for case in cases]
        whole = [value for value in values if value is not None]
        return fmean(whole) if whole and len(whole) == len(values) else None

    def said(self, value: float) -> str:
        """A value with its unit."""
        return f"{value:.1f} %" if self.scale == 100 else f"{value:.4g}"


KNOWN = (
    Figure("accuracy", "Test accuracy (%)", 100.0),
    Figure("perplexity", "Perplexity (symbols)"),
    Figure("grad_norm", "Gradient norm ‖∇f(x)‖"),
)
GAP = Figure("gap", "Gap f(x) - f*")
LOSS = Figure("loss", "Loss")


def main(cases: Sequence[Case]) -> Figure:
    """The figure that these cases are judged by: the first known one that all that ran have."""
    ran = [case for case in cases if case.outcome.records]
    for figure in KNOWN:
        if ran and all(figure.key in case.outcome.records[0] for case in ran):
            return figure
    return LOSS


def worst(figure: Figure, means: Sequence[float | None]) -> int:
    """The place of the worst mean: a group in which a run failed is worse than any number."""

    def rank(i: int) -> float:
        value = means[i]
        return float("inf") if value is None else -value if figure.rises else value

    return max(range(len(means)), key=rank)
