"""Theory of Byz-DM21: regression values, stability limits, monotony."""

from __future__ import annotations

from dataclasses import replace

import pytest

from byzopt.theory import averaging
from byzopt.theory import byz_dm21 as theory
from byzopt.theory.byz_dm21 import DM21Setting

PLAIN = DM21Setting(L=1, Lt=1, kappa=2, alpha=0.1, eta_v=0.1, eta_u=0.1, G=12)


@pytest.mark.parametrize("kappa, gamma, noise", [(0.0, 0.0048906954, 24.212), (2.0, 0.0025600643, 94.644)])
def test_regression_values_of_two_averages(kappa, gamma, noise):
    s = replace(PLAIN, kappa=kappa)
    assert theory.step(s) == pytest.approx(gamma, rel=1e-7)
    assert 2 * theory.noise_gain(s) == pytest.approx(noise, rel=1e-5)


def test_regression_values_of_one_average():
    assert theory.single_step(PLAIN) == pytest.approx(0.0060268475, rel=1e-7)
    assert 2 * theory.single_noise_gain(PLAIN) == pytest.approx(17.2333, rel=1e-5)


@pytest.mark.parametrize(
    "v, u, limit",
    [(0.1, 0.1, 0.234568), (0.01, 0.1, 0.122334), (0.3, 0.05, 0.503759), (1, 0.3, 11.3333), (0.8, 0.6, 7.0)],
)
def test_stability_limits(v, u, limit):
    assert averaging.stability_limit(v, u) == pytest.approx(limit, rel=1e-5)
    assert averaging.stability_limit(v, u) == averaging.stability_limit(u, v)


def test_noise_gains_of_the_table():
    gains = [part(0.1, u) for part in (averaging.variance, averaging.increment) for u in (1.0, 0.1)]
    assert gains == pytest.approx([0.05263, 0.02639, 0.01053, 2.916e-4], rel=1e-3)


def test_noise_and_curvature_grow_with_kappa_and_with_compression():
    s = replace(PLAIN, Lt=2, eta_v=0.2)
    for part in (theory.curvature, theory.noise_gain):
        light, usual, hard = (replace(s, alpha=a, kappa=k) for a, k in ((0.1, 1), (0.1, 2), (0.05, 2)))
        assert part(light) < part(usual) < part(hard)
