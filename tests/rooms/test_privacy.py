"""Privacy: accounts with known numbers, twins, reductions, single samples, and when nothing is promised."""

from __future__ import annotations

import sys
from math import exp, inf, sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from byzopt.aggregators import NNM, Median, rule_from
from byzopt.attacks import ATTACKS, Attack
from byzopt.certificates.privacy import spec_privacy
from byzopt.cohort import Cohort
from byzopt.engines import GradientCount
from byzopt.errors import InvalidInput, MissingExtra
from byzopt.experiments import Spec, simulate
from byzopt.experiments.running import prepare_spec
from byzopt.layout import Layout
from byzopt.methods import ByzDM21, Clip21, RobustSGDM, SafeDSHB
from byzopt.methods.base import check_without_noise
from byzopt.tasks import TASKS, Digits, LogisticRegression, ModuleTask, Quadratic, Sampler
from byzopt.tasks.clipping import mean_of_clipped
from byzopt.theory import privacy
from byzopt.theory.poisson_samples import poisson_epsilon, poisson_noise, replaced_epsilon
from byzopt.wire import Clip21Wire, Identity, Link
from byzopt.workers import Oracle, PrivateMomentum
from tests.command import Command
from tests.products import sampled
from tests.reference import private as twin
from tests.running import finish, play

N, F, T, SEED = 7, 2, 15, 4
RULE = NNM(f=F) >> Median(f=F)
# (q, σ, T, δ): ε by Rényi's divergence and by the privacy loss distribution.
ACCOUNTS = {
    (0.01, 1, 1000, 1e-5): (2.107753, 1.828244),
    (0.0256, 1, 4000, 1e-5): (12.012672, 11.084689),
    (1, 30, 500, 1e-5): (3.384796, 3.124648),
}


# Accounts


@pytest.mark.parametrize("setting", ACCOUNTS)
def test_renyi_accounts_are_those_of_dp_accounting_and_opacus(setting):
    assert privacy.rdp_epsilon(*setting) == pytest.approx(ACCOUNTS[setting][0], abs=1e-6)


@pytest.mark.parametrize("setting", ACCOUNTS)
def test_loss_distributions_are_dp_accounting_s(setting):
    pytest.importorskip("dp_accounting")
    # Its distribution is discrete, in steps of 1e-4, and rounded up.
    assert privacy.pld_epsilon(*setting) == pytest.approx(ACCOUNTS[setting][1], abs=1e-5)


def test_without_dp_accounting_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(MissingExtra, match=r'Run pip install "byzopt\[privacy\]"\.$'):
        privacy.pld_epsilon(0.1, 1.0, 10, 1e-5)


def test_many_gaussian_releases_are_exactly_one():
    assert privacy.gaussian_epsilon(1e-5, sqrt(500) / 30) == pytest.approx(3.124648, abs=1e-6)
    assert privacy.gaussian_epsilon(1e-5, sqrt(500) / 30) < privacy.rdp_epsilon(1, 30, 500, 1e-5)


@pytest.mark.parametrize("epsilon, mu", [(0.0, 1.0), (0.5, 0.1), (1.0, 1.0), (5.0, 2.0), (20.0, 6.0)])
def test_delta_is_what_the_two_densities_leave_beyond_e_to_the_epsilon(epsilon, mu):
    # δ = ∫ (φ(x - μ) - e^ε φ(x))+ dx, as a sum over a fine grid.
    x = torch.linspace(-12.0, 24.0, 200_001, dtype=torch.float64)
    phi = (-(x**2) / 2).exp() / sqrt(2 * torch.pi)
    moved = (-((x - mu) ** 2) / 2).exp() / sqrt(2 * torch.pi)
    total = float((moved - exp(epsilon) * phi).clamp_min(0).sum() * (x[1] - x[0]))
    assert privacy.gaussian_delta(epsilon, mu) == pytest.approx(total, abs=1e-7)  # the square of the step


