"""How rules are called: by whom, with what, in which surroundings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

import byzopt
from byzopt.aggregators import (
    NNM,
    RFA,
    CenteredClipping,
    DnC,
    GeometricRule,
    Krum,
    Median,
    Medoid,
    MultiKrum,
    PreAggregator,
    rule_from,
)
from byzopt.errors import InvalidInput, TooManyFaults


@dataclass(frozen=True)
class Own(GeometricRule):
    f: int = 2

    def weights(self, geometry):
        return torch.full((geometry.m,), 1 / geometry.m, dtype=torch.float64)


@dataclass(frozen=True)
class Looks(Own):
    def reduce(self, mixed):
        return mixed.rows.mean(dim=0)


@dataclass(frozen=True)
class Moves(PreAggregator):
    f: int = 2

    def mixing(self, geometry):
        raise NotImplementedError

    def apply(self, mixed):
        return mixed.again(mixed.rows[:3])


@pytest.mark.parametrize("rule", [Own(), Looks(), Moves() >> Looks(), NNM(f=2) >> Looks()], ids=repr)
def test_a_rule_of_a_plugin_that_looks_at_rows_itself_is_given_finite_ones(rule):
    """That a base class notices NaN by the way in which it looks holds for that way alone."""
    rows = torch.ones(6, 3)
    rows[4, 1] = torch.nan
    assert torch.equal(rule(rows), torch.ones(3))
    rows[0, 0], rows[1, 2] = torch.inf, -torch.inf
    with pytest.raises(TooManyFaults):
        rule(rows)


def test_dnc_with_drawn_coordinates_drops_a_row_that_is_not_finite_elsewhere():
    rows = torch.randn(9, 50, generator=torch.Generator().manual_seed(0))
    rows[3] = rows[4]
    rows[3, 7] = torch.inf
    assert torch.isfinite(DnC(f=2, coordinates=2)(rows)).all()


def test_krum_with_one_more_neighbour_takes_as_few_rows_as_its_score_does():
    rows = torch.cat(
        [torch.randn(10, 4, generator=torch.Generator().manual_seed(1)), torch.full((9, 4), 50.0)]
    )
    assert Krum(f=9, extra=1)(rows).norm() < 10
    assert MultiKrum(f=9, extra=1)(rows).norm() < 10
    for rule in (Krum(f=9), MultiKrum(f=9), Krum(f=10, extra=1)):
        with pytest.raises(InvalidInput):
            rule(rows)


def test_the_bulk_of_four_rows_on_a_line_knows_no_order():
    """The third distance from 1 to 5 is that from 5 to 1: two majorities are equally tight."""
    rows = torch.tensor([[0.0], [1.0], [5.0], [5.5]])
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2], [2, 3, 0, 1]):
        assert torch.allclose(RFA(f=1)(rows[order]), RFA(f=1)(rows))
        assert torch.allclose(RFA(f=1)(-rows[order]), -RFA(f=1)(rows))
        assert torch.allclose(CenteredClipping(f=1)(-rows[order]), -CenteredClipping(f=1)(rows))


def test_the_medoid_of_tied_rows_is_the_first_of_them():
    for seed in range(20):
        rows = torch.randn(6, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) / 3
        ranks = rows.flatten().argsort()
        assert torch.equal(Medoid()(rows), rows[int(min(ranks[2], ranks[3]))])


@pytest.mark.parametrize("kind", [np.array, torch.tensor, list])
def test_a_sequence_of_rows_is_answered_in_kind(kind):
    sequence = [kind([1.0, 2.0]), kind([3.0, 2.0]), kind([3.0, 5.0])]
    wanted = np.ndarray if kind is np.array else torch.Tensor
    for rows in (sequence, tuple(sequence), iter(sequence)):
        assert isinstance(Median()(rows), wanted)
    assert isinstance(NNM(f=1)(sequence), wanted)
    assert Median()(sequence).tolist() == [3.0, 2.0]


@pytest.mark.parametrize(
    "spelling", ["nnm >> rfa", "krum", "fail_closed(rule='nnm >> krum')", [{"name": "nnm"}, {"name": "rfa"}]]
)
def test_a_rule_by_name_without_f_says_where_f_goes(spelling):
    with pytest.raises(InvalidInput, match=r"Give f= beside the rule, or write \w+\(f=\.\.\.\)\."):
        rule_from(spelling)


def test_all_public_names_and_no_others_come_with_a_star():
    names: dict[str, object] = {}
    exec("from byzopt import *", names)
    assert {"Krum", "simulate", "ModuleTask", "InvalidInput"} <= names.keys()
    assert not {"TYPE_CHECKING", "Any", "import_module", "annotations"} & names.keys()
    assert set(byzopt.__all__) <= set(dir(byzopt))
    assert "TYPE_CHECKING" not in dir(byzopt)
