"""What a rule needs of whole rows: for most a few numbers, and then any columns can be answered alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from byzopt import linalg
from byzopt.aggregators.core.base import BaseAggregator
from byzopt.aggregators.core.foreign import reduced
from byzopt.aggregators.core.kinds import CoordinateRule, GeometricRule, RankRule
from byzopt.aggregators.core.mixing import MixingStage
from byzopt.aggregators.core.wrapper import RuleWrapper
from byzopt.aggregators.mean import Mean
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.aggregators.sign_majority import SignMajority

Answer = Callable[[Tensor, Tensor | None], Tensor]
_BY_COLUMN: tuple[Any, ...] = (CoordinateRule.reduce, RankRule.reduce, SignMajority.reduce, Mean.reduce)


def unwrapped(rule: BaseAggregator) -> BaseAggregator:
    """The rule inside wrappers that leave its answer alone."""
    while isinstance(rule, RuleWrapper) and type(rule).reduce is RuleWrapper.reduce:
        rule = rule.rule
    return rule


def parts(rule: BaseAggregator) -> tuple[Sequence[MixingStage], BaseAggregator]:
    """The stages of a rule, and the rule behind them."""
    inner = unwrapped(rule)
    return inner.stages, unwrapped(inner.last)


def by_columns(rule: BaseAggregator) -> bool:
    """Whether the rule needs no whole rows at all."""
    stages, last = parts(rule)
    return not stages and type(last).reduce in _BY_COLUMN and not rule.fail_closed


def by_geometry(rule: BaseAggregator) -> bool:
    """Whether the rule needs nothing of whole rows but their geometry."""
    stages, last = parts(rule)
    plain = all(type(stage).apply is MixingStage.apply for stage in stages)
    return plain and (type(last).reduce is GeometricRule.reduce or type(last).reduce in _BY_COLUMN)


def answer_of(rule: BaseAggregator, seen: Mixed) -> Answer:
    """What gives the rule's answer to any columns `[n, b] -> [b]`, from the geometry of the whole rows: in
    the place `[b]` given beside them, or elsewhere.

    `seen` holds that geometry, and some columns, which are not looked at. The rule is one `by_geometry`.
    """
    inner, (stages, last) = unwrapped(rule), parts(rule)
    mixed = seen.sorted() if stages and inner.by_value else seen
    for stage in stages:
        mixed = stage.apply(mixed)
    if isinstance(last, GeometricRule):
        _ = mixed.geometry.centred  # some weights need no look at the rows; the policy does
        mixed = mixed.sorted() if last.by_value else mixed
        weights, order = mixed.through(last.decided(mixed.geometry)), mixed.order
        return lambda rows, place: linalg.blend(weights, rows, order, place)

    def answer(rows: Tensor, place: Tensor | None) -> Tensor:
        here = mixed.again(rows, mixed.mixing, mixed.geometry)
        here.among, here.unmixed, here.place = mixed.among, mixed.unmixed, place
        return reduced(last, here)

    return answer
