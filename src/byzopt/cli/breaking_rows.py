"""The part of `byzopt break` that searches honest and faulty rows together, beside what is known already."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import cos, radians
from pathlib import Path
from typing import Any

from byzopt.aggregators import rule_from
from byzopt.certificates.breaking import rule_spelling
from byzopt.certificates.worst import (
    FORMS,
    RowsReport,
    WorstRows,
    add_to_ledger,
    exceeded_forms,
    known_worst,
    usual_budget,
    worst_rows,
)


@dataclass(frozen=True)
class FoundRows:
    """A search, the certificates of the package for the same rule, with the errors that they have now,
    and what was added to a ledger."""

    report: RowsReport
    known: tuple[tuple[WorstRows, float], ...]
    added: tuple[WorstRows, ...]

    @property
    def broke(self) -> bool:
        """Whether a proved bound is exceeded, or the rule failed."""
        stored = [replace(one, figure=now) for one, now in self.known]
        exceeded = self.report.exceeded or exceeded_forms(stored, self.report.bounds)
        return bool(self.report.failures or exceeded)

    def data(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "worst": {_kind(one): one.data() for one in self.report.found},
            "known": {_kind(one): {"figure": one.figure, "replayed": now} for one, now in self.known},
            "bounds": dict(self.report.bounds),
            "exceeded": list(self.report.exceeded),
            "failures": list(self.report.failures),
            "refusals": self.report.refusals,
            "evaluations": self.report.evaluations,
            "added": [_kind(one) for one in self.added],
        }


def search_rows(
    rule: str, n: int, f: int, budget: int | None, seed: int, ledger: Path | None, quiet: bool
) -> FoundRows:
    """Search, beginning from the `ledger` where there is one, add to it, and print all unless `quiet`."""
    built = rule_from(rule, f=f)
    spelling = rule_spelling(built)
    if not quiet:
        tries = budget or usual_budget(built)
        print(f"Searching rows of all workers, {tries:,} sets of them for each form", file=sys.stderr)
    starts = known_worst(spelling, n, f, ledger) if ledger else []
    report = worst_rows(built, n, f, budget=budget, seed=seed, starts=starts)
    known = tuple((one, one.replay()) for one in known_worst(spelling, n, f))
    added = tuple(add_to_ledger(ledger, report.found)) if ledger else ()
    found = FoundRows(report, known, added)
    if not quiet:
        _print(found, ledger)
    return found


def _print(found: FoundRows, ledger: Path | None) -> None:
    report, stored = found.report, {_kind(one): (one, now) for one, now in found.known}
    print(f"{report.rule}: honest rows searched too, {report.evaluations} evaluations")
    kinds = {_kind(one): one for one in report.found}
    for kind in sorted({*kinds, *stored}, key=lambda name: (FORMS.index(name.split()[0]), name)):
        parts = [f"{_shown(kinds[kind].form, kinds[kind].figure)} found"] if kind in kinds else []
        if kind in stored:
            one, now = stored[kind]
            parts.append(f"{_shown(one.form, now)} on the worst rows that are stored")
        print(f"  {kind}: {', '.join(parts)}{_proved(kind, report.bounds)}")
    for form in report.exceeded:
        print(f"  EXCEEDED: the proved coefficient of the form {form}")
    for failure in report.failures:
        print(f"  broken: {failure}")
    if report.refusals:
        print(f"  {report.refusals} sets of rows were refused by the rule")
    if ledger:
        print(f"  added to {ledger}: {', '.join(map(_kind, found.added)) or 'nothing, for nothing is worse'}")


def _kind(one: WorstRows) -> str:
    ratio = "" if one.ratio is None else f" at a ratio of {one.ratio:g}"
    return f"{one.form}{ratio}{' at a tie' if one.tie else ''}"


def _shown(form: str, figure: float) -> str:
    return f"{figure:.1f}° (cosine {cos(radians(figure)):.3f})" if form == "turn" else f"{figure:.6g}"


def _proved(kind: str, bounds: Mapping[str, float | None]) -> str:
    form = kind.split()[0]
    if form not in bounds:
        return ""
    return "; none is proved" if bounds[form] is None else f"; proved {bounds[form]:.6g}"
