"""What a run under attack is worth, and the worst of several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf, isfinite
from statistics import fmean
from typing import NamedTuple

from byzopt.errors import Status
from byzopt.experiments import Outcome, Record
from byzopt.stress.difference import differences

TAIL = 0.1  # share of the rounds, at the end, over which a figure is averaged


class Trial(NamedTuple):
    """What one rule came to under one attack: `figure` averaged over the last tenth of rounds and over seeds.

    `value` is None where nothing was measured. A run that diverged or lost its majority counts as an accuracy
    of 0 and a loss of infinity, and `status` says so.

    Args:
        rule: As text.
        attack: Its name.
        figure: Name of the figure.
        value: The figure, averaged; None: nothing was measured.
        status: How the runs ended.
        runs: Their ids.
        apart: How different the honest rows were in each recorded round: (variance, variance/‖mean‖²).

    Examples:
        >>> from byzopt.stress import Trial
        >>> Trial("median", "alie", "accuracy", 0.8, "completed").value
        0.8
    """

    rule: str
    attack: str
    figure: str
    value: float | None
    status: str
    runs: tuple[str, ...] = ()
    apart: tuple[tuple[float, float], ...] = ()

    @property
    def larger_is_better(self) -> bool:
        """Whether the figure is an accuracy."""
        return self.figure == "accuracy"

    @property
    def badness(self) -> float:
        """A number that is larger for what is worse; what was not measured is never the worst."""
        if self.value is None:
            return -inf
        return -self.value if self.larger_is_better else self.value


def figure_of(records: Sequence[Record]) -> str:
    """The figure by which a run is judged: `accuracy` where it is measured, else `loss`."""
    return "accuracy" if any("accuracy" in record for record in records) else "loss"


def tail_mean(outcome: Outcome, figure: str) -> float:
    """The mean of a figure over the last tenth of a run's rounds. A run that failed has the worst value."""
    failed = outcome.status not in (Status.COMPLETED, Status.CONVERGED)
    values = [r[figure] for r in outcome.records if r["t"] >= (1 - TAIL) * outcome.rounds and figure in r]
    if failed or not values or not all(map(isfinite, values)):
        return 0.0 if figure == "accuracy" else inf
    return fmean(values)


def trial(rule: str, attack: str, runs: Sequence[str], outcomes: Sequence[Outcome]) -> Trial:
    """The trial of the runs of all seeds."""
    figure = figure_of([record for outcome in outcomes for record in outcome.records])
    statuses = {str(outcome.status) for outcome in outcomes}
    value = fmean(tail_mean(outcome, figure) for outcome in outcomes)
    apart = tuple(one for outcome in outcomes for one in differences(outcome.records))
    return Trial(rule, attack, figure, value, ", ".join(sorted(statuses)), tuple(runs), apart)


def worst(trials: Iterable[Trial]) -> Trial | None:
    """The trial of least accuracy, or largest loss; None where nothing was measured.

    Args:
        trials: Of one rule.

    Returns:
        The one that hurt most.

    Examples:
        >>> from byzopt.stress import Trial, worst
        >>> mild = Trial("median", "zero", "accuracy", 0.9, "completed")
        >>> worst([mild, mild._replace(attack="alie", value=0.2)]).attack
        'alie'
    """
    measured = [one for one in trials if one.value is not None]
    return max(measured, key=lambda one: one.badness, default=None)
