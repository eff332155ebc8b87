"""Theorems A, B, B2, C, D on quadratics under the errors that hurt most; slopes; what a promise says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, inf, log, sin, sqrt
from typing import Any

import pytest
import torch
from torch import Tensor

from byzopt import lbfgs
from byzopt.aggregators import Mean
from byzopt.errors import InvalidInput
from byzopt.layout import Layout
from byzopt.methods import METHODS, NAG, PIGS, AcceleratedExtragradient, AEGProx, MethodRecipe, Nesterov
from byzopt.servers import ServerContext, Step
from byzopt.servers.inner import Inner, Subproblem
from byzopt.theory import inexact
from byzopt.theory.inexact import Guarantee, InexactOracle
from byzopt.theory.promise import Constants
from tests.products import sampled

D = 8
DIRECTIONS = ("-away", "+away", "-grad", "+grad", "flattest", "random")


@dataclass(frozen=True)
class Diagonal(Inner):
    """The exact answer for a proxy with this diagonal Hessian, for many runs as rows at once."""

    curvature: tuple[float, ...] = ()
    budget: int = 1

    def search(self, phi: Subproblem, met: Callable[[Tensor, Tensor], bool]) -> lbfgs.Ended:
        raise NotImplementedError

    def solve(self, phi, stop):  # type: ignore[no-untyped-def]
        from byzopt.servers.inner import Ending, Solved

        curvature = torch.tensor(self.curvature, dtype=torch.float64)
        return Solved(phi.x - phi.g / (curvature + 1 / phi.eta), Ending.MET, 1, 1)


@dataclass(frozen=True)
class World:
    """Quadratics with eigenvalues geometric in [mu, L], one run for each direction of error, x* = 0."""

    mu: float
    big_l: float
    known: InexactOracle
    seed: int = 0

    @property
    def spectrum(self) -> Tensor:
        return torch.logspace(log(self.mu, 10), log(self.big_l, 10), D, dtype=torch.float64)

    def gap(self, x: Tensor) -> Tensor:
        return (self.spectrum * x**2).sum(-1) / 2

    def oracle(self, x: Tensor, away: Tensor, generator: torch.Generator) -> Tensor:
        """The gradient with the largest error allowed, row i in direction i."""
        grad = self.spectrum * x
        flattest = torch.zeros(D, dtype=torch.float64)
        flattest[0] = 1
        random = torch.randn(D, dtype=torch.float64, generator=generator)
        ways = [-away[0], away[1], -grad[2], grad[3], flattest, random]
        way = torch.stack(ways)
        length = way.norm(dim=-1, keepdim=True)
        way = torch.where(length > 0, way / length, flattest)
        size = (self.known.zeta_squared + self.known.alpha * grad.square().sum(-1, keepdim=True)).sqrt()
        return grad + size * way


def track(
    world: World, step: Step, rounds: int, each: int = 1, proxy: Callable[[Tensor], Tensor] | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """Slow and fast sequences [6, d] after each iteration; the fast one is the slow where there is none."""
    generator = torch.Generator().manual_seed(world.seed)
    x0 = torch.randn(D, dtype=torch.float64, generator=generator).expand(len(DIRECTIONS), D)
    state = step.init(x0, ServerContext(Layout.flat(D), proxy))

    def fast() -> Tensor:
        inside = getattr(state, "pair", state)
        return inside.z if hasattr(inside, "z") else step.answer(state)

    slows, fasts = [x0], [x0]
    for k in range(1, rounds + 1):
        g = world.oracle(step.ask(state), fast(), generator)
        state = step.tell(state, g)
        if k % each == 0:
            slows.append(step.answer(state))
            fasts.append(fast())
    return slows, fasts


def held(world: World, found: Guarantee, slows: list[Tensor], fasts: list[Tensor]) -> tuple[float, float]:
    """Worst contraction beyond the additive part, and the worst late gap over the floor; both checked."""
    x, z = torch.stack(slows), torch.stack(fasts)
    gaps = world.gap(x)
    if "eta" in found.steps:
        psi = z.square().sum(-1) / found.steps["eta"] + 2 / found.steps["tau"] * gaps
    elif found.theorem.startswith("Theorem C"):
        eta = found.steps["lr"]
        psi = (1 + eta * world.mu / 2) * gaps + eta / 4 * (world.spectrum * x).square().sum(-1)
    else:
        psi = gaps
    worst = float(((psi[1:] - found.additive) / psi[:-1]).max())
    assert worst <= found.contraction * (1 + 1e-10)
    assert bool((gaps <= found.weight * psi * (1 + 1e-12)).all())
    iterations = torch.arange(len(gaps), dtype=torch.float64)
    start = found.start if found.start < inf else found.weight * float(psi[0, 0] / gaps[0, 0])
    bound = start * found.contraction**iterations * float(gaps[0, 0]) + found.floor
    assert bool((gaps.amax(-1) <= bound * (1 + 1e-9)).all())
    late = float(gaps[-len(gaps) // 10 :].max())
    if world.known.zeta_squared:
        assert late <= found.floor * 1.01
    return worst, late / found.floor if found.floor else 0.0


def rounds_for(found: Guarantee, share: float = 1e-8) -> int:
    iterations = log(found.start / share if found.start < inf else 1e4 / share) / -log(found.contraction)
    return found.rounds_each * (int(iterations) + 20)


def with_alpha(limit: float, mu: float) -> list[InexactOracle]:
    """At the limit with and without an absolute error."""
    return [InexactOracle(mu * 1e-3, limit), InexactOracle(0.0, limit)]


@pytest.mark.parametrize("condition", [10.0, 300.0])
def test_theorem_a(condition):
    mu, big_l = 1 / condition, 1.0
    for known in with_alpha(0.5, mu):
        found = inexact.gd(known, big_l, mu)
        step = METHODS.build("robust_gd").build(Mean(), found.steps["lr"]).step
        held(World(mu, big_l, known), found, *track(World(mu, big_l, known), step, rounds_for(found, 1e-6)))


@pytest.mark.parametrize("condition", [10.0, 100.0, 1e3, 1e4])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.slow
def test_theorem_b(condition, seed):
    mu, big_l = 1 / condition, 1.0
    for known in with_alpha(min(1 / 8, 0.99 * sqrt(mu / big_l)), mu):
        found = inexact.nag(known, big_l, mu)
        assert found.holds
        world = World(mu, big_l, known, seed)
        step = NAG(mu=mu).build(Mean(), 1 / big_l).step
        worst, floor = held(world, found, *track(world, step, rounds_for(found)))
        assert worst < found.contraction
        assert floor <= 0.5


@pytest.mark.parametrize("condition", [10.0, 100.0, 1e3])
@pytest.mark.parametrize("alpha", [0.02, 1 / 8])
@pytest.mark.slow
def test_theorem_b_with_small_tau_takes_a_larger_relative_error(condition, alpha):
    mu, big_l = 1 / condition, 1.0
    for zeta_squared in (0.0, mu * 1e-3):
        known = InexactOracle(zeta_squared, alpha)
        found = inexact.nag(known, big_l, mu, small_tau=True)
        world = World(mu, big_l, known)
        step = NAG(mu=mu, alpha=alpha).build(Mean(), 1 / big_l).step
        held(world, found, *track(world, step, rounds_for(found, 1e-5)))


@pytest.mark.parametrize("condition", [10.0, 100.0, 1e3, 1e4])
@pytest.mark.slow
def test_theorem_b2(condition):
    mu, big_l = 1 / condition, 1.0
    for known in with_alpha(min(1 / 50, sqrt(mu / big_l) / 3), mu):
        found = inexact.aeg(known, big_l, mu)
        world = World(mu, big_l, known)
        step = AcceleratedExtragradient(mu).build(Mean(), 1 / (2 * big_l)).step
        _, floor = held(world, found, *track(world, step, rounds_for(found), each=2))
        assert floor <= 0.5


def proxy_of(world: World, delta: float) -> tuple[Diagonal, Callable[[Tensor], Tensor]]:
    """A server loss whose Hessian is off by delta, up and down in turn."""
    off = delta * (-1.0) ** torch.arange(D, dtype=torch.float64)
    curvature = world.spectrum - off
    return Diagonal(tuple(curvature.tolist())), lambda x: (curvature * x**2).sum() / 2


@pytest.mark.parametrize(
    "similarity, condition, longer", sampled([0.1, 3.0, 30.0], [10.0, 1e4], [True, False])
)
def test_theorem_c(similarity, condition, longer):
    mu, big_l = 1 / condition, 1.0
    delta = similarity * mu
    for known in with_alpha(1 / 8 if longer else 4 / 27, mu):
        found = inexact.pigs(known, delta, mu, longer, lipschitz=big_l)
        world = World(mu, big_l, known)
        inner, q = proxy_of(world, delta)
        step = PIGS(delta, mu, longer, inner=inner).build(Mean(), 1.0).step
        _, floor = held(world, found, *track(world, step, rounds_for(found, 1e-4), proxy=q))
        assert floor <= 0.25


@pytest.mark.parametrize("similarity, condition", sampled([0.1, 3.0, 100.0], [10.0, 1e3]))
def test_theorem_d(similarity, condition):
    mu, big_l = 1 / condition, 1.0
    delta = similarity * mu
    alphas = [
        alpha
        for alpha in (1e-2, 3e-3, 1e-3, 1e-4, 1e-5)
        if inexact.aeg_prox(InexactOracle(0, alpha), big_l, delta, mu).holds
    ]
    for alpha in (0.0, alphas[0]):
        known = InexactOracle(mu * 1e-3, alpha)
        found = inexact.aeg_prox(known, big_l, delta, mu)
        world = World(mu, big_l, known)
        inner, q = proxy_of(world, delta)
        step = AEGProx(mu, delta, alpha, big_l, inner=inner).build(Mean(), 1.0).step
        assert step.lr == pytest.approx(found.steps["lr"])
        _, floor = held(world, found, *track(world, step, rounds_for(found, 1e-6), each=2, proxy=q))
        assert floor <= 0.5


# Slopes: rounds against condition, from the asymptotic contraction


def rate(step: Step, mu: float, big_l: float, each: int, delta: float = 0.0) -> float:
    """Rounds for a factor e without errors, from the spectral radius of one iteration as a linear map."""
    world = World(mu, big_l, InexactOracle(0.0, 0.0))
    basis = torch.eye(2 * D, dtype=torch.float64)
    state: Any = step.init(basis[:, :D], ServerContext(Layout.flat(D), proxy_of(world, delta)[1]))
    pair = getattr(state, "pair", state)
    pair = pair._replace(z=basis[:, D:]) if hasattr(pair, "z") else pair
    state = state._replace(pair=pair) if hasattr(state, "pair") else pair
    for _ in range(each):
        state = step.tell(state, world.spectrum * step.ask(state))
    pair = getattr(state, "pair", state)
    image = torch.cat([pair.x, pair.z if hasattr(pair, "z") else 0 * pair.x], dim=1)
    return each / -log(float(torch.linalg.eigvals(image).abs().max()))


def slope(values: list[float], rounds: list[float]) -> float:
    return log(rounds[-1] / rounds[0]) / log(values[-1] / values[0])


CONDITIONS = [1e4, 1e5, 1e6]  # √(μ/L) is no longer seen beside 1


def test_gd_slows_down_with_the_condition_and_acceleration_with_its_root():
    gd = [rate(METHODS.build("robust_gd").build(Mean(), 1.0).step, 1 / c, 1.0, 1) for c in CONDITIONS]
    nag = [rate(NAG(mu=1 / c).build(Mean(), 1.0).step, 1 / c, 1.0, 1) for c in CONDITIONS]
    aeg = [rate(AcceleratedExtragradient(1 / c).build(Mean(), 0.5).step, 1 / c, 1.0, 2) for c in CONDITIONS]
    assert slope(CONDITIONS, gd) == pytest.approx(1, abs=0.01)
    assert slope(CONDITIONS, nag) == pytest.approx(0.5, abs=0.03)
    assert slope(CONDITIONS, aeg) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("name, power", [("pigs", 1.0), ("aeg_prox", 0.5)])
def test_pigs_slows_down_with_delta_alone_and_its_acceleration_with_the_root(name, power):
    mu, ratios = 1e-3, [1e3, 1e4, 1e5]

    def found(big_l: float, ratio: float) -> float:
        inner, _ = proxy_of(World(mu, big_l, InexactOracle(0, 0)), ratio * mu)
        pigs = name == "pigs"
        recipe: MethodRecipe = (
            PIGS(ratio * mu, mu, inner=inner) if pigs else AEGProx(mu, ratio * mu, inner=inner)
        )
        return rate(recipe.build(Mean(), 1.0).step, mu, big_l, 1 if pigs else 2, ratio * mu)

    assert slope(ratios, [found(1e3, ratio) for ratio in ratios]) == pytest.approx(power, abs=0.03)
    assert found(1.0, 100.0) == pytest.approx(found(1e3, 100.0), rel=0.02)


# Relative errors


def ends(step: Step, world: World, rounds: int, proxy: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """The last gap over the first, by direction of the error."""
    slows, _ = track(world, step, rounds, proxy=proxy)
    return world.gap(slows[-1]) / world.gap(slows[0])


@pytest.mark.slow
def test_small_tau_converges_where_the_relative_error_is_far_above_the_root_of_the_condition():
    mu, big_l, alpha = 1e-4, 1.0, 1 / 8
    world = World(mu, big_l, InexactOracle(0.0, alpha))
    found = inexact.nag(world.known, big_l, mu, small_tau=True)
    assert not inexact.nag(world.known, big_l, mu).holds
    small = ends(NAG(mu=mu, alpha=alpha).build(Mean(), 1.0).step, world, rounds_for(found, 1e-2))
    assert float(small.max()) < 1e-2


def turned(step: Step, alpha: float, mu: float) -> float:
    """The largest spectral radius of a step where the error is √α ∇f turned by a right angle.

    Over 400 eigenvalues in [μ, 1], each of them double: a plane is a complex number, the right angle is i.
    """
    curvature = torch.logspace(log(mu, 10), 0, 400, dtype=torch.float64) * complex(1, sqrt(alpha))
    one = torch.ones(len(curvature), dtype=torch.complex128)
    columns = []
    for x, z in ((one, 0 * one), (0 * one, one)):
        state: Any = step.init(x, ServerContext(Layout.flat(len(curvature))))._replace(z=z)
        state = step.tell(state, curvature * step.ask(state))
        columns.append(torch.stack([state.x, state.z], dim=-1))
    return float(torch.linalg.eigvals(torch.stack(columns, dim=-1)).abs().max())


def test_the_plain_scheme_fails_from_a_relative_error_on_that_is_proportional_to_the_root():
    """Theorem B asks α <= 0.99 s. What breaks the scheme is larger by a constant, not by a power of s."""
    roots, limits = [1e-2, 10**-2.5, 1e-3], []
    for s in roots:
        plain, low, high = NAG(mu=s * s).build(Mean(), 1.0).step, s, 1.0
        assert turned(plain, 0.99 * s, s * s) < 1
        while high > low * 1.01:
            alpha = sqrt(low * high)
            low, high = (alpha, high) if turned(plain, alpha, s * s) < 1 else (low, alpha)
        limits.append(low)
        assert turned(NAG(mu=s * s, alpha=1 / 8).build(Mean(), 1.0).step, 1 / 8, s * s) < 1
    assert slope(roots, limits) == pytest.approx(1, abs=0.05)
    assert limits[-1] < 0.03  # four times below what the small-tau scheme has just borne


@pytest.mark.parametrize("condition", [1e2, 1e4])
def test_pigs_bears_that_error_too(condition):
    mu, big_l, alpha = 1 / condition, 1.0, 4 / 27
    spectrum = World(mu, big_l, InexactOracle(0, 0)).spectrum.repeat_interleave(2)
    turn = torch.tensor([-1.0, 1.0], dtype=torch.float64).repeat(D)
    off = 5 * mu * (-1.0) ** torch.arange(2 * D, dtype=torch.float64)
    inner, q = Diagonal(tuple((spectrum - off).tolist())), lambda x: ((spectrum - off) * x**2).sum() / 2
    step = PIGS(5 * mu, mu, inner=inner).build(Mean(), 1.0).step
    state = step.init(torch.ones(1, 2 * D, dtype=torch.float64), ServerContext(Layout.flat(2 * D), q))
    for _ in range(800):
        grad = spectrum * step.ask(state)
        error = turn * grad.view(1, D, 2).flip(-1).reshape(1, 2 * D)
        state = step.tell(state, grad + sqrt(alpha) * error)
    assert float((spectrum * step.answer(state) ** 2).sum()) < 1e-6 * float(spectrum.sum())


def test_pigs_bears_a_relative_error_that_does_not_hang_on_the_condition():
    for condition in (1e2, 1e5):
        world = World(1 / condition, 1.0, InexactOracle(0.0, 4 / 27))
        inner, q = proxy_of(world, 5 / condition)
        step = PIGS(5 / condition, 1 / condition, inner=inner).build(Mean(), 1.0).step
        assert float(ends(step, world, 800, q).max()) < 1e-6


@pytest.mark.slow
def test_aeg_prox_needs_delta_prime_under_a_relative_error():
    big_l, delta, mu = 10.0, 0.1, 1e-3
    world = World(mu, big_l, InexactOracle(0.0, 0.01))
    inner, q = proxy_of(world, delta)
    true_delta = AEGProx(mu, delta, inner=inner).build(Mean(), 1.0).step
    assert float(ends(true_delta, world, 4000, q).nan_to_num(inf).max()) > 1e3
    world = World(mu, big_l, InexactOracle(0.0, 0.004))
    safe = AEGProx(mu, delta, alpha=0.004, lipschitz=big_l, inner=inner)
    assert safe.delta_prime == pytest.approx(1.55 * sqrt(0.004) * 10)
    assert float(ends(safe.build(Mean(), 1.0).step, world, 6000, q).max()) < 1e-6
    tiny = inexact.true_delta_limit(delta, big_l)
    assert tiny == pytest.approx(5 / 12 * 1e-4)
    assert float(ends(true_delta, World(mu, big_l, InexactOracle(0.0, tiny)), 4000, q).max()) < 1e-6


@pytest.mark.parametrize("mu", [0.04, 0.01])
def test_the_common_floor_is_attained_along_the_flattest_direction(mu):
    big_l, zeta_squared = 1.0, 1e-4
    spectrum = World(mu, big_l, InexactOracle(0, 0)).spectrum
    error = torch.zeros(D, dtype=torch.float64)
    error[0] = sqrt(zeta_squared)
    floor = inexact.common_floor(InexactOracle(zeta_squared, 0.0), mu)
    inner, q = proxy_of(World(mu, big_l, InexactOracle(0, 0)), 0.05)
    steps = [
        METHODS.build("robust_gd").build(Mean(), 1.0).step,
        Nesterov(mu=mu).build(Mean(), 1.0).step,
        NAG(mu=mu).build(Mean(), 1.0).step,
        PIGS(inner=inner).build(Mean(), 5.0).step,
    ]
    for step in steps:
        state = step.init(torch.ones(1, D, dtype=torch.float64), ServerContext(Layout.flat(D), q))
        for _ in range(4000):
            state = step.tell(state, spectrum * step.ask(state) + error)
        gap = float((spectrum * step.answer(state) ** 2).sum() / 2)
        assert gap == pytest.approx(floor, rel=1e-6)


# Numbers and promises


def test_complexity_table_of_the_specification():
    known = inexact.oracle(kappa=0.01, g=0.5, b=1.0)
    assert known == pytest.approx((0.0025, 0.01))
    big_l, mu, delta = 10.0, 0.1, 1.0
    s = 0.1
    table = inexact.complexity(known, big_l, mu, delta)
    base = 0.0025 / mu
    assert table["robust_gd"].floor == pytest.approx(base / 2 / 0.99)
    assert table["robust_gd"].rounds == pytest.approx(100 / 0.99)
    assert table["nag"].floor == pytest.approx(base * (1 + 3.2 * s))
    assert table["nag"].rounds == pytest.approx(1 / (0.22 * s))
    tau = min(0.22 * s, mu / (5 * 0.01 * big_l))
    assert table["nag, small tau"].steps["tau"] == pytest.approx(tau)
    assert table["nag, small tau"].floor == pytest.approx(base * (1 + 0.23 + 0.025 + 4 * tau))
    assert table["accelerated_extragradient"].floor == pytest.approx(base * 1.33)
    assert table["accelerated_extragradient"].rounds == pytest.approx(100)
    assert table["pigs"].floor == pytest.approx(3 * base)
    assert table["pigs"].rounds == pytest.approx(1 + 8 * delta / mu)
    assert table["pigs, longer step"].rounds == pytest.approx(1 + 2 / 0.65 * delta / mu)
    larger = 1.55 * 0.1 * 10
    assert table["aeg_prox"].steps["delta_prime"] == pytest.approx(larger)
    assert table["aeg_prox"].rounds == pytest.approx(13.4 * sqrt(larger / mu))
    limits = {name: found.alpha_limit for name, found in table.items()}
    assert limits["nag"] == pytest.approx(0.099)
    assert limits["accelerated_extragradient"] == pytest.approx(1 / 50)
    assert limits["pigs"] == pytest.approx(4 / 27)
    assert limits["aeg_prox"] == pytest.approx(1 / 100)


def test_the_ideal_rule_breaks_down_exactly_where_every_rule_does():
    for n, f, b in ((25, 5, 1.0), (25, 5, 1.8), (21, 1, 4.0)):
        kappa = f / (n - 2 * f)
        assert (kappa * b**2 < 1) == (f / n < inexact.breakdown(b))


def test_noise_of_minibatches_enters_the_absolute_part():
    known = inexact.oracle(0.1, 2.0, 0.5, sigma=3.0, honest=20)
    own, mean = sqrt(0.1 * (4 + 9)), 3 / sqrt(20)
    assert known == pytest.approx(((own + mean) ** 2, (1 + mean / own) * 0.025))
    for slope in (0.0, 0.3, 7.0):  # as the root of the mean square has it, at every ‖∇L‖
        exact = (sqrt(0.1 * (4 + 0.25 * slope**2 + 9)) + mean) ** 2
        assert exact <= known.zeta_squared + known.alpha * slope**2 + 1e-12
    assert inexact.oracle(0.0, 2.0, 0.5, sigma=3.0, honest=20) == pytest.approx((9 / 20, 0.0))


KNOWN = Constants(
    n=20,
    f=3,
    d=5,
    rounds=200,
    attackers=3,
    tolerated=3,
    lipschitz=1.0,
    mu=0.01,
    delta=0.05,
    g=0.1,
    b=0.2,
    gap=1.0,
    sigma=0.0,
    sampling="exact",
    kappa_squared=0.5,
    unmet=0,
    watched=200,
)


@pytest.mark.parametrize("name", ["robust_gd", "nag", "accelerated_extragradient", "pigs", "aeg_prox"])
def test_promises_carry_the_theorems_numbers(name):
    from dataclasses import replace

    recipe = METHODS.build({"name": name, "tol": 0.0} if name in ("pigs", "aeg_prox") else name)
    if name == "pigs":  # the longer step wants the sec that is its default
        recipe = replace(recipe, sec=1.0)
    promise = recipe.promise(replace(KNOWN, b=0.05))
    assert promise is not None
    table = inexact.complexity(inexact.oracle(0.5, 0.1, 0.05), 1.0, 0.01, 0.05)
    assert promise.measures == "gap"
    assert promise.missing == ()
    assert promise.floor == pytest.approx(table[name].floor)
    assert promise.bound == pytest.approx(table[name].bound(1.0, 200))
    assert promise.steps["lr"] == pytest.approx(table[name].steps["lr"])
    beyond = recipe.promise(replace(KNOWN, b=2.0))
    assert beyond is not None
    assert beyond.bound is None
    assert any("α = κ₂ B² is at most" in reason for reason in beyond.missing)
    nothing = recipe.promise(Constants(n=20, f=3, d=5, rounds=200))
    assert nothing is not None
    assert nothing.missing


def test_small_tau_promises_more_than_the_plain_scheme():
    from dataclasses import replace

    known = replace(KNOWN, b=0.49)  # alpha = 0.12
    assert NAG().promise(known).missing
    assert NAG(alpha=0.11).promise(known).missing  # the recipe's α is too small
    assert not NAG(alpha=0.1201).promise(known).missing


def test_the_released_form_has_a_floor_and_no_rate():
    promise = Nesterov().promise(KNOWN)
    assert promise.bound is None
    assert promise.floor is None  # whether it settles is not known beforehand
    assert "settle" in promise.missing[0]
    floor = 0.005 / (2 * 0.01 * (1 - 0.02))
    assert promise.remarks[-1] == f"if the iterates settle, the gap there is at most {floor:.4g}"


def test_descent_without_convexity_bounds_the_gradient():
    from dataclasses import replace

    promise = METHODS.build("robust_gd").promise(replace(KNOWN, mu=None))
    assert promise is not None
    assert promise.measures == "min ‖grad f‖²"
    assert promise.bound == pytest.approx((2 / 200 + 0.005) / 0.98)


def test_nsgdm_promises_theorem_1_for_its_own_schedule_alone():
    from dataclasses import replace

    from byzopt.methods import ByzNSGDM, RobustSGDM
    from byzopt.schedules import Anytime, FixedHorizon
    from byzopt.theory import nsgdm

    known = Constants(
        n=20, f=3, d=5, rounds=1000, attackers=3, tolerated=3, sampling="fresh", l0=1.0, l1=1.0, gap=10.0,
        zeta=0.1, sigma=1.0, star_gap=0.5, start_rows=1.0, kappa_linear=17 / 7,
    )  # fmt: skip
    promise = ByzNSGDM(schedule=FixedHorizon()).promise(known)
    problem = nsgdm.Problem(1, 1, 10, 17, 0.1, 1, 0.5, 1.0)
    best = nsgdm.best_gamma0(problem, 17 / 7)
    assert promise.bound == pytest.approx(nsgdm.theorem_bound(problem, 17 / 7, 1000, best).total)
    assert promise.steps == {"lr": best, "lr_most": nsgdm.max_gamma0(1, 17 / 7)}
    assert promise.floor == pytest.approx(4 * 17 / 7 * 0.1)
    other = ByzNSGDM(schedule=Anytime()).promise(known)
    assert "fixed for the horizon" in other.missing[0]
    assert ByzNSGDM().promise(known).bound is None  # no step is given
    falling = ByzNSGDM().promise(replace(known, lr=best))
    gammas = [best / sqrt(k) for k in range(1, 1001)]
    assert falling.bound == pytest.approx(nsgdm.bound_along(problem, 17 / 7, gammas, 0.1).total)
    assert "momentum" in RobustSGDM().promise(known).missing[0]


@pytest.mark.parametrize(
    "call",
    [
        lambda: inexact.gd(InexactOracle(0, 0), 1.0, 2.0),
        lambda: inexact.nag(InexactOracle(0, 0), 1.0, 0.0),
        lambda: inexact.pigs(InexactOracle(0, 0), 1.0, 0.0),
        lambda: inexact.oracle(-1.0, 1.0),
        lambda: inexact.nag(InexactOracle(0, 0), 1.0, 0.1).rounds_to(2.0),
        lambda: PIGS(delta=0.0),
        lambda: PIGS(longer=True),
        lambda: AEGProx(delta=1.0, alpha=0.01),
        lambda: Nesterov(beta=1.0),
        lambda: Nesterov(mu=2.0).build(Mean(), 1.0),
    ],
)
def test_inadmissible_numbers_are_refused(call):
    with pytest.raises(InvalidInput, match="should"):
        call()


@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_pigs_without_convexity_bounds_the_mean_squared_gradient(alpha):
    """q(x) = x²/20, L(x) = q(x) + Δ cos x, whose curvature changes its sign; every gradient falls short."""
    delta, rounds, x = 0.5, 40, 3.5
    prox = 8 * delta  # 1/η

    def loss(point: float) -> float:
        return point**2 / 20 + delta * cos(point)

    def slope(point: float) -> float:
        return point / 10 - delta * sin(point)

    first, start, squares = slope(x), loss(x), []
    for _ in range(rounds):
        heard = (1 - sqrt(alpha)) * slope(x)
        x = (prox * x - heard + x / 10) / (0.1 + prox)
        squares.append(slope(x) ** 2)
    least = min(loss(k / 1000) for k in range(-10_000, 10_000))
    bound = inexact.pigs_nonconvex(InexactOracle(0.0, alpha), delta, start - least, rounds, abs(first))
    assert sum(squares) / rounds <= bound
    assert bound < 100 * sum(squares) / rounds
