"""Rules made from another rule: what they share, and the registry that lets a spec spell them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self, cast

from torch import Tensor

from byzopt.aggregators.core.aggregator import Aggregator
from byzopt.aggregators.core.filters import Filter
from byzopt.aggregators.core.foreign import require_own_call
from byzopt.aggregators.core.traits import Ties
from byzopt.aggregators.numerics.distances import Array
from byzopt.aggregators.numerics.figures import Ask
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.kernels import Figures
from byzopt.registry import Registry


class RuleWrapper(Aggregator):
    """A rule around `rule`, which may be a chain. Whatever is not overridden is the inner rule's."""

    rule: Aggregator

    def __post_init__(self) -> None:
        super().__post_init__()
        require_own_call(self.rule, "A rule in a wrapper")
        object.__setattr__(self, "foreign", type(self).foreign | self.rule.foreign)

    @property
    def positional(self) -> bool:
        return self.rule.positional

    @property
    def by_value(self) -> bool:
        return self.rule.by_value

    @property
    def draws(self) -> bool:
        return self.rule.draws

    @property
    def trusts(self) -> tuple[int, ...]:
        return self.rule.trusts

    @property
    def pivots(self) -> bool:
        return self.rule.pivots

    @property
    def by_worker(self) -> bool:
        return self.rule.by_worker

    @property
    def sent_rows(self) -> bool:
        return self.rule.sent_rows

    @property
    def translation_equivariant(self) -> bool:
        return self.rule.translation_equivariant

    @property
    def asks(self) -> Figures | None:
        """As the inner rule, where its answer is left alone."""
        return self.rule.asks if type(self).reduce is RuleWrapper.reduce else None

    @property
    def row(self) -> int | None:
        return self.rule.row

    @property
    def scale_equivariant(self) -> bool:
        return self.rule.scale_equivariant

    @property
    def convex(self) -> bool:
        return self.rule.convex

    @property
    def columnwise(self) -> bool:
        return self.rule.columnwise

    @property
    def ties(self) -> Ties:
        return self.rule.ties

    @property
    def measure(self) -> str:
        return self.rule.measure

    def doubt(self, sizes: tuple[int, ...]) -> str:
        return self.rule.doubt(sizes)

    def tolerance(self, n: int) -> int:
        return self.rule.tolerance(n)

    def check(self, n: int) -> None:
        self.rule.check(n)

    def lowered(self, k: int) -> Self:
        return self._around(self.rule.lowered(k))

    def restricted(self, kept: Tensor) -> Self:
        return self._around(self.rule.restricted(kept))

    def tolerating(self, f: int) -> Self:
        return self._around(self.rule.tolerating(f))

    def splits(self) -> bool:
        return self.rule.splits()

    def at(self, t: int) -> Self:
        return self._around(self.rule.at(t))

    def breakdown(self, n: int) -> int:
        return self.rule.breakdown(n)

    def as_filter(self) -> Filter:
        lifted: Filter = replace(cast(Any, self.rule.as_filter()), rule=self)
        return lifted

    def reduce(self, mixed: Mixed) -> Tensor:
        return self.rule.reduce(mixed)

    def shares(self, found: Array, unit: float, order: Ask | None = None) -> Array:
        return self.rule.shares(found, unit, order)

    def influence(self, mixed: Mixed) -> Tensor:
        return self.rule.influence(mixed)

    def scores(self, mixed: Mixed) -> Tensor | None:
        return self.rule.scores(mixed)

    def _around(self, rule: Aggregator) -> Self:
        return cast(Self, replace(cast(Any, self), rule=rule))


WRAPPERS: Registry[RuleWrapper] = Registry("wrapper", RuleWrapper)
