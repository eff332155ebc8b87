"""When checkpoints are kept, on a clock of the test's own."""

from __future__ import annotations

import pytest

from byzopt.experiments.store.checkpoint_timer import LONGEST, SHARE, SOON, CheckpointTimer


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def keep(pace: CheckpointTimer, clock: Clock, cost: float) -> None:
    with pace.keeping():
        clock.now += cost


def test_the_first_is_soon_and_the_rest_take_a_small_share_of_the_time():
    clock = Clock()
    pace = CheckpointTimer(None, clock)
    assert not pace.due
    clock.now += SOON
    assert pace.due
    for cost, interval in ((0.001, SOON), (0.2, SHARE * 0.2), (8.0, LONGEST), (0.0, SOON)):
        keep(pace, clock, cost)
        assert pace.interval == pytest.approx(interval)
        clock.now += 0.99 * pace.interval
        assert not pace.due
        clock.now += 0.02 * pace.interval
        assert pace.due


def test_what_is_asked_for_is_kept_to():
    clock = Clock()
    pace = CheckpointTimer(3.0, clock)
    for cost in (0.0, 5.0):
        keep(pace, clock, cost)
        assert pace.interval == 3.0
        assert not pace.due
