"""A rule as it is called: `rule(rows)`, many sets of rows at once, and what is known of an answer.

Policy, the same for every rule and chain: the input is `[n, d]` with n, d >= 1 in float16, bfloat16, float32
or float64, else `InvalidInput`. Rows that hold NaN or Inf are dropped and counted against f; when there are
more of them than f, `TooManyFaults` names them. What is left is combined with n' = n - k and f' = f - k,
whose precondition must hold. Finite rows of any size give a finite answer. Inputs are never written to;
dtype and device out are those that came in (an array for an array, or for a sequence of arrays). The answer
carries no gradient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, overload

import numpy as np
import torch
from torch import Tensor

from byzopt.aggregators.core.base import BaseAggregator
from byzopt.aggregators.core.batching import batch_aggregate
from byzopt.aggregators.core.calling import answer_to, call_rule
from byzopt.aggregators.core.certificate import Certificate
from byzopt.aggregators.core.certifying import call_certified, call_sets_certified, certify_rows
from byzopt.aggregators.core.explaining import report_on
from byzopt.aggregators.core.filters import Filter, StatelessFilter
from byzopt.aggregators.core.foreign import checked_answer, require_own_call
from byzopt.aggregators.core.inputs import RowsLike, as_sets
from byzopt.aggregators.core.report import RowReport
from byzopt.aggregators.core.surroundings import isolated
from byzopt.aggregators.core.traits import ANSWERS, kind_of, replaces
from byzopt.aggregators.numerics.measuring import SMALL
from byzopt.errors import InvalidInput, said
from byzopt.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Sequence


class Aggregator(BaseAggregator):
    """A rule: `rule(rows)` with rows `[n, d]` gives the aggregate `[d]`.

    `f` at the call replaces the f of the rule, or of every stage of a chain, for this call: a count, or a
    float share of the rows in [0, 1), rounded up. `fail_closed` refuses rows of which more than f look
    faulty (see `suspicion`), before any answer is made; it costs one Gram product where the rule takes none.

    Errors: `InvalidInput` for a bad shape, dtype or (n, f); `TooManyFaults` when more than f rows are
    not finite, or look faulty with `fail_closed`.

    Examples:
        >>> import torch
        >>> from byzopt import Aggregator, Median
        >>> isinstance(Median(f=1), Aggregator)
        True
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, -90.0]])
        >>> Median(f=1)(rows)
        tensor([2., 1.])
        >>> Median()(rows, f=0.2)  # a share of the rows
        tensor([2., 1.])
        >>> Median(f=1).kappa_squared(n=5)
        1.0
    """

    def __rshift__(self, after: object) -> NoReturn:
        """A rule ends a chain. Errors: `InvalidInput`, always."""
        raise InvalidInput(
            f"The rule {said(self)} cannot stand first: only pre-aggregators stand before a rule. "
            f"Found {said(after)} after it."
        )

    def __init_subclass__(cls) -> None:
        """Nothing is proved of a plugin's class that decides in a way of its own, unless it says what."""
        super().__init_subclass__()
        if all(replaces(cls, name, ANSWERS) for name in ("proved", "order_weights")):
            cls.proved = Aggregator.proved  # type: ignore[method-assign]
        if replaces(cls, "keeps_bounds", (*ANSWERS, "plan")):
            cls.keeps_bounds = False
        for name in ("answered", "certifiable", "as_filter"):
            if replaces(cls, name, ANSWERS):
                setattr(cls, name, getattr(kind_of(cls), name))
        if replaces(cls, "weighted_form", (*ANSWERS, "plan")):
            cls.weighted_form = Aggregator.weighted_form  # type: ignore[method-assign]

    @overload
    def __call__(
        self,
        rows: np.ndarray[Any, Any] | Sequence[np.ndarray[Any, Any]],
        *,
        f: float | None = None,
        fail_closed: bool = False,
    ) -> np.ndarray[Any, Any]: ...
    @overload
    def __call__(
        self,
        rows: Tensor | Sequence[Tensor] | Sequence[Sequence[float]],
        *,
        f: float | None = None,
        fail_closed: bool = False,
    ) -> Tensor: ...
    def __call__(
        self, rows: RowsLike, *, f: float | None = None, fail_closed: bool = False
    ) -> Tensor | np.ndarray[Any, Any]:
        out: Tensor | np.ndarray[Any, Any] = answer_to(self, rows, f, fail_closed)
        return out

    @isolated
    def batch(self, rows: Tensor) -> Tensor:
        """The aggregates `[R, d]` of R sets of rows `[R, n, d]`, each as in a call of its own.

        Many small sets cost little more than one. Errors: as for a call, when any of the sets is refused.
        """
        rows = as_sets(rows)
        self.check(rows.shape[1])
        stacked = None if "__call__" in self.foreign else batch_aggregate(self.stages, self.last, rows)
        if stacked is None and rows.device.type != "cpu" and not self.foreign and rows[0].numel() <= SMALL:
            # A call of short rows costs several times as much there as here, and their transfer little.
            return self.batch(rows.cpu()).to(rows.device)
        if stacked is None:
            return torch.stack([self(each) for each in rows.unbind(0)])
        return checked_answer(self, stacked[0], (len(rows), rows.shape[2]))

    @isolated
    def explain(self, rows: RowsLike, *, f: float | None = None, fail_closed: bool = False) -> RowReport:
        """The aggregate, and which rows are in it with what weight, score and reason: see `RowReport`.

        Same arguments and errors as a call. Costs about two calls more.
        """
        require_own_call(self, "A rule to explain")
        return report_on(call_rule(self, rows, f, fail_closed, explained=True))

    def as_filter(self) -> Filter:
        """The rule as a part of a method. Rules that remember give a filter of their own."""
        return StatelessFilter(self)

    def weighted_form(self, row_weights: Tensor, heaviest: float) -> Aggregator:
        """The rule for rows that count with a weight each, as if they came that many times: for `Weighted`.

        Args:
            row_weights: The rows' weights `[m]`, positive float64 on the CPU, after the cap.
            heaviest: The weight of the f heaviest workers together, in the place of f.

        Returns:
            A rule for these m rows.

        Raises:
            InvalidInput: By default: the rule has no weighted form.
        """
        raise InvalidInput(f"The rule {said(self)} has no weighted form. Define its `weighted_form`.")

    @property
    def remembers(self) -> bool:
        """Whether as a part of a method it remembers earlier rounds."""
        return not isinstance(self.as_filter(), StatelessFilter)

    def certify(self, rows: RowsLike, *, f: int | None = None) -> Certificate:
        """The coefficients of the answer to these very rows `[n, d]`: see `Certificate`.

        `f` faulty rows among n, default: as many as the rule is set to tolerate; those that are not finite
        count among them. Holds where `kappa_squared` does, and for answers that prove to be close to the
        geometric median. Costs about a call. Errors: as for a call.
        """
        return certify_rows(self, rows, f)

    def certified(self, rows: Tensor, f: int) -> tuple[Tensor, list[Certificate]]:
        """The answer to rows `[n, d]` and its certificate for f faulty ones, at little more than a call's
        cost; or those to R sets of rows `[R, n, d]`. Errors: as for a call."""
        return call_certified(self, rows, f) if rows.ndim == 2 else call_sets_certified(self, rows, f)


RULES: Registry[Aggregator] = Registry("rule", Aggregator)
