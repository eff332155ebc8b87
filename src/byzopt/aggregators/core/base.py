"""A rule as calls, chains and filters see it: how it decides, and what is proved of it.

Authors of rules subclass `Aggregator` or one of its kinds, which add how a rule is called.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from byzopt.aggregators.core.certificate import Certificate, ChainInput
from byzopt.aggregators.core.influence import blended
from byzopt.aggregators.core.inputs import RowsLike
from byzopt.aggregators.core.mixing import MixingStage
from byzopt.aggregators.core.stage import Stage
from byzopt.aggregators.numerics.distances import Array
from byzopt.aggregators.numerics.figures import Ask
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.errors import counted
from byzopt.theory.robustness import NOTHING, Coefficients, both, carried, closed


class BaseAggregator(Stage):
    """What a rule decides, and its robustness coefficients.

    A rule overrides `reduce`, and `proved` where there is a proof; `answered` and `certifiable` where single
    answers may be certified.
    """

    stages: tuple[MixingStage, ...] = ()  # before the rule, in a chain
    # Whether it withstands no faulty row by itself, and any number where a stage bounds the rows.
    keeps_bounds: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, rows: RowsLike, *, f: float | None = None, fail_closed: bool = False) -> Any:
        """The aggregate `[d]` of rows `[n, d]`."""

    @abstractmethod
    def batch(self, rows: Tensor) -> Tensor:
        """The aggregates `[R, d]` of R sets of rows `[R, n, d]`."""

    @abstractmethod
    def certified(self, rows: Tensor, f: int) -> tuple[Tensor, list[Certificate]]:
        """The answer to rows `[n, d]`, or those to `[R, n, d]`, and what is certified for f faulty rows."""

    @property
    def fail_closed(self) -> bool:
        """Whether every call is made with `fail_closed`."""
        return False

    @property
    def measure(self) -> str:
        """What `scores` holds."""
        return "distance to the answer"

    @property
    def last(self) -> BaseAggregator:
        """The rule after all stages: itself, but for a chain."""
        return self

    def doubt(self, sizes: tuple[int, ...]) -> str:
        """What is worth saying of it before a run on a model whose tensors have these sizes, in the order of
        a row's columns; "" where that is nothing."""
        return ""

    def shares(self, found: Array, unit: float, order: Ask | None = None) -> Array:
        """Weights `[m]` of the rows by the figures `found` `[k, m]` that the rule `asks` for, with lengths in
        units of `unit`. `order` gives the places of the rows in the order of their values, for ties."""
        raise NotImplementedError(f"{self!r} asks for no figures of rows.")

    @abstractmethod
    def reduce(self, mixed: Mixed) -> Tensor:
        """The aggregate `[d]` of finite rows for which `check` has passed."""

    def influence(self, mixed: Mixed) -> Tensor:
        """Weights `[n]` (float64) of the unmixed rows in the aggregate. Default: those of the last blend."""
        return blended(self.reduce, mixed)

    def scores(self, mixed: Mixed) -> Tensor | None:
        """The rule's own scores `[n]` of unmixed rows, larger for worse; None: distances to the answer."""
        return None

    def kappa_linear(self, n: int, f: int | None = None) -> float | None:
        """Proved linear coefficient: ‖Agg - v̄‖ <= κ · mean‖v_i - v̄‖ over every n - f rows.

        `f` faulty rows among n; default: as many as the rule is set to tolerate. None where nothing is
        proved, as for more faulty rows than the rule tolerates: `unproved` says why. Where the rule `trusts`
        rows, only sets that hold them count.
        """
        return self.coefficients(n, f).linear

    def kappa_squared(self, n: int, f: int | None = None) -> float | None:
        """Proved squared coefficient: ‖Agg - v̄‖² <= κ₂ · mean‖v_i - v̄‖², as for `kappa_linear`."""
        return self.coefficients(n, f).squared

    def coefficients(self, n: int, f: int | None = None) -> Coefficients:
        """All that is proved for f faulty rows among n, the least over all routes.

        Errors: `InvalidInput` when the rule cannot work on n rows.
        """
        self.check(n)
        most = self.tolerance(n)
        f = most if f is None else f
        if not 0 <= f <= most or 2 * f >= n:
            return NOTHING
        known = closed(self.proved(n, f), n, f)
        if f < most and 2 * most < n and not self.trusts:
            # What holds for more faulty rows holds for fewer, and may be the only thing that is proved.
            known = both(known, carried(closed(self.proved(n, most), n, most), n, most, f))
        return known

    def unproved(self, n: int, f: int | None = None) -> str:
        """Why no coefficient is known for f faulty rows among n; empty where one is."""
        most = self.tolerance(n)
        f = most if f is None else f
        if f > most:
            return f"{self!r} tolerates {counted(most, 'faulty row')} of {n}, not {f}"
        if 2 * f >= n:
            return f"nothing is proved where {f} rows of {n}, half of them or more, are faulty"
        return "" if self.coefficients(n, f).squared is not None else f"no coefficient is proved for {self!r}"

    def proved(self, n: int, f: int) -> Coefficients:
        """What the rule's own lemmas prove for f faulty rows among n, f at most what it tolerates, 2 f < n.

        For rules to override; default: nothing. `coefficients` adds whatever follows from it.
        """
        return NOTHING

    def answered(self, mixed: Mixed, f: int, source: ChainInput) -> Coefficients:
        """What is proved, of the whole, for the answer to these rows, f of which are faulty.

        `source` says what they were made of. Default: what always holds.
        """
        return source.composed(self.coefficients(mixed.m, f))

    def certifiable(self, n: int, f: int) -> bool:
        """Whether single answers may be certified where f of n rows are faulty."""
        return self.coefficients(n, f).squared is not None

    def reaching(self, n: int, f: int) -> tuple[int, int]:
        """How many rows reach the last rule, and how many faulty ones it has to bear for f of the n."""
        return n, f

    def composed(self, known: Coefficients, n: int, f: int) -> Coefficients:
        """What is proved of the whole on n rows, f of them faulty, where `found` is of its last rule."""
        return known
