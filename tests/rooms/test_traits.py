"""Traits of rules: read on an instance, composed by chains and wrappers, not passed on to other code."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from byzopt.aggregators import (
    CGE,
    NNM,
    PRE_AGGREGATORS,
    RFA,
    RULES,
    Aggregator,
    Bucketing,
    CenteredClipping,
    Clipping,
    DnC,
    FailClosed,
    FLTrust,
    GeometricRule,
    Krum,
    Median,
    NormClipping,
    Weighted,
    rule_from,
)
from byzopt.aggregators.core.traits import Traits
from byzopt.aggregators.core.trusting import TrustingRule
from byzopt.errors import InvalidInput

TRAITS = [name for name, value in vars(Traits).items() if isinstance(value, property)]


def traits(rule: Aggregator) -> dict[str, object]:
    return {name: getattr(rule, name) for name in TRAITS if name not in ("batched", "direct", "validates")}


@pytest.mark.parametrize("name", RULES)
def test_a_wrapper_has_the_traits_of_its_rule(name):
    rule = rule_from(name, f=2)
    assert traits(FailClosed(rule)) == traits(rule)
    if rule.sent_rows:  # no stage may stand before it, nor before what is around it
        with pytest.raises(InvalidInput, match="stages before it"):
            NNM(f=2) >> FailClosed(rule)
        return
    before = Clipping() if rule.trusts and not rule.pivots else NNM(f=2)
    assert traits(before >> FailClosed(rule)) == traits(before >> rule)


@pytest.mark.parametrize("before", PRE_AGGREGATORS)
def test_a_chain_promises_what_all_its_parts_do(before):
    stage = PRE_AGGREGATORS.build(before, f=2)
    for name in (each for each in RULES if RULES[each].sent_rows is not True):
        rule = rule_from(name, f=2)
        if stage.mixes and rule.trusts and not rule.pivots:
            continue
        chain = stage >> rule
        for trait in ("translation_equivariant", "scale_equivariant", "convex"):
            assert getattr(chain, trait) == (getattr(stage, trait) and getattr(rule, trait))
        for trait in ("positional", "draws"):
            assert getattr(chain, trait) == (getattr(stage, trait) or getattr(rule, trait))
        assert chain.by_value != chain.positional


def test_traits_follow_parameters():
    assert RFA().scale_equivariant
    assert not RFA(nu_absolute=0.1).scale_equivariant
    assert not RFA(start="zero").translation_equivariant
    assert not CenteredClipping(start="zero").convex
    assert not NormClipping(bound=1.0).scale_equivariant
    assert DnC(f=1, coordinates=2).draws
    assert not DnC(f=1).draws
    assert FLTrust(trusted=3).trusts == (3,)
    assert CenteredClipping().remembers
    assert not CenteredClipping(stateful=False).remembers
    assert (NNM(f=1) >> CenteredClipping()).remembers
    assert not Median().remembers


def test_what_draws_lots_differs_between_rounds_and_nothing_else_does():
    for room in (RULES, PRE_AGGREGATORS):
        for name in room:
            part = room.build(name, f=2)
            if not part.draws:
                rows = torch.randn(11, 3, generator=torch.Generator().manual_seed(0))
                assert torch.equal(part.at(1)(rows), part.at(2)(rows)), name
    assert Bucketing().draws
    assert (Bucketing() >> Median()).draws


def test_needs_f_is_read_off_the_recipe():
    assert Krum.needs_f()
    assert not Median.needs_f()
    assert {name for name in RULES if RULES[name].needs_f()} >= {"krum", "trimmed_mean", "mda"}


@dataclass(frozen=True)
class Shortest(CGE):
    """A stranger's rule that decides in another way than the class it extends."""

    def weights(self, geometry):
        return torch.full((geometry.m,), 1 / geometry.m, dtype=torch.float64)


@dataclass(frozen=True)
class Renamed(CGE):
    """A stranger's rule that decides as the class it extends."""


@dataclass(frozen=True)
class Mean0(TrustingRule):
    """A stranger's rule of a kind that trusts a row."""

    f: int | None = None
    trusted: int = 1

    def weigh(self, mixed):
        return torch.full((mixed.m,), 1 / mixed.m, dtype=torch.float64)


def test_what_a_class_says_of_its_code_is_not_said_of_other_code():
    assert Shortest(f=1).translation_equivariant
    assert Shortest(f=1).ties == "none"
    assert not Renamed(f=1).translation_equivariant
    assert Renamed(f=1).ties == "rounding"


def test_what_a_kind_says_holds_for_every_rule_of_it():
    assert Mean0().trusts == (1,)
    assert Mean0().positional


def test_strangers_may_read_places_until_they_say_otherwise():
    class Said(GeometricRule):
        positional = False

        def weights(self, geometry):
            return torch.full((geometry.m,), 1 / geometry.m, dtype=torch.float64)

    assert Shortest(f=1).positional
    assert not Said().positional
    assert (NNM(f=1) >> Said()).by_value


def test_weights_have_places_whatever_the_rule_says():
    rule = Weighted(Median(f=1), (1.0, 2.0, 1.0))
    assert rule.positional
    assert rule.columnwise
