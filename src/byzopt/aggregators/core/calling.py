"""One call of a rule: from the rows that came in to the answer that goes out."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from byzopt import accelerator
from byzopt.aggregators.core.base import BaseAggregator
from byzopt.aggregators.core.foreign import reduced
from byzopt.aggregators.core.inputs import (
    RowsLike,
    admit,
    as_rows,
    fault_count,
    laid_out,
    like,
    reiterable,
    restored,
)
from byzopt.aggregators.core.straight import straight_answer
from byzopt.aggregators.core.surroundings import isolated
from byzopt.aggregators.core.suspicion import refuse_suspects, remoteness, suspects
from byzopt.aggregators.core.traits import GIVEN_ROWS
from byzopt.aggregators.numerics.measuring import SMALL, ExtremeRows, geometry_of
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.aggregators.numerics.ordering import keys, order_of, taken
from byzopt.errors import require


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


@isolated
def answer_to(rule: BaseAggregator, given: RowsLike, f: float | None, fail_closed: bool) -> Any:
    """What `call_rule` gives `out`, by the straight way where there is one."""
    given = reiterable(given)
    rows, extreme = as_rows(given), False
    if not (rule.direct or rule.asks) or rule.foreign or fail_closed or rule.fail_closed:
        return _run(rule, given, rows, f, fail_closed, looked_at=False).out
    rows, dtype = laid_out(rows), rows.dtype
    if f is None:
        rule.check(rows.shape[0])
        try:
            answer = straight_answer(rule, rows)
        except ExtremeRows:
            answer, extreme = None, True
        if answer is not None:
            return like(given, restored(answer, 1.0, dtype))
    return _run(rule, given, rows, f, fail_closed, looked_at=extreme, dtype=dtype).out


@isolated
def call_rule(
    rule: BaseAggregator, given: RowsLike, f: float | None, fail_closed: bool, explained: bool = False
) -> RuleCall:
    """Run `rule` on the rows `given`, in the one order: shape, f, finite rows, suspicion, answer."""
    given = reiterable(given)
    # What the call finds is asked for more: products may call for a look at rows whose lengths did not.
    looked_at = explained or any(part.asks for part in (rule, *rule.stages))
    return _run(rule, given, as_rows(given), f, fail_closed, looked_at)


def _run(
    rule: BaseAggregator,
    given: RowsLike,
    rows: Tensor,
    f: float | None,
    fail_closed: bool,
    looked_at: bool,
    dtype: torch.dtype | None = None,
) -> RuleCall:
    """The call, with rows that are `looked_at` before the answer even where the rule would find what is wrong
    with them. `dtype` is that of the answer; None: the rows'."""
    n = len(rows)
    if rule.foreign and rule.foreign & GIVEN_ROWS:
        rows = rows.clone()  # code of others that writes to its rows does not write to the caller's
    if f is not None:
        rule = with_tolerance(rule, fault_count(f, n), n)
    closed = fail_closed or rule.fail_closed
    ready, mixed, answer = (None if closed or looked_at else _at_once(rule, rows)) or _in_order(
        rule, rows, closed
    )
    out = restored(answer, mixed.unit, dtype or rows.dtype)
    return RuleCall(rule, ready, rows, mixed, answer, like(given, out))


def _at_once(rule: BaseAggregator, rows: Tensor) -> tuple[BaseAggregator, Mixed, Tensor] | None:
    """The answer without a look at the rows first, where the rule itself finds what is wrong with them."""
    if not rule.validates:
        return None
    rule.check(len(rows))
    mixed = _seen(rule, rows)
    try:
        return rule, mixed, reduced(rule, mixed)
    except ExtremeRows:
        return None


def _seen(rule: BaseAggregator, rows: Tensor) -> Mixed:
    """Rows that nobody has looked at, as `rule` sees them: few are put in order, many in an order of sums.
    Where figures of single rows decide their order is asked for when some tie."""
    ordered = rule.by_value and not rule.asks
    return _sorted(rule, rows, 1.0, False) or Mixed(rows, admitted=False, ordered=ordered)


def _sorted(rule: BaseAggregator, rows: Tensor, unit: float, admitted: bool) -> Mixed | None:
    """Rows in the order of their values; None where `rule` needs none, or it would cost much."""
    if not rule.by_value or rule.asks or accelerator.holds(rows) or rows.numel() > SMALL:
        return None
    rows = taken(rows, order_of(keys(rows, 0, rows.shape[1])))
    return Mixed(rows, unit, None, geometry_of(rows, unit, admitted, first=len(rows) // 2), admitted)


def _in_order(rule: BaseAggregator, rows: Tensor, closed: bool) -> tuple[BaseAggregator, Mixed, Tensor]:
    """As `_at_once`, with the finite rows in their places, and the same answer to the last bit."""
    ready, kept, unit = admit(rule, rows)
    mixed = Mixed(kept, unit, ordered=ready.by_value and not ready.asks)
    if closed:
        suspected = suspects(finite_rows(rows, mixed), remoteness(mixed, rows.dtype))
        refuse_suspects(suspected, rule.tolerance(len(rows)), len(rows))
    return ready, mixed, reduced(ready, _sorted(ready, kept, unit, True) or mixed)


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
