"""Pre-aggregators in a row, and with a rule behind them: `NNM(f=3) >> Bucketing() >> Median(f=3)`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast, overload

from torch import Tensor

from byzopt.aggregators.base import Aggregator, PreAggregator
from byzopt.aggregators.filters import Filter
from byzopt.aggregators.mixed import Mixed


class PreChain:
    """Pre-aggregators in order, waiting for a rule: `NNM(f=3) >> Bucketing()`."""

    def __init__(self, stages: Sequence[PreAggregator]) -> None:
        self.stages = tuple(stages)

    def __repr__(self) -> str:
        return " >> ".join(map(repr, self.stages))

    @overload
    def __rshift__(self, after: PreAggregator) -> PreChain: ...
    @overload
    def __rshift__(self, after: Aggregator) -> Chain: ...
    def __rshift__(self, after: PreAggregator | Aggregator) -> PreChain | Chain:
        if isinstance(after, PreAggregator):
            return PreChain((*self.stages, after))
        if isinstance(after, Chain):
            return Chain((*self.stages, *after.stages), after.rule)
        return Chain(self.stages, after) if isinstance(after, Aggregator) else NotImplemented


class Chain(Aggregator):
    """Pre-aggregators, then a rule; built with `>>`. Costs one Gram product and one weighted sum.

    Every stage is checked with the number of rows that reach it. The chain tolerates the smallest f among
    its stages, and a κ is claimed only where a lemma covers the stage and all stages were given the same f.
    """

    def __init__(self, stages: Sequence[PreAggregator], rule: Aggregator) -> None:
        self.stages = tuple(stages)
        self.rule = rule
        self.fail_closed = rule.fail_closed  # type: ignore[misc]  # the last stage speaks for the chain
        self.notices = all(stage.notices for stage in (*stages, rule))  # type: ignore[misc]

    @property
    def last(self) -> Aggregator:
        return self.rule

    def __repr__(self) -> str:
        return " >> ".join(map(repr, (*self.stages, self.rule)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Chain) and (self.stages, self.rule) == (other.stages, other.rule)

    def __hash__(self) -> int:
        return hash((self.stages, self.rule))

    def tolerance(self, n: int) -> int:
        stages = (*self.stages, self.rule)
        return min(stage.tolerance(m) for stage, m in zip(stages, self._sizes(n), strict=True))

    def check(self, n: int) -> None:
        for stage, m in zip((*self.stages, self.rule), self._sizes(n), strict=True):
            stage.check(m)

    def lowered(self, k: int) -> Chain:
        return Chain([stage.lowered(k) for stage in self.stages], self.rule.lowered(k))

    def among(self, kept: Tensor) -> Chain:
        return Chain([stage.among(kept) for stage in self.stages], self.rule.among(kept))

    def tolerating(self, f: int) -> Chain:
        return Chain([stage.tolerating(f) for stage in self.stages], self.rule.tolerating(f))

    def breakdown(self, n: int) -> int:
        stages = (*self.stages, self.rule)
        return min(stage.breakdown(m) for stage, m in zip(stages, self._sizes(n), strict=True))

    def splits(self) -> bool:
        return all(stage.splits() for stage in (*self.stages, self.rule))

    def at(self, t: int) -> Chain:
        return Chain([stage.at(t) for stage in self.stages], self.rule.at(t))

    def as_filter(self) -> Filter:
        lifted: Filter = replace(cast(Any, self.rule.as_filter()), rule=self)
        return lifted

    def reduce(self, mixed: Mixed) -> Tensor:
        return self.rule.reduce(self._mix(mixed))

    def influence(self, mixed: Mixed) -> Tensor:
        return self.rule.influence(self._mix(mixed))

    def _mix(self, mixed: Mixed) -> Mixed:
        for stage in self.stages:
            mixed = stage.apply(mixed)
        return mixed

    def kappa_linear(self, n: int) -> float | None:
        return self._composed(n, "linear")

    def kappa_squared(self, n: int) -> float | None:
        return self._composed(n, "squared")

    def _composed(self, n: int, form: str) -> float | None:
        sizes, f = self._sizes(n), self.tolerance(n)
        if any(stage.tolerance(m) != f for stage, m in zip(self.stages, sizes, strict=False)):
            return None
        rule = self.rule
        if getattr(rule, "f", f) is None:
            rule = replace(cast(Any, rule), f=f)
        kappa: float | None = getattr(rule, f"kappa_{form}")(sizes[-1])
        kappa = kappa if rule.tolerance(sizes[-1]) == f else None
        for stage, m in reversed(list(zip(self.stages, sizes, strict=False))):
            kappa = None if kappa is None else getattr(stage, f"compose_{form}")(kappa, m)
        return kappa

    def _sizes(self, n: int) -> list[int]:
        """Rows that reach each stage, and last the rule."""
        sizes = [n]
        for stage in self.stages:
            sizes.append(stage.out(sizes[-1]))
        return sizes
