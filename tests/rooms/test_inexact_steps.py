"""Accelerated and similarity steps: identities, twins from the listings, inner failures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from byzopt import lbfgs
from byzopt.errors import InvalidInput
from byzopt.layout import Layout
from byzopt.servers import (
    LBFGS,
    Descent,
    Exact,
    Extragradient,
    ExtragradientProx,
    GradientDescent,
    NesterovMomentum,
    ServerContext,
    SimilarityProx,
    Step,
    ThreeSequences,
)
from byzopt.servers.inner import Ending, Stop, Subproblem
from byzopt.states import freeze, thaw
from tests.reference import inexact as twins

D = 7


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def hessian(mu: float, big_l: float, seed: int = 0, d: int = D) -> Tensor:
    turn, _ = torch.linalg.qr(gaussian(d, d, seed=seed))
    return turn @ torch.diag(torch.logspace(np.log10(mu), np.log10(big_l), d, dtype=torch.float64)) @ turn.T


H, CENTRE, X0 = hessian(0.1, 3.0), gaussian(D, seed=5), gaussian(D, seed=6)


def robust(x: Tensor) -> Tensor:
    """A gradient with an error that hangs on the point, as an aggregate has."""
    return H @ (x - CENTRE) + 0.01 * torch.sin(3 * x)


def nothing(x: Tensor) -> Tensor:
    return 0 * x.sum()


def walk(
    step: Step,
    oracle: Callable[[Tensor], Tensor],
    rounds: int,
    proxy: Callable[[Tensor], Tensor] | None = None,
) -> list[Tensor]:
    """The answers after each round."""
    state, path = step.init(X0, ServerContext(Layout.flat(D), proxy)), []
    for _ in range(rounds):
        state = step.tell(state, oracle(step.ask(state)))
        path.append(step.answer(state))
    return path


def same(ours: list[Tensor], theirs: list, tolerance: float = 1e-12) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, torch.as_tensor(b), rtol=tolerance, atol=tolerance)


def numpy_oracle(x: np.ndarray) -> np.ndarray:
    return robust(torch.from_numpy(x)).numpy()


def quadratic(matrix: Tensor, centre: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: (x - centre) @ matrix @ (x - centre) / 2


# Identities


@pytest.mark.parametrize("beta", [0.3, 0.9])
def test_released_nag_is_pytorchs_nesterov_and_the_two_sequence_form(beta):
    ours = walk(NesterovMomentum(0.1, beta), robust, 40)
    same(ours, twins.two_sequence_nag(X0.numpy(), numpy_oracle, 0.1, beta, 40))
    same(ours, twins.released_nag(X0.numpy(), numpy_oracle, 0.1, beta, 40))
    x = torch.nn.Parameter(X0.clone())
    sgd = torch.optim.SGD([x], lr=0.1, momentum=beta, nesterov=True)
    for point in ours:
        x.grad = robust(x.detach())
        sgd.step()
        torch.testing.assert_close(point, x.detach(), rtol=1e-12, atol=1e-12)


def test_without_momentum_it_is_descent():
    same(walk(NesterovMomentum(0.1, 0.0), robust, 20), walk(Descent(0.1), robust, 20))


def test_pigs_without_a_loss_is_descent_by_eta():
    step = SimilarityProx(0.2, Exact(), stop="machine")
    same(walk(step, robust, 20, nothing), walk(Descent(0.2), robust, 20))
    same(walk(SimilarityProx(0.2, LBFGS(), "machine"), robust, 20, nothing), walk(Descent(0.2), robust, 20))


@pytest.mark.parametrize("inner", [Exact(), LBFGS()], ids=["exact", "lbfgs"])
@pytest.mark.parametrize("eta", [0.1, 2.0, 50.0])
def test_pigs_with_a_quadratic_is_one_linear_solve(inner, eta):
    q = hessian(0.5, 2.0, seed=3)
    ours = walk(SimilarityProx(eta, inner, "machine"), robust, 15, quadratic(q, CENTRE + 1))
    theirs = twins.pigs(X0.numpy(), numpy_oracle, eta, twins.quadratic_prox(q.numpy()), 15)
    # A linear solve is exact to the condition number (4) times a few roundings. L-BFGS compares values of φ,
    # known to some 10 roundings of their size: it ends within √(2 · 10 · 4 roundings) of the minimum.
    eps = float(np.finfo(float).eps)
    same(ours, theirs, 1e4 * eps if isinstance(inner, Exact) else (80 * eps) ** 0.5)


@pytest.mark.parametrize("eta", [0.5, 10.0, 1e9])
def test_pigs_with_the_whole_loss_is_the_proximal_point_method(eta):
    def exact(x: Tensor) -> Tensor:
        return H @ (x - CENTRE)

    path = walk(SimilarityProx(eta, Exact(), "machine"), exact, 5, quadratic(H, CENTRE))
    shrink = 1 / (1 + eta * 0.1)
    before = X0
    for x in path:
        assert float((x - CENTRE).norm()) <= shrink * float((before - CENTRE).norm()) + 1e-12
        before = x
    if eta == 1e9:
        torch.testing.assert_close(path[0], CENTRE, rtol=0, atol=1e-7)


def test_aeg_prox_without_a_loss_is_aeg():
    ours = walk(ExtragradientProx(0.15, 0.1, 0.4, 0.32, Exact(), "machine"), robust, 40, nothing)
    same(ours, walk(Extragradient(0.15, 0.1, 0.4, 0.32), robust, 40))


@pytest.mark.parametrize("factors", [(1.0, 1.0), (0.4, 0.32)])
def test_aeg_is_its_listing_and_takes_two_rounds(factors):
    path = walk(Extragradient(1 / 6, 0.1, *factors), robust, 40)
    same(path[1::2], twins.aeg(X0.numpy(), numpy_oracle, 1 / 6, 0.1, *factors, 20))
    same(path[0::2], path[1::2])  # the second half moves z alone


def test_aeg_prox_is_its_listing():
    q = hessian(0.5, 2.0, seed=3)
    step = ExtragradientProx(0.5, 0.1, inner=Exact(), stop="machine")
    prox = twins.quadratic_prox(q.numpy())
    theirs = twins.aeg(X0.numpy(), numpy_oracle, 0.5, 0.1, 0.3 * 2**0.5, 0.36, 20, prox)
    same(walk(step, robust, 40, quadratic(q, CENTRE))[1::2], theirs)


@pytest.mark.parametrize("alpha, tau", [(0.0, None), (0.1, None), (0.0, 0.03)])
def test_three_sequences_are_their_listing(alpha, tau):
    big_l, mu = 3.0, 0.1
    s = (mu / big_l) ** 0.5
    wanted = tau or (min(0.22 * s, mu / (5 * alpha * big_l)) if alpha else 0.22 * s)
    ours = walk(ThreeSequences(1 / big_l, mu, alpha, tau), robust, 40)
    same(ours, twins.three_sequence_nag(X0.numpy(), numpy_oracle, big_l, mu, wanted, 40))


def test_extragradient_weights_are_the_theorems():
    big_l, mu = 50.0, 0.02
    s = (mu / big_l) ** 0.5
    ours = Extragradient(1 / (2 * big_l), mu).weights
    assert (ours.tau, ours.eta, ours.b) == pytest.approx((0.2 * s, 0.4 * s / mu, 0.4 * s))
    kovalev = Extragradient(1 / (2 * big_l), mu, 1.0, 1.0).weights
    assert (kovalev.tau, kovalev.b) == pytest.approx((s / 2, s / 2))
    assert kovalev.eta == pytest.approx(1 / (2 * (mu * big_l) ** 0.5))
    delta = 0.7
    s = (mu / delta) ** 0.5
    ours = ExtragradientProx(1 / (4 * delta), mu).weights
    assert (ours.tau, ours.eta, ours.b) == pytest.approx((0.15 * s, 0.3 * s / mu, 0.3 * s))


# The inner solve


def softplus(x: Tensor) -> Tensor:
    """Convex, not quadratic."""
    return torch.nn.functional.softplus(H @ x).sum() + (x @ x) / 20


INNERS = [LBFGS(), GradientDescent(lr=0.05), Exact()]


@pytest.mark.parametrize("inner", INNERS, ids=lambda inner: inner.name)
@pytest.mark.parametrize("stop", [Stop("relative", 10.0), Stop("relative", 1.0), Stop("absolute", tol=1e-6)])
@pytest.mark.parametrize("eta", [0.3, 4.0])
def test_a_met_stop_is_met(inner, stop, eta):
    phi = Subproblem.of(softplus, X0, robust(X0), eta)
    solved = inner.solve(phi, stop)
    assert solved.ending is Ending.MET
    assert 1 <= solved.steps <= inner.budget
    value, grad = phi(solved.y)
    moved = float((solved.y - X0).norm())
    limit = max(moved**2 / (4 * eta**2 * stop.sec), stop.tol) if stop.rule == "relative" else stop.tol
    assert float(grad @ grad) <= limit
    assert value <= 0


@pytest.mark.parametrize("inner", [LBFGS(), Exact()], ids=lambda inner: inner.name)
def test_machine_precision_gives_the_minimiser(inner):
    phi = Subproblem.of(softplus, X0, robust(X0), 4.0)
    solved = inner.solve(phi, Stop("machine"))
    assert solved.ending in (Ending.MET, Ending.STALLED)
    assert float(phi(solved.y)[1].norm()) < 1e-12


@pytest.mark.parametrize("inner", INNERS, ids=lambda inner: inner.name)
def test_a_zero_aggregate_takes_no_step(inner):
    phi = Subproblem.of(softplus, X0, torch.zeros(D, dtype=torch.float64), 4.0)
    solved = inner.solve(phi, Stop())
    assert (solved.ending, solved.steps) == (Ending.FIXED_POINT, 0)
    assert torch.equal(solved.y, X0)


@pytest.mark.parametrize(
    "inner", [LBFGS(budget=1), GradientDescent(lr=1e-6, budget=1), Exact(budget=1)], ids=lambda i: i.name
)
def test_a_budget_of_one_is_spent_and_said(inner):
    solved = inner.solve(Subproblem.of(softplus, X0, robust(X0), 50.0), Stop("machine"))
    assert (solved.ending, solved.steps) == (Ending.BUDGET, 1)
    assert bool(solved.y.isfinite().all())


@pytest.mark.parametrize("lr", [3.0, 1e200])
def test_ascent_and_overflow_end_in_a_short_step_down(lr):
    phi = Subproblem.of(softplus, X0, robust(X0), 0.5)
    solved = GradientDescent(lr=lr, budget=30).solve(phi, Stop("machine"))
    assert solved.ending in (Ending.ASCENT, Ending.NONFINITE)
    assert phi(solved.y)[0] < 0
    assert bool(solved.y.isfinite().all())


@pytest.mark.parametrize("inner", INNERS, ids=lambda inner: inner.name)
def test_a_loss_that_is_nan_away_from_x_ends_with_a_name(inner):
    def broken(x: Tensor) -> Tensor:
        return (x * 0).sum() + torch.where((x - X0).abs().sum() > 0, float("nan"), 0.0)

    solved = inner.solve(Subproblem.of(broken, X0, robust(X0), 0.5), Stop())
    assert solved.ending in (Ending.NONFINITE, Ending.STALLED)
    assert bool(solved.y.isfinite().all())


@pytest.mark.parametrize("inner", [LBFGS(), GradientDescent(lr=1e-30)], ids=lambda inner: inner.name)
def test_a_step_too_short_to_move_is_no_endless_loop(inner):
    steep = Subproblem.of(lambda x: 1e40 * (x @ x), X0, 1e-3 * gaussian(D, seed=9), 1e-30)
    solved = inner.solve(steep, Stop("machine"))
    assert solved.ending is not Ending.MET
    assert bool(solved.y.isfinite().all())


def test_a_loss_without_a_lower_bound_does_not_run_away():
    """q concave and eta too long for it: the subproblem has no minimiser."""
    step = SimilarityProx(100.0, LBFGS(budget=50))
    state = step.init(X0, ServerContext(Layout.flat(D), lambda x: -(x @ x)))
    state = step.tell(state, robust(X0))
    assert bool(step.answer(state).isfinite().all())
    assert step.report(state)["inner_unmet"] == 1


def test_inner_work_is_counted_apart_and_by_ending():
    step = SimilarityProx(4.0)
    state = step.init(X0, ServerContext(Layout.flat(D), softplus))
    total = 0.0
    for _ in range(5):
        state = step.tell(state, robust(step.ask(state)))
        total += step.report(state)["inner_last"]
    report = step.report(state)
    assert report["inner_steps"] == total >= 5
    assert report["inner_evaluations"] >= total
    assert report["inner_unmet"] == 0
    state = step.tell(state, torch.zeros(D, dtype=torch.float64))
    assert step.report(state)["inner_fixed_point"] == 1
    assert step.report(state)["inner_last"] == 0


def test_a_step_without_a_proxy_is_refused_with_the_reason():
    for step in (SimilarityProx(1.0), ExtragradientProx(1.0, 0.1)):
        with pytest.raises(InvalidInput, match="proxy"):
            step.init(X0, ServerContext(Layout.flat(D)))


def test_a_checkpoint_keeps_the_numbers_and_takes_the_loss_from_the_run():
    for step in (SimilarityProx(1.0), ExtragradientProx(0.5, 0.1)):
        state = step.init(X0, ServerContext(Layout.flat(D), softplus))
        later = step.tell(state, robust(step.ask(state)))
        again = thaw(freeze(later), state)
        assert torch.equal(step.answer(again), step.answer(later))
        assert step.report(again) == step.report(later)
        g = robust(step.ask(later))
        assert torch.equal(step.answer(step.tell(again, g)), step.answer(step.tell(later, g)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_keep_the_dtype_and_write_to_nothing(dtype):
    x0, g = X0.to(dtype), robust(X0).to(dtype)
    copies = x0.clone(), g.clone()
    steps: list[Step] = [NesterovMomentum(0.1), ThreeSequences(0.3, 0.1), Extragradient(0.1, 0.1)]
    steps += [SimilarityProx(1.0), ExtragradientProx(0.5, 0.1)]
    for step in steps:
        state = step.init(x0, ServerContext(Layout.flat(D), lambda x: (x @ x) / 2))
        for _ in range(4):
            state = step.tell(state, g)
        assert step.answer(state).dtype == step.ask(state).dtype == dtype
    assert torch.equal(x0, copies[0])
    assert torch.equal(g, copies[1])


@pytest.mark.parametrize(
    "make",
    [
        lambda: NesterovMomentum(0.1, 1.0),
        lambda: NesterovMomentum(-0.1),
        lambda: ThreeSequences(0.1, 0.0),
        lambda: ThreeSequences(0.1, 0.1, tau=1.5),
        lambda: ThreeSequences(0.1, 0.1, alpha=-1.0),
        lambda: Extragradient(0.1, -1.0),
        lambda: Extragradient(0.1, 0.1, tau_factor=0.0),
        lambda: SimilarityProx(0.1, sec=0.0),
        lambda: SimilarityProx(0.1, tol=-1.0),
        lambda: SimilarityProx(0.1, stop="never"),  # type: ignore[arg-type]
        lambda: ExtragradientProx(float("inf"), 0.1),
        lambda: LBFGS(budget=0),
        lambda: LBFGS(history=0),
        lambda: GradientDescent(lr=0.0),
        lambda: Exact(budget=0),
        lambda: Exact(largest=3).solve(Subproblem.of(softplus, X0, robust(X0), 1.0), Stop()),
    ],
)
def test_bad_parameters_are_refused(make):
    with pytest.raises(InvalidInput, match="Found"):
        make()


# The minimiser underneath


@pytest.mark.parametrize("condition", [1.0, 1e4, 1e8])
def test_lbfgs_reaches_a_tiny_gradient_on_quadratics(condition):
    matrix = hessian(1 / condition, 1.0, d=20)
    end = lbfgs.minimise(
        lambda x: (float(x @ matrix @ x / 2), matrix @ x),
        gaussian(20, seed=3),
        lambda x, grad: float(grad.norm()) < 1e-10,
        2000,
    )
    assert end.reason == "met"


def test_lbfgs_goes_on_where_a_gradient_falls_unevenly_below_the_rounding_of_values():
    curvatures = torch.logspace(-3, 1, 200, dtype=torch.float64)
    end = lbfgs.minimise(
        lambda x: (1 + float(curvatures @ x.square()) / 2, curvatures * x),
        torch.ones(200, dtype=torch.float64),
        lambda x, grad: float(grad.norm()) < 1e-9,
        5000,
    )
    assert end.reason == "met"


def test_lbfgs_minimises_the_rosenbrock_function():
    def rosenbrock(x: Tensor) -> tuple[float, Tensor]:
        a, b = x[0], x[1]
        grad = torch.stack([-2 * (1 - a) - 400 * a * (b - a**2), 200 * (b - a**2)])
        return float((1 - a) ** 2 + 100 * (b - a**2) ** 2), grad

    start = torch.tensor([-1.2, 1.0], dtype=torch.float64)
    end = lbfgs.minimise(rosenbrock, start, lambda x, grad: float(grad.norm()) < 1e-9, 200)
    assert end.reason == "met"
    torch.testing.assert_close(end.x, torch.ones(2, dtype=torch.float64), rtol=1e-9, atol=1e-9)
