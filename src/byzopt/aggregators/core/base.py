"""What a rule and a pre-aggregator are, and the one policy for bad input.

Policy, the same for every rule and chain: the input is `[n, d]` with n, d >= 1 in float16, bfloat16, float32
or float64, else `InvalidInput`. Rows that hold NaN or Inf are dropped and counted against f; when there are
more of them than f, `TooManyFaults` names them. What is left is combined with n' = n - k and f' = f - k,
whose precondition must hold. Finite rows of any size give a finite answer. Inputs are never written to;
dtype and device out are those that came in (an array for an array, or for a sequence of arrays). The answer
carries no gradient.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, cast, overload

import numpy as np
import torch
from torch import Tensor

from byzopt.aggregators.core import influence
from byzopt.aggregators.core.batching import together
from byzopt.aggregators.core.calling import call, certificate, judged, judged_sets, report
from byzopt.aggregators.core.certificate import Certificate, Source, nearly_median
from byzopt.aggregators.core.inputs import RowsLike, admit, as_rows, as_sets, held, like, restored
from byzopt.aggregators.core.proved import Proved
from byzopt.aggregators.core.stage import DECIDE, Stage, replaces
from byzopt.aggregators.core.surroundings import undisturbed
from byzopt.aggregators.numerics.geometry import Geometry
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.aggregators.numerics.selection import answer
from byzopt.errors import InvalidInput, said
from byzopt.kernels import Plan
from byzopt.registry import Registry
from byzopt.theory import order_statistics
from byzopt.theory.robustness import NOTHING, Coefficients, both, closed, geometric_median

if TYPE_CHECKING:
    from collections.abc import Sequence

    from byzopt.aggregators.core.chain import Chain, PreChain
    from byzopt.aggregators.core.filters import Filter
    from byzopt.aggregators.core.report import Report


class Aggregator(Proved):
    """A rule: `rule(rows)` with rows `[n, d]` gives the aggregate `[d]`.

    `f` at the call replaces the f of the rule, or of every stage of a chain, for this call: a count, or a
    float share of the rows in [0, 1), rounded up. `fail_closed` refuses rows of which more than f look
    faulty (see `suspicion`), before any answer is made; it costs one Gram product where the rule takes none.

    Errors: `InvalidInput` for a bad shape, dtype or (n, f); `TooManyFaults` when more than f rows are
    not finite, or look faulty with `fail_closed`.
    """

    stages: tuple[PreAggregator, ...] = ()  # before the rule, in a chain
    fail_closed: ClassVar[bool] = False  # whether every call is made with fail_closed
    measure: ClassVar[str] = "distance to the answer"  # what `scores` holds

    def __rshift__(self, after: object) -> NoReturn:
        """A rule ends a chain. Errors: `InvalidInput`, always."""
        raise InvalidInput(
            f"The rule {said(self)} cannot stand first: only pre-aggregators stand before a rule. "
            f"Found {said(after)} behind it."
        )

    def __init_subclass__(cls) -> None:
        """Nothing is proved of a plugin's class that decides in a way of its own, unless it says what."""
        super().__init_subclass__()
        if all(replaces(cls, name, DECIDE) for name in ("proved", "order_weights")):
            cls.proved = Aggregator.proved  # type: ignore[method-assign]
        for name in ("answered", "certifiable", "as_filter"):
            if replaces(cls, name, DECIDE):
                base = GeometricRule if issubclass(cls, GeometricRule) else Aggregator
                setattr(cls, name, getattr(base, name))

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
        return cast("Tensor", call(self, rows, f, fail_closed).out)

    @undisturbed
    def batch(self, rows: Tensor) -> Tensor:
        """The aggregates `[R, d]` of R sets of rows `[R, n, d]`, each as in a call of its own.

        Many small sets cost little more than one. Errors: as for a call, when any of the sets is refused.
        """
        rows = as_sets(rows)
        self.check(rows.shape[1])
        found = together(self.stages, self.last, rows)
        return torch.stack([self(each) for each in rows.unbind(0)]) if found is None else found[0]

    @property
    def last(self) -> Aggregator:
        """The rule behind all stages: itself, but for a chain."""
        return self

    @undisturbed
    def explain(self, rows: RowsLike, *, f: float | None = None, fail_closed: bool = False) -> Report:
        """The aggregate, and which rows are in it with what weight, score and reason: see `Report`.

        Same arguments and errors as a call. Costs about two calls more.
        """
        return report(call(self, rows, f, fail_closed, explained=True))

    def as_filter(self) -> Filter:
        """The rule as a part of a method. Rules that remember give a filter of their own."""
        from byzopt.aggregators.core.filters import Pure  # filters are made of what is here

        return Pure(self)

    @abstractmethod
    def reduce(self, mixed: Mixed) -> Tensor:
        """The aggregate `[d]` of finite rows for which `check` has passed."""

    def influence(self, mixed: Mixed) -> Tensor:
        """Weights `[n]` (float64) of the unmixed rows in the aggregate. Default: those of the last blend."""
        return influence.blended(self, mixed)

    def scores(self, mixed: Mixed) -> Tensor | None:
        """The rule's own scores `[n]` of unmixed rows, larger for worse; None: distances to the answer."""
        return None

    def certify(self, rows: RowsLike, *, f: int | None = None) -> Certificate:
        """The coefficients of the answer to these very rows `[n, d]`: see `Certificate`.

        `f` faulty rows among n, default: as many as the rule is set to tolerate; those that are not finite
        count among them. Holds where `kappa_squared` does, and for answers that prove to be close to the
        geometric median. Costs about a call. Errors: as for a call.
        """
        return certificate(self, rows, f)

    def judged(self, rows: Tensor, f: int) -> tuple[Tensor, list[Certificate]]:
        """The answer to rows `[n, d]` and its certificate for f faulty ones, at little more than a call's
        cost; or those to R sets of rows `[R, n, d]`. Errors: as for a call."""
        return judged(self, rows, f) if rows.ndim == 2 else judged_sets(self, rows, f)


