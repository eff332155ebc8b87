"""Rules of other packages: what goes wrong in their code is said, and reaches nobody's rows."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from byzopt.aggregators import (
    NNM,
    Aggregator,
    CoordinateRule,
    FailClosed,
    GeometricRule,
    Median,
    PreAggregator,
    TrimmedMean,
)
from byzopt.aggregators.core.filters import RoundContext
from byzopt.aggregators.core.weighing import WeighingRule
from byzopt.errors import InvalidInput

NAN = float("nan")


def some_rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Weighing(GeometricRule):
    """A geometric rule with the weights it is told."""

    batched = True

    def __init__(self, *bad):
        self.bad = bad

    def weights(self, geometry):
        lead = geometry.centred.shape[:-2]
        weights = torch.full((*lead, geometry.m), 1 / geometry.m, dtype=torch.float64)
        for i, value in enumerate(self.bad):
            weights[..., i] = value
        return weights


class Columns(CoordinateRule):
    """A rule by columns that answers `value` in the first of them."""

    def __init__(self, value):
        self.value = value

    def columns(self, block):
        out = block.mean(dim=0)
        out[0] = self.value
        return out


@pytest.mark.parametrize(
    "rule",
    [Weighing(NAN), Weighing(float("inf")), Weighing(NAN, NAN), Columns(NAN), Columns(-float("inf"))],
    ids=["nan weight", "inf weight", "nan weights", "nan column", "inf column"],
)
def test_an_answer_that_is_not_finite_is_said(rule):
    rows = some_rows(7, 5)
    sets = some_rows(3, 7, 5)
    doors = (
        rule,
        FailClosed(rule),
        NNM(f=1) >> rule,
        lambda rows: rule.explain(rows),
        lambda rows: rule.batch(sets),
        lambda rows: (NNM(f=1) >> rule).batch(sets),
        lambda rows: rule.certified(rows, 1),
        lambda rows: rule.certified(sets, 1),
        lambda rows: rule.as_filter().step((), rows, RoundContext(1, rows[0])),
    )
    for door in doors:
        with pytest.raises(InvalidInput, match=r"should (be|return) finite.* Found NaN or Inf in \d+ of"):
            door(rows)


class Mixes(PreAggregator):
    """A stage with the matrix it is told."""

    def __init__(self, matrix):
        self.matrix = matrix

    def mixing(self, geometry):
        return self.matrix


@pytest.mark.parametrize(
    "matrix, words",
    [
        (torch.eye(5, dtype=torch.float64), "return a float64 tensor"),
        (torch.eye(7).numpy(), "return a float64 tensor"),
        (torch.full((7, 7), NAN, dtype=torch.float64), "return finite numbers"),
        (torch.eye(7, dtype=torch.float64).fill_diagonal_(float("inf")), "return finite numbers"),
    ],
    ids=["rows that are not there", "an array", "nan", "inf"],
)
def test_a_matrix_that_cannot_mix_is_said(matrix, words):
    stage, rows = Mixes(matrix), some_rows(7, 4)
    for door in (stage, stage >> Median(), NNM(f=1) >> stage >> Median()):
        with pytest.raises(InvalidInput, match=f"`mixing` of Mixes should {words}"):
            door(rows)


class Returns(GeometricRule):
    """A rule whose weights are what it is told."""

    batched = True

    def __init__(self, value):
        self.value = value

    def weights(self, geometry):
        return self.value


class Narrow(CoordinateRule):
    def columns(self, block):
        return block.mean(dim=0)[:1]  # which would be spread over all columns


class Whole(CoordinateRule):
    def columns(self, block):
        return block.mean(dim=0).int()


class Rounded(Aggregator):
    """A rule that answers whole numbers of the rows' length."""

    def reduce(self, mixed):
        return mixed.rows.mean(dim=0).int()

    def influence(self, mixed):
        raise AssertionError("nothing is told of an answer that is refused")


def test_whole_numbers_are_no_answer():
    for door in (Rounded(), NNM(f=1) >> Rounded()):
        with pytest.raises(InvalidInput, match=r"should be of floating numbers\. Found torch\.int32"):
            door(some_rows(7, 5))


@pytest.mark.parametrize(
    "rule",
    [Returns(None), Returns([1.0] * 7), Returns(torch.ones(6)), Returns(torch.ones(7, 1)), Narrow(), Whole()],
    ids=["nothing", "a list", "too few", "a column", "one number for all columns", "whole numbers"],
)
def test_what_is_no_answer_is_said_by_every_door(rule):
    rows, sets = some_rows(7, 5), some_rows(3, 7, 5)
    for door in (rule, NNM(f=1) >> rule, rule.explain, FailClosed(rule), lambda rows: rule.batch(sets)):
        with pytest.raises(InvalidInput, match="should return a"):
            door(rows)


