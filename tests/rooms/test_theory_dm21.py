"""Theory of Byz-DM21: regression values, monotony, noise gains and stability limits against simulations."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import pytest
import torch

from byzopt.aggregators import Mean
from byzopt.attacks import ATTACKS, Adversary
from byzopt.cohort import Cohort
from byzopt.engines import Simulated, begin, rounds
from byzopt.errors import InvalidInput
from byzopt.methods import METHODS, ByzDM21, ByzEF21SGDM, MethodRecipe
from byzopt.rng import stream
from byzopt.servers import ServerContext
from byzopt.tasks.quadratic import QuadraticTask
from byzopt.theory import averaging, byz_dm21, compressed
from byzopt.theory.byz_dm21 import DM21Setting
from byzopt.theory.promise import Constants
from byzopt.wire import Identity

CLEAN = DM21Setting(L=1.0, Lt=1.0, kappa=0.0, alpha=0.1, eta_v=0.1, eta_u=0.1, G=12)
ATTACKED = replace(CLEAN, kappa=2.0)
PAIRS = {
    (0.1, 0.1): 0.234568,
    (0.01, 0.1): 0.122334,
    (0.3, 0.05): 0.503759,
    (1, 0.3): 11.3333,
    (0.8, 0.6): 7.0,
}


def test_regression_values():
    assert byz_dm21.step(CLEAN) == pytest.approx(0.0048906954, rel=1e-8)
    assert 2 * byz_dm21.noise_gain(CLEAN) == pytest.approx(24.212, rel=1e-9)
    assert byz_dm21.curvature(ATTACKED) == pytest.approx(75_900)
    assert byz_dm21.step(ATTACKED) == pytest.approx(0.0025600643, rel=1e-7)
    assert 2 * byz_dm21.noise_gain(ATTACKED) == pytest.approx(94.644, rel=1e-9)
    assert byz_dm21.floor(2.0, 3.0) == 16 * 9
    assert byz_dm21.single_step(ATTACKED) == pytest.approx(0.0060268475, rel=1e-8)
    assert 2 * byz_dm21.single_noise_gain(ATTACKED) == pytest.approx(17.2333, rel=1e-5)
    assert byz_dm21.single_floor(2.0, 1.0) == 12


def test_equal_weights_in_their_own_form():
    for eta in (0.02, 0.3, 1.0):
        s = replace(ATTACKED, eta_v=eta, eta_u=eta)
        A, k = 8 * s.kappa + 6, s.kappa
        S = s.Lt**2 * (32 * A / s.alpha**2 + 20 * k / eta**2) + 15 * s.L**2 / eta**2
        assert byz_dm21.curvature(s) == pytest.approx(S, rel=1e-12)
        assert byz_dm21.noise_gain(s) <= (21 * A * eta**3 / s.alpha**2 + 16 * k * eta + 12 * eta / s.G) * (
            1 + 1e-12
        )


def test_lineage_without_attack():
    """γ = min{α/(19.6 Lt), η/(5.5 L)} up to a factor 2: between half of it and all of it."""
    for alpha, eta in ((0.01, 1.0), (1.0, 0.01), (0.1, 0.1)):
        s = replace(CLEAN, alpha=alpha, eta_v=eta, eta_u=eta)
        least = min(alpha / 19.6, eta / 5.5)
        assert least / 2 < byz_dm21.step(s) <= 1.01 * least


def test_monotone_in_what_makes_it_harder():
    for formula in (
        byz_dm21.curvature,
        byz_dm21.noise_gain,
        byz_dm21.single_curvature,
        byz_dm21.single_noise_gain,
    ):
        for eta_v, eta_u in ((0.1, 0.1), (0.01, 0.5), (0.7, 0.2)):
            s = replace(CLEAN, eta_v=eta_v, eta_u=eta_u)
            along = [formula(replace(s, kappa=k)) for k in (0.0, 0.5, 3.0, 36.0)]
            assert along == sorted(along)
            along = [formula(replace(s, alpha=a)) for a in (1.0, 0.3, 0.01)]
            assert along == sorted(along)


def test_bound_falls_to_noise_and_floor():
    gamma = byz_dm21.step(ATTACKED)
    left = 2 * 0.25 * byz_dm21.noise_gain(ATTACKED) + byz_dm21.floor(2.0, 0.3)
    bounds = [byz_dm21.gradient_bound(ATTACKED, gamma, T, 5.0, 0.5, 0.3) for T in (10**3, 10**6, 10**12)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] == pytest.approx(left, rel=1e-6)
    with pytest.raises(InvalidInput, match="γ"):
        byz_dm21.gradient_bound(ATTACKED, 2 * gamma, 10, 5.0, 0.5, 0.3)


def test_heterogeneity_that_grows_with_the_gradient():
    gamma, args = byz_dm21.step(ATTACKED), (100, 5.0, 0.5, 0.3)
    plain = byz_dm21.gradient_bound(ATTACKED, gamma, *args)
    # At the start the growth B adds B · 2 L gap to the honest gradients' mean square, (1 - α) A/α of it to Ψ.
    first = 2 * 0.9 * (8 * 2 + 6) / 0.1 * (1 / 32) * 2 * 5.0 / 100
    assert byz_dm21.gradient_bound(ATTACKED, gamma, *args, growth=1 / 32) == pytest.approx(
        2 * (plain + first)
    )
    with pytest.raises(InvalidInput, match="below 1"):
        byz_dm21.gradient_bound(ATTACKED, gamma, *args, growth=1 / 16)


def test_suggested_weight_and_pl_step():
    assert byz_dm21.weight(ATTACKED, 1.0, 0.0, 100) == 1.0
    long, short = (byz_dm21.weight(ATTACKED, 1.0, 1.0, T) for T in (10**10, 10**8))
    assert long == pytest.approx(short / 10, rel=1e-9)  # η ≍ T^(-1/2) in the end
    assert byz_dm21.pl_step(ATTACKED, 0.0) == byz_dm21.step(ATTACKED)
    assert byz_dm21.pl_step(ATTACKED, 1e3) == pytest.approx(0.1 / 4 / 1e3)


def test_the_bound_holds_on_a_quadratic_without_attack():
    """Theory's own step and bound, on exact expectations by simulation: f = ½‖x‖², identity, mean."""
    s = DM21Setting(L=1.0, Lt=1.0, kappa=0.0, alpha=1.0, eta_v=0.2, eta_u=0.2, G=4)
    gamma, T, sigma, d, runs = byz_dm21.step(s), 400, 1.0, 5, 64
    x = torch.ones(runs, d, dtype=torch.float64)
    gap = d / 2
    v = u = x
    total = 0.0
    for t in range(T):
        noise = sigma / sqrt(d * s.G) * torch.randn(runs, d, dtype=torch.float64, generator=stream(t, "q"))
        v = x + noise if t == 0 else (1 - s.eta_v) * v + s.eta_v * (x + noise)
        u = v if t == 0 else (1 - s.eta_u) * u + s.eta_u * v
        total += float(x.square().sum(dim=1).mean())
        x = x - gamma * u
    assert total / T <= byz_dm21.gradient_bound(s, gamma, T, gap, sigma, 0.0)


