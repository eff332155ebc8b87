"""The breaking harness: the largest error that all attacks together can find in a rule."""

from byzopt.certificates.breaking.finding import EvaluationStatus, Finding
from byzopt.certificates.breaking.harness import break_rule, replay
from byzopt.certificates.breaking.report import BreakReport, rule_spelling
from byzopt.certificates.breaking.rows import ROWS

__all__ = ["ROWS", "BreakReport", "EvaluationStatus", "Finding", "break_rule", "replay", "rule_spelling"]