def test_weights_in_float32_count_as_they_are():
    weights = torch.full((7,), 1 / 7)
    rows = some_rows(7, 5)
    assert torch.equal(Returns(weights)(rows), Returns(weights.double())(rows))


class Spoils(Aggregator):
    def reduce(self, mixed):
        mixed.rows.zero_()
        return mixed.rows.sum(dim=0)

    def influence(self, mixed):
        return torch.zeros(mixed.m, dtype=torch.float64)


class SpoilsArrays(Spoils):
    def reduce(self, mixed):
        mixed.rows.numpy()[:] = 0
        return mixed.rows[0].clone()


class SpoilsBlocks(CoordinateRule):
    def columns(self, block):
        return block.mul_(2).mean(dim=0)


class SpoilsBlocksWhole(Spoils):
    def reduce(self, mixed):
        for _, block in mixed.blocks():
            block.zero_()
        return torch.zeros(mixed.d, dtype=mixed.rows.dtype)


class SpoilsWeighing(WeighingRule):
    def weigh(self, mixed):
        mixed.rows.fill_(1)
        return torch.full((mixed.m,), 1 / mixed.m, dtype=torch.float64)


class SpoilsMixing(PreAggregator):
    def mixing(self, geometry):
        return torch.eye(geometry.m, dtype=torch.float64)

    def apply(self, mixed):
        mixed.rows.fill_(1)
        return super().apply(mixed)


@pytest.mark.parametrize("cls", [Spoils, SpoilsArrays, SpoilsBlocks, SpoilsBlocksWhole, SpoilsWeighing])
def test_what_a_rule_writes_to_is_not_the_callers(cls):
    for shape in ((7, 5), (9, 3000)):
        rows = some_rows(*shape)
        before, sets = rows.clone(), some_rows(2, *shape)
        kept = sets.clone()
        for rule in (cls(), FailClosed(cls()), NNM(f=2) >> cls()):
            rule(rows)
            rule(rows.numpy())
            rule.explain(rows)
            rule.batch(sets)
            rule.certify(rows)
            assert torch.equal(rows, before)
            assert torch.equal(sets, kept)


def test_what_a_stage_writes_to_is_not_the_callers():
    rows = some_rows(7, 5)
    before = rows.clone()
    SpoilsMixing()(rows)
    (SpoilsMixing() >> Median())(rows)
    (SpoilsMixing() >> Median()).explain(rows)
    assert torch.equal(rows, before)


@dataclass(frozen=True)
class Doubled(Median):
    """A rule with a call of its own."""

    def __call__(self, rows, **options):
        return 2 * super().__call__(rows, **options)


@dataclass(frozen=True)
class DoubledMean(TrimmedMean):
    def __call__(self, rows, **options):
        return 2 * super().__call__(rows, **options)


@pytest.mark.parametrize("rule", [Doubled(f=1), DoubledMean(f=1)], ids=["median", "trimmed mean"])
def test_a_call_of_its_own_is_asked_by_every_door_or_refused(rule):
    sets = some_rows(3, 7, 5)
    rows, answers = sets[0], torch.stack([rule(each) for each in sets])
    assert torch.equal(rule.batch(sets), answers)
    assert torch.equal(rule.certified(rows, 1)[0], answers[0])
    assert torch.equal(rule.certified(sets, 1)[0], answers)
    filtered = rule.as_filter()
    assert torch.equal(filtered.step((), rows, RoundContext(1, rows[0]))[0], answers[0])
    assert torch.equal(filtered.step((), sets, RoundContext(1, rows[0]))[0], answers)
    assert rule.coefficients(7, 1).squared is None
    assert not rule.certifiable(7, 1)
    assert not rule.splits()
    for refused in (lambda: NNM(f=1) >> rule, lambda: FailClosed(rule), lambda: rule.explain(rows)):
        with pytest.raises(InvalidInput, match=r"__call__. Decide in `reduce`"):
            refused()


def test_a_stage_with_a_call_of_its_own_is_refused_in_a_chain():
    class Own(Mixes):
        def __call__(self, rows):
            return 2 * super().__call__(rows)

    with pytest.raises(InvalidInput, match="in a chain should answer by what it decides"):
        Own(torch.eye(7, dtype=torch.float64)) >> Median()


def test_rules_of_this_library_are_not_looked_after():
    assert not Median().foreign
    assert not (NNM(f=1) >> FailClosed(Median())).foreign
    assert Weighing().foreign == {"weights"}
    assert (NNM(f=1) >> FailClosed(Weighing())).foreign == {"weights"}