@pytest.mark.parametrize("eta_v, eta_u", [(0.3, 0.3), (0.1, 0.1), (0.1, 1.0), (0.05, 0.4)])
def test_noise_gains_and_increments(eta_v, eta_u):
    steps, lanes = 4000, 50  # 2e5 numbers of white noise
    noise = torch.randn(steps, lanes, dtype=torch.float64, generator=stream(2, "white"))
    v = u = torch.zeros(lanes, dtype=torch.float64)
    squares = increments = 0.0
    for t in range(steps):
        before = u
        v = (1 - eta_v) * v + eta_v * noise[t]
        u = (1 - eta_u) * u + eta_u * v
        if t >= 300:
            squares += float(u.square().mean()) / (steps - 300)
            increments += float((u - before).square().mean()) / (steps - 300)
    assert squares == pytest.approx(averaging.variance(eta_v, eta_u), rel=0.05)
    assert increments == pytest.approx(averaging.increment(eta_v, eta_u), rel=0.05)


def test_gains_of_the_table():
    for eta in (0.3, 0.1, 0.03, 0.01):
        assert averaging.variance(eta) == pytest.approx(eta / (2 - eta))
        assert averaging.variance(eta, eta) == pytest.approx(eta * (2 - 2 * eta + eta**2) / (2 - eta) ** 3)
        assert averaging.increment(eta) == pytest.approx(2 * eta**2 / (2 - eta))
        assert averaging.increment(eta, eta) == pytest.approx(2 * eta**3 / (2 - eta) ** 3)
        assert averaging.stability_limit(eta) == pytest.approx(2 * (2 - eta) / eta)
        assert averaging.stability_limit(eta, eta) == pytest.approx(eta * (2 - eta) / (1 - eta) ** 2)