class GeometricRule(Aggregator):
    """A rule decided by pairwise inner products: `weights(geometry)` gives `[m]` float64 weights."""

    notices = True

    @abstractmethod
    def weights(self, geometry: Geometry) -> Tensor:
        """Weights `[m]` of the rows in the aggregate."""

    def splits(self) -> bool:
        return True

    def reduce(self, mixed: Mixed) -> Tensor:
        _ = mixed.geometry.centred  # some weights need no look at the rows; the policy does
        mixed = mixed.sorted() if self.by_value else mixed
        return mixed.blend(self.weights(mixed.geometry))

    def answered(self, mixed: Mixed, f: int, source: Source) -> Coefficients:
        known, n = self.coefficients(mixed.m, f), mixed.m
        best = geometric_median(n, f)  # no answer can be certified for less
        if known.squared is not None and best.squared is not None and known.squared <= best.squared:
            return source.whole(known)
        if type(self).reduce is not GeometricRule.reduce:  # its answer need not be what its weights say
            return source.whole(known)
        return both(source.whole(known), self.approached(mixed, f, source))

    def approached(self, mixed: Mixed, f: int, source: Source) -> Coefficients:
        """What is proved of the mean with the rule's weights, as an approximate geometric median."""
        mixed = mixed.sorted() if self.by_value else mixed
        weights = self.weights(mixed.geometry) if mixed.weights is None else mixed.weights
        return nearly_median(mixed.geometry, weights.numpy(), mixed.m, f, source)

    def certifiable(self, n: int, f: int) -> bool:
        own = type(self)
        stated = own.reduce is GeometricRule.reduce or own.answered is not GeometricRule.answered
        return (stated and 2 * f < n and f <= self.tolerance(n)) or super().certifiable(n, f)


class CoordinateRule(Aggregator):
    """A rule that acts column by column: `columns(block)` maps `[m, b]` to `[b]`.

    A rule whose answer is Σ w_k x_(k) in each column, x_(k) the k-th smallest value, says so in
    `order_weights` and has its exact coefficients.
    """

    @abstractmethod
    def columns(self, block: Tensor) -> Tensor:
        """The aggregate of each column of a finite block in the compute dtype; must not write to it."""

    def order_weights(self, m: int) -> Sequence[float] | None:
        """The weights `[m]` of the order statistics, smallest first: at least 0, of sum 1. None: no such."""
        return None

    def proved(self, n: int, f: int) -> Coefficients:
        weights = self.order_weights(n)
        return NOTHING if weights is None else order_statistics.weighed(weights, f)

    def splits(self) -> bool:
        return True

    def reduce(self, mixed: Mixed) -> Tensor:
        out = torch.empty(mixed.rows.shape[1], dtype=mixed.rows.dtype, device=mixed.rows.device)
        for piece, block in mixed.blocks():
            out[piece] = self.columns(block)
        return out

    def influence(self, mixed: Mixed) -> Tensor:
        return mixed.through(influence.by_columns(self.columns, mixed))


