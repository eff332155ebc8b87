"""What a run yields: records on its way, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor

from byzopt.engines import LoopState
from byzopt.errors import InvalidInput, Status
from byzopt.experiments.specs.plain_spec import MOST_NUMBERS

Record = dict[str, float]  # one measurement: `t`, then figures by name
# What a figure may not be called: in tables and summaries of runs something else is called so.
RESERVED = frozenset(
    {
        *("t", "run", "variant", "status", "message", "rounds", "rounds_run", "seconds", "expulsions"),
        *(
            "task",
            "rule",
            "method",
            "attack",
            "n",
            "f",
            "attackers",
            "seed",
            "data_seed",
            "lr",
            "eval_every",
            "stop",
        ),
        *("placement", "base", "participants", "compare"),
    }
)
SHOWN = 4  # figures, at most, in the `repr` of an outcome
LARGEST = 1e150  # figures beyond it are shown as they are, and no more is made of them
WORSE = "worse than start"
RISEN = 0.01  # of the loss at the start, by which one at the end is above it for more than rounding


class RunProgress(NamedTuple):
    """What a checkpoint holds of a run: its state, its records, what the last round reported, time spent."""

    state: LoopState
    records: tuple[Record, ...] = ()
    report: Mapping[str, float] = MappingProxyType({})
    seconds: float = 0.0


def has_finite_square(value: float) -> bool:
    """Whether means, spreads and axes can be computed with a figure: finite, and its square too."""
    return abs(value) <= LARGEST  # false for NaN


def check_record_size(planned: int, record: Record) -> None:
    """Raise unless so many records with the figures of this one can be stored and read again."""
    if planned * (len(record) + 1) > MOST_NUMBERS:
        raise InvalidInput(
            f"A run should hold at most {MOST_NUMBERS:,} numbers. Found {planned:,} records of {len(record)} "
            "figures. Raise `eval_every`."
        )


@dataclass(frozen=True, repr=False)
class Outcome:
    """How a run ended. `metrics` are the last record's: those of the last finite iterate.

    `rounds` finished ones; `seconds` of training and measuring; `x` `[d]` the iterate that `metrics`
    describe, where it is still in memory; `message` says what went wrong; `expelled` are the workers that
    the server expelled for good: (worker, round, reason).

    A status says why a run ended and not how well: `risen` tells of one whose loss ended above that of the
    start, and `ending` is the status with that said.

    Args:
        status: How the run ended.
        rounds: Number of finished rounds.
        seconds: Of training and measuring.
        records: The figures measured, in order, each by name with the round `t`.
        message: What went wrong, if anything.
        x: The iterate that `metrics` describe, `[d]`; None where it is no longer in memory.
        expelled: Workers that the server expelled: (worker, round, reason).

    Examples:
        >>> from byzopt import Cohort, Quartic, simulate
        >>> task = Quartic().build(Cohort.of(10, byzantine=2), seed=0)
        >>> outcome = simulate(task, "median", lr=0.1, rounds=5, f=2, attack="bit_flip")
        >>> outcome.status.value, outcome.rounds, outcome.records[0]["t"]
        ('completed', 5, 0)
    """

    status: Status
    rounds: int
    seconds: float
    records: tuple[Record, ...]
    message: str = ""
    x: Tensor | None = None
    expelled: tuple[tuple[int, int, str], ...] = ()

    @property
    def metrics(self) -> Record:
        """The figures of the last record, without its round."""
        return {key: value for key, value in self.records[-1].items() if key != "t"} if self.records else {}

    @property
    def risen(self) -> tuple[float, float] | None:
        """The loss at the start and at the end of a run that all rounds left worse off than it began: above
        the start by more than a hundredth of its size, so that the starting point is the better answer. None
        for others, for runs that failed or were interrupted, and where the start was not measured."""
        if self.status not in (Status.COMPLETED, Status.CONVERGED) or len(self.records) < 2:
            return None
        first, last = (record.get("loss", nan) for record in (self.records[0], self.records[-1]))
        higher = last - first > RISEN * abs(first)  # false for NaN
        return (first, last) if higher and self.records[0]["t"] == 0 else None

    @property
    def ending(self) -> str:
        """How the run ended, for people: its status, and whether it is worse off than at the start."""
        return f"{self.status}, {WORSE}" if self.risen else str(self.status)

    def __repr__(self) -> str:
        """How it ended and the first figures, in a line; the records are only counted."""
        parts = [self.ending, f"rounds={self.rounds}", f"seconds={self.seconds:.3g}"]
        parts += [f"{key}={value:.4g}" for key, value in list(self.metrics.items())[:SHOWN]]
        parts += [f"records={len(self.records)}"]
        parts += [f"expelled={[worker for worker, *_ in self.expelled]}"] if self.expelled else []
        parts += [f"message={self.message!r}"] if self.message else []
        return f"Outcome({', '.join(parts)})"
