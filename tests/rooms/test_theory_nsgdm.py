"""Theorem 1 of arXiv:2603.12512 as numbers, and the inequalities behind it."""

from __future__ import annotations

from math import exp, inf, isclose, log, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from byzopt.errors import InvalidInput
from byzopt.schedules import FixedHorizon, horizon_exponents
from byzopt.theory import nsgdm
from byzopt.theory.nsgdm import Problem

KAPPA = 17 / 7  # geometric median, n = 20, f = 3
EXAMPLE = Problem(l0=1, l1=1, start_gap=10, honest=17, zeta=0.1, sigma=1, star_gap=0.5, momentum_gap=1)

small = st.floats(0, 100)
positive = st.floats(1e-3, 100)
problems = st.builds(
    Problem, positive, positive, small, st.integers(1, 50), small, small, star_gap=small, momentum_gap=small
)


def test_regression_example_term_by_term():
    gamma0 = nsgdm.max_gamma0(1, KAPPA)
    assert gamma0 == pytest.approx(0.0365217944, rel=1e-8)
    schedule = FixedHorizon(1000)
    assert gamma0 * schedule.gamma(1) == pytest.approx(2.05377142e-4, rel=1e-8)
    assert schedule.eta(1, 0.1) == pytest.approx(0.0316227766, rel=1e-8)
    bound = nsgdm.theorem_bound(EXAMPLE, KAPPA, 1000, gamma0)
    expected = (
        80.277739,
        0.610749,
        0.971429,
        4.107543e-4,
        0.304318,
        8.215086e-4,
        0.608636,
        0.0862592,
        1.727471,
    )
    assert tuple(bound) == pytest.approx(expected, rel=1e-5)
    assert bound.total == pytest.approx(84.587835, rel=1e-8)


def test_unprinted_bound_halves_the_floor_and_nothing_else():
    printed = nsgdm.theorem_bound(EXAMPLE, KAPPA, 1000, 0.03)
    ours = nsgdm.theorem_bound(EXAMPLE, KAPPA, 1000, 0.03, printed=False)
    assert ours.heterogeneity == printed.heterogeneity / 2
    assert ours._replace(heterogeneity=0) == printed._replace(heterogeneity=0)


@given(st.floats(1e-3, 1e3), st.floats(0, 1e3), st.integers(1, 10**9))
def test_third_step_cap_is_always_the_smallest(l1, kappa, rounds):
    caps = nsgdm.step_caps(l1, kappa, rounds)
    assert caps.lag < min(caps.smoothness, caps.curvature)
    assert nsgdm.max_gamma0(l1, kappa, rounds) == caps.lag
    assert caps.lag == pytest.approx(1 / (8 * sqrt(2 * (1 + 2 * kappa)) * l1))


@given(problems, positive, st.integers(1, 10**6), st.sampled_from(["zeta", "sigma", "kappa"]))
def test_bound_grows_with_kappa_zeta_and_sigma(problem, kappa, rounds, which):
    gamma0 = nsgdm.max_gamma0(problem.l1, kappa + 1)
    before = nsgdm.theorem_bound(problem, kappa, rounds, gamma0)
    if which == "kappa":
        after = nsgdm.theorem_bound(problem, kappa + 1, rounds, gamma0)
    else:
        more = Problem(**{**vars(problem), which: getattr(problem, which) + 1})
        after = nsgdm.theorem_bound(more, kappa, rounds, gamma0)
    assert all(a >= b for a, b in zip(after, before, strict=True))
    assert after.total > before.total


def test_without_heterogeneity_the_bound_vanishes_as_the_fourth_root_of_rounds():
    problem = Problem(**{**vars(EXAMPLE), "zeta": 0.0})
    near, far = (nsgdm.theorem_bound(problem, KAPPA, rounds, 0.03).total for rounds in (10**12, 10**16))
    assert near / far == pytest.approx(10, rel=1e-2)
    floor = nsgdm.theorem_bound(EXAMPLE, KAPPA, 10**30, 0.03).total
    assert floor == pytest.approx(4 * KAPPA * 0.1, rel=1e-3)


def test_any_constants_reduce_to_the_theorem_up_to_its_growth_factor():
    rounds, gamma0 = 1000, nsgdm.max_gamma0(1, KAPPA)
    gamma, eta = gamma0 * rounds**-0.75, rounds**-0.5
    ours = nsgdm.bound_at(EXAMPLE, KAPPA, rounds, gamma, eta)
    theirs = nsgdm.theorem_bound(EXAMPLE, KAPPA, rounds, gamma0)
    q = 1 + 2 * KAPPA
    growth = exp(rounds * (8 * gamma**2 + 32 * q * gamma**2 / eta))
    assert growth < exp(0.5)
    assert ours.start == pytest.approx(10 / (gamma * rounds) * growth)
    assert ours.momentum_start == pytest.approx(2 * q / (eta * rounds) * growth)
    assert tuple(ours)[2:] == pytest.approx(tuple(theirs)[2:])