@given(st.floats(0.01, 300.0), st.floats(1e-12, 0.4), st.integers(1, 5000))
def test_the_noise_for_a_budget_has_that_budget(epsilon, delta, releases):
    noise = privacy.noise_multiplier(epsilon, delta, releases)
    spent = privacy.gaussian_epsilon(delta, 2 * sqrt(releases) / noise)
    assert spent == pytest.approx(epsilon, rel=1e-6)  # δ is a difference of numbers near 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: privacy.rdp_epsilon(0.0, 1.0, 1, 1e-5),
        lambda: privacy.rdp_epsilon(0.1, 0.0, 1, 1e-5),
        lambda: privacy.rdp_epsilon(0.1, 1.0, 0, 1e-5),
        lambda: privacy.rdp_epsilon(0.1, 1.0, 1, 1.0),
        lambda: privacy.gaussian_mu(0.0, 1e-5),
        lambda: privacy.gaussian_mu(inf, 1e-5),
        lambda: privacy.noise_multiplier(1.0, 1e-5, 0),
        lambda: SafeDSHB(clip=None, noise_multiplier=1.0),
        lambda: SafeDSHB(clip=0.0),
        lambda: SafeDSHB(epsilon=1.0, noise_multiplier=1.0),
        lambda: Clip21(clip=None, epsilon=1.0),
        lambda: Clip21(delta=0.0),
        lambda: Clip21(epsilon=-1.0),
        lambda: Clip21(epsilon=1.0).build(RULE, 0.1),
        lambda: Clip21Wire(clip=None, noise=1.0),
        lambda: PrivateMomentum(noise=-1.0),
    ],
)
def test_what_is_out_of_range_is_refused(call):
    with pytest.raises(InvalidInput):
        call()


@given(st.integers(1, 9), st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(1, 30))
def test_no_sample_is_used_oftener_than_a_sampler_says(batch, sizes, rounds):
    shards = torch.arange(sum(sizes)).split(sizes)
    sampler = Sampler(shards, batch, seed=0)
    told = sampler.uses(rounds, range(len(sizes)))
    held = torch.stack(
        [sampler.draw(t).flatten().bincount(minlength=sum(sizes)) for t in range(1, rounds + 1)]
    )
    assert int((held > 0).sum(dim=0).max()) <= told.shared
    if told.weight is not None:
        assert int(held.square().sum(dim=0).max()) <= told.weight
    assert Sampler(shards, batch, 0, replacement=True).uses(rounds, (0,)).shared is None


# Methods


class Pulling(Attack):
    """Every liar wants the server to believe 3 x - 1."""

    name = "pulling"

    def forge(self, view, generator):
        return view.alike(3 * view.x - 1)


def logistic(byzantine: int = F):
    return TASKS.build({"name": "logistic_regression", "batch": 2}).build(Cohort.of(N, byzantine), SEED)


def path(recipe, attack: Attack | str = "none", byzantine: int = F) -> Tensor:
    rule, task = replace_f(byzantine), logistic(byzantine)
    return torch.stack([s.x for s in play(recipe, rule, attack, task, N, byzantine, 0.3, T, SEED)])


def replace_f(byzantine: int):
    return RULE if byzantine else rule_from("median", f=0)


def problem(task, noise) -> twin.Problem:
    return twin.Problem(
        N,
        task.start(),
        lambda i, t, x: task.grads(x, task.draw(t))[i],
        noise,
        lambda i, t, x: 3 * x - 1 if i >= N - F else None,
    )


def agg(rows: list[Tensor]) -> Tensor:
    return RULE(torch.stack(rows))


def test_safe_dshb_walks_as_its_slow_twin():
    task = logistic()
    like = torch.zeros(N, task.layout.d, dtype=torch.float64)
    drawn = {t: GradientCount().oracle(task, t, SEED).normal(like) for t in range(1, T + 1)}
    slow = twin.safe_dshb(problem(task, lambda i, t: drawn[t][i]), agg, 0.3, 0.3, 0.2, 0.5, T)
    recipe = SafeDSHB(eta=0.3, clip=0.2, noise_multiplier=0.5)
    torch.testing.assert_close(path(recipe, Pulling()), torch.stack(slow), rtol=1e-11, atol=1e-12)


