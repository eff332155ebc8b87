"""One call of a rule, with all that a report wants to know about it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from byzopt import linalg
from byzopt.aggregators.core.base import BaseAggregator
from byzopt.aggregators.core.batching import batch_aggregate
from byzopt.aggregators.core.certificate import Certificate, Nearness, Source, proof
from byzopt.aggregators.core.inputs import RowsLike, admit, as_rows, faults, held, like, restored
from byzopt.aggregators.core.report import RowReport
from byzopt.aggregators.core.surroundings import undisturbed
from byzopt.aggregators.core.suspicion import refuse_suspects, remoteness, suspects
from byzopt.aggregators.numerics.measuring import SMALL, ExtremeRows, geometry_of
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.aggregators.numerics.ordering import keys, order_of
from byzopt.errors import InvalidInput, require
from byzopt.theory.robustness import Coefficients, both, closed

_FINITE = torch.finfo(torch.float64).min, torch.finfo(torch.float64).max
_FAINT = 0.1  # of an even share: a row with less weight counts as rejected


class RuleCall(NamedTuple):
    """`rule` ran as `ready` on `mixed`, the finite ones of `rows`; `answer` is in units, `out` is not."""

    rule: BaseAggregator
    ready: BaseAggregator
    rows: Tensor
    mixed: Mixed
    answer: Tensor
    out: Any

    @property
    def finite(self) -> Tensor:
        """Which of the n rows are finite, `[n]`."""
        return finite_rows(self.rows, self.mixed)


@undisturbed
def call_rule(
    rule: BaseAggregator, given: RowsLike, f: float | None, fail_closed: bool, explained: bool = False
) -> RuleCall:
    """Run `rule` on the rows `given`, in the one order: shape, f, finite rows, suspicion, answer."""
    given = held(given)
    rows = as_rows(given)
    n = len(rows)
    if f is not None:
        rule = with_tolerance(rule, faults(f, n), n)
    closed = fail_closed or rule.fail_closed
    ready, mixed, answer = (None if closed or explained else _at_once(rule, rows)) or _in_order(
        rule, rows, closed
    )
    if not isinstance(answer, Tensor) or answer.shape != rows.shape[1:]:
        found = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        raise InvalidInput(f"The answer of {ready!r} should be a tensor [{rows.shape[1]}]. Found {found}.")
    out = restored(answer, mixed.unit, rows.dtype)
    return RuleCall(rule, ready, rows, mixed, answer, like(given, out))


def _at_once(rule: BaseAggregator, rows: Tensor) -> tuple[BaseAggregator, Mixed, Tensor] | None:
    """The answer without a look at the rows first, where the rule itself finds what is wrong with them."""
    if not rule.validates:
        return None
    rule.check(len(rows))
    mixed = _seen(rule, rows)
    try:
        return rule, mixed, rule.reduce(mixed)
    except ExtremeRows:
        return None


def _seen(rule: BaseAggregator, rows: Tensor) -> Mixed:
    """Rows that nobody has looked at, as `rule` sees them: few are put in order, many in an order of sums."""
    return _sorted(rule, rows, 1.0, False) or Mixed(rows, admitted=False, ordered=rule.by_value)


def _sorted(rule: BaseAggregator, rows: Tensor, unit: float, admitted: bool) -> Mixed | None:
    """Rows in the order of their values; None where `rule` needs none, or it would cost much."""
    if not (rule.by_value and rows.device.type == "cpu" and rows.numel() <= SMALL):
        return None
    rows = rows.index_select(0, torch.from_numpy(order_of(keys(rows, 0, rows.shape[1]))))
    return Mixed(rows, unit, None, geometry_of(rows, unit, admitted, first=len(rows) // 2), admitted)


def _in_order(rule: BaseAggregator, rows: Tensor, closed: bool) -> tuple[BaseAggregator, Mixed, Tensor]:
    """As `_at_once`, with the finite rows in their places, and the same answer to the last bit."""
    ready, kept, unit = admit(rule, rows)
    mixed = Mixed(kept, unit, ordered=ready.by_value)
    if closed:
        found = suspects(finite_rows(rows, mixed), remoteness(mixed, rows.dtype))
        refuse_suspects(found, rule.tolerance(len(rows)), len(rows))
    return ready, mixed, ready.reduce(_sorted(ready, kept, unit, True) or mixed)


@undisturbed
def certify_rows(rule: BaseAggregator, given: RowsLike, f: int | None) -> Certificate:
    """What is certified of the answer of `rule` to the rows `given`, f of them faulty."""
    rows = as_rows(given)
    ready, kept, unit = admit(rule, rows)
    return certificate_for(rule, ready, Mixed(kept, unit, ordered=ready.by_value), len(rows), f)


@undisturbed
def call_certified(rule: BaseAggregator, rows: Tensor, f: int) -> tuple[Tensor, list[Certificate]]:
    """The answer to rows `[n, d]`, and what is certified of it."""
    made = call_rule(rule, rows, None, False)
    return made.out, [certificate_for(rule, made.ready, made.mixed, len(rows), f)]


@undisturbed
def call_sets_certified(rule: BaseAggregator, rows: Tensor, f: int) -> tuple[Tensor, list[Certificate]]:
    """The answers to R sets of rows `[R, n, d]`, and what is certified of each."""
    n = rows.shape[1]
    rule.check(n)
    found = batch_aggregate(rule.stages, rule.last, rows)
    if found is None or found[1] is None or not rule.certifiable(n, f):
        each = [call_certified(rule, one, f) for one in rows.unbind(0)]
        return torch.stack([out for out, _ in each]), [one for _, told in each for one in told]

    def whole(proved: Coefficients) -> Coefficients:
        return rule.whole(proved, n, f)

    m, most = rule.behind(n, f)
    seen, known = found[1], whole(rule.last.coefficients(m, most))
    near = seen.near(Source(seen.first, None if seen.mixing is None else seen.mixing.numpy(), f, whole))
    parts = [Nearness(*one) for one in zip(*near, strict=True)]
    return found[0], [_told(closed(both(known, proof(one, m, most, whole)), n, f), n, f) for one in parts]


def certificate_for(
    rule: BaseAggregator, ready: BaseAggregator, mixed: Mixed, n: int, f: int | None
) -> Certificate:
    """The certificate of a call of `rule` on n rows that ran as `ready` on the finite ones, `mixed`."""
    f = rule.tolerance(n) if f is None else f
    finite = len(mixed.rows)
    left = f - (n - finite)
    if left < 0:
        reason = f"{n - finite} rows are not finite, which is more than f = {f}"
        return Certificate(None, None, finite, 0, reason)
    if not ready.certifiable(finite, left):
        return Certificate(None, None, finite, left, ready.unproved(finite, left))
    source = Source(mixed.geometry, None, left, lambda found: found)
    return _told(closed(ready.answered(mixed, left, source), finite, left), finite, left)


def _told(found: Coefficients, n: int, f: int) -> Certificate:
    far = "the answer is too far from the geometric median of the rows (n - 2 f - ε <= 0)"
    return Certificate(found.linear, found.squared, n, f, far if found.squared is None else "")


def with_tolerance(rule: BaseAggregator, f: int, n: int) -> BaseAggregator:
    """`rule` with f in all its stages; refused where it cannot tolerate so many."""
    rule, what = rule.tolerating(f), "The `f` of a call"
    most = rule.tolerance(n)
    require(f <= most, what, f"be at most {most} for {rule!r}", f"f = {f} with n = {n}", "Use another rule.")
    return rule


def finite_rows(rows: Tensor, mixed: Mixed) -> Tensor:
    """Which `rows` `[n]` are among those of `mixed`; looks at them only when some are missing."""
    if len(mixed.rows) == len(rows):
        return torch.ones(len(rows), dtype=torch.bool, device="cpu")
    return torch.isfinite(rows).all(dim=1).cpu()


def report_on(call: RuleCall) -> RowReport:
    """The report on a call."""
    rule, ready, mixed, finite, n = call.rule, call.ready, call.mixed, call.finite, len(call.rows)
    own = ready.scores(mixed)
    own = None if own is None else own.clamp(*_FINITE)
    remote = remoteness(mixed, call.rows.dtype)
    weights = _placed(ready.influence(mixed), finite, 0.0)
    scores = _placed(_distances(mixed, call.answer) if own is None else own, finite, torch.inf)
    measure = "distance to the answer" if own is None else rule.measure
    rejected = (weights <= _FAINT / n).nonzero().flatten().tolist()
    suspected = suspects(finite, remote)
    reasons = {i: _reason(i, weights, scores, rejected, measure) for i in rejected if finite[i]}
    for i, share in enumerate(_placed(remote, finite, 0.0).tolist()):
        if share > 1:
            far = f"{share:.3g} times as far from the majority as the limit allows"
            reasons[i] = f"{reasons[i]}; {far}" if i in reasons else far
    reasons |= {i: "not finite" for i in range(n) if not finite[i]}
    return RowReport(
        rule=repr(rule),
        aggregate=call.out,
        weights=weights,
        scores=scores,
        measure=measure,
        selected=tuple(i for i in range(n) if i not in rejected),
        rejected=tuple(rejected),
        suspected=tuple(suspected),
        reasons=dict(sorted(reasons.items())),
        f=rule.tolerance(n),
        breakdown=rule.breakdown(n),
        kappa_linear=rule.kappa_linear(n),
        kappa_squared=rule.kappa_squared(n),
        certificate=certificate_for(rule, ready, mixed, n, None),
    )


def _placed(values: Tensor, finite: Tensor, other: float) -> Tensor:
    """`values` of the finite rows in their places among all n; `other` for the rest."""
    whole = torch.full(finite.shape, other, dtype=torch.float64, device="cpu")
    return whole.masked_scatter(finite, values.detach().to("cpu", torch.float64))


def _distances(mixed: Mixed, answer: Tensor) -> Tensor:
    """Distances of the unmixed rows to the answer, in their own units. A finite row's is finite."""
    total = torch.zeros(len(mixed.rows), dtype=torch.float64, device=answer.device)
    for piece, block in linalg.column_blocks(mixed.rows, torch.float64):
        total += (block - answer[piece].double()).square().sum(dim=1)
    return (total.sqrt() * mixed.unit).clamp_max(_FINITE[1])


def _reason(i: int, weights: Tensor, scores: Tensor, rejected: list[int], measure: str) -> str:
    """Why row i was rejected: its score, if that is above every selected one's, else its weight alone."""
    others = torch.ones_like(weights, dtype=torch.bool).index_fill(
        0, torch.tensor(rejected, dtype=torch.int64, device="cpu"), False
    )
    most = float(scores[others].max()) if others.any() else torch.inf
    if float(scores[i]) > most:
        return f"{measure} {float(scores[i]):.3g}, at most {most:.3g} among the selected"
    return f"weight {float(weights[i]):.3g} of an even {1 / len(weights):.3g}"
