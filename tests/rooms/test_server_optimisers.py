"""Server optimisers: PyTorch's to rounding, their limits, and what they remember of attacks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from byzopt.aggregators import NNM, Mean, Median
from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput
from byzopt.experiments import Spec
from byzopt.experiments.running import prepare_spec
from byzopt.experiments.trials.batched import BatchedTrials, batch_groups
from byzopt.layout import Layout
from byzopt.methods import METHODS, FedOpt, RobustGD
from byzopt.servers import (
    STEPS,
    Clipped,
    Descent,
    NesterovMomentum,
    ServerAdagrad,
    ServerAdam,
    ServerAdamW,
    ServerContext,
    ServerMomentum,
    ServerYogi,
    Step,
)
from byzopt.tasks import Quadratic
from tests.running import finish, play


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def walk(step: Step, told: Tensor, x0: Tensor) -> Tensor:
    state, points = step.init(x0, ServerContext(Layout.flat(len(x0)))), []
    for g in told:
        state = step.tell(state, g)
        points.append(step.ask(state))
    return torch.stack(points)


def torch_walk(kind: type[torch.optim.Optimizer], told: Tensor, x0: Tensor, **settings: object) -> Tensor:
    x = x0.clone().requires_grad_()
    optimizer, points = kind([x], **settings), []
    for g in told:
        x.grad = g.clone()
        optimizer.step()
        points.append(x.detach().clone())
    return torch.stack(points)


PARITY = {
    "adam": (
        ServerAdam(0.05, 0.8, 1e-6, 0.95, "torch"),
        torch.optim.Adam,
        {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-6},
    ),
    "adamw": (ServerAdamW(), torch.optim.AdamW, {}),
    "adamw, much decay": (ServerAdamW(0.1, wd=0.5), torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.5}),
    "adagrad": (
        ServerAdagrad(0.3, tau=1e-10, v_0=0.25),
        torch.optim.Adagrad,
        {"lr": 0.3, "eps": 1e-10, "initial_accumulator_value": 0.25},
    ),
    "nesterov": (
        NesterovMomentum(0.1, 0.9),
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    ),
    "heavy ball": (
        ServerMomentum(0.1, eta=0.5, form="heavy_ball"),
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.5},
    ),
}


@pytest.mark.parametrize("name", PARITY)
def test_steps_are_those_of_pytorch(name):
    step, kind, settings = PARITY[name]
    told, x0 = normal(40, 12) * torch.logspace(-3, 3, 12, dtype=torch.float64), normal(12, seed=1)
    expected = torch_walk(kind, told, x0, **settings)
    # A few roundings of 1e-16 a step, over 40 steps of numbers of size about 1.
    torch.testing.assert_close(walk(step, told, x0), expected, rtol=1e-14, atol=1e-14)


def test_flowers_own_correction_is_another_one():
    told, x0 = normal(5, 3), torch.zeros(3).double()
    walks = [walk(ServerAdam(correction=kind), told, x0) for kind in ("flower", "torch", "none")]
    assert all(float((walks[i] - walks[j]).norm()) > 1e-3 for i, j in ((0, 1), (1, 2), (0, 2)))


@pytest.mark.parametrize(
    "step", [ServerAdam(0.1, 0.0, 1e-14, 0.0, "none"), ServerAdam(0.1, 0.0, 1e-14, 0.0, "torch")]
)
def test_without_memory_adam_is_descent_along_signs(step):
    told, x0 = normal(6, 9), normal(9, seed=1)
    signs = x0 - 0.1 * told.sign().cumsum(dim=0)
    torch.testing.assert_close(walk(step, told, x0), signs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "step", [ServerAdam(), ServerAdamW(), ServerYogi(), ServerAdagrad(), NesterovMomentum(), ServerMomentum()]
)
def test_their_lr_scales_the_move_and_nothing_else(step):
    from dataclasses import replace

    assert step.scales
    x, told = normal(5), normal(3, 5, seed=1)
    site = ServerContext(Layout.flat(5))
    state = step.init(x, site)
    for g in told:
        before = step.ask(state)
        short, long = replace(step, lr=0.01).tell(state, g), replace(step, lr=0.03).tell(state, g)
        torch.testing.assert_close(3 * (short.x - before), long.x - before, rtol=1e-12, atol=1e-14)
        assert all(
            torch.equal(torch.as_tensor(a), torch.as_tensor(b))
            for a, b in zip(short[1:], long[1:], strict=True)
        )
        state = short


def test_clipping_cuts_what_is_long_and_leaves_the_rest():
    step, x0 = Clipped(1.0, Descent(7.0), radius=5.0), torch.zeros(2).double()
    told = torch.tensor([[30.0, 40.0], [3.0, 4.0], [0.0, 0.0], [1e200, 0.0]], dtype=torch.float64)
    moves = walk(step, told, x0).diff(dim=0, prepend=x0.unsqueeze(0))
    expected = -torch.tensor([[3.0, 4.0], [3.0, 4.0], [0.0, 0.0], [5.0, 0.0]]).double()
    torch.testing.assert_close(moves, expected, rtol=1e-14, atol=1e-14)
    assert step.step.lr == 1.0


def rounds_to(step: Step, burst: bool) -> int:
    """Rounds from x = 1 on x²/2 until |x| < 0.01, after 20 rounds of errors -10, 10, ... in the aggregate."""
    state, t, attacked = step.init(torch.ones(1).double(), ServerContext(Layout.flat(1))), 0, 20 * burst
    while t < attacked or abs(float(step.ask(state))) >= 0.01 or t == 0:
        t += 1
        error = 10.0 * (-1) ** t if t <= attacked else 0.0
        state = step.tell(state, step.ask(state) + error)
    return t


STARTED = {"tau": 1e-3, "v_0": 1e-6}
BURSTS = {  # by what 20 rounds of ±10 multiply the rounds that are needed
    "momentum": (ServerMomentum(0.05, eta=0.1), 0.8),
    "adam": (ServerAdam(0.01, 0.9, correction="none", **STARTED), 4.6),
    "yogi": (ServerYogi(0.01, 0.9, **STARTED), 14.6),
    "adagrad": (ServerAdagrad(0.1, 0.9, **STARTED), 13.6),
}


@pytest.mark.parametrize("name", BURSTS)
def test_adaptive_servers_remember_attacks(name):
    step, factor = BURSTS[name]
    assert rounds_to(step, True) / rounds_to(step, False) == pytest.approx(factor, rel=0.02)


@pytest.mark.parametrize("name", ["adam", "yogi", "adagrad"])
def test_clipping_in_front_bounds_what_they_remember(name):
    step, factor = BURSTS[name]
    clipped = Clipped(step.lr, step, radius=1.0)
    assert rounds_to(clipped, True) / rounds_to(clipped, False) < min(3.5, factor)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["server_adam", "server_adamw", "server_yogi", "server_adagrad"])
def test_the_optimum_stays_where_it_is(name):
    """Fixed points are those of descent: on a noise-free quadratic all go to the same place."""
    task = Quadratic(d=5, mu=0.5, noise=0.0, heterogeneity=1.0).build(Cohort.of(6), 1)
    settings = {"lr": 0.01 if name != "server_adagrad" else 0.5}
    settings |= {"wd": 0.0} if name == "server_adamw" else {}
    recipe = FedOpt(server=STEPS.build({"name": name, **settings}))
    end = finish(play(recipe, Mean(), "none", task, 6, 0, settings["lr"], 3000))
    assert float((end.x - task.optimum).norm()) < 1e-3


def test_fed_opt_with_descent_is_robust_gd():
    task = Quadratic().build(Cohort.of(7, 2), 0)
    rule = NNM(f=2) >> Median()
    for recipe in (FedOpt(server=Descent(1.0)), FedOpt(server=Descent(1.0), clip=1e9)):
        ours, plain = (finish(play(one, rule, "ipm", task, 7, 2, 0.3, 20)).x for one in (recipe, RobustGD()))
        assert torch.equal(ours, plain)


def test_local_steps_in_front_of_a_server_optimiser():
    recipe = METHODS.build(
        {"name": "fed_opt", "server": {"name": "server_yogi"}, "clip": 2.0, "steps": 4, "local_lr": 0.05}
    )
    method = recipe.build(Median(), 0.1)
    assert method.step == Clipped(0.1, ServerYogi(0.1), 2.0)
    assert (method.worker.steps, method.worker.lr) == (4, 0.05)


def test_runs_of_server_optimisers_advance_together():
    base = {"task": "quadratic", "rule": "median", "n": 7, "f": 2, "attack": "ipm", "rounds": 5}
    servers = [{"name": "server_adam"}, {"name": "server_adamw"}, {"name": "server_momentum"}]
    specs = [
        Spec.of(base | {"lr": lr, "method": {"name": "fed_opt", "server": server, "clip": 0.5}})
        for server in servers
        for lr in (0.1, 0.2)
    ]
    assert batch_groups(specs) == [(0, 1, 2, 3, 4, 5)]
    both = BatchedTrials([prepare_spec(one, {}) for one in specs], None, lambda i, record: None)
    for spec, end in zip(specs, both.run(lambda t: False), strict=True):
        alone = BatchedTrials([prepare_spec(spec, {})], None, lambda i, record: None).run(lambda t: False)
        torch.testing.assert_close(end.x, alone[0].x, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ServerAdam(v_0=-1.0),
        lambda: ServerAdam(correction="half"),  # type: ignore[arg-type]
        lambda: ServerAdamW(wd=-0.1),
        lambda: Clipped(radius=0.0),
        lambda: Clipped(lr=-1.0),
        lambda: Clipped(step=STEPS.build({"name": "extragradient", "lr": 0.5}), radius=float("nan")),
    ],
)
def test_what_cannot_be_is_refused(make):
    with pytest.raises(InvalidInput, match="Found"):
        make()