@given(st.floats(1e-3, 1e3), st.floats(0, 1e2), st.integers(1, 10**9), st.floats(1.01, 2))
def test_growth_over_a_whole_run_is_at_most_one_half_at_the_cap(l1, kappa, rounds, p):
    powers = horizon_exponents(p)
    gamma = nsgdm.max_gamma0(l1, kappa) * rounds**-powers.gamma
    eta = rounds**-powers.eta
    assert rounds * (8 + 32 * (1 + 2 * kappa) / eta) * (l1 * gamma) ** 2 <= 0.5 + 1e-9
    assert gamma * l1 <= log(2)


def test_bound_at_is_infinite_rather_than_overflowing():
    assert nsgdm.bound_at(EXAMPLE, KAPPA, 10**6, 0.5, 0.1).total == inf
    still = Problem(l0=1, l1=1, start_gap=0, honest=5)
    assert nsgdm.bound_at(still, KAPPA, 10**6, 0.5, 0.1).start == 0


@given(problems, st.floats(0, 100))
def test_best_gamma0_is_no_worse_than_its_neighbours_for_large_t(problem, kappa):
    best, rounds = nsgdm.best_gamma0(problem, kappa), 10**24
    if best == 0:  # it starts at the optimum: the shorter the better
        assert problem.start_gap == 0
        return
    here = nsgdm.theorem_bound(problem, kappa, rounds, best).total
    cap = nsgdm.max_gamma0(problem.l1, kappa)
    others = [
        nsgdm.theorem_bound(problem, kappa, rounds, g).total for g in (best * 0.9, min(best * 1.1, cap))
    ]
    assert here <= min(others) * (1 + 1e-9)


def test_without_l1_there_is_no_cap():
    flat = Problem(l0=2, l1=0, start_gap=1, honest=3)
    assert nsgdm.max_gamma0(0, KAPPA) == inf
    assert nsgdm.best_gamma0(flat, 1) == pytest.approx(sqrt(exp(0.5) / (8 * 3 * 2)))
    assert nsgdm.theorem_bound(flat, 1, 100, 1e6).start > 0
    assert nsgdm.best_gamma0(Problem(l0=0, l1=0, start_gap=1, honest=3), 1) == inf


@pytest.mark.parametrize("p", [1.1, 1.5, 1.9, 2.0])
def test_heavy_tail_exponents_balance_start_lag_and_noise(p):
    gamma, eta, rate = horizon_exponents(p)
    assert 1 - gamma == pytest.approx(rate)  # 1/(γT)
    assert gamma - eta == pytest.approx(rate)  # γ/η
    assert eta * (p - 1) / p == pytest.approx(rate)  # noise of the average
    assert 2 * gamma - eta == pytest.approx(1)  # γ²T/η stays constant


def test_two_moments_are_theorem_1():
    assert horizon_exponents(2.0) == (0.75, 0.5, 0.25)


def test_heavy_tailed_bound_continues_theorem_1_and_decays_at_its_rate():
    at_two = nsgdm.theorem_bound(EXAMPLE, KAPPA, 1000, 0.03).total
    assert nsgdm.theorem_bound(EXAMPLE, KAPPA, 1000, 0.03, p=2 - 1e-9).total == pytest.approx(
        at_two, rel=1e-6
    )
    problem = Problem(**{**vars(EXAMPLE), "zeta": 0.0})
    near, far = (
        nsgdm.theorem_bound(problem, KAPPA, rounds, 0.03, p=1.5).total for rounds in (10**15, 10**20)
    )
    assert near / far == pytest.approx(10 ** (5 * horizon_exponents(1.5).rate), rel=0.05)


@pytest.mark.parametrize("p", [1.01, 1.25, 1.5, 1.75, 2.0])
def test_martingale_constant_of_heavy_tails_holds_in_the_plane(p):
    # ‖a + b‖^p <= ‖a‖^p + p‖a‖^(p-2)⟨a, b⟩ + 2^(2-p)‖b‖^p, scaled and turned so that a = e1.
    radius, angle = np.meshgrid(np.logspace(-4, 4, 801), np.linspace(0, np.pi, 721))
    inner = radius * np.cos(angle)
    left = (1 + 2 * inner + radius**2) ** (p / 2)
    right = 1 + p * inner + 2 ** (2 - p) * radius**p
    assert (left <= right * (1 + 1e-12) + 1e-12).all()


