"""The loop and the simulated engine: accounting, resuming, the attacker's place, steps of length gamma."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from byzopt.aggregators import NNM, Aggregator, Krum, Mean
from byzopt.attacks import ATTACKS, Adversary, Attack, View
from byzopt.attacks.base import Knowledge
from byzopt.cohort import Cohort
from byzopt.engines import Simulated, begin, rounds
from byzopt.errors import InvalidInput, TooManyFaults
from byzopt.layout import Layout
from byzopt.methods import ByzNSGDM, Method, RobustGD
from byzopt.schedules import Constant, InverseSqrt
from byzopt.servers import ServerContext
from byzopt.tasks import Quartic, Task
from tests.running import finish, play

DEFENCE = NNM(f=3) >> Krum(f=3)


@dataclass(frozen=True)
class Blind(Attack):
    """Whatever `forged` returns for the view: attacks that only tests need."""

    forged: Callable[[View], Tensor]
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"own", "honest", "defence"})

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        return self.forged(view)


class Linear(Task):
    """f_i(x) = ⟨rows_i, x⟩: gradients are the given rows, whatever x is."""

    def __init__(self, rows: Tensor, byzantine: int = 0) -> None:
        self.rows, self.cohort = rows, Cohort.of(len(rows), byzantine)
        self.layout = Layout.flat(rows.shape[1])

    def start(self) -> Tensor:
        return torch.zeros(self.rows.shape[1], dtype=self.rows.dtype)

    def draw(self, t: int) -> None:
        return None

    def grads(self, x: Tensor, batch: None) -> Tensor:
        return self.rows.clone()

    def measure(self, x: Tensor) -> dict[str, float]:
        return {"loss": float(self.rows.mean(dim=0) @ x)}


def engine_for(method: Method, task: Task, attack: str, seed: int = 0) -> Simulated:
    return Simulated(task, method.worker, method.wire, Adversary(ATTACKS.build(attack), task.cohort, 3), seed)


def gaussian(n: int, d: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e30])
@pytest.mark.parametrize("rule", [Mean(), DEFENCE], ids=repr)
def test_every_step_has_length_gamma_for_rows_of_any_scale_in_float32(scale, rule):
    task = Linear(scale * (gaussian(20, 200) + 0.5))
    recipe = ByzNSGDM(schedule=Constant())
    (first,) = play(recipe, rule, task=task, lr=0.125, last=1)
    assert first.x.dtype == torch.float32
    assert float(first.x.double().norm()) == pytest.approx(0.125, rel=1e-6)


def test_every_step_of_a_long_run_under_attack_has_length_gamma():
    x = Quartic().build(Cohort.of(20, 3), 0).start()
    for snapshot in play(ByzNSGDM(), DEFENCE, "bit_flip", lr=0.1, last=300):
        gamma = 0.1 / snapshot.state.t**0.5
        assert float((snapshot.x - x).norm()) == pytest.approx(gamma, rel=1e-12)
        x = snapshot.x


@pytest.mark.parametrize("scale", [2.0**-90, 2.0**-20, 2.0**40])
@pytest.mark.parametrize("rule", [Mean(), DEFENCE], ids=repr)
@pytest.mark.parametrize("attack", ["none", "bit_flip"])
def test_scaling_all_rows_leaves_x_unchanged(scale, rule, attack):
    rows = gaussian(20, 50) + 0.5
    ends = [finish(play(ByzNSGDM(), rule, attack, Linear(c * rows, 3), last=30)).x for c in (1.0, scale)]
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", [Mean(), DEFENCE], ids=repr)
def test_zero_aggregate_gives_no_step_and_is_reported(rule):
    task = Linear(torch.zeros(20, 4))
    snapshots = list(play(ByzNSGDM(), rule, task=task, last=5))
    assert all(torch.equal(s.x, torch.zeros(4)) for s in snapshots)
    assert snapshots[-1].report()["stalls"] == 5
    assert snapshots[-1].report()["aggregate_norm"] == 0


def permuted(rule: Aggregator, order: Tensor) -> Tensor:
    rows = gaussian(20, 30, torch.float64)
    rows[17:] = -rows[17:]
    return finish(play(ByzNSGDM(), rule, task=Linear(rows[order]), lr=0.1, last=20)).x


@pytest.mark.parametrize("rule", [Mean(), DEFENCE], ids=repr)
def test_permuting_the_workers_leaves_x_unchanged(rule):
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        permuted(rule, order), permuted(rule, torch.arange(20)), rtol=1e-12, atol=1e-12
    )


def test_byzantine_rows_a_million_times_longer_still_give_a_step_of_length_gamma():
    attack = Blind(lambda view: -1e6 * view.own)
    x = torch.zeros(50)
    for snapshot in play(ByzNSGDM(), DEFENCE, attack, Linear(gaussian(20, 50) + 0.5, 3), lr=0.5, last=20):
        gamma = 0.5 / snapshot.state.t**0.5
        assert float((snapshot.x - x).double().norm()) == pytest.approx(gamma, rel=1e-5)
        x = snapshot.x
    assert float(snapshot.x.sum()) < -10  # and the honest direction, 0.5 in each coordinate, wins


def test_the_attacker_speaks_last_about_its_own_rows_only():
    rows = gaussian(6, 3, torch.float64)
    seen: list[View] = []

    def forged(view: View) -> Tensor:
        seen.append(view)
        return torch.full_like(view.like, 100.0)

    task = Linear(rows, 2)
    method = RobustGD().build(Mean(), 0.1)
    engine = Simulated(task, method.worker, method.wire, Adversary(Blind(forged), task.cohort, 2), 0)
    exchange, _ = engine.exchange(None, task.start(), 1, lambda sent: sent.mean(dim=0))
    assert torch.equal(exchange.rows[:4], rows[:4])
    assert (exchange.rows[4:] == 100).all()
    assert torch.equal(seen[0].honest, rows[:4])
    assert torch.equal(seen[0].own, rows[4:])
    torch.testing.assert_close(seen[0].defence(rows), rows.mean(dim=0))


def test_an_attack_sees_only_what_it_declares():
    @dataclass(frozen=True)
    class Nosy(Blind):
        knows: ClassVar[frozenset[Knowledge]] = frozenset({"own"})

    for look in (lambda v: v.honest, lambda v: v.defence, lambda v: v.with_forged(v.own)):
        with pytest.raises(InvalidInput, match="knows"):
            finish(play(ByzNSGDM(), DEFENCE, Nosy(look), last=1))


def test_gradients_and_bits_of_every_round_are_counted():
    end = finish(play(ByzNSGDM(), DEFENCE, last=25))
    assert end.report()["gradients"] == 25
    assert end.report()["bits"] == 25 * 10 * 32
    assert end.state.t == 25


def test_a_run_continued_from_its_state_is_the_same_run():
    recipe, task = ByzNSGDM(), Quartic().build(Cohort.of(20, 3), 0)
    method = recipe.build(DEFENCE, 0.1)
    engine = engine_for(method, task, "bit_flip")
    start = begin(method, task.start(), ServerContext(task.layout), task.n)
    whole = [s.x for s in rounds(method, engine, start, 40)]
    half = finish(rounds(method, engine, start, 15))
    rest = [s.x for s in rounds(method, engine, half.state, 40)]
    assert len(rest) == 25
    assert all(torch.equal(a, b) for a, b in zip(whole[15:], rest, strict=True))


def test_runs_depend_on_the_seed_and_on_nothing_that_ran_before():
    ends = [finish(play(ByzNSGDM(), DEFENCE, "bit_flip", seed=seed, last=50)).x for seed in (0, 1, 0)]
    assert torch.equal(ends[0], ends[2])
    assert not torch.equal(ends[0], ends[1])


def test_the_point_asked_at_is_where_the_last_round_ended():
    x = torch.ones(10, dtype=torch.float64)
    for snapshot in play(ByzNSGDM(), DEFENCE, last=5):
        assert torch.equal(snapshot.asked, x)
        x = snapshot.x


def test_too_many_non_finite_rows_name_the_workers():
    attack = Blind(lambda view: torch.full_like(view.like, torch.nan))
    with pytest.raises(TooManyFaults) as caught:
        finish(play(ByzNSGDM(), DEFENCE, attack, byzantine=4, last=3))
    assert caught.value.rows == (16, 17, 18, 19)
    assert torch.isfinite(finish(play(ByzNSGDM(), DEFENCE, attack, byzantine=3, last=3)).x).all()


def test_a_rule_that_cannot_work_on_so_many_rows_is_refused_before_the_first_round():
    method = ByzNSGDM().build(NNM(f=3) >> Krum(f=3), 0.1)
    with pytest.raises(InvalidInput, match="2 f"):
        begin(method, torch.zeros(2), ServerContext(Layout.flat(2)), n=6)


@pytest.mark.parametrize("schedule", [Constant(), InverseSqrt()], ids=repr)
def test_without_attack_the_quartic_is_solved_to_the_resolution_of_its_steps(schedule):
    task = replace(Quartic(), noise_variance=0.0, shift_variance=0.0)
    end = finish(play(ByzNSGDM(eta=1.0, schedule=schedule), DEFENCE, "none", task, lr=0.1, last=400))
    assert float(end.x.norm()) <= 0.1 * schedule.gamma(400) * (1 + 1e-9)


def test_without_attack_gradient_descent_contracts_the_quartic_as_its_ode_does():
    # x' = -4 ‖x‖² x, so that 1/r(t)² = 1/r(0)² + 8 t; a small step follows it.
    task = replace(Quartic(), noise_variance=0.0, shift_variance=0.0)
    end = finish(play(RobustGD(), Mean(), "none", task, byzantine=0, lr=1e-4, last=2000))
    assert float(end.x.norm()) ** -2 == pytest.approx(0.1 + 8 * 0.2, rel=1e-2)
