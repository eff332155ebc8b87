"""The breaking harness: the largest error that all attacks together can find in a rule."""

from byzopt.certificates.breaking.finding import Finding, Verdict
from byzopt.certificates.breaking.harness import break_rule, replay
from byzopt.certificates.breaking.report import Breach, spelled
from byzopt.certificates.breaking.rows import ROWS

__all__ = ["ROWS", "Breach", "Finding", "Verdict", "break_rule", "replay", "spelled"]
