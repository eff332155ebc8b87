"""A rule that refuses to answer when too many rows look faulty."""

from __future__ import annotations

from dataclasses import dataclass

from byzopt.aggregators.core.aggregator import Aggregator
from byzopt.aggregators.core.certificate import ChainInput
from byzopt.aggregators.core.wrapper import WRAPPERS, RuleWrapper
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.theory.robustness import Coefficients


@WRAPPERS.register("fail_closed")
@dataclass(frozen=True)
class FailClosed(RuleWrapper):
    """`rule`, called with `fail_closed=True` every time: for specs, `fail_closed(rule='nnm >> krum')`.

    Raises `TooManyFaults`, naming the rows, when more rows than the rule tolerates are not finite or look
    faulty. What looks faulty is measured on the rows as sent, also behind pre-aggregators: see `suspicion`.
    Everything else (answer, f, breakdown, κ) is the inner rule's. Cost: a Gram product, shared with rules
    that take one.

    Args:
        rule: The rule or chain that answers.

    Raises:
        TooManyFaults: More rows than the rule tolerates are not finite or look faulty.

    Examples:
        >>> import torch
        >>> from byzopt import FailClosed, Median, TooManyFaults
        >>> rows = torch.randn(20, 50, generator=torch.Generator().manual_seed(0))
        >>> rows[:2] += 100.0
        >>> try:
        ...     FailClosed(Median(f=1))(rows)
        ... except TooManyFaults as error:
        ...     print(error.rows)
        (0, 1)
    """

    fail_closed = True

    rule: Aggregator

    def proved(self, n: int, f: int) -> Coefficients:
        return self.rule.coefficients(n, f)

    def answered(self, mixed: Mixed, f: int, source: ChainInput) -> Coefficients:
        return self.rule.answered(mixed, f, source)

    def certifiable(self, n: int, f: int) -> bool:
        return self.rule.certifiable(n, f)
