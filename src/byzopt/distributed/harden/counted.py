"""Whose rows count in a round, and the rule for them."""

from __future__ import annotations

from torch import Tensor

from byzopt.aggregators.core.base import BaseAggregator
from byzopt.errors import InvalidInput, TooManyFaults


def rule_of(rule: BaseAggregator, present: Tensor, finite: Tensor) -> BaseAggregator:
    """The `rule` for n ranks as one for the rows that are finite, of ranks that are present (both `[n]`).

    Errors: `TooManyFaults` where those that are present are too few, or more of them than the rule tolerates
    are not finite.
    """
    n = int(present.sum())
    if n < len(present):
        rule = rule.restricted(present) if rule.positional else rule
        try:
            rule.check(n)
        except InvalidInput as error:
            absent = (~present).nonzero().flatten().tolist()
            raise TooManyFaults(f"Ranks {absent} have no data left. {error}", absent) from None
    rule.check(n)
    bad = (present & ~finite).nonzero().flatten().tolist()
    if not bad:
        return rule
    if len(bad) > rule.tolerance(n):
        raise TooManyFaults(
            f"Ranks without a finite gradient should be at most f = {rule.tolerance(n)} of {n}. Found "
            f"{len(bad)}: ranks {bad}. Raise f, or find out why these ranks send NaN or Inf.",
            bad,
        )
    left = rule.restricted(finite[present])
    left.check(n - len(bad))
    return left
