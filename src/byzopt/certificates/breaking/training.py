"""A short training under an attack, and the damage that it does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import inf, isfinite

from byzopt.aggregators import Aggregator
from byzopt.attacks import Attack
from byzopt.certificates.breaking.finding import EvaluationFailed, EvaluationStatus, Finding
from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput, Status, unknown
from byzopt.experiments import Outcome, simulate
from byzopt.registry import plain
from byzopt.tasks import TaskRecipe

ROUNDS, LR = 50, 0.1  # of a training, and its step size


@dataclass(frozen=True)
class Training:
    """A short simulated training: `damage` is its final loss over that of the same run without attack.

    A run that diverges or ends without a finite loss has infinite damage. Rows are the task's own gradients.
    """

    rule: Aggregator
    n: int
    f: int
    task: TaskRecipe
    forms = ("damage",)
    budget = 200

    @property
    def places(self) -> tuple[str, ...]:
        """The one place: the task."""
        return (self.task.name,)

    @cached_property
    def _calm(self) -> dict[int, float]:
        return {}

    def play(self, attack: Attack, rows: str, seed: int) -> Finding:
        """The finding of one training; `rows` is the task's name."""
        if rows != self.task.name:
            raise unknown("kind of rows", rows, self.places)
        try:
            ended = self._trained(attack, seed)
            damage = _share(self._loss(ended), self._usual(seed))
        except EvaluationFailed as end:
            return Finding(plain(attack), rows, seed, end.verdict, message=str(end))
        return Finding(
            plain(attack), rows, seed, EvaluationStatus.MEASURED, {"damage": damage}, ended.message
        )

    def _usual(self, seed: int) -> float:
        if seed not in self._calm:
            self._calm[seed] = self._loss(self._trained("none", seed))
        return self._calm[seed]

    def _trained(self, attack: Attack | str, seed: int) -> Outcome:
        task = self.task.build(Cohort.of(self.n, range(self.f)), seed)
        try:
            outcome = simulate(task, self.rule, LR, ROUNDS, self.f, attack=attack, seed=seed)
        except InvalidInput as error:
            raise EvaluationFailed(EvaluationStatus.UNFIT, error) from None
        except Exception as error:
            raise EvaluationFailed(EvaluationStatus.BROKEN, error) from error
        if outcome.status is Status.NO_MAJORITY:
            raise EvaluationFailed(EvaluationStatus.REFUSED, outcome.message)
        return outcome

    def _loss(self, outcome: Outcome) -> float:
        return inf if outcome.status.failed else outcome.metrics["loss"]


def _share(loss: float, usual: float) -> float:
    if not isfinite(usual):
        raise EvaluationFailed(
            EvaluationStatus.UNFIT, "The training fails without any attack, so damage has no measure."
        )
    return loss / usual if usual > 0 else (inf if loss > 0 else 1.0)
