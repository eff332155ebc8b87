"""Theory of Byz-DM21: regression values, stability limits, monotony."""

from __future__ import annotations

import pytest

from byzopt.theory import byz_dm21 as theory


@pytest.mark.parametrize("kappa, gamma, noise", [(0.0, 0.0048906954, 24.212), (2.0, 0.0025600643, 94.644)])
def test_regression_values_of_two_averages(kappa, gamma, noise):
    s = theory.dm21_curvature(0.1, kappa, 0.1, 0.1, 1, 1)
    assert theory.step(s, 1) == pytest.approx(gamma, rel=1e-7)
    assert 2 * theory.dm21_noise(0.1, kappa, 0.1, 0.1, 12) == pytest.approx(noise, rel=1e-5)


def test_regression_values_of_one_average():
    assert theory.step(theory.sgdm_curvature(0.1, 2, 0.1, 1, 1), 1) == pytest.approx(0.0060268475, rel=1e-7)
    assert 2 * theory.sgdm_noise(0.1, 2, 0.1, 12) == pytest.approx(17.2333, rel=1e-5)


@pytest.mark.parametrize(
    "v, u, limit",
    [(0.1, 0.1, 0.234568), (0.01, 0.1, 0.122334), (0.3, 0.05, 0.503759), (1, 0.3, 11.3333), (0.8, 0.6, 7.0)],
)
def test_stability_limits(v, u, limit):
    assert theory.stability(v, u) == pytest.approx(limit, rel=1e-5)
    assert theory.stability(v, u) == theory.stability(u, v)


def test_noise_gains_of_the_table():
    assert theory.noise_gains(0.1) == pytest.approx((0.05263, 0.02639, 0.01053, 2.916e-4), rel=1e-3)


def test_noise_and_curvature_grow_with_kappa_and_with_compression():
    for part in (
        lambda alpha, kappa: theory.dm21_curvature(alpha, kappa, 0.2, 0.1, 1, 2),
        lambda alpha, kappa: theory.dm21_noise(alpha, kappa, 0.2, 0.1, 12),
    ):
        assert part(0.1, 1) < part(0.1, 2) < part(0.05, 2)