def test_clip21_walks_as_its_slow_twin():
    task = logistic()
    like = torch.zeros(N, task.layout.d, dtype=torch.float64)
    drawn = {t: Link(t, SEED, Layout.flat(task.layout.d)).normal(like) for t in range(1, T + 1)}
    slow = twin.clip21(problem(task, lambda i, t: drawn[t][i]), agg, 0.3, 0.4, 0.3, 0.2, 0.5, T)
    recipe = Clip21(eta_v=0.4, eta_u=0.3, clip=0.2, noise_multiplier=0.5)
    torch.testing.assert_close(path(recipe, Pulling()), torch.stack(slow), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("attack", ["none", "alie", "sign_flip"])
@pytest.mark.parametrize("clip", [None, 1e9])
def test_safe_dshb_without_noise_and_clipping_is_momentum_sgd_to_the_last_bit(attack, clip):
    plain = path(RobustSGDM(eta=0.3), attack)
    assert torch.equal(path(SafeDSHB(eta=0.3, clip=clip), attack), plain)


@pytest.mark.parametrize("attack", ["none", "alie", "sign_flip"])
def test_clip21_without_noise_and_clipping_is_byz_dm21_uncompressed(attack):
    plain = path(ByzDM21(eta_v=0.4, eta_u=0.3, compressor=Identity(), init="zero"), attack)
    assert torch.equal(path(_clip21(1e9), attack), path(_clip21(None), attack))
    torch.testing.assert_close(path(_clip21(None), attack), plain, rtol=1e-12, atol=1e-14)


def _clip21(clip: float | None) -> Clip21:
    return Clip21(eta_v=0.4, eta_u=0.3, clip=clip)


def test_both_ends_of_clip21_agree_to_the_last_bit_and_what_has_no_noise_stays_with_the_worker():
    wire = Clip21Wire(eta=0.3, clip=0.5, noise=0.7)
    values = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    ends = wire.start(values)
    for t in range(1, 80):
        link = Link(t, 0, Layout.flat(6))
        messages, rows, ends = wire.send(ends, values, link)
        received, ends = wire.receive(ends, messages, link)
        assert torch.equal(rows, received)
    # g settles at the values, m does not.
    assert (ends.quiet - values).norm() < 1e-4 < (ends.server - values).norm()


def test_messages_are_never_longer_than_the_clip_and_noise_has_its_deviation():
    task, x = logistic(), torch.full((20,), 3.0, dtype=torch.float64)
    oracle = GradientCount().oracle(task, 1, SEED)
    quiet, _ = PrivateMomentum(eta=1.0, clip=0.05).init(x, oracle)
    assert quiet.norm(dim=1).max() <= 0.05 * (1 + 1e-12)
    wide = Quadratic(d=20_000, noise=0.0).build(Cohort.of(4), 0)
    given = GradientCount().oracle(wide, 1, 0)
    rows = [PrivateMomentum(eta=1.0, clip=2.0, noise=s).init(wide.start(), given)[0] for s in (0.0, 0.5)]
    noise = rows[1] - rows[0]
    # 20,000 numbers a worker: the deviation is known to 1/sqrt(40,000) = 0.5 %, correlations to 0.7 %.
    assert noise.std(dim=1).sub(1.0).abs().max() < 0.02
    assert (noise @ noise.T / 20_000 - torch.eye(4)).abs().max() < 0.04


def test_who_plays_a_worker_draws_the_worker_s_noise():
    task, like = logistic(), torch.zeros(N, 20, dtype=torch.float64)
    whole = GradientCount().oracle(task, 3, SEED).normal(like)
    part = GradientCount().oracle(task, 3, SEED, workers=slice(2, 4)).normal(like[2:4])
    assert torch.equal(part, whole[2:4])
    with pytest.raises(InvalidInput, match="workers that are real"):
        Oracle(1, lambda x: x, lambda x: x).normal(like)


def test_runs_with_noise_in_one_batch_are_the_runs_alone():
    from byzopt.experiments.trials.batched import BatchedTrials

    for method in ("safe_dshb", "clip21"):
        table = {"name": method, "noise_multiplier": 0.3}
        base = {
            "task": "quadratic",
            "rule": "median",
            "n": 7,
            "f": 2,
            "rounds": 6,
            "lr": 0.1,
            "method": table,
        }
        specs = [Spec.of(base | {"seed": seed}) for seed in (0, 1)]
        together = BatchedTrials([prepare_spec(s, {}) for s in specs], None, lambda i, r: None).run(
            lambda t: False
        )
        for spec, one in zip(specs, together, strict=True):
            (alone,) = BatchedTrials([prepare_spec(spec, {})], None, lambda i, r: None).run(lambda t: False)
            torch.testing.assert_close(one.x, alone.x, rtol=1e-10, atol=1e-10)
        assert not together[0].x.equal(together[1].x)


def test_methods_with_noise_are_refused_where_workers_are_real():
    noisy = SafeDSHB(noise_multiplier=1.0), Clip21(noise_multiplier=1.0), Clip21(epsilon=1.0)
    for recipe in noisy:
        with pytest.raises(InvalidInput, match="should add no noise"):
            check_without_noise(recipe.build(RULE, 0.1, 10), "A method over ranks")
    for recipe in (SafeDSHB(), Clip21()):
        check_without_noise(recipe.build(RULE, 0.1, 10), "A method over ranks")


# Single samples


def each_sample(task, x: Tensor, batch, i: int) -> Tensor:
    """Gradients of worker i's samples one by one, by autograd on the task's own module."""
    module = nn.Linear(3, 2).double()
    rows = []
    for inputs, target in zip(batch.inputs[i], batch.targets[i], strict=True):
        with torch.no_grad():
            module.weight.copy_(x[:6].view(2, 3))
            module.bias.copy_(x[6:])
        module.zero_grad()
        nn.functional.cross_entropy(module(inputs.unsqueeze(0)), target.unsqueeze(0)).backward()
        rows.append(torch.cat([module.weight.grad.flatten(), module.bias.grad]))
    return torch.stack(rows)


@pytest.mark.parametrize("radius", [0.05, 0.5, 1e9])
def test_samples_are_clipped_one_by_one(radius):
    numbers = torch.Generator().manual_seed(0)
    pairs = [
        (torch.randn(9, 3, generator=numbers).double(), torch.randint(2, (9,), generator=numbers))
        for _ in range(3)
    ]
    loss = nn.functional.cross_entropy
    task = ModuleTask(nn.Linear(3, 2), loss, pairs, batch=5, dtype=torch.float64, wd=0.1)
    x, batch = task.start() + 0.3, task.draw(1)
    found, counts = task.clipped_grads(x, batch, radius)
    assert counts.tolist() == [5, 5, 5]
    for i in range(3):
        rows = [twin.clipped(row, radius) for row in each_sample(task, x, batch, i)]
        torch.testing.assert_close(found[i], torch.stack(rows).mean(0) + 0.1 * x, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    "recipe, within",
    [
        (LogisticRegression(batch=4), 1e-12),
        (LogisticRegression(batch=0), 1e-12),
        (Digits(batch=4, hidden=(8,), dtype="float64"), 1e-12),
        (Digits(batch="full", model="linear", dtype="float64", wd=0.01), 1e-12),
    ],
)
def test_where_nothing_is_clipped_samples_make_up_the_gradient(recipe, within):
    task = recipe.build(Cohort.of(4, 1), 0)
    x, batch = task.start() + 0.01, task.draw(1)
    rows, _ = task.clipped_grads(x, batch, 1e9)
    torch.testing.assert_close(rows, task.grads(x, batch), rtol=1e-10, atol=within)
    some, _ = task.clipped_grads(x, batch, 0.01, slice(1, 3))
    torch.testing.assert_close(some, task.clipped_grads(x, batch, 0.01)[0][1:3], rtol=1e-12, atol=within)


def test_a_sample_that_is_replaced_moves_the_mean_by_two_clips_over_the_batch_at_most():
    task = LogisticRegression(batch=4).build(Cohort.of(3), 0)
    x, batch = task.start() + 1, task.draw(1)
    before, _ = task.clipped_grads(x, batch, 0.1)
    for other in range(10):
        moved = batch.clone()
        moved[1, 2] = other
        after, _ = task.clipped_grads(x, moved, 0.1)
        assert (after - before).norm(dim=1).max() <= 2 * 0.1 / 4 * (1 + 1e-12)
        assert torch.equal(after[[0, 2]], before[[0, 2]])


def test_what_has_no_single_samples_is_refused_before_anything_is_run():
    method = {"name": "safe_dshb", "per": "sample"}
    base = {"rule": "median", "n": 4, "f": 1, "rounds": 2, "lr": 0.1, "method": method}
    with pytest.raises(InvalidInput, match="no gradients of single samples"):
        prepare_spec(Spec.of(base | {"task": "quadratic"}), {})
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    pairs = [(torch.randn(8, 3), torch.arange(8) % 2)] * 4
    with pytest.warns(UserWarning, match="statistics"):
        task = ModuleTask(module, nn.functional.cross_entropy, pairs, batch=4)
    with pytest.raises(InvalidInput):
        task.clipped_grads(task.start(), task.draw(1), 1.0)


# What is promised


def spec(method, **changes) -> Spec:
    task = {"name": "logistic_regression", "batch": 10, "partition": "iid"}  # 2000 samples, 200 a worker
    base = {"task": task, "rule": "median", "n": 10, "f": 2, "rounds": 100, "lr": 0.1, "method": method}
    return Spec.of(base | changes)


def test_budgets_count_what_a_run_uses():
    noise = 20.0
    one, every = spec_privacy(spec({"name": "safe_dshb", "noise_multiplier": noise}))
    assert one.bound == privacy.gaussian_epsilon(1e-5, 2 * sqrt(5) / noise)  # 100 rounds of 10: 5 passes
    assert every.bound == privacy.gaussian_epsilon(1e-5, 2 * sqrt(100) / noise)
    assert "one sample of a worker replaced" in one.measures
    assert "all data of a worker replaced" in every.measures
    one, every = spec_privacy(spec({"name": "safe_dshb", "noise_multiplier": noise, "per": "sample"}))
    assert one.bound == privacy.gaussian_epsilon(1e-5, 2 * sqrt(5) / noise)
    assert every.bound == privacy.gaussian_epsilon(1e-5, 2 * 10 * sqrt(100) / noise)
    (budget,) = spec_privacy(spec({"name": "clip21", "noise_multiplier": noise}))
    assert budget.bound == privacy.gaussian_epsilon(1e-5, 2 * sqrt(100) / noise)


@pytest.mark.parametrize("name", ["safe_dshb", "clip21"])
def test_a_run_by_its_budget_keeps_it(name):
    budgets = spec_privacy(spec({"name": name, "epsilon": 3.0, "delta": 1e-6}))
    assert budgets[-1].bound == pytest.approx(3.0, rel=1e-6)
    assert all(budget.bound <= 3.0 * (1 + 1e-6) for budget in budgets)


@pytest.mark.parametrize(
    "method, changes, reason",
    [
        ({"name": "safe_dshb"}, {}, "get noise"),
        ({"name": "clip21"}, {}, "get noise"),
        ({"name": "safe_dshb", "noise_multiplier": 1.0}, {"task": "quadratic"}, "how often batches hold"),
        (
            {"name": "safe_dshb", "noise_multiplier": 1.0},
            {"task": {"name": "logistic_regression", "proxy": "worker"}},
            "owns no worker's loss",
        ),
        (
            {"name": "safe_dshb", "noise_multiplier": 1.0, "per": "sample"},
            {"task": {"name": "logistic_regression", "batch": 300}},
            "how often batches hold",
        ),
    ],
)
def test_nothing_is_promised_where_a_premise_fails(method, changes, reason):
    budget = spec_privacy(spec(method, **changes))[0]
    assert budget.bound is None
    assert any(reason in str(premise) for premise in budget.broken)


def test_methods_without_noise_promise_nothing():
    assert spec_privacy(spec("robust_sgdm")) == ()


def test_explain_shows_the_budget_with_its_premises(byzopt: Command, tmp_path):
    from byzopt.experiments.specs.toml import dumps

    path = tmp_path / "p.toml"
    path.write_text(dumps(spec({"name": "safe_dshb", "epsilon": 3.0}).data), encoding="utf-8")
    shown = byzopt("explain", str(path))
    assert shown.status == 0
    assert "all data of a worker replaced:\n  ε: 3 (noise multiplier" in shown.out
    assert "premise holds: the server owns no worker's loss" in shown.out
    assert "noise comes from the seed" in shown.out


# Known answers


def test_clip21_reaches_the_optimum_where_clipped_gradients_do_not():
    task = Quadratic(noise=0.0, heterogeneity=4.0).build(Cohort.of(N), 0)

    def end(recipe) -> float:
        run = finish(play(recipe, rule_from("mean"), "none", task, N, 0, 0.2, 600, 0))
        return task.measure(run.x)["grad_norm"]

    assert end(Clip21(eta_v=0.5, eta_u=0.5, clip=1.0)) < 1e-5
    assert end(SafeDSHB(eta=0.5, clip=1.0)) > 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    "d, eta, floor", [(10, 1.0, 0.0230), (40, 1.0, 0.0230), (160, 1.0, 0.0230), (40, 0.1, 0.0016)]
)
def test_the_floor_that_attackers_find_in_noise_is_in_proportion_to_d(d, eta, floor):
    task = Quadratic(d=d, mu=1.0, L=1.0, noise=0.0, heterogeneity=0.0).build(Cohort.of(20, 4), 0)
    recipe = SafeDSHB(eta=eta, clip=100.0, noise_multiplier=0.005)  # clips nothing; a deviation of 0.5
    attack = ATTACKS.build({"name": "alie", "z": 1.0})
    rounds = list(play(recipe, rule_from("trimmed_mean", f=4), attack, task, 20, 4, 0.05, 1500, 0))
    squares = [float(s.x @ s.x) / d for s in rounds[300:]]
    assert sum(squares) / len(squares) == pytest.approx(floor, rel=0.1)


