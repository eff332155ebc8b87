"""Rules made from another rule: what they share, and the registry that lets a spec spell them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self, cast

from torch import Tensor

from byzopt.aggregators.core.aggregator import Aggregator
from byzopt.aggregators.core.filters import Filter
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.registry import Registry


class Wrapper(Aggregator):
    """A rule around `rule`, which may be a chain. Whatever is not overridden is the inner rule's."""

    rule: Aggregator

    def tolerance(self, n: int) -> int:
        return self.rule.tolerance(n)

    def check(self, n: int) -> None:
        self.rule.check(n)

    def lowered(self, k: int) -> Self:
        return self._around(self.rule.lowered(k))

    def among(self, kept: Tensor) -> Self:
        return self._around(self.rule.among(kept))

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

    def influence(self, mixed: Mixed) -> Tensor:
        return self.rule.influence(mixed)

    def scores(self, mixed: Mixed) -> Tensor | None:
        return self.rule.scores(mixed)

    def _around(self, rule: Aggregator) -> Self:
        return cast(Self, replace(cast(Any, self), rule=rule))


WRAPPERS: Registry[Wrapper] = Registry("wrapper", Wrapper)
