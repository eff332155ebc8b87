"""An evaluation: one attack against one rule, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from byzopt.errors import ByzoptError


class EvaluationStatus(StrEnum):
    """How an evaluation ended."""

    MEASURED = "measured"
    REFUSED = "refused"  # the rule raised a named error
    BROKEN = "broken"  # the rule answered NaN or Inf, or raised an error without a name
    UNFIT = "unfit"  # the attack does not work in this setting


@dataclass(frozen=True)
class Finding:
    """An evaluation and its figures: `attack` as plain data, `rows` by name, and why it failed, if it did."""

    attack: Mapping[str, Any]
    rows: str
    seed: int
    verdict: EvaluationStatus
    figures: Mapping[str, float] = field(default_factory=dict)
    message: str = ""


class EvaluationFailed(Exception):
    """An evaluation that has no figures."""

    def __init__(self, verdict: EvaluationStatus, reason: Exception | str) -> None:
        named = isinstance(reason, (str, ByzoptError))
        super().__init__(str(reason) if named else f"{type(reason).__name__}: {reason}")
        self.verdict = verdict