# What clipping cannot bound, and data that hang together


@pytest.mark.parametrize("bad", [float("nan"), inf, -inf])
def test_what_is_not_finite_leaves_no_worker_and_is_counted(bad):
    rows = torch.tensor([[3.0, 4.0], [1.0, bad]])
    oracle = Oracle(1, lambda x: rows, lambda x: rows)
    worker = PrivateMomentum(eta=1.0, clip=1.0)
    sent, state = worker.init(torch.zeros(2), oracle)
    assert sent[1].tolist() == [0.0, 0.0]
    assert sent[0].norm() <= 1 + 1e-6
    _, state = worker.step(state, torch.zeros(2), oracle)
    assert worker.report(state) == {"zeroed_gradients": 2.0}
    wire, link = Clip21Wire(eta=1.0, clip=1.0), Link(1, 0, Layout.flat(2))
    sent, _, ends = wire.send(wire.start(rows), rows, link)
    assert sent[1].tolist() == [0.0, 0.0]
    assert wire.report(ends)["zeroed_gradients"] == 1.0
    with pytest.warns(UserWarning, match="1 gradients of single samples"):
        mean = mean_of_clipped(lambda i, t, first: rows, rows, rows, 1.0, torch.zeros(2).to(rows))
    assert mean.norm() <= 1


