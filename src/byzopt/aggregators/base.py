"""What a rule and a pre-aggregator are, and the one policy for bad input.

Policy, the same for every rule and chain: the input is `[n, d]` with n, d >= 1 in float16, bfloat16, float32
or float64, else `InvalidInput`. Rows that hold NaN or Inf are dropped and counted against f; when there are
more of them than f, `TooManyFaults` names them. What is left is combined with n' = n - k and f' = f - k,
whose precondition must hold. Finite rows of any size give a finite answer. Inputs are never written to;
dtype and device out are those that came in (an array for an array).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast, overload

import numpy as np
import torch
from torch import Tensor

from byzopt.aggregators import influence
from byzopt.aggregators.batching import together
from byzopt.aggregators.calling import call, report
from byzopt.aggregators.geometry import Geometry
from byzopt.aggregators.inputs import RowsLike, admit, as_rows, restored
from byzopt.aggregators.mixed import Mixed
from byzopt.aggregators.selection import answer
from byzopt.errors import require
from byzopt.kernels import Plan
from byzopt.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from byzopt.aggregators.chain import Chain, PreChain
    from byzopt.aggregators.filters import Filter
    from byzopt.aggregators.report import Report


class Stage(ABC):
    """What rules and pre-aggregators share: a name, a tolerance, and preconditions on (n, f)."""

    name: ClassVar[str]
    batched: ClassVar[bool] = False  # whether `weights`, `mixing` and `plan` take a stacked geometry
    notices: ClassVar[bool] = False  # whether it looks at rows only as `Mixed` says that `Unusual` is raised

    def __post_init__(self) -> None:
        f = getattr(self, "f", None)
        whole = f is None or (isinstance(f, Integral) and not isinstance(f, bool))
        require(
            whole and (f is None or f >= 0),
            f"Parameter `f` of {type(self).__name__}",
            "be a whole number, at least 0",
            f,
        )

    def tolerance(self, n: int) -> int:
        """How many bad rows among n the stage is set to tolerate: its `f`, or the most that n allows."""
        f = getattr(self, "f", None)
        return (n - 1) // 2 if f is None else int(f)

    def check(self, n: int) -> None:
        """Raise `InvalidInput` when the stage cannot work on n rows. Default: 2 f < n."""
        f = self.tolerance(n)
        require(
            2 * f < n,
            f"Parameter `f` of {type(self).__name__}",
            "satisfy 2 f < n",
            f"f = {f} with n = {n}",
            "Lower f or add workers.",
        )

    def lowered(self, k: int) -> Self:
        """The same recipe for k fewer Byzantine rows (they were dropped)."""
        f = getattr(self, "f", None)
        return self if f is None or k == 0 else replace(cast(Any, self), f=f - k)

    def among(self, kept: Tensor) -> Self:
        """The same recipe for the rows where `kept` `[n]` is true alone (the others were dropped)."""
        return self.lowered(int((~kept).sum()))

    def tolerating(self, f: int) -> Self:
        """The same recipe with tolerance f. A stage without an `f` stays as it is."""
        return replace(cast(Any, self), f=f) if hasattr(self, "f") else self

    def breakdown(self, n: int) -> int:
        """Up to how many faulty rows among n the answer stays bounded, whatever they hold.

        An `f` that may be left out only says how many rows may be dropped: then it is the most that n allows.
        """
        spare = getattr(type(self), "f", 0) is None
        return (replace(cast(Any, self), f=None) if spare else self).tolerance(n)

    def splits(self) -> bool:
        """Whether it may be given some columns of the rows at a time: what it needs of whole rows it takes
        from the geometry, or sums by `Mixed.total`, and so gives these columns of its answer."""
        return False

    def at(self, t: int) -> Self:
        """The recipe for round t. Only stages that draw lots differ between rounds."""
        return self


class Aggregator(Stage):
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

    @overload
    def __call__(
        self, rows: np.ndarray[Any, Any], *, f: float | None = None, fail_closed: bool = False
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

    def batch(self, rows: Tensor) -> Tensor:
        """The aggregates `[R, d]` of R sets of rows `[R, n, d]`, each as in a call of its own.

        Many small sets cost little more than one. Errors: as for a call, when any of the sets is refused.
        """
        self.check(rows.shape[1])
        found = together(self.stages, self.last, rows)
        return torch.stack([self(each) for each in rows.unbind(0)]) if found is None else found

    @property
    def last(self) -> Aggregator:
        """The rule behind all stages: itself, but for a chain."""
        return self

    def explain(self, rows: RowsLike, *, f: float | None = None, fail_closed: bool = False) -> Report:
        """The aggregate, and which rows are in it with what weight, score and reason: see `Report`.

        Same arguments and errors as a call. Costs about two calls more.
        """
        return report(call(self, rows, f, fail_closed, explained=True))

    def as_filter(self) -> Filter:
        """The rule as a part of a method. Rules that remember give a filter of their own."""
        from byzopt.aggregators.filters import Pure  # filters are made of what is here

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

    def kappa_linear(self, n: int) -> float | None:
        """Proved linear coefficient: ‖Agg - v̄‖ <= κ · mean‖v_i - v̄‖ over every n - f rows. None: unproved."""
        return None

    def kappa_squared(self, n: int) -> float | None:
        """Proved squared coefficient: ‖Agg - v̄‖² <= κ₂ · mean‖v_i - v̄‖² over every n - f rows."""
        return None


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
        return mixed.blend(self.weights(mixed.geometry))


class CoordinateRule(Aggregator):
    """A rule that acts column by column: `columns(block)` maps `[m, b]` to `[b]`."""

    @abstractmethod
    def columns(self, block: Tensor) -> Tensor:
        """The aggregate of each column of a finite block in the compute dtype; must not write to it."""

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

    def columns(self, block: Tensor) -> Tensor:
        return answer(block, self.plan(len(block)))

    def reduce(self, mixed: Mixed) -> Tensor:
        return mixed.columns(self.plan(mixed.m))


class PreAggregator(Stage):
    """A stage before a rule: maps rows `[n, d]` to rows `[m, d]` by a matrix decided on their geometry."""

    notices = True
    affine: ClassVar[bool] = True  # every row of the mixing matrix sums to one

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

    def compose_linear(self, kappa: float, n: int) -> float | None:
        """κ of this stage on n rows and then a rule with κ. None: unproved."""
        return None

    def compose_squared(self, kappa: float, n: int) -> float | None:
        """κ₂ of this stage on n rows and then a rule with κ₂. None: unproved."""
        return None

    @overload
    def __call__(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]: ...
    @overload
    def __call__(self, rows: Tensor | Sequence[Tensor] | Sequence[Sequence[float]]) -> Tensor: ...
    def __call__(self, rows: RowsLike) -> Tensor | np.ndarray[Any, Any]:
        """The mixed rows `[m, d]` of a lone stage; dropped rows leave no row behind."""
        tensor = as_rows(rows)
        stage, kept, unit = admit(self, tensor)
        mixed = Mixed(kept, unit)
        mixed = stage.apply(mixed)
        out = restored(mixed.materialise(), unit, tensor.dtype)
        return out.numpy() if isinstance(rows, np.ndarray) else out

    @overload
    def __rshift__(self, after: PreAggregator) -> PreChain: ...
    @overload
    def __rshift__(self, after: Aggregator) -> Chain: ...
    def __rshift__(self, after: PreAggregator | Aggregator) -> PreChain | Chain:
        from byzopt.aggregators.chain import PreChain  # chains are made of what is here

        return PreChain((self,)) >> after


RULES: Registry[Aggregator] = Registry("rule", Aggregator)
PRE_AGGREGATORS: Registry[PreAggregator] = Registry("pre-aggregator", PreAggregator)
