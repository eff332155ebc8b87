"""Sums of guards on many coordinates, in memory that is used again."""

from __future__ import annotations

import pytest
import torch

from byzopt.aggregators import Median
from byzopt.aggregators.core.filters import RoundContext
from byzopt.aggregators.guards import majority
from byzopt.aggregators.guards.guard import HistoryGuard
from byzopt.aggregators.guards.guarded_mean import guarded_mean
from byzopt.aggregators.guards.safeguard import Safeguard
from byzopt.aggregators.guards.spare import room_after
from byzopt.errors import TooManyFaults
from byzopt.theory.byzantine_epochs import Epoch

GUARDS = [HistoryGuard((Epoch(100, 10.0, 0.1),), 1.0, finder="medoid"), Safeguard((3, 7), 100, noise=1.0)]


def drawn(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_sums_in_used_memory_are_those_in_new_memory(monkeypatch):
    sums, rows, centre = drawn(7, 1001, 0), drawn(7, 1001, 1), drawn(1, 1001, 2)[0]
    vec = drawn(1, 1001, 3)[0].double()
    b, along = majority.moved(sums, rows, centre, vec)
    monkeypatch.setattr(majority, "MANY", 1)
    found, found_along = majority.moved(sums, rows, centre, vec)
    assert torch.equal(found, b)
    assert torch.equal(found_along, along)
    assert torch.equal(majority.added(sums, rows), sums + rows)


@pytest.mark.parametrize("value", [1.0, 1e30, float("inf")])
def test_distances_by_columns_are_those_at_once(value, monkeypatch):
    rows = drawn(5, 300, 0)
    rows[3, 7] = value
    apart = majority._lengths_from(rows, 1)
    monkeypatch.setattr(majority, "MANY", 1)
    monkeypatch.setattr(majority, "CHUNK", 64)
    # Squares of 300 numbers are summed in float32, in another order: to some units of its last place.
    assert torch.allclose(majority._lengths_from(rows, 1), apart, rtol=300 * 6e-8, atol=0, equal_nan=True)


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: type(guard).__name__)
def test_states_that_are_held_are_never_written_to(guard, monkeypatch):
    monkeypatch.setattr(majority, "MANY", 1)
    state, held = guard.init(torch.zeros(50), 6), []
    for t in range(1, 9):
        rows, at = 0.1 * drawn(6, 50, t) + 1, RoundContext(t, torch.zeros(50))
        seen = guard.preview(state, rows, at)
        out, state = guard.step(state, rows, at)
        assert torch.equal(seen, out)
        big = state.sums.b if isinstance(guard, HistoryGuard) else state.windows[0].sums
        held.append((big, big.clone()))
    assert all(torch.equal(sums, copy) for sums, copy in held)
    assert len({sums.data_ptr() for sums, _ in held}) == len(held)


def test_memory_is_used_again_once_nobody_holds_it_nor_a_view_of_it():
    first = room_after(torch.zeros(4, 5))
    second = room_after(first)
    place = first.data_ptr()
    view = first[1:]
    del first
    third = room_after(second)
    assert third.data_ptr() != place
    del view
    assert room_after(third).data_ptr() == place


def test_a_rule_that_is_left_too_few_says_that_the_guard_expelled_them():
    rows = drawn(9, 4, 0)
    kept, fit = torch.arange(9) >= 3, torch.ones(9, dtype=torch.bool)
    told = r"that the guard expelled.*f = 2 of 9.*Found 3: workers \[0, 1, 2\]"
    with pytest.raises(TooManyFaults, match=told):
        guarded_mean(Median(f=2), rows, kept, fit, True, 1)
    assert torch.equal(guarded_mean(Median(f=3), rows, kept, fit, True, 1), Median(f=0)(rows[3:]))