@pytest.mark.parametrize("mu", [-1.0, float("nan"), inf])
def test_a_mu_that_is_none_is_refused(mu):
    for call in (privacy.gaussian_epsilon, privacy.gaussian_delta):
        with pytest.raises(InvalidInput, match="be finite and at least 0"):
            call(0.1, mu)


def test_no_epsilon_is_told_where_samples_are_scaled_by_those_of_others(tmp_path):
    path = tmp_path / "own.pt"
    torch.save({"x": torch.randn(200, 3), "y": torch.arange(200) % 2}, path)
    method = {"name": "safe_dshb", "noise_multiplier": 20.0}
    for scale, told in (("standard", False), ("none", True)):
        task = {"name": "data_set", "data": str(path), "scale": scale, "model": "linear", "batch": 4}
        budgets = spec_privacy(spec(method, task=task))
        assert all((budget.bound is not None) == told for budget in budgets)
        assert told or 'Set scale = "none"' in str(budgets[0].broken)
    assert all(budget.bound is None for budget in spec_privacy(spec(method, task="quadratic")))


def test_a_recipe_that_reads_data_anew_says_nothing_of_them_until_it_does():
    class Other(Digits):
        def loaded(self, data_seed):
            return super().loaded(data_seed)

    assert Digits().pooled() == ""
    assert Other().pooled() is None


