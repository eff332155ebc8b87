"""What is certified of a run: the coefficients of its recorded rounds, summarised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from statistics import median
from typing import NamedTuple

from byzopt.aggregators.core.filters import StatelessFilter
from byzopt.errors import counted
from byzopt.experiments.specs.spec import Spec
from byzopt.experiments.trials.outcome import Outcome
from byzopt.theory.robustness import Coefficients

_READ = "(kappa and kappa_squared in docs/constants.md)"


class CertifiedCoefficients(NamedTuple):
    """Of `rounds` recorded rounds, the worst and the median coefficients; infinite where a round has none.

    `lacking` rounds have no certificate: a bound over the whole run needs `lacking` == 0.
    """

    rounds: int
    lacking: int
    worst: Coefficients
    median: Coefficients

    def __str__(self) -> str:
        """In words: what the coefficients bound, and where to read about them."""
        what = "the aggregate's distance from the honest mean"
        if self.lacking:
            lead = f"{self.lacking} of {self.rounds} recorded rounds are not certified: nothing bounds {what}"
            usual = f"; in the median round it is {_bounds(self.median)}" if _known(self.median) else ""
            return f"{lead} there{usual} {_READ}"
        lead = f"over {self.rounds} recorded rounds {what} was certified to be {_bounds(self.worst)}"
        return f"{lead} {_READ}"


def error_bound_sentence(spec: Spec, outcome: Outcome) -> str:
    """What bounds the aggregate's error in a run: its rounds' certificates, or what is proved of the rule in
    advance, and else why nothing does. Empty for methods whose filter has a memory: neither is known. On a
    graph nobody is at a server, and a clock's server hears workers one at a time: nothing is certified."""
    if spec.graph is not None:
        return (
            "no exchange is certified: certificates are of a server's answers (`byzopt explain` says what is "
            "proved of the graph)"
        )
    if spec.asynchrony is not None:
        return "no step is certified: certificates are of rows that come together"
    certificates = summarise_certificates(outcome.records)
    if certificates is not None:
        return str(certificates)
    method = spec.built()
    if not isinstance(method.filter, StatelessFilter):
        return ""
    faulty = len(spec.cohort.byzantine)
    known = spec.rule.coefficients(spec.n, faulty)
    if not _known(known):
        reason = spec.rule.unproved(spec.n, faulty) or "nothing is proved of this rule"
        return f"no round is certified: {reason}"
    return (
        "no round is certified on its own, because it is proved of this rule in advance, for "
        f"{counted(faulty, 'faulty row')} of {spec.n}, that the aggregate's distance from the honest mean is "
        f"{_bounds(known)} {_READ}"
    )


def summarise_certificates(records: Sequence[Mapping[str, float]]) -> CertifiedCoefficients | None:
    """The certificates in the `records` of a run; None where there are none, as for rules whose coefficients
    are proved in advance, and for runs stored by earlier versions."""
    pairs = [
        (one["certified_linear"], one["certified_squared"]) for one in records if "certified_squared" in one
    ]
    if not pairs:
        return None
    linear, squared = zip(*pairs, strict=True)
    lacking = sum(value == inf for value in squared)
    return CertifiedCoefficients(
        len(pairs),
        lacking,
        Coefficients(max(linear), max(squared)),
        Coefficients(median(linear), median(squared)),
    )


def _known(coefficients: Coefficients) -> bool:
    return None not in coefficients[:2] and inf not in coefficients[:2]


def _bounds(coefficients: Coefficients) -> str:
    linear = f"at most {coefficients.linear:.4g} times the honest rows' mean distance"
    return f"{linear}, and its square at most {coefficients.squared:.4g} times their mean square"