def length_after(eta_v: float, eta_u: float, gamma: float, rounds: int) -> float:
    x = v = u = 1.0
    for t in range(rounds):
        v = x if t == 0 else (1 - eta_v) * v + eta_v * x
        u = v if t == 0 else (1 - eta_u) * u + eta_u * v
        x -= gamma * u
        if abs(x) > 1e6:
            break
    return abs(x) + abs(v) + abs(u)


@pytest.mark.parametrize("eta_v, eta_u", PAIRS)
def test_stability_limits(eta_v, eta_u):
    limit = averaging.stability_limit(eta_v, eta_u)
    assert limit == pytest.approx(PAIRS[eta_v, eta_u], rel=1e-5)
    assert averaging.stability_limit(eta_u, eta_v) == limit
    assert length_after(eta_v, eta_u, 0.98 * limit, 150_000) < 1e-3
    assert length_after(eta_v, eta_u, 1.02 * limit, 150_000) > 1e3


def radius(recipe: MethodRecipe, gamma: float) -> float:
    """The spectral radius of one round of the method on f = x²/2, without noise, as a linear map.

    Coordinate j of the problem starts at the j-th unit vector of what the method remembers.
    """
    names = ("x", "v", "u")
    cohort, d = Cohort.of(1, 0), len(names)
    task = QuadraticTask(cohort, torch.ones(d).double(), torch.zeros(1, d).double(), 0.0, 0)
    method = recipe.build(Mean(), gamma)
    engine = Simulated(task, method.worker, method.wire, Adversary(ATTACKS.build("none"), cohort, 0), 0)
    first = next(rounds(method, engine, begin(method, task.start(), ServerContext(task.layout), 1), 1)).state
    basis = torch.eye(d, dtype=torch.float64)
    worker = first.engine.worker
    own = [name for name in names if hasattr(worker, name)]
    worker = worker._replace(**{name: basis[names.index(name)].unsqueeze(0) for name in own})
    said = worker.u if "u" in own else worker.v
    engine_state = first.engine._replace(
        worker=worker, wire=first.engine.wire._replace(worker=said, server=said)
    )
    start = first._replace(step=first.step._replace(x=basis[0]), engine=engine_state)
    state = next(rounds(method, engine, start, 2)).state
    after = {"x": state.step.x, "v": state.engine.worker.v[0]}
    if "u" in own:
        after["u"] = state.engine.worker.u[0]
    matrix = torch.stack([after[name][: len(after)] for name in names if name in after])
    return float(torch.linalg.eigvals(matrix).abs().max())


@pytest.mark.parametrize("eta_v, eta_u", [*PAIRS, (0.01, 0.01), (0.3, 0.3), (0.03, 0.03)])
def test_the_method_itself_is_stable_up_to_the_limit_and_no_further(eta_v, eta_u):
    recipe, limit = (
        ByzDM21(eta_v=eta_v, eta_u=eta_u, compressor=Identity()),
        averaging.stability_limit(eta_v, eta_u),
    )
    assert radius(recipe, 0.999 * limit) < 1 < radius(recipe, 1.001 * limit)


def test_at_a_weight_of_one_hundredth_one_average_bears_steps_that_two_do_not():
    assert averaging.stability_limit(0.01, 0.01) == pytest.approx(0.020304, rel=1e-4)
    single = ByzEF21SGDM(eta=0.01, compressor=Identity())
    assert radius(ByzDM21(eta=0.01, compressor=Identity()), 0.0206) > 1
    assert radius(single, 0.0206) < 1
    assert radius(single, 0.999 * 398) < 1 < radius(single, 1.001 * 398)