# Poisson samples


def test_poisson_samples_are_drawn_one_by_one_whoever_else_draws():
    shards, draws = torch.arange(90).split([30, 60]), 2000
    sampler = Sampler(shards, 6, seed=3)
    held = torch.zeros(draws, 90)
    for t in range(draws):
        held[t, torch.cat(sampler.poisson(t + 1).places)] = 1
    for part, q in ((held[:, :30], 0.2), (held[:, 30:], 0.1)):
        # Five standard deviations of a mean of draws, and of the variance of a sum of independent ones.
        assert (part.mean(dim=0) - q).abs().max() < 5 * sqrt(q * (1 - q) / draws)
        spread = part.shape[1] * q * (1 - q)
        assert part.sum(dim=1).var() == pytest.approx(spread, rel=5 * sqrt(2 / draws))
    first = sampler.poisson(7).places[0]
    assert torch.equal(Sampler([shards[0], shards[1][:50]], 6, seed=3).poisson(7).places[0], first)
    assert not torch.equal(Sampler(shards, 6, seed=4).poisson(7).places[0], first)
    told = sampler.uses(10, (0, 1))
    assert (told.rate, told.most) == (0.2, 60)
    with pytest.raises(InvalidInput, match="at most the 30"):
        Sampler(shards, 31, seed=0).poisson(1)


