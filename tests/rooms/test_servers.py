"""Server steps: plain descent, and steps of fixed length in a norm (LMO)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from byzopt.errors import InvalidInput
from byzopt.layout import Layout
from byzopt.schedules import Doubling, FixedHorizon, InverseSqrt
from byzopt.servers import (
    NORMS,
    STEPS,
    Descent,
    Euclidean,
    LMOStep,
    ServerAdagrad,
    ServerAdam,
    ServerContext,
    ServerYogi,
    Sign,
    Spectral,
    Step,
)

LAYOUT = Layout(("conv", "bias", "weight", "gain"), ((4, 3, 2, 2), (7,), (6, 9), ()))
SCALES = [
    *((torch.float64, scale) for scale in (1e-300, 1e-30, 1.0, 1e30, 1e300)),
    *((torch.float32, scale) for scale in (1e-30, 1e-12, 1.0, 1e12, 1e30)),
    *((torch.bfloat16, scale) for scale in (1e-30, 1.0, 1e30)),
    *((torch.float16, scale) for scale in (1e-2, 1.0, 1e3)),
]


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def walk(step: Step, told: list[Tensor], x0: Tensor, layout: Layout | None = None) -> list[Tensor]:
    """The iterates after each aggregate."""
    state, path = step.init(x0, ServerContext(layout or Layout.flat(len(x0)))), []
    for g in told:
        state = step.tell(state, g)
        path.append(step.answer(state))
    return path


def test_descent_walks_minus_gamma_times_the_aggregate():
    g, x0 = gaussian(5), gaussian(5, seed=1)
    first, second = walk(Descent(0.5, InverseSqrt()), [g, g], x0)
    torch.testing.assert_close(first, x0 - 0.5 * g)
    torch.testing.assert_close(second, first - 0.5 / math.sqrt(2) * g)


@pytest.mark.parametrize("dtype, scale", SCALES)
def test_euclidean_step_has_length_gamma_at_any_scale(dtype, scale):
    g = (gaussian(1000) * scale).to(dtype)
    (x,) = walk(LMOStep(0.25), [g], torch.zeros(1000, dtype=dtype))
    assert x.dtype == dtype
    tolerance = 1e-6 if dtype.itemsize > 2 else 2e-3
    assert float(x.double().norm()) == pytest.approx(0.25, rel=tolerance)


def test_euclidean_direction_of_a_million_float32_coordinates_is_exact_to_rounding():
    g = gaussian(1_000_000, dtype=torch.float32) + 3
    direction = Euclidean().direction(g, Layout.flat(len(g)))
    assert float(direction.double().norm()) == pytest.approx(1, rel=1e-7)
    exact = g.double() / g.double().norm()
    assert float((direction.double() - exact).norm()) < 2e-7


def test_denormal_aggregate_still_gives_a_full_step():
    (x,) = walk(LMOStep(1.0), [torch.tensor([3e-42, -4e-42])], torch.zeros(2))
    torch.testing.assert_close(x, torch.tensor([-0.6, 0.8]), rtol=1e-3, atol=0)


@pytest.mark.parametrize("norm", [Euclidean(), Sign(), Spectral(), Spectral(exact=True)], ids=repr)
def test_zero_aggregate_leaves_x_and_is_counted(norm):
    step = LMOStep(0.5, norm=norm)
    state = step.init(gaussian(LAYOUT.d), ServerContext(LAYOUT))
    x0 = step.answer(state)
    for _ in range(3):
        state = step.tell(state, torch.zeros(LAYOUT.d, dtype=torch.float64))
    assert torch.equal(step.answer(state), x0)
    assert step.report(state) == {"stalls": 3.0}
    state = step.tell(state, gaussian(LAYOUT.d, seed=2))
    assert step.report(state) == {"stalls": 3.0}
    assert not torch.equal(step.answer(state), x0)


@pytest.mark.parametrize("norm", [Euclidean(), Sign(), Spectral(), Spectral(exact=True)], ids=repr)
def test_a_zero_block_beside_others_stays_zero_and_finite(norm):
    v = gaussian(LAYOUT.d)
    LAYOUT.views(v)["weight"].zero_()
    direction = norm.direction(v, LAYOUT)
    assert torch.isfinite(direction).all()
    assert not LAYOUT.views(direction)["weight"].any()


def test_cutoff_stops_short_aggregates_and_no_others():
    short, long = torch.tensor([1e-3, 0.0]), torch.tensor([1.1e-3, 0.0])
    step = LMOStep(1.0, cutoff=1e-3 + 1e-9)
    assert [float(x[0]) for x in walk(step, [short, long, short], torch.zeros(2))] == [0.0, -1.0, -1.0]


def test_non_finite_aggregate_is_not_hidden():
    (x,) = walk(LMOStep(1.0), [torch.tensor([float("nan"), 1.0])], torch.zeros(2))
    assert not torch.isfinite(x).all()


@pytest.mark.parametrize("norm", [Euclidean(), Sign(), Spectral(), Spectral(exact=True)], ids=repr)
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_direction_does_not_depend_on_scale(norm, scale, dtype):
    v = gaussian(LAYOUT.d, dtype=dtype)
    torch.testing.assert_close(
        norm.direction(v * scale, LAYOUT), norm.direction(v, LAYOUT), rtol=2e-4, atol=2e-5
    )


def test_sign_walks_the_same_length_in_every_coordinate():
    v = torch.tensor([3.0, -1e-30, 0.0])
    assert Sign().direction(v, Layout.flat(3)).tolist() == [1, -1, 0]
    # The LMO of the max-norm ball attains minus the l1 norm.
    assert float(-v @ Sign().direction(v, Layout.flat(3))) == pytest.approx(-float(v.abs().sum()))


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (5, 5), (1, 8), (8, 1)])
def test_spectral_direction_is_the_polar_factor_and_attains_the_nuclear_norm(shape):
    v = gaussian(*shape)
    layout = Layout(("w",), (shape,))
    direction = Spectral(exact=True).direction(v.flatten(), layout).view(shape)
    p, _, qt = torch.linalg.svd(v, full_matrices=False)
    torch.testing.assert_close(direction, p @ qt, rtol=1e-10, atol=1e-12)
    nuclear = torch.linalg.matrix_norm(v, "nuc")
    torch.testing.assert_close((v * direction).sum(), nuclear, rtol=1e-12, atol=0)
    assert float(torch.linalg.matrix_norm(direction, 2)) == pytest.approx(1, rel=1e-12)


def test_exact_direction_of_a_rank_deficient_matrix_has_its_rank():
    v = gaussian(6, 2) @ gaussian(2, 9, seed=1)
    direction = Spectral(exact=True).direction(v.flatten(), Layout(("w",), ((6, 9),))).view(6, 9)
    singular = torch.linalg.svdvals(direction)
    torch.testing.assert_close(singular, torch.tensor([1.0, 1, 0, 0, 0, 0]).double(), rtol=1e-9, atol=1e-9)
    assert float((v * direction).sum()) == pytest.approx(float(torch.linalg.matrix_norm(v, "nuc")))


@pytest.mark.parametrize("shape", [(32, 32), (64, 32), (32, 100), (128, 128)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_five_newton_schulz_steps_are_close_to_the_polar_factor(shape, seed):
    v, layout = gaussian(*shape, seed=seed), Layout(("w",), (shape,))
    fast = Spectral().direction(v.flatten(), layout)
    exact = Spectral(exact=True).direction(v.flatten(), layout)
    assert float(torch.nn.functional.cosine_similarity(fast, exact, dim=0)) > 0.97
    singular = torch.linalg.svdvals(fast.view(shape))
    assert float(singular.max()) < 1.25


def test_layer_wise_ball_gives_each_tensor_its_own_norm():
    v = gaussian(LAYOUT.d)
    norm = Spectral(exact=True, radius=3.0, vector_radius=0.5, keep=("weight",))
    parts, given = LAYOUT.views(norm.direction(v, LAYOUT)), LAYOUT.views(v)
    singular = torch.linalg.svdvals(parts["conv"].flatten(1))  # a kernel reshaped to [out, in k k]
    torch.testing.assert_close(singular, torch.full((4,), 3.0).double())
    torch.testing.assert_close(parts["bias"], 0.5 * given["bias"] / given["bias"].norm())
    torch.testing.assert_close(parts["weight"], 0.5 * given["weight"] / given["weight"].norm())
    torch.testing.assert_close(parts["gain"], 0.5 * given["gain"].sign())
    signed = LAYOUT.views(Spectral(vectors="sign", vector_radius=2.0).direction(v, LAYOUT))
    torch.testing.assert_close(signed["bias"], 2 * given["bias"].sign())


def test_euclidean_lmo_is_the_normalised_step():
    x0, told = gaussian(6), [gaussian(6, seed=s) for s in range(1, 6)]
    x = x0
    for k, (g, ours) in enumerate(
        zip(told, walk(LMOStep(0.3, InverseSqrt()), told, x0), strict=True), start=1
    ):
        x = x - 0.3 / math.sqrt(k) * g / g.norm()
        torch.testing.assert_close(ours, x, rtol=1e-13, atol=1e-14)


def test_server_momentum_follows_the_normalisation_in_both_conventions():
    told = [gaussian(6, seed=s) for s in range(1, 6)]
    for form, new in (("average", 0.1), ("heavy_ball", 1.0)):
        x, u = torch.zeros(6, dtype=torch.float64), torch.zeros(6, dtype=torch.float64)
        for g, ours in zip(told, walk(LMOStep(0.3, eta=0.1, form=form), told, x), strict=True):
            u = 0.9 * u + new * g / g.norm()
            x = x - 0.3 * u
            torch.testing.assert_close(ours, x, rtol=1e-13, atol=1e-14)


def test_server_momentum_takes_eta_from_the_schedule():
    told = [gaussian(6, seed=s) for s in range(1, 4)]
    ours = walk(LMOStep(1.0, FixedHorizon(100), eta=0.5), told, torch.zeros(6).double())
    units = [g / g.norm() for g in told]
    torch.testing.assert_close(ours[0], -(100**-0.75) * 0.1 * units[0])
    torch.testing.assert_close(ours[1], ours[0] - 100**-0.75 * (0.09 * units[0] + 0.1 * units[1]))


SECOND_MOMENTS = {  # Reddi et al., arXiv:2003.00295, Algorithm 2
    "server_adagrad": lambda v, g, beta_2: v + g * g,
    "server_yogi": lambda v, g, beta_2: v - (1 - beta_2) * g * g * torch.sign(v - g * g),
    "server_adam": lambda v, g, beta_2: beta_2 * v + (1 - beta_2) * g * g,
}


@pytest.mark.parametrize("name", SECOND_MOMENTS)
def test_adaptive_steps_are_those_of_the_paper(name):
    adagrad = name == "server_adagrad"
    settings = {} if adagrad else {"beta_2": 0.95}
    settings |= {"correction": "none"} if name == "server_adam" else {}
    step = STEPS.build({"name": name, "lr": 0.2, "beta_1": 0.8, "tau": 0.01, **settings})
    told = [gaussian(6, seed=s) for s in range(1, 7)]
    x, m, v = gaussian(6, seed=9), torch.zeros(6).double(), torch.zeros(6).double()
    for g, ours in zip(told, walk(step, told, x), strict=True):
        m = 0.8 * m + 0.2 * g
        v = SECOND_MOMENTS[name](v, g, 0.95)
        x = x - 0.2 * m / (v.sqrt() + 0.01)
        torch.testing.assert_close(ours, x, rtol=1e-13, atol=1e-14)


def test_adam_is_corrected_for_its_start_as_flower_does_it():
    g = gaussian(6)
    (x,) = walk(STEPS.build({"name": "server_adam", "lr": 0.2, "tau": 1e-9}), [g], torch.zeros(6).double())
    factor = math.sqrt(1 - 0.99**2) / (1 - 0.9**2) * 0.1 / math.sqrt(0.01)
    torch.testing.assert_close(x, -0.2 * factor * g.sign())


@pytest.mark.parametrize("make", [Descent, LMOStep, lambda lr, s: LMOStep(lr, s, eta=0.3)])
def test_doubling_restarts_each_epoch_from_x0_as_if_alone(make):
    told = [gaussian(4, seed=s) for s in range(1, 7)]
    x0 = gaussian(4, seed=9)
    step = make(0.5, Doubling(2))
    restarted = walk(step, told, x0)[2:]
    alone = walk(make(0.5, FixedHorizon(4)), told[2:], x0)
    assert all(torch.equal(a, b) for a, b in zip(restarted, alone, strict=True))
    carried = walk(make(0.5, Doubling(2, carry=True)), told, x0)
    assert not torch.equal(carried[2], restarted[0])


def test_doubling_asks_at_x0_before_it_answers_from_there():
    step = Descent(0.5, Doubling(1))
    state = step.tell(step.init(torch.zeros(2), ServerContext(Layout.flat(2))), torch.ones(2))
    assert step.ask(state).tolist() == [0, 0]
    assert step.answer(state).tolist() == [-0.5, -0.5]


def test_steps_write_to_nothing_they_are_given():
    x0, g = gaussian(LAYOUT.d), gaussian(LAYOUT.d, seed=1)
    copies = x0.clone(), g.clone()
    for step in (Descent(0.1), LMOStep(0.1), LMOStep(0.1, norm=Spectral()), LMOStep(0.1, norm=Sign())):
        walk(step, [g, g], x0, LAYOUT)
    assert torch.equal(x0, copies[0])
    assert torch.equal(g, copies[1])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Descent(0.0),
        lambda: Descent(float("nan")),
        lambda: LMOStep(float("inf")),
        lambda: LMOStep(-1.0),
        lambda: LMOStep(1.0, cutoff=-1.0),
        lambda: LMOStep(1.0, eta=0.0),
        lambda: LMOStep(1.0, eta=1.1),
        lambda: ServerAdam(lr=0.0),
        lambda: ServerAdam(beta_1=1.0),
        lambda: ServerYogi(beta_2=1.0),
        lambda: ServerAdagrad(tau=0.0),
        lambda: Spectral(steps=0),
        lambda: Spectral(radius=0.0),
        lambda: Spectral(vector_radius=-1.0),
        lambda: Spectral(vectors="max"),  # type: ignore[arg-type]
    ],
)
def test_bad_parameters_are_refused(make):
    with pytest.raises(InvalidInput, match="Found"):
        make()


def test_registered_names():
    assert {"descent", "lmo"} <= set(STEPS)
    assert {"euclidean", "sign", "spectral"} <= set(NORMS)
