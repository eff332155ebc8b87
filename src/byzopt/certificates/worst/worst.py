"""`worst_rows`: the worst rows that a search finds against a rule, as certificates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from time import process_time
from typing import Any

from torch import Tensor

from byzopt.aggregators import Aggregator, rule_from
from byzopt.certificates.breaking.report import ROUNDING, rule_spelling
from byzopt.certificates.worst.allowance import Allowance
from byzopt.certificates.worst.certificate import WorstRows
from byzopt.certificates.worst.figures import FORMS, Form
from byzopt.certificates.worst.resized import resized
from byzopt.certificates.worst.search import RowSearch, answers_together
from byzopt.certificates.worst.turned import turned
from byzopt.errors import require, unknown
from byzopt.experiments.trials.memory import check_memory

MANY, FEW = 300_000, 20_000  # sets of rows for a form, where a rule answers many at once, and where not
LEAST = 1e-3  # seconds: for a form, where all are spent by those before it
RATIO = 1.0  # mean‖v_i - v̄‖²/‖v̄‖² at which turns are looked for
_LIKELY_D = 32  # coordinates of the longest rows that are likely, for the estimate of memory


@dataclass(frozen=True)
class RowsReport:
    """What the search found against `rule`: `found` holds the worst certificate of every form, and one at
    a tie where that is more than 1 % worse. `bounds` are the proved coefficients by form (None:
    unproved). `failures` maps messages of errors without a name, and of answers that are not finite, to
    rows that lead there. `evaluations` sets of rows were answered, of which the rule refused
    `refusals`."""

    rule: str
    n: int
    f: int
    found: tuple[WorstRows, ...]
    bounds: Mapping[str, float | None]
    failures: Mapping[str, Tensor]
    refusals: int
    evaluations: int

    @property
    def exceeded(self) -> tuple[str, ...]:
        """The forms in which a certificate is beyond the proved coefficient."""
        return exceeded_forms(self.found, self.bounds)


def worst_rows(
    rule: Any,
    n: int,
    f: int,
    forms: Sequence[Form] = FORMS,
    ratio: float = RATIO,
    budget: int | None = None,
    seed: int = 0,
    starts: Sequence[WorstRows] = (),
    seconds: float | None = None,
) -> RowsReport:
    """Search the rows of all n workers, honest and faulty, for the largest errors of `rule`. Deterministic,
    unless `seconds` are set.

    A lower bound on the worst case: what is not found may exist. A rule that draws lots is searched with
    the lots of its round 0, which the attacker then knows.

    Args:
        rule: A recipe, or what `rule_from` reads; `f` fills its own where that is left out.
        n: Number of workers.
        f: Faulty ones among them; 2 f < n.
        forms: Which errors to look for: see `figures`.
        ratio: mean‖v_i - v̄‖²/‖v̄‖² of the honest rows for a turn.
        budget: Sets of rows to try for each form; None: with `seconds` any number, else 300,000 where the
            rule answers many at once, and 20,000 where not.
        seed: Of the search.
        starts: Certificates to begin from, of any rule, of any size: each row stands where that of
            the certificate does, as often in proportion.
        seconds: Seconds of the processor for all forms together, at most; what is begun is finished, a stack
            of rows. What is found then depends on the machine. None: any number.

    Returns:
        The worst certificates.

    Raises:
        InvalidInput: The rule cannot work with n and f, or an argument makes no sense.

    Examples:
        >>> from byzopt.certificates.worst import worst_rows
        >>> found = worst_rows("median", n=5, f=1, forms=["squared"], budget=2000).found
        >>> round(found[0].figure, 3)  # proved to be the worst
        1.0
    """
    for form in forms:
        if form not in FORMS:
            raise unknown("form of error", form, list(FORMS))
    require(budget is None or budget >= 1, "The `budget`", "be at least 1 set of rows", budget)
    limited = seconds is None or 0 < seconds < inf
    require(limited, "The `seconds` of a search", "be positive and finite", seconds)
    require(0 < ratio < inf, "The `ratio` of a turn", "be positive and finite", ratio)
    require(0 <= 2 * f < n, "The count `f`", "satisfy 0 <= 2 f < n", f"f = {f} with n = {n}")
    built = rule_from(rule, f=f)
    built.check(n)
    require(f + len(built.trusts) <= n, "Rows that the rule does not trust", "be at least f", built.trusts)
    check_memory(n, 8 * 96 * _LIKELY_D, built, f"A search of rows of n = {n:,} workers")
    derived = "turn" in forms and built.translation_equivariant
    needed = [form for form in FORMS if form in forms and not (derived and form == "turn")]
    if derived and "squared" not in needed:
        needed.insert(0, "squared")
    spelling, known, searches = rule_spelling(built), list(starts), []
    ends = None if seconds is None else process_time() + seconds
    for at, form in enumerate(needed):
        share = None if ends is None else max(ends - process_time(), LEAST) / (len(needed) - at)
        tries = usual_budget(built) if budget is None and seconds is None else budget
        allowance = Allowance(tries, share)
        search = RowSearch(built, n, f, form, ratio if form == "turn" else None, allowance, seed)
        own = [one for one in known if (one.rule, one.n, one.f) == (spelling, n, f)]
        search.run([resized(one, n, f) for one in reversed(known)], [one.faulty for one in reversed(own)])
        searches.append(search)
        known += _certificates(search, spelling)
    found = known[len(starts) :]
    if derived:
        found += [turned(one, ratio, built) for one in found if one.form == "squared"]
    return RowsReport(
        rule=spelling,
        n=n,
        f=f,
        found=tuple(one for one in found if one.form in forms),
        bounds=proved_bounds(built, n, f),
        failures={why: rows for search in searches for why, rows in search.answering.failures.items()},
        refusals=sum(search.answering.refusals for search in searches),
        evaluations=sum(search.allowance.spent for search in searches),
    )


def proved_bounds(rule: Aggregator, n: int, f: int) -> dict[str, float | None]:
    """The proved coefficients by form, of sets of rows in which those that the rule trusts are honest."""
    return {"squared": rule.kappa_squared(n, f), "linear": rule.kappa_linear(n, f)}


def exceeded_forms(found: Sequence[WorstRows], bounds: Mapping[str, float | None]) -> tuple[str, ...]:
    """The forms in which one of the certificates is beyond the proved coefficient."""
    return tuple(
        form
        for form, bound in bounds.items()
        if bound is not None
        and any(one.figure > bound * (1 + ROUNDING) + ROUNDING for one in found if one.form == form)
    )


def _certificates(search: RowSearch, spelling: str) -> list[WorstRows]:
    steady = search.certificate(search.steady, spelling, False)
    tied = search.certificate(search.tied, spelling, True)
    worse = tied is not None and (steady is None or tied.figure > 1.01 * steady.figure)
    return [one for one, wanted in ((steady, True), (tied, worse)) if one is not None and wanted]


def usual_budget(rule: Aggregator) -> int:
    """How many sets of rows are tried for a form by default."""
    return MANY if answers_together(rule) else FEW