def test_a_sample_more_moves_the_sum_by_a_clip_over_the_expected_number():
    task = LogisticRegression(batch=4, l2=0.1).build(Cohort.of(3), 0)
    x, sample = task.start() + 1, task.poisson(2)
    before, counts = task.clipped_grads(x, sample, 0.1)
    assert counts.tolist() == [4.0] * 3  # whatever was drawn
    places = sample.places
    spare = next(k for k in range(len(task.order)) if task.owner[k] == 1 and k not in places[1])
    for mine in (torch.cat([places[1], torch.tensor([spare])]), places[1][:-1], places[1][:0]):
        after, _ = task.clipped_grads(x, sample._replace(places=(places[0], mine, places[2])), 0.1)
        moved = abs(len(mine) - len(places[1]))
        assert (after - before).norm(dim=1)[1] <= moved * 0.1 / 4 * (1 + 1e-12)
        assert torch.equal(after[[0, 2]], before[[0, 2]])
    torch.testing.assert_close(after[1], 0.1 * x)  # of none what is left is the regulariser's


@pytest.mark.parametrize(
    "recipe",
    [
        LogisticRegression(batch=9, l2=0.05),
        Digits(batch=7, hidden=(5,), dtype="float64", wd=0.1),
        Digits(batch=7, model="linear", dtype="float64"),
    ],
)
def test_private_momentum_on_poisson_samples_walks_as_its_listing(recipe):
    n, eta, clip, sigma, lr, rounds, seed = 5, 0.4, 0.3, 0.5, 0.2, 3, 6
    task = recipe.build(Cohort.of(n), seed)
    method = SafeDSHB(eta=eta, clip=clip, noise_multiplier=sigma, per="sample", sampling="poisson")
    outcome = simulate(task, "mean", lr, rounds, 0, method, seed=seed)
    x, m = task.start(), torch.zeros(n, len(task.start()), dtype=torch.float64)
    decay = task.l2 if isinstance(recipe, LogisticRegression) else recipe.wd
    for t in range(1, rounds + 1):
        sample, noise = task.poisson(t), GradientCount().oracle(task, t, seed).normal(m)
        for i in range(n):
            total = torch.zeros_like(x)
            for place in sample.places[i]:
                (row,) = single_gradient(task, x, place, i)
                total = total + twin.clipped(row, clip)
            released = total / sample.batch + decay * x + sigma * clip / sample.batch * noise[i]
            m[i] = (1 - eta) * m[i] + eta * released
        x = x - lr * m.mean(dim=0)
    torch.testing.assert_close(outcome.x, x, rtol=1e-11, atol=1e-12)


def single_gradient(task, x, place, i):
    """The gradient of one sample of worker i, without what the regulariser adds."""
    if not isinstance(task, ModuleTask):
        seen, label = task.store[task.order[place]], task.labels[place]
        return ((torch.sigmoid(seen @ x) - label) * seen).unsqueeze(0)
    inputs, target = (part.unsqueeze(0) for part in task.pool.at(place.unsqueeze(0)))
    return task._gradients(x, inputs, target, 1, [i])


