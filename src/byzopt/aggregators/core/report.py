"""What a rule did with every row, and why: the answer of `rule.explain(rows)`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from byzopt.aggregators.core.certificate import Certificate

COLUMNS = ("worker", "weight", "score", "verdict", "reason")


@dataclass(frozen=True, eq=False)
class RowReport:
    """The aggregate and the part that each of the n rows has in it. Indices are those of the rows given.

    `aggregate` `[d]` is `rule(rows)` to the last bit. `weights` `[n]` (float64) are the rows' weights in it:
    where a rule or chain is a weighted sum of rows, `weights @ rows` is the aggregate; where it works column
    by column, a row's weight is the mean over columns of its value's weight there (a median's two middle
    values have 1/2 each), and a sign vote divides each column among those who voted as it was decided. Noise
    that a rule adds belongs to no row. Weights sum to 1 unless the rule shortens rows.

    `scores` `[n]`, larger is more suspicious: `measure` says of what, the distance to the answer unless the
    rule has a score of its own (Krum's, a norm); infinite for rows that are not finite. `rejected` rows have
    less than a tenth of an even share of weight, `selected` rows the rest. `suspected` rows look faulty by
    the test in `suspicion`, which asks neither the rule nor its answer. `reasons` has a sentence for every
    row rejected or suspected.

    `f` is what the rule is set to tolerate, `breakdown` the number of faulty rows among n up to which the
    answer stays bounded, `kappa_linear` and `kappa_squared` the proved coefficients (None: unproved), all for
    the n rows given. `certificate` has the coefficients that are certified of this very answer.

    Args:
        rule: What was asked, as text.
        aggregate: The answer, `[d]`.
        weights: Of the rows in it, `[n]` float64.
        scores: Of the rows, `[n]`; larger is more suspicious.
        measure: What the scores are.
        selected: Indices of the rows with weight.
        rejected: Indices of the rows with less than a tenth of an even share.
        suspected: Indices of the rows that look faulty.
        reasons: A sentence for every row rejected or suspected, by index.
        f: Number of faulty rows that the rule is set to tolerate.
        breakdown: Number of faulty rows up to which the answer stays bounded.
        kappa_linear: Proved linear coefficient; None: unproved.
        kappa_squared: Proved squared coefficient; None: unproved.
        certificate: Coefficients that are certified of this answer.

    Examples:
        >>> import torch
        >>> from byzopt import TrimmedMean
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, -90.0]])
        >>> report = TrimmedMean(f=1).explain(rows)
        >>> report.rejected, round(report.kappa_squared, 4)
        ((4,), 0.3333)
        >>> bool((report.aggregate == TrimmedMean(f=1)(rows)).all())
        True
    """

    rule: str
    aggregate: Any
    weights: Tensor
    scores: Tensor
    measure: str
    selected: tuple[int, ...]
    rejected: tuple[int, ...]
    suspected: tuple[int, ...]
    reasons: dict[int, str]
    f: int
    breakdown: int
    kappa_linear: float | None
    kappa_squared: float | None
    certificate: Certificate

    @property
    def n(self) -> int:
        """Number of rows given."""
        return len(self.weights)

    def table(self) -> list[tuple[str, str, str, str, str]]:
        """One line of words for each worker, under `COLUMNS`."""
        lines = []
        for i, (weight, score) in enumerate(zip(self.weights.tolist(), self.scores.tolist(), strict=True)):
            verdict = "selected" if i in self.selected else "rejected"
            verdict += ", suspected" if i in self.suspected else ""
            lines.append((str(i), f"{weight:.3g}", f"{score:.3g}", verdict, self.reasons.get(i, "")))
        return lines

    def __str__(self) -> str:
        lines = [COLUMNS, *self.table()]
        widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
        body = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
        kappas = f"kappa {_number(self.kappa_linear)}, kappa_squared {_number(self.kappa_squared)}"
        bounds = f"n = {self.n}, tolerates f = {self.f}, bounded up to {self.breakdown} faulty, {kappas}"
        return "\n".join(
            [self.rule, bounds, f"this answer: {self.certificate}", f"score: {self.measure}", *body]
        )


def _number(value: float | None) -> str:
    return "unproved" if value is None else f"{value:.3g}"
