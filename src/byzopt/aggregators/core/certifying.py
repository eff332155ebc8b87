"""What is certified of single answers: for one set of rows, or for many at once."""

from __future__ import annotations

import torch
from torch import Tensor

from byzopt.aggregators.core.base import BaseAggregator
from byzopt.aggregators.core.batching import batch_aggregate
from byzopt.aggregators.core.calling import call_rule
from byzopt.aggregators.core.certificate import Certificate, ChainInput, Nearness, proof
from byzopt.aggregators.core.foreign import checked_answer
from byzopt.aggregators.core.inputs import RowsLike, admit, as_rows
from byzopt.aggregators.core.surroundings import isolated
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.theory.robustness import Coefficients, both, closed


@isolated
def certify_rows(rule: BaseAggregator, given: RowsLike, f: int | None) -> Certificate:
    """What is certified of the answer of `rule` to the rows `given`, f of them faulty."""
    rows = as_rows(given)
    ready, kept, unit = admit(rule, rows)
    return certificate_for(rule, ready, Mixed(kept, unit, ordered=ready.by_value), len(rows), f)


@isolated
def call_certified(rule: BaseAggregator, rows: Tensor, f: int) -> tuple[Tensor, list[Certificate]]:
    """The answer to rows `[n, d]`, and what is certified of it."""
    if "__call__" in rule.foreign:
        return rule(rows), [Certificate(None, None, len(rows), f, rule.unproved(len(rows), f))]
    call = call_rule(rule, rows, None, False)
    return call.out, [certificate_for(rule, call.ready, call.mixed, len(rows), f)]


@isolated
def call_sets_certified(rule: BaseAggregator, rows: Tensor, f: int) -> tuple[Tensor, list[Certificate]]:
    """The answers to R sets of rows `[R, n, d]`, and what is certified of each."""
    n = rows.shape[1]
    rule.check(n)
    stacked = batch_aggregate(rule.stages, rule.last, rows) if rule.certifiable(n, f) else None
    if stacked is None or stacked[1] is None:
        each = [call_certified(rule, one, f) for one in rows.unbind(0)]
        return torch.stack([out for out, _ in each]), [
            one for _, certificates in each for one in certificates
        ]

    out = checked_answer(rule, stacked[0], (len(rows), rows.shape[2]))

    def composed(proved: Coefficients) -> Coefficients:
        return rule.composed(proved, n, f)

    m, most = rule.reaching(n, f)
    decision, known = stacked[1], composed(rule.last.coefficients(m, most))
    mixing = None if decision.mixing is None else decision.mixing.numpy()
    near = decision.near(ChainInput(decision.first, mixing, f, composed))
    parts = [Nearness(*one) for one in zip(*near, strict=True)]
    return out, [
        _certificate(closed(both(known, proof(one, m, most, composed)), n, f), n, f) for one in parts
    ]


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
    source = ChainInput(mixed.geometry, None, left, lambda found: found)
    return _certificate(closed(ready.answered(mixed, left, source), finite, left), finite, left)


def _certificate(proved: Coefficients, n: int, f: int) -> Certificate:
    far = "the answer is too far from the geometric median of the rows (n - 2 f - ε <= 0)"
    return Certificate(proved.linear, proved.squared, n, f, far if proved.squared is None else "")
