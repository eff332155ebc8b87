"""What the harness reports of a rule, and the command lines that play its findings again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from byzopt.aggregators import PRE_AGGREGATORS, RULES, Aggregator, Chain
from byzopt.certificates.breaking.finding import Finding
from byzopt.own_files import KEY, origin_of
from byzopt.registry import plain

ROUNDING = 1e-6  # relative excess over a bound that is still rounding


@dataclass(frozen=True)
class BreakReport:
    """What the search found against `rule`, with `f` Byzantine workers of `n`.

    `worst` is the worst finding by form: `squared` and `linear` error, or `damage` to a training. `bounds`
    are the rule's proved coefficients by form (None: unproved, or proved for another f), `floors` what no
    rule stays below. `ranking` holds the worst finding of every attack that was measured, worst first by the
    first form. `broken` and `refused` hold the first such evaluation of every attack, of all
    `evaluations`; `unfit` one of every attack that has no place here (one that knows the loss of its own
    data where there are rows alone, one that flips labels where a task has none).
    """

    rule: str
    n: int
    f: int
    d: int | None
    task: Any
    bounds: Mapping[str, float | None]
    floors: Mapping[str, float]
    worst: Mapping[str, Finding]
    ranking: tuple[Finding, ...]
    broken: tuple[Finding, ...]
    refused: tuple[Finding, ...]
    evaluations: int
    unfit: tuple[Finding, ...] = ()

    @property
    def exceeded(self) -> tuple[str, ...]:
        """The forms in which the worst finding is beyond the proved coefficient."""
        return tuple(
            form
            for form, finding in self.worst.items()
            if (bound := self.bounds.get(form)) is not None
            and finding.figures[form] > bound * (1 + ROUNDING) + ROUNDING
        )

    def replay(self, finding: Finding) -> str:
        """The command line that repeats this one evaluation and gives the same figures."""
        place = (
            ["--d", str(self.d), "--rows", finding.rows]
            if self.task is None
            else ["--task", _json(self.task)]
        )
        counts = ["--n", str(self.n), "--f", str(self.f)]
        words = ["--attack", _json(finding.attack), "--seed", str(finding.seed)]
        return shlex.join(["byzopt", "break", self.rule, *counts, *place, *words])


def rule_spelling(rule: Aggregator) -> str:
    """A rule as `rule_from` reads it, without what is default: `nnm(f=2) >> krum(f=2)`."""
    stages = (*rule.stages, rule.rule) if isinstance(rule, Chain) else (rule,)
    return " >> ".join(map(_stage, stages))


def _stage(stage: Any) -> str:
    source = origin_of(type(stage))
    if source is None and not any(
        type(stage) in [room[name] for name in room] for room in (RULES, PRE_AGGREGATORS)
    ):
        return repr(stage)  # a user's own, which no command line can name
    name = source.reference if source else stage.name
    usual = {field.name: field.default for field in fields(stage)}
    data = {key: value for key, value in plain(stage).items() if key not in ("name", KEY)}
    parameters = [f"{key}={value!r}" for key, value in data.items() if value != plain(usual[key])]
    return f"{name}({', '.join(parameters)})" if parameters else str(name)


def _json(data: Any) -> str:
    return json.dumps(data, allow_nan=False)
