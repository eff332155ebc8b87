"""How gaps of ByzantineSGD fall with T, δ, n and d (arXiv:1803.08917, Table 1), on lines and on bowls."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from byzopt.theory.byzantine_epochs import Epoch
from byzopt.theory.byzantine_limits import hug_rounds
from byzopt.theory.byzantine_sgd import GuardSetting, smooth_step
from tests.arena import bowl, contest, decided, line, rescaled, steepness

pytestmark = pytest.mark.slow
WITHIN = 0.25


@pytest.mark.parametrize("f", [0, 8])
def test_gap_against_rounds_is_one_half(f):
    sizes = [100, 200, 400, 800]
    found = steepness(sizes, [line(20, f, rounds) for rounds in sizes])
    assert found == pytest.approx(-1 / 2, abs=WITHIN)


def test_gap_against_workers_without_liars_is_one_half():
    sizes = [10, 20, 40, 80]
    assert steepness(sizes, [line(n, 0, 300) for n in sizes]) == pytest.approx(-1 / 2, abs=WITHIN)


def test_gap_against_workers_under_hug_is_flat():
    sizes = [10, 20, 40, 80]
    assert steepness(sizes, [line(n, 2 * n // 5, 300) for n in sizes]) == pytest.approx(0, abs=WITHIN)


def test_gap_against_the_fraction_under_hug_is_one():
    liars = [2, 4, 8, 16]
    assert steepness(liars, [line(40, f, 400) for f in liars]) == pytest.approx(1, abs=WITHIN)


@pytest.mark.parametrize("f", [0, 8])
def test_gap_does_not_depend_on_the_dimension(f):
    sizes = [2, 8, 32, 128]
    # One θ for all: with noise of length V a coordinate's share falls, not the bound.
    theta = rescaled(20, 8, 300, 1.0, GuardSetting(20, 8, 300, 1.0, 1.0).log)
    assert steepness(sizes, [line(20, f, 300, d, theta) for d in sizes]) == pytest.approx(0, abs=WITHIN)


@cache
def bare(f: int, theta: float) -> float:
    """Rounds to decide with n = 20 over the logarithm in all thresholds."""
    found = decided(20, f, theta, hug_rounds(f / 20, 1.0, theta, 13.0) / 2.5, runs=4)
    return found / GuardSetting(20, f, round(found), 1.0, 1.0).log


def test_rounds_to_decide_against_theta_is_minus_two_up_to_the_logarithm():
    """One octave; three in benchmarks/byzantine_slopes.py. Below 16Λ rounds hug cannot use τ up."""
    assert steepness([0.15, 0.3], [bare(8, 0.15), bare(8, 0.3)]) == pytest.approx(-2, abs=WITHIN)


def test_rounds_to_decide_against_the_fraction_is_two_up_to_the_logarithm():
    assert steepness([4, 8], [bare(4, 0.15), bare(8, 0.15)]) == pytest.approx(2, abs=WITHIN)


def test_what_is_left_of_the_start_falls_faster_than_what_noise_leaves():
    """Without liars: an epoch keeps a sixteenth of the start's gap, and has four times as many rounds."""
    first, second, third = bowl(20, 0, 3)
    assert second.gap < first.gap / 8
    assert third.gap < second.gap / 8


def test_epochs_without_liars_fall_as_one_over_rounds_from_the_optimum_on():
    """Over two decades: what noise leaves."""
    found = bowl(20, 0, 5, away=0.0, runs=20)
    assert found[-1].rounds > 100 * found[0].rounds
    assert steepness(*zip(*found, strict=True)) == pytest.approx(-1, abs=WITHIN)
    scaled = [t * gap * 20 for t, gap in found]
    assert max(scaled) < 2 * min(scaled)


def test_epochs_against_workers_without_liars_is_minus_one_at_equal_rounds():
    sizes, ends = [10, 20, 40], []
    for n in sizes:
        last = bowl(n, 0, 4, away=0.0, runs=30)[-1]
        ends.append(last.rounds * last.gap)  # what the gap would be at equal rounds
    assert steepness(sizes, ends) == pytest.approx(-1, abs=WITHIN)


def test_epochs_under_hug_fall_as_one_over_rounds_over_two_decades():
    """Ten seconds, for two decades of rounds. They begin at 16Λ = 250: before that hug is held by its own
    speed, and milder."""
    found = bowl(10, 2, 4, start=1.0, runs=3)
    assert found[-1].rounds > 99 * found[0].rounds > 99 * 250
    assert steepness(*zip(*found, strict=True)) == pytest.approx(-1, abs=WITHIN)
    scaled = [t * gap / (1 / 10 + 0.2**2) for t, gap in found]
    assert max(scaled) < 2 * min(scaled)
    assert 60 < min(scaled) < 215


def test_epochs_against_the_fraction_is_two_at_equal_rounds():
    ends = [bowl(20, f, 2, start=1.0)[-1] for f in (2, 4, 8)]
    assert steepness([2, 4, 8], [t * gap for t, gap in ends]) == pytest.approx(2, abs=WITHIN)


def test_without_noise_the_gap_falls_at_least_as_one_over_rounds():
    best = torch.tensor([0.8, 0, 0], dtype=torch.float64)
    sizes, gaps = [25, 50, 100, 200], []
    for rounds in sizes:
        plan = [Epoch(rounds, 1.0, smooth_step(GuardSetting(10, 4, rounds, 0.0, 1.0), 1.0))]
        ended = contest(lambda x: x - best, plan, 10, 0, 3, 0.0)
        gaps.append(float((ended.x - best).square().sum(dim=-1).mean() / 2))
    assert steepness(sizes, gaps) <= -1
