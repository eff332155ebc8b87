"""Pre-aggregators followed by a rule: `NNM(f=3) >> Bucketing() >> Median(f=3)`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from byzopt import accelerator
from byzopt.aggregators.core.aggregator import Aggregator
from byzopt.aggregators.core.certificate import ChainInput
from byzopt.aggregators.core.filters import Filter
from byzopt.aggregators.core.foreign import require_own_call
from byzopt.aggregators.core.kinds import GeometricRule, RankRule
from byzopt.aggregators.core.mixing import MixingStage
from byzopt.aggregators.core.stage import Stage
from byzopt.aggregators.core.traits import Ties
from byzopt.aggregators.core.weighing import weighted_sum
from byzopt.aggregators.numerics.distances import Array
from byzopt.aggregators.numerics.figures import Ask, figures_of, measures, value_order
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.errors import InvalidInput, require
from byzopt.kernels import Figures
from byzopt.theory.robustness import NOTHING, Coefficients, carried, geometric_median


class Chain(Aggregator):
    """Pre-aggregators, then a rule; built with `>>`. Costs one Gram product and one weighted sum.

    Every stage is checked with the number of rows that reach it. Stages see the rows in an order of their
    values (`ordering`), so that the answer does not depend on the order of workers, whatever ties there are;
    not so where a stage draws lots among places (bucketing) or a rule trusts one. The chain tolerates the
    smallest f among its stages and rule; a mean does not count behind a stage that bounds every row
    (`normalise`, `clipping`, `arc`), which leaves nothing that could carry it off. A κ is claimed only where
    a lemma covers the stages, all set to the same f, and the rule tolerates that f.

    Args:
        stages: Pre-aggregators in order.
        rule: What decides on the rows that come out of them.

    Raises:
        InvalidInput: Stages that do not go together, rows that are too few for one, and a stage that mixes
            rows before a rule that trusts one (`Traits.pivots`).

    Examples:
        >>> import torch
        >>> from byzopt import NNM, Chain, Krum
        >>> rule = NNM(f=1) >> Krum(f=1)
        >>> isinstance(rule, Chain), len(rule.stages)
        (True, 1)
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, -90.0]])
        >>> rule(rows)
        tensor([1.5000, 1.5000])
    """

    def __init__(self, stages: Sequence[MixingStage], rule: Aggregator) -> None:
        self.stages = tuple(stages)
        self.rule = rule
        for stage, kind in (*((stage, MixingStage) for stage in self.stages), (rule, Aggregator)):
            fits, what = isinstance(stage, kind), "pre-aggregators before one rule"
            require(fits, "A chain", f"be made of {what}", stage, "Write NNM(f=1) >> Krum(f=1).")
            require_own_call(stage, "A rule or stage in a chain")
        if self.stages and rule.sent_rows:
            raise InvalidInput(
                f"The rule {rule.last!r} should have the rows that workers sent, unmixed and uncut. "
                f"Found stages before it: {' >> '.join(map(repr, self.stages))}. Remove them."
            )
        mixing = [stage for stage in self.stages if stage.mixes]
        if mixing and rule.trusts and not rule.pivots:
            raise InvalidInput(
                f"The rows {list(rule.trusts)} that {rule.last!r} trusts should have no part in others, nor "
                f"others in them. Found a stage that mixes rows before it: {mixing[0]!r}. Remove it, or take "
                "'clipping', 'arc' or 'random_projection', which keep rows apart."
            )
        self.foreign = frozenset().union(*(part.foreign for part in self.parts))

    @property
    def parts(self) -> tuple[Stage, ...]:
        """All stages and the rule."""
        return (*self.stages, self.rule)

    @cached_property
    def fail_closed(self) -> bool:  # the last stage speaks for the chain
        return self.rule.fail_closed

    @cached_property
    def validates(self) -> bool:
        return all(part.validates for part in self.parts)

    @cached_property
    def direct(self) -> bool:
        return all(part.direct for part in self.parts)

    @cached_property
    def asks(self) -> Figures | None:
        """Rows that stages scale by their lengths are known by the same figures; a mean needs no others."""
        if self.foreign or not all(stage.asks for stage in self.stages):
            return None
        return "squares" if self._averages else None if self.rule.asks == "apart" else self.rule.asks

    @cached_property
    def _multiplies(self) -> bool:
        """Whether stages ask for the rows' lengths, and others after them for products of the same rows."""
        asks = [stage.asks for stage in self.stages if not stage.sketches]
        others = not all(asks) or isinstance(self.rule, GeometricRule)
        return any(asks) and others and len(asks) == len(self.stages)

    @property
    def _averages(self) -> bool:
        """Whether the last rule is a plain mean."""
        return isinstance(self.rule, RankRule) and self.rule.keeps_bounds

    @property
    def row(self) -> int | None:
        return self.rule.row

    def shares(self, found: Array, unit: float, order: Ask | None = None) -> Array:
        """The weights of the rows as they were sent, by their figures."""
        scales, sizes = np.ones_like(found[-1]), np.sqrt(found[-1])
        for stage in self.stages:
            scales = scales * stage.scales(sizes, unit)
            sizes = stage.lengths(sizes, unit)
        if self._averages:
            return cast(Array, scales / len(scales))
        scaled = np.concatenate([found[:-1], sizes[None] * sizes])
        if self.row is not None:
            scaled[0] *= scales * scales[self.row]
        return cast(Array, scales * self.rule.shares(scaled, unit, order))

    @cached_property
    def positional(self) -> bool:
        return any(part.positional for part in self.parts)

    @cached_property
    def by_value(self) -> bool:
        return not self.positional

    @property
    def draws(self) -> bool:
        return any(part.draws for part in self.parts)

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
        return all(part.translation_equivariant for part in self.parts)

    @property
    def scale_equivariant(self) -> bool:
        return all(part.scale_equivariant for part in self.parts)

    @property
    def convex(self) -> bool:
        return all(part.convex for part in self.parts)

    @property
    def columnwise(self) -> bool:
        return self.rule.columnwise

    def doubt(self, sizes: tuple[int, ...]) -> str:
        return self.rule.doubt(sizes)

    @property
    def ties(self) -> Ties:
        """Of rows that stages have made equal none is first, except where places mean something."""
        return self.rule.ties if self.positional or self.rule.ties == "rounding" else "none"

    @property
    def last(self) -> Aggregator:
        return self.rule

    def __repr__(self) -> str:
        return " >> ".join(map(repr, self.parts))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Chain) and (self.stages, self.rule) == (other.stages, other.rule)

    def __hash__(self) -> int:
        return hash((self.stages, self.rule))

    def tolerance(self, n: int) -> int:
        return min(part.tolerance(m) for part, m in self._withstanding(n))

    def check(self, n: int) -> None:
        for stage in self.stages:
            stage.check(n)
            n = stage.out(n)
        self.rule.check(n)

    def lowered(self, k: int) -> Chain:
        return Chain([stage.lowered(k) for stage in self.stages], self.rule.lowered(k))

    def restricted(self, kept: Tensor) -> Chain:
        return Chain([stage.restricted(kept) for stage in self.stages], self.rule.restricted(kept))

    def tolerating(self, f: int) -> Chain:
        return Chain([stage.tolerating(f) for stage in self.stages], self.rule.tolerating(f))

    def breakdown(self, n: int) -> int:
        return min(part.breakdown(m) for part, m in self._withstanding(n))

    def splits(self) -> bool:
        return all(part.splits() for part in self.parts)

    def at(self, t: int) -> Chain:
        return Chain([stage.at(t) for stage in self.stages], self.rule.at(t))

    def as_filter(self) -> Filter:
        lifted: Filter = replace(cast(Any, self.rule.as_filter()), rule=self)
        return lifted

    def reduce(self, mixed: Mixed) -> Tensor:
        if self.asks and measures(mixed):
            return weighted_sum(self.influence(mixed), mixed.rows)
        return self.rule.reduce(self._mix(mixed))

    def influence(self, mixed: Mixed) -> Tensor:
        if self.asks and measures(mixed):
            found = figures_of(mixed, self.asks, self.row)
            return torch.from_numpy(self.shares(found, mixed.unit, lambda: value_order(mixed)))
        return self.rule.influence(self._mix(mixed))

    def _mix(self, mixed: Mixed) -> Mixed:
        """The rows after all stages, kept with `mixed` for the next who asks."""
        if mixed.chained is None or mixed.chained[0] != self.stages:
            last, stages = mixed, self.stages
            if self._multiplies and not accelerator.holds(mixed.rows):
                _ = mixed.geometry.centred  # from which lengths follow too
            if self.by_value and stages and stages[0].sketches and accelerator.holds(mixed.rows):
                # The order's keys are fetched with the sketch's products, and no others are taken for it.
                last, stages = stages[0].apply(mixed), stages[1:]
            last = last.sorted() if self.by_value else last
            for stage in stages:
                last = stage.apply(last)
            if last is mixed:  # no stage has moved them
                return mixed
            mixed.chained = self.stages, last
        return mixed.chained[1]

    def proved(self, n: int, f: int) -> Coefficients:
        m, most = self.reaching(n, f)
        if not f <= most <= self.rule.tolerance(m):
            return NOTHING
        return self.composed(self.rule.coefficients(m, most), n, f)

    def answered(self, mixed: Mixed, f: int, source: ChainInput) -> Coefficients:
        last, (_, most) = self._mix(mixed), self.reaching(mixed.m, f)
        if not f <= most <= self.rule.tolerance(last.m):
            return NOTHING
        mixing = None if last.mixing is None else last.mixing.numpy()
        here = ChainInput(mixed.geometry, mixing, f, lambda found: self.composed(found, mixed.m, f))
        return self.rule.answered(last, most, here)

    def certifiable(self, n: int, f: int) -> bool:
        m, most = self.reaching(n, f)
        if not (f <= most and 2 * most < m and self.rule.certifiable(m, most)):
            return False
        return self.composed(geometric_median(m, most), n, f).squared is not None

    def reaching(self, n: int, f: int) -> tuple[int, int]:
        """Lemmas take one f for all of a chain: the largest that a stage is set to."""
        sizes = self._sizes(n)
        return sizes[-1], max(stage.tolerance(m) for stage, m in zip(self.stages, sizes, strict=False))

    def composed(self, known: Coefficients, n: int, f: int) -> Coefficients:
        _, most = self.reaching(n, f)
        for stage, m in reversed(list(zip(self.stages, self._sizes(n), strict=False))):
            known = stage.compose(known, m, most)
        return NOTHING if f < most and self.trusts else carried(known, n, most, f)

    def _withstanding(self, n: int) -> list[tuple[Stage, int]]:
        """What has to withstand faulty rows, and how many rows reach it: not a mean of rows that a stage has
        bounded."""
        parts = list(zip(self.parts, self._sizes(n), strict=True))
        bounded = self.rule.keeps_bounds and any(stage.bounds for stage in self.stages)
        return parts[:-1] if bounded else parts

    def _sizes(self, n: int) -> list[int]:
        """Rows that reach each stage, and last the rule."""
        sizes = [n]
        for stage in self.stages:
            sizes.append(stage.out(sizes[-1]))
        return sizes
