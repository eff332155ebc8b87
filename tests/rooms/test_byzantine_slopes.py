"""How gaps of ByzantineSGD fall with T, δ, n and d (arXiv:1803.08917, Table 1), on lines and on bowls."""

from __future__ import annotations

from math import sqrt

import pytest
import torch

from byzopt.theory.byzantine_epochs import Curved, Epoch, schedule
from byzopt.theory.byzantine_sgd import Setting, nonsmooth_step, smooth_step
from tests.arena import contest, rescaled, steepness

WITHIN = 0.25


def line(n: int, f: int, rounds: int, d: int = 1, theta: float | None = None) -> float:
    """The mean gap on f = θ x_1 over the unit ball; θ shrinks with what cannot be told apart."""
    at = Setting(n, f, rounds, 1.0, 1.0)
    theta = theta or rescaled(n, f, rounds, 1.0, at.log)
    way = torch.zeros(d, dtype=torch.float64)
    way[0] = theta
    plan = [Epoch(rounds, 1.0, nonsmooth_step(at, theta))]
    ended = contest(lambda x: way.expand_as(x), plan, n, f, d, 1.0)
    assert ended.expelled == 0
    return float((theta + ended.x @ way).mean())


def bowl(n: int, f: int, count: int) -> tuple[int, float]:
    """Rounds and mean gap after `count` epochs on ‖x - b‖²/2 in three dimensions, ‖b‖ = 2."""
    plan = schedule(Curved(n, f, 1.0, 2.0, 1.0, 1.0), count, "practical")
    best = torch.tensor([2.0, 0, 0], dtype=torch.float64)
    ended = contest(lambda x: x - best, plan, n, f, 3, 1.0)
    assert ended.expelled == 0
    return ended.rounds, float((ended.x - best).square().sum(dim=-1).mean() / 2)


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
    sizes = [2, 4, 8, 16]
    # One θ for all: with noise of length V a coordinate's share falls, not the bound.
    theta = rescaled(20, 8, 300, 1.0, Setting(20, 8, 300, 1.0, 1.0).log)
    assert steepness(sizes, [line(20, f, 300, d, theta) for d in sizes]) == pytest.approx(0, abs=WITHIN)


def decided(f: int, theta: float) -> float:
    """The rounds T at which the gap under hug is θD, that is the answer in the middle: by bisection."""
    low, high = 150, 1500
    while high > low * 1.08:
        rounds = int(sqrt(low * high))
        low, high = (low, rounds) if line(20, f, rounds, theta=theta) < theta else (rounds, high)
    return sqrt(low * high)


def test_rounds_to_decide_against_theta_is_minus_two_up_to_the_logarithm():
    rounds = [decided(8, theta) for theta in (0.2, 0.3)]
    assert 800 < rounds[0] < 1100
    bare = [t / Setting(20, 8, int(t), 1.0, 1.0).log for t in rounds]
    assert steepness([0.2, 0.3], bare) == pytest.approx(-2, abs=WITHIN)


@pytest.mark.parametrize("f, constant", [(2, True), (4, True), (0, False)])
def test_epochs_fall_as_one_over_rounds(f, constant):
    found = [bowl(20, f, count) for count in (1, 2, 3)]
    rounds, gaps = zip(*found, strict=True)
    assert steepness(rounds, gaps) < -1 + WITHIN
    if constant:
        assert steepness(rounds, gaps) > -1 - WITHIN
        scaled = [t * gap / (1 / 20 + (f / 20) ** 2) for t, gap in found]
        assert max(scaled) < 2 * min(scaled)
        assert 20 < min(scaled) < 400


def test_epochs_against_the_fraction_is_two_at_equal_rounds():
    found = [bowl(20, f, 3) for f in (2, 4, 8)]
    scaled = [t * gap for t, gap in found]  # what the gap would be at equal rounds
    assert steepness([2, 4, 8], scaled) == pytest.approx(2, abs=WITHIN)


def test_without_noise_the_gap_falls_at_least_as_one_over_rounds():
    best = torch.tensor([0.8, 0, 0], dtype=torch.float64)
    sizes, gaps = [25, 50, 100, 200], []
    for rounds in sizes:
        plan = [Epoch(rounds, 1.0, smooth_step(Setting(10, 4, rounds, 0.0, 1.0), 1.0))]
        ended = contest(lambda x: x - best, plan, 10, 0, 3, 0.0)
        gaps.append(float((ended.x - best).square().sum(dim=-1).mean() / 2))
    assert steepness(sizes, gaps) <= -1
