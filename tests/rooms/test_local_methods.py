"""Local steps behind rules: twins, reductions, where drift ends, and the floor under attack by K."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from byzopt.aggregators import NNM, Aggregator, CenteredClipping, Mean, Median, TrimmedMean
from byzopt.attacks import ALIE
from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput
from byzopt.experiments import Spec, run
from byzopt.experiments.running import prepare_spec
from byzopt.experiments.trials.batched import BatchedTrials, batch_groups
from byzopt.methods import METHODS, DiLoCo, FedAvg, FedOpt, MethodRecipe, RobustGD
from byzopt.schedules import InverseSqrt
from byzopt.servers import Descent, NesterovMomentum, ServerMomentum
from byzopt.tasks import TASKS, Quadratic, Task
from byzopt.theory.local_steps import fedro_steps, fixed_point
from byzopt.theory.promise import Constants
from byzopt.workers import LocalAdamW, LocalSGD
from tests.reference import local_steps as twin
from tests.running import finish, play

N, F, T, SEED = 7, 2, 8, 3
RULE = NNM(f=F) >> Median()
LOGISTIC = {"name": "logistic_regression", "batch": 2}
BOWL = {"name": "quadratic", "spread": 0.3, "heterogeneity": 1.0}


def task_of(data: dict[str, object], byzantine: int = F) -> Task:
    return TASKS.build(data).build(Cohort.of(N, byzantine), SEED)


def path(recipe: MethodRecipe, task: Task, lr: float, rule: Aggregator = RULE, attack: str = "sign_flip"):
    b = len(task.cohort.byzantine)
    snapshots = play(recipe, rule, attack, task, n=N, byzantine=b, lr=lr, last=T, seed=SEED)
    return torch.stack([snapshot.x for snapshot in snapshots])


def grad(task: Task) -> twin.Grad:
    return lambda i, s, y: task.grads(y, task.draw(s))[i]


def flip(i: int, rows: list[Tensor]) -> Tensor | None:
    return -torch.stack(rows[: N - F]).mean(dim=0) if i >= N - F else None


def of(rule: Aggregator) -> twin.Agg:
    return lambda rows: rule(torch.stack(rows))


@pytest.mark.parametrize("data", [LOGISTIC, BOWL])
@pytest.mark.parametrize(
    "more", [{}, {"momentum": 0.5}, {"momentum": 0.5, "memory": "kept", "outer_momentum": 0.3}]
)
def test_fed_avg_walks_as_its_slow_twin(data, more):
    task = task_of(data)
    ours = path(FedAvg(steps=4, server_lr=0.7, **more), task, lr=0.05)
    keep = more.get("memory") == "kept"
    momenta = more.get("momentum", 0.0), keep, more.get("outer_momentum", 0.0)
    slow = twin.fed_avg(N, task.start(), grad(task), of(RULE), T, 4, 0.05, 0.7, *momenta, flip)
    # The twin takes differences x - y of numbers near 1 and divides them by γ_c K = 0.2: 1e-16/0.2 a round.
    torch.testing.assert_close(ours, torch.stack(slow), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("memory", ["kept", "reset"])
def test_diloco_walks_as_its_slow_twin(memory):
    task = task_of(LOGISTIC)
    recipe = DiLoCo(steps=5, memory=memory, beta_2=0.9, eps=1e-3, wd=0.1)
    ours = path(recipe, task, lr=0.02)
    adamw = (0.9, 0.9), 1e-3, 0.1, memory == "kept"
    # Rows are the outer gradients over lr K: the rule that flips signs alike answers alike.
    slow = twin.diloco(N, task.start(), grad(task), of(RULE), T, 5, 0.02, 0.7, 0.9, *adamw, flip)
    torch.testing.assert_close(ours, torch.stack(slow), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("attack", ["none", "alie"])
def test_one_local_step_is_descent_to_the_bit(attack):
    task = task_of(LOGISTIC)
    plain = path(RobustGD(), task, 0.3, attack=attack)
    assert torch.equal(path(FedAvg(steps=1), task, 0.3, attack=attack), plain)
    shortening = path(FedAvg(steps=1, schedule=InverseSqrt()), task, 0.3, attack=attack)
    assert torch.equal(shortening, path(RobustGD(InverseSqrt()), task, 0.3, attack=attack))


def test_gamma_s_one_and_the_mean_is_federated_averaging():
    task = task_of(LOGISTIC, byzantine=0)
    ours = path(FedAvg(steps=6), task, 0.1, Mean(), "none")
    listed = twin.whole_weights(N, task.start(), grad(task), of(Mean()), T, 6, 0.1)
    torch.testing.assert_close(ours, torch.stack(listed), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("rule", [RULE, TrimmedMean(f=F)])
def test_whole_weights_are_differences_for_rules_that_move_with_their_rows(rule):
    task = task_of(BOWL)

    def mirrored(i: int, ends: list[Tensor]) -> Tensor | None:
        """What `flip` of rows is among whole weights: the point across x from the honest mean."""
        return 2 * at[-1] - torch.stack(ends[: N - F]).mean(dim=0) if i >= N - F else None

    at = [task.start()]

    def remembered(ends: list[Tensor]) -> Tensor:
        at.append(rule(torch.stack(ends)))
        return at[-1]

    ours = path(FedAvg(steps=6), task, 0.1, rule)
    listed = twin.whole_weights(N, task.start(), grad(task), remembered, T, 6, 0.1, mirrored)
    torch.testing.assert_close(ours, torch.stack(listed), rtol=1e-12, atol=1e-13)


def test_whole_weights_are_not_differences_for_a_rule_with_an_origin():
    task = task_of(BOWL, byzantine=0)
    rule = CenteredClipping(tau=0.5, start="zero", stateful=False)
    ours = path(FedAvg(steps=6), task, 0.1, rule, "none")
    listed = twin.whole_weights(N, task.start(), grad(task), of(rule), T, 6, 0.1)
    assert float((ours - torch.stack(listed)).norm()) > 0.1


def test_outer_momentum_zero_is_descent():
    assert type(FedAvg().build(RULE, 0.1).step) is Descent
    step = FedAvg(steps=5, server_lr=2.0, outer_momentum=0.9).build(RULE, 0.1).step
    assert step == ServerMomentum(1.0, eta=1 - 0.9, form="heavy_ball")
    task = task_of(LOGISTIC)
    outer = DiLoCo(steps=3, outer_momentum=0.0, wd=0.0)
    built = outer.build(RULE, 0.02)
    assert built.step == NesterovMomentum(0.7 * 0.02 * 3, 0.0)
    walked, x = path(outer, task, 0.02), task.start()
    assert built.worker == LocalAdamW(3, 0.02, wd=0.0)
    slow = twin.diloco(N, x, grad(task), of(RULE), T, 3, 0.02, 0.7, 0.0, (0.9, 0.999), 1e-8, 0.0, lie=flip)
    torch.testing.assert_close(walked, torch.stack(slow), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("steps", [1, 3, 20])
def test_drift_ends_at_the_fixed_point(steps):
    """Noise-free quadratics: rounds contract by at least 1 - μ γ_c K for the mean of B_i, and end there."""
    task = Quadratic(d=6, noise=0.0, spread=0.4, heterogeneity=2.0, mu=0.5).build(Cohort.of(N), SEED)
    end = finish(play(FedAvg(steps=steps), Mean(), "none", task, N, 0, 0.2, 400)).x
    expected = fixed_point(task.curvatures, task.centres, 0.2, steps)
    torch.testing.assert_close(end, expected, rtol=0, atol=4e-14)
    pull = 1 - (1 - 0.2 * task.curvatures) ** steps
    assert float((pull * (task.centres - end)).sum(dim=0).abs().max()) < 1e-13
    away = float((end - task.optimum).norm())
    assert away < 1e-13 if steps == 1 else away > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("rule, floor", [("trimmed_mean", 0.94), ("nnm >> trimmed_mean", 0.67)])
def test_the_floor_under_attack_falls_as_one_over_k(rule, floor):
    """K ‖∇f‖² is the same for every K, where steps are short: 0.94 and 0.67 (n = 20, f = 4, σ² = d)."""
    products = []
    for steps in (1, 4, 16):
        rate = 0.02 / steps
        data = {"name": "quadratic", "d": 10, "mu": 1.0, "noise": 10**0.5, "heterogeneity": 0.0}
        spec = {"task": data, "rule": rule, "n": 20, "f": 4, "attack": {"name": "alie", "z": 1.0}}
        spec |= {"method": {"name": "fed_avg", "steps": steps}, "lr": rate, "rounds": 1500, "eval_every": 5}
        squares = [record["grad_norm"] ** 2 for record in run(Spec.of(spec)).main.records[100:]]
        products.append(steps * sum(squares) / len(squares))
    assert max(products) / min(products) < 1.05
    assert products[0] == pytest.approx(floor, rel=0.05)


def test_a_local_round_counts_its_gradients_and_one_message():
    end = finish(play(FedAvg(steps=6), Mean(), "none", Quadratic(d=10), 5, 0, 0.1, 4))
    figures = end.report()
    assert (figures["gradients"], figures["bits"]) == (24, 4 * 320)


def test_runs_with_local_steps_advance_together():
    base = {"task": LOGISTIC, "rule": "nnm >> median", "n": N, "f": F, "attack": "ipm", "rounds": 6}
    averaging = {"name": "fed_avg", "steps": 3, "momentum": 0.5, "memory": "kept"}
    for method in (averaging, {"name": "diloco", "steps": 4}):
        specs = [Spec.of(base | {"method": method, "lr": 0.05, "seed": seed}) for seed in range(3)]
        assert batch_groups(specs) == [(0, 1, 2)]
        together = BatchedTrials([prepare_spec(one, {}) for one in specs], None, lambda i, record: None)
        ends = together.run(lambda t: False)
        for spec, end in zip(specs, ends, strict=True):
            alone = BatchedTrials([prepare_spec(spec, {})], None, lambda i, record: None).run(lambda t: False)
            torch.testing.assert_close(end.x, alone[0].x, rtol=1e-11, atol=1e-12)


def test_the_steps_of_fedro():
    assert fedro_steps(2.0, 10) == pytest.approx(1 / 720)  # 1/(36 L K) is the shorter one for γ_s = 1
    assert fedro_steps(2.0, 10, 0.1) == pytest.approx(1 / 320)
    assert fedro_steps(0.0, 10) == float("inf")
    known = Constants(20, 4, 10, 100, attackers=4, tolerated=4, lr=1.0, lipschitz=1.0, kappa_squared=0.5)
    told = FedAvg(steps=10).promise(known)
    assert (told.bound, told.steps["lr"]) == (None, pytest.approx(1 / 360))
    assert any("at most" in premise.what for premise in told.broken)
    assert FedAvg(steps=1).promise(known).theorem == RobustGD().promise(known).theorem
    assert not FedAvg(steps=10, momentum=0.5).promise(known).steps


@pytest.mark.parametrize(
    "make",
    [
        lambda: FedAvg(steps=0),
        lambda: FedAvg(server_lr=0.0),
        lambda: FedAvg(momentum=1.0),
        lambda: FedAvg(outer_momentum=-0.1),
        lambda: DiLoCo(outer_lr=0.0),
        lambda: FedOpt(clip=0.0),
        lambda: FedOpt(steps=0),
        lambda: LocalSGD(lr=0.0),
        lambda: LocalAdamW(beta_2=1.0),
        lambda: LocalAdamW(eps=0.0),
        lambda: METHODS.build({"name": "fed_opt", "server": {"name": "three_sequences"}}),
    ],
)
def test_what_cannot_be_is_refused(make):
    with pytest.raises(InvalidInput, match="Found"):
        make()


def test_the_attack_sees_rows_in_the_units_of_gradients():
    """A local step ten times as short leaves rows as long as they were, to first order."""
    task = task_of(BOWL)
    lengths = []
    for lr in (1e-3, 1e-4):
        snapshot = next(play(FedAvg(steps=5), RULE, ALIE(), task, N, F, lr, 1))
        lengths.append(float(snapshot.aggregate.norm()))
    assert lengths[0] == pytest.approx(lengths[1], rel=0.02)