class RankRule(CoordinateRule):
    """A coordinate rule made of order statistics: `plan(m)` says what becomes of the m values of a column."""

    batched = True
    notices = True

    @abstractmethod
    def plan(self, m: int) -> Plan:
        """What becomes of a column of m values."""

    def order_weights(self, m: int) -> Sequence[float] | None:
        first, last, count = self.plan(m)
        return _even(m, first, last) if count is None else None

    def proved(self, n: int, f: int) -> Coefficients:
        first, last, count = self.plan(n)
        if count != n - f:
            return super().proved(n, f)
        return order_statistics.around(closed(order_statistics.weighed(_even(n, first, last), f), n, f), n, f)

    def columns(self, block: Tensor) -> Tensor:
        return answer(block, self.plan(len(block)))

    def reduce(self, mixed: Mixed) -> Tensor:
        if type(self).columns is not RankRule.columns:  # a subclass has another answer than its plan's
            return super().reduce(mixed)
        return mixed.columns(self.plan(mixed.m))


def _even(m: int, first: int, last: int) -> list[float]:
    """Equal weights for the ranks first .. last - 1 of m, from 0."""
    return [1 / (last - first) if first <= k < last else 0.0 for k in range(m)]


class PreAggregator(Stage):
    """A stage before a rule: maps rows `[n, d]` to rows `[m, d]` by a matrix decided on their geometry."""

    notices = True
    affine: ClassVar[bool] = True  # every row of the mixing matrix sums to one

    def __init_subclass__(cls) -> None:
        """As for rules: nothing is proved of a plugin's stage that mixes in a way of its own."""
        super().__init_subclass__()
        if replaces(cls, "compose", DECIDE):
            cls.compose = PreAggregator.compose  # type: ignore[method-assign]

    @abstractmethod
    def mixing(self, geometry: Geometry) -> Tensor:
        """The mixing matrix `[m, n]`, float64."""

    def splits(self) -> bool:
        return True

    def apply(self, mixed: Mixed) -> Mixed:
        """The rows behind this stage."""
        return mixed.then(self.mixing(mixed.geometry), self.affine)

    def out(self, n: int) -> int:
        """How many rows come out of n."""
        return n

    def compose(self, behind: Coefficients, n: int, f: int) -> Coefficients:
        """What is proved of this stage on n rows, f of them faulty, and then a rule of which `behind` is.

        Default: nothing. `f` is at least what the stage is set to tolerate.
        """
        return NOTHING

    @overload
    def __call__(
        self, rows: np.ndarray[Any, Any] | Sequence[np.ndarray[Any, Any]]
    ) -> np.ndarray[Any, Any]: ...
    @overload
    def __call__(self, rows: Tensor | Sequence[Tensor] | Sequence[Sequence[float]]) -> Tensor: ...
    @undisturbed
    def __call__(self, rows: RowsLike) -> Tensor | np.ndarray[Any, Any]:
        """The mixed rows `[m, d]` of a lone stage; dropped rows leave no row behind."""
        rows = held(rows)
        tensor = as_rows(rows)
        stage, kept, unit = admit(self, tensor)
        mixed = Mixed(kept, unit, ordered=not self.positional)
        order, mixed = mixed.order, stage.apply(mixed.sorted())
        out = restored(mixed.materialise(), unit, tensor.dtype)
        if order is not None and len(out) == len(order):
            out = out[order.argsort()]  # row i of worker i
        return cast("Tensor", like(rows, out))

    @overload
    def __rshift__(self, after: PreAggregator) -> PreChain: ...
    @overload
    def __rshift__(self, after: Aggregator) -> Chain: ...
    def __rshift__(self, after: PreAggregator | Aggregator) -> PreChain | Chain:
        from byzopt.aggregators.core.chain import PreChain  # chains are made of what is here

        return PreChain((self,)) >> after


RULES: Registry[Aggregator] = Registry("rule", Aggregator)
PRE_AGGREGATORS: Registry[PreAggregator] = Registry("pre-aggregator", PreAggregator)