def test_quartic_constants_of_the_paper():
    shifts = [0.1] * 17
    problem = nsgdm.quartic(4.0, shifts, sqrt(10), sigma=1e-2)
    assert problem.l0 == pytest.approx(1 + 0.4)
    assert problem.start_gap == pytest.approx(100)
    assert problem.zeta == pytest.approx(0.1)
    assert problem.star_gap == pytest.approx(3 * 0.025 ** (4 / 3))
    assert problem.momentum_gap == pytest.approx(126.49 + 0.1, abs=0.01)


@given(st.floats(0.01, 100), st.floats(0, 100), st.integers(0, 10**6))
def test_quartic_is_smooth_with_these_constants(l1, length, seed):
    draw = np.random.default_rng(seed)
    shift = draw.normal(size=3)
    shift *= length / np.linalg.norm(shift)
    problem = nsgdm.quartic(l1, [length], 1.0)
    for radius in (0.0, 2 / l1, draw.exponential(), 10 * draw.exponential() / l1):
        x = draw.normal(size=3)
        x *= radius / np.linalg.norm(x)
        hessian = np.linalg.norm(4 * (x @ x) * np.eye(3) + 8 * np.outer(x, x), 2)
        gradient = np.linalg.norm(4 * (x @ x) * x + shift)
        assert hessian <= (problem.l0 + l1 * gradient) * (1 + 1e-9)


def test_quartic_l0_is_tight_at_radius_two_over_l1():
    l1 = 0.7
    radius = 2 / l1
    assert isclose(12 * radius**2, nsgdm.quartic(l1, [0.0], 1.0).l0 + l1 * 4 * radius**3)


def test_quartic_star_gap_is_the_minimum_of_a_shifted_quartic():
    shift = 0.3
    r = np.linspace(0, 2, 2_000_001)
    lowest = (r**4 - shift * r).min()
    assert nsgdm.quartic(1.0, [shift], 1.0).star_gap == pytest.approx(-lowest, rel=1e-9)


def test_descent_bound_is_its_formula():
    value = nsgdm.descent_bound(loss=5, grad_norm=2, error=0.25, gamma=0.5, l0=1, l1=0.2, mean_grad_norm=3)
    assert value == pytest.approx(5 - 1 + 0.25 + 0.125 * exp(0.1) * 1.6)


@given(st.integers(0, 10**6), st.floats(1e-3, 2.0), st.floats(0.1, 10))
def test_descent_inequality_holds_for_any_direction_on_the_quartic(seed, gamma, l1):
    draw = torch.Generator().manual_seed(seed)
    x, v = torch.randn(2, 4, dtype=torch.float64, generator=draw)
    gradient = 4 * (x @ x) * x
    lengths = float(gradient.norm())
    after = float((x - gamma * v / v.norm()).norm()) ** 4
    right = nsgdm.descent_bound(
        float(x.norm()) ** 4, lengths, float((gradient - v).norm()), gamma, 16 / l1**2, l1, lengths
    )
    assert after <= right * (1 + 1e-12)


@pytest.mark.parametrize(
    "call",
    [
        lambda: nsgdm.theorem_bound(EXAMPLE, KAPPA, 1000, 0.04),
        lambda: nsgdm.theorem_bound(EXAMPLE, KAPPA, 1000, 0.0),
        lambda: nsgdm.theorem_bound(EXAMPLE, -1.0, 1000, 0.01),
        lambda: nsgdm.theorem_bound(EXAMPLE, KAPPA, 0, 0.01),
        lambda: nsgdm.theorem_bound(EXAMPLE, KAPPA, 10, 0.01, p=1.0),
        lambda: nsgdm.bound_at(EXAMPLE, KAPPA, 10, 0.7, 0.1),
        lambda: nsgdm.bound_at(EXAMPLE, KAPPA, 10, 0.1, 1.1),
        lambda: nsgdm.quartic(0.0, [0.1], 1.0),
        lambda: nsgdm.quartic(1.0, [], 1.0),
        lambda: Problem(l0=-1, l1=1, start_gap=1, honest=1),
        lambda: Problem(l0=inf, l1=1, start_gap=1, honest=1),
        lambda: Problem(l0=1, l1=1, start_gap=1, honest=0),
    ],
)
def test_inadmissible_numbers_are_refused(call):
    with pytest.raises(InvalidInput, match="should"):
        call()
