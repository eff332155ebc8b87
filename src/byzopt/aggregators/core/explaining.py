"""How a rule's report is made: weights, scores and reasons of every row, from one call."""

from __future__ import annotations

import torch
from torch import Tensor

from byzopt import linalg
from byzopt.aggregators.core.calling import RuleCall
from byzopt.aggregators.core.certifying import certificate_for
from byzopt.aggregators.core.report import RowReport
from byzopt.aggregators.core.suspicion import remoteness, suspects
from byzopt.aggregators.numerics.mixed import Mixed

_FINITE = torch.finfo(torch.float64).min, torch.finfo(torch.float64).max
_FAINT = 0.1  # of an even share: a row with less weight counts as rejected


def report_on(call: RuleCall) -> RowReport:
    """The report on a call."""
    rule, ready, mixed, finite, n = call.rule, call.ready, call.mixed, call.finite, len(call.rows)
    scored = ready.scores(mixed)
    scored = None if scored is None else scored.clamp(*_FINITE)
    remote = remoteness(mixed, call.rows.dtype)
    weights = _placed(ready.influence(mixed), finite, 0.0)
    scores = _placed(_distances(mixed, call.answer) if scored is None else scored, finite, torch.inf)
    measure = "distance to the answer" if scored is None else rule.measure
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
    placed = torch.full(finite.shape, other, dtype=torch.float64, device="cpu")
    return placed.masked_scatter(finite, values.detach().to("cpu", torch.float64))


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