def test_what_draws_no_poisson_samples_is_refused_before_anything_is_run():
    method = {"name": "safe_dshb", "per": "sample", "sampling": "poisson", "noise_multiplier": 1.0}
    for task, words in (
        ("quadratic", "no Poisson samples"),
        ({"name": "logistic_regression", "batch": 0}, "part of the data"),
        ({"name": "digits", "batch": "full"}, "part of the data"),
        ({"name": "logistic_regression", "batch": 201}, "at most the 200"),
    ):
        with pytest.raises(InvalidInput, match=words):
            prepare_spec(spec(method, task=task), {})
    for fields in ({"sampling": "poisson"}, {"sampling": "poisson", "per": "sample", "clip": None}):
        for recipe in (SafeDSHB, PrivateMomentum):
            with pytest.raises(InvalidInput, match="stand beside"):
                recipe(**fields)


@pytest.mark.slow
def test_budgets_of_poisson_samples_are_those_of_their_rate_and_never_of_a_walk():
    settings = {"name": "safe_dshb", "noise_multiplier": 2.0, "per": "sample"}
    added, swapped, every = spec_privacy(spec(settings | {"sampling": "poisson"}))
    q, steps = 10 / 200, 100
    assert added.bound == poisson_epsilon(q, 2.0, steps, 1e-5)
    assert swapped.bound == replaced_epsilon(q, 2.0, steps, 1e-5)
    assert added.bound < swapped.bound < spec_privacy(spec(settings))[0].bound / 2
    assert every.bound == privacy.gaussian_epsilon(1e-5, 2 * sqrt(steps) * 200 / 2.0)
    assert "added or taken away" in added.measures
    assert "Poisson" in added.theorem
    assert all("Poisson" not in one.theorem for one in spec_privacy(spec(settings)))
    unknown = SafeDSHB(noise_multiplier=2.0, per="sample", sampling="poisson").privacy(
        privacy.Uses(rounds=10, batch=4, pooled="")
    )
    assert [one.bound for one in unknown] == [None] * 3


@pytest.mark.parametrize(
    "release, delta", sampled([(0.01, 0.7), (0.1, 1.0), (0.5, 3.0), (1.0, 4.0)], [1e-3, 1e-6])
)
def test_a_replaced_sample_spends_no_more_than_is_told(release, delta):
    """One release: the sum of the other samples, and with probability q one or the other end of the clip."""
    q, sigma = release
    epsilon = replaced_epsilon(q, sigma, 1, delta)
    x = torch.linspace(-60.0, 60.0, 400_001, dtype=torch.float64)

    def density(end):
        def bell(mean):
            return (-((x - mean) ** 2) / (2 * sigma**2)).exp() / (sigma * sqrt(2 * torch.pi))

        return (1 - q) * bell(0.0) + q * bell(end)

    lost = float((density(1.0) - exp(epsilon) * density(-1.0)).clamp_min(0).sum() * (x[1] - x[0]))
    assert lost <= delta * (1 + 1e-6)


@pytest.mark.parametrize(
    "q, epsilon, delta, steps",
    [
        (0.3, 0.5, 1e-7, 40),
        pytest.param(0.01, 2.0, 1e-5, 1000, marks=pytest.mark.slow),
        pytest.param(1.0, 8.0, 1e-4, 9, marks=pytest.mark.slow),
    ],
)
def test_the_noise_for_a_budget_on_poisson_samples_is_the_least(q, epsilon, delta, steps):
    noise = poisson_noise(q, epsilon, delta, steps)
    assert poisson_epsilon(q, noise, steps, delta) <= epsilon
    assert poisson_epsilon(q, noise * (1 - 1e-6), steps, delta) > epsilon
    for bad in ({"epsilon": 0.0}, {"q": 0.0}, {"delta": 1.0}, {"steps": 0}):
        with pytest.raises(InvalidInput):
            poisson_noise(**({"q": q, "epsilon": epsilon, "delta": delta, "steps": steps} | bad))