def test_steps_of_the_baselines():
    cdelta = compressed.pairwise(2.0, 12)
    assert cdelta == pytest.approx(2 * 11 / 24)
    assert compressed.ef21_step(1, 1, 0.1, 0) == pytest.approx(1 / 21)
    assert compressed.ef21_step(1, 2, 0.1, 0.5) == pytest.approx(1 / (1 + 20 * 3 * 2))
    assert compressed.marina2_step(1, 1, 9, 0.5, 4) == pytest.approx(1 / (1 + 9 * 2.5))
    assert compressed.marina2_step(3, 1, 0, 0.5, 4) == pytest.approx(1 / 3)
    assert compressed.marina_chance(1000, 10, 50) == 0.01
    assert compressed.marina_step(1, 1, 1, 0, 0, 4, 100, 100, 1) == pytest.approx(
        1 / (1 + sqrt(12 * 0.01 / 4))
    )
    assert compressed.dasha_step(1, 1, 1, 0, 0, 4, 100, 10) == pytest.approx(1 / (1 + sqrt(2) / 2))


KNOWN = Constants(
    n=20, f=8, d=100, rounds=10**6, attackers=8, tolerated=8, sampling="fresh", lipschitz=1.0, local=1.0,
    kappa_squared=2.0, sigma=0.5, zeta=0.3, gap=5.0,
)  # fmt: skip


def test_promises():
    top = {"name": "top_k", "ratio": 0.1}
    said = METHODS.build({"name": "byz_dm21", "compressor": top}).promise(KNOWN)
    assert said.steps["lr"] == pytest.approx(0.0025600643, rel=1e-7)
    assert said.floor == pytest.approx(16 * 0.09 + 94.644 * 0.25, rel=1e-4)  # the weights' noise stays too
    assert said.bound > said.floor
    single = METHODS.build({"name": "byz_ef21_sgdm", "compressor": top}).promise(KNOWN)
    assert single.steps["lr"] == pytest.approx(0.0060268475, rel=1e-8)
    assert METHODS.build({"name": "byz_ef21", "compressor": top}).promise(KNOWN).steps["lr"] < 1 / 21
    assert METHODS.build("byz_vr_marina2").promise(KNOWN).steps["lr"] < 1 / 9
    assert not METHODS.build("byz_vr_dm21").promise(KNOWN).steps  # no claim
    ignorant = replace(KNOWN, sigma=None)
    fine = replace(KNOWN, sample=2.0, passes=50.0)
    cdelta = compressed.pairwise(2.0, 12)
    said = METHODS.build("byz_vr_marina").promise(fine)
    assert said.steps["p"] == 1 / 100
    assert said.steps["lr"] == pytest.approx(
        1 / (1 + sqrt(12 * 50 * ((1 + 4) * 9 + 4) * (1 / 12 + 8 * cdelta * 100) + 24 * 50 * 4 * cdelta * 100))
    )
    assert said.bound is None
    assert any("doubtful" in remark for remark in said.remarks)
    said = METHODS.build("byz_dasha_page").promise(fine)
    assert (said.steps["p"], said.steps["a"]) == (1 / 50, 1 / 19)
    R = (12 * 9 * 19 * (1 + 4) + 2 * 50 * 4) * (1 / sqrt(12) + sqrt(8 * cdelta)) ** 2
    assert said.steps["lr"] == pytest.approx(1 / (1 + sqrt(R)))
    lacks = METHODS.build("byz_dasha_page").promise(KNOWN).missing
    assert [reason.rpartition(": ")[2] for reason in lacks] == ["sample is not known", "passes is not known"]
    for name in ("br_csgd", "br_diana", "br_lsvrg", "br_mvr", "ef_sign", "byz_ef21_bc"):
        assert METHODS.build(name).promise(fine) is None
    assert METHODS.build("byz_dm21").promise(ignorant).missing[0].endswith("sigma is not known")
