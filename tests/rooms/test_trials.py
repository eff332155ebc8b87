"""Bant and hybrids: a step is tried on a loss that the server owns before it is taken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from byzopt import (
    Bant,
    Digits,
    Hybrid,
    LogisticRegression,
    Quadratic,
    RobustGD,
    RobustSGDM,
    SampleProxy,
    WorkerProxy,
    rule_from,
    simulate,
)
from byzopt.aggregators import RoundContext
from byzopt.aggregators.trials.choosing import ChosenRule
from byzopt.aggregators.trials.trust import TrialTrust
from byzopt.attacks import ATTACKS, Adversary
from byzopt.benchmark import Cell, load_entry
from byzopt.benchmark.protocol import CLEAN
from byzopt.benchmark.rows import Row, trusts
from byzopt.cohort import Cohort
from byzopt.errors import DoubtfulSetting, InvalidInput, Status, TooManyFaults
from byzopt.experiments import Spec
from tests.reference import trials as by_hand

N, D = 7, 5
ALIKE = Quadratic(d=6, heterogeneity=0.0, noise=0.0, proxy=WorkerProxy())  # all honest rows are one
SEVERAL = ("mean", "median", "trimmed_mean", "multi_krum")


def bowl(x):
    """A loss of the server's with one minimum, no quadratic."""
    return ((x - 1) ** 2).sum() + (x**4).sum() / 4


def rounds_of_rows(count: int = 6) -> list[torch.Tensor]:
    """Rows that mostly lead downhill, some that lead up, and in some rounds one that is not finite."""
    drawn = torch.Generator().manual_seed(3)
    sets = [torch.randn(N, D, dtype=torch.float64, generator=drawn) - 1 for _ in range(count)]
    sets[2][4] = torch.nan
    sets[3] = sets[3].abs() * 0 + 9.0  # far beyond the minimum: nobody gains anything
    sets[4][1] = torch.inf
    return sets


@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_bant_is_its_twin(beta):
    filter = TrialTrust(rule_from("mean"), 0.1, beta=beta)
    x = torch.zeros(D, dtype=torch.float64)
    state, trust = filter.begin(x, N, bowl), [1 / N] * N
    for t, rows in enumerate(rounds_of_rows(), start=1):
        told = filter.preview(state, rows, RoundContext(t, x))
        g, state = filter.step(state, rows, RoundContext(t, x))
        expected, trust = by_hand.bant(
            lambda point: float(bowl(torch.from_numpy(point))), x.numpy(), rows.numpy(), trust, 0.1, beta
        )
        # Gains are differences of losses near 10, known to 2e-15 each, and at least 1e-2: nothing is lost.
        np.testing.assert_allclose(g.numpy(), expected, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(state.trust.numpy(), trust, rtol=1e-10)
        torch.testing.assert_close(told, g, rtol=1e-12, atol=1e-14)
        x = x - 0.1 * g
    assert state.blind == 1
    assert float(state.trust.sum()) == pytest.approx(1)


def test_with_another_rule_those_who_pass_are_weighed_alike():
    """A rule that is the mean in other words sees rows whose mean is the weighted sum."""
    rows, x = rounds_of_rows()[0], torch.zeros(D, dtype=torch.float64)
    answers = []
    for rule in ("mean", "trimmed_mean(f=0)"):
        filter = TrialTrust(rule_from(rule), 0.1)
        answers.append(filter.step(filter.begin(x, N, bowl), rows, RoundContext(1, x))[0])
    torch.testing.assert_close(*answers, rtol=1e-12, atol=1e-14)


def test_a_rule_that_has_no_answer_to_so_few_gives_no_step():
    rows, x = torch.full((N, D), 9.0, dtype=torch.float64), torch.zeros(D, dtype=torch.float64)
    rows[0] = -1.0  # it alone leads downhill
    filter = TrialTrust(rule_from("krum", f=2), 0.1)
    g, state = filter.step(filter.begin(x, N, bowl), rows, RoundContext(1, x))
    assert not g.any()
    assert (filter.report(state)["passed_rows"], filter.report(state)["idle_rounds"]) == (1, 1)
    with pytest.raises(InvalidInput, match="n >= 2 f"):
        TrialTrust(rule_from("krum", f=3), 0.1).begin(x, N, bowl)


def test_where_nobody_gains_all_pass_or_none():
    rows, x = torch.full((N, D), 9.0, dtype=torch.float64), torch.zeros(D, dtype=torch.float64)
    for otherwise, expected in (("all", 9.0), ("none", 0.0)):
        filter = TrialTrust(rule_from("mean"), 1.0, otherwise=otherwise)
        g, state = filter.step(filter.begin(x, N, bowl), rows, RoundContext(1, x))
        torch.testing.assert_close(g, torch.full_like(g, expected), rtol=1e-14, atol=0)
        assert filter.report(state)["blind_rounds"] == 1
        nobody = torch.full_like(rows, torch.nan)
        assert float(filter.step(state, nobody, RoundContext(2, x))[0].abs().sum()) == 0


def test_a_hybrid_is_its_twin_and_answers_as_the_rule_that_it_takes():
    rules = [rule_from(text, f=2) for text in SEVERAL]
    filter = ChosenRule(tuple(rule.as_filter() for rule in rules), 0.3)
    x = torch.zeros(D, dtype=torch.float64)
    state, taken = filter.begin(x, N, bowl), [0] * len(rules)
    drawn = torch.Generator().manual_seed(5)
    for t in range(1, 9):
        rows = torch.randn(N, D, dtype=torch.float64, generator=drawn) - x.sign() - 1
        answers = [rule(rows) for rule in rules]
        best = by_hand.hybrid(
            lambda point: float(bowl(torch.from_numpy(point))), x.numpy(), [a.numpy() for a in answers], 0.3
        )
        g, state = filter.step(state, rows, RoundContext(t, x))
        assert torch.equal(g, answers[best])
        taken[best] += 1
        x = x - 0.1 * g
    assert list(state.taken) == taken
    assert sum(count > 0 for count in taken) > 1  # it has not always been the same


def test_sets_of_rows_are_answered_as_each_alone():
    x, sets = torch.zeros(D, dtype=torch.float64), torch.stack(rounds_of_rows())
    sets[[2, 4]] = sets[[0, 1]]
    sets[:, :3] = sets[0, :3]  # honest rows stay what they are
    rules = tuple(rule_from(text, f=2).as_filter() for text in SEVERAL)
    for filter in (
        TrialTrust(rule_from("mean"), 0.1),
        TrialTrust(rule_from("median"), 0.1),
        ChosenRule(rules, 0.1),
    ):
        state, at = filter.begin(x, N, bowl), RoundContext(1, x)
        each = torch.stack([filter.preview(state, rows, at) for rows in sets])
        torch.testing.assert_close(filter.previews(state, sets, at), each, rtol=1e-12, atol=1e-14)


def test_without_others_a_hybrid_is_momentum_sgd_to_the_bit():
    task = Quadratic(proxy=WorkerProxy()).build(Cohort.of(9, 2), 1)
    for by in ("loss", "lot"):
        own = simulate(task, "median", 0.2, 12, 2, Hybrid(beside=(), by=by, eta=0.3), "alie")
        plain = simulate(task, "median", 0.2, 12, 2, RobustSGDM(eta=0.3), "alie")
        assert torch.equal(own.x, plain.x)


@pytest.mark.parametrize("attack", [{"name": "sign_flip"}, {"name": "ipm", "scale": 3.0}, "nan"])
def test_bant_takes_the_steps_of_descent_though_most_workers_lie(attack):
    """Where honest rows are one, and liars lead uphill, it is gradient descent without liars."""
    task = ALIKE.build(Cohort.of(10, 8), 0)
    with pytest.warns(DoubtfulSetting, match="8 of 10"):
        attacked = simulate(task, "mean", 0.5, 30, 4, Bant(), ATTACKS.build(attack))
    plain = simulate(ALIKE.build(Cohort.of(2), 0), "mean", 0.5, 30, 0, RobustGD())
    assert attacked.status is Status.COMPLETED
    torch.testing.assert_close(attacked.x, plain.x, rtol=1e-12, atol=1e-14)
    # ‖x - x*‖ shrinks by 1 - lr μ = 0.95 at least in a round.
    assert attacked.metrics["distance"] <= 0.95**30 * attacked.records[0]["distance"]


def test_a_hybrid_converges_as_the_one_rule_of_its_that_holds():
    """The median answers the honest rows, which are one; the mean, carried off, is never taken."""
    built = ALIKE.build(Cohort.of(9, 3), 0)
    method = Hybrid(beside=("mean",))
    found = simulate(built, "median", 0.5, 30, 3, method, ATTACKS.build({"name": "ipm", "scale": 9.0}))
    plain = simulate(ALIKE.build(Cohort.of(2), 0), "mean", 0.5, 30, 0, RobustGD())
    torch.testing.assert_close(found.x, plain.x, rtol=1e-12, atol=1e-14)
    assert (found.metrics["taken_1"], found.metrics["taken_2"]) == (30, 0)


def test_a_rule_without_an_answer_is_left_out_of_a_round():
    x, rows = torch.zeros(2, dtype=torch.float64), -torch.ones(6, 2, dtype=torch.float64)
    rows[4:] = torch.nan
    strict, lenient = (rule_from("trimmed_mean", f=f).as_filter() for f in (1, 2))
    both = ChosenRule((strict, lenient), 0.1)
    g, state = both.step(both.begin(x, 6, bowl), rows, RoundContext(1, x))
    assert torch.equal(g, rows[0])
    assert state.taken == (0, 1)
    alone = ChosenRule((strict, strict), 0.1)
    with pytest.raises(TooManyFaults):
        alone.step(alone.begin(x, 6, bowl), rows, RoundContext(1, x))


def test_drawn_by_lot_a_hybrid_needs_no_loss_and_hides_its_coin():
    rules = tuple(rule_from(text, f=2).as_filter() for text in SEVERAL)
    filter, x = ChosenRule(rules, 0.1, by="lot"), torch.zeros(D, dtype=torch.float64)
    state = filter.begin(x, N, None)
    assert len({filter.rule_of(state, RoundContext(t, x)) for t in range(20)}) == len(rules)
    for t in range(1, 21):
        rows = rounds_of_rows()[0]
        g, after = filter.step(state, rows, RoundContext(t, x, seed=4))
        assert torch.equal(g, filter.preview(state, rows, RoundContext(t, x, seed=4)))
        state = after
    assert sum(state.taken) == 20
    assert min(state.taken) > 0


@pytest.mark.parametrize("method", [Bant(), Hybrid()])
def test_a_task_without_a_loss_of_the_servers_is_refused(method):
    task = Quadratic().build(Cohort.of(9, 2), 0)
    with pytest.raises(InvalidInput, match=r"a loss that the server owns.*task.proxy"):
        simulate(task, "median", 0.1, 3, 2, method)


@pytest.mark.parametrize("field", [{"beta": 0.0}, {"beta": 1.5}, {"eta": 0.0}])
def test_parameters_out_of_range_are_refused(field):
    with pytest.raises(InvalidInput, match="lie in"):
        Bant(**field).build(rule_from("mean"), 0.1)


def test_rules_beside_are_told_the_rule_s_f():
    built = Hybrid(beside=("trimmed_mean",)).build(rule_from("nnm >> median", f=2), 0.1)
    assert built.filter.filters[1].rule.f == 2
    with pytest.raises(InvalidInput, match="know how many"):
        Hybrid(beside=("krum",)).build(rule_from("mean"), 0.1)


# The clean sample.

SAMPLED = [
    LogisticRegression(batch=0, l2=0.05, byzantine_data="honest"),
    Digits(batch="full", dtype="float64", byzantine_data="mirror", hidden=(4,), validation=50),
]


@pytest.mark.parametrize("recipe", SAMPLED, ids=["logistic", "digits"])
def test_a_clean_sample_moves_nothing_of_the_workers(recipe):
    cohort = Cohort(6, (1, 4))
    plain, task = (one.build(cohort, 0) for one in (recipe, replace(recipe, proxy=SampleProxy(40))))
    x = plain.start() + 0.1
    assert torch.equal(task.grads(x, task.full()), plain.grads(x, plain.full()))
    assert task.measure(x) == plain.measure(x)
    others = [replace(recipe, proxy=SampleProxy(40)).build(cohort, seed).proxy() for seed in (0, 1)]
    assert float(task.proxy()(x)) == float(others[0](x)) != float(others[1](x))


def test_a_clean_sample_of_all_is_all_samples_and_stays_clean():
    recipe, cohort = replace(SAMPLED[1], byzantine_data="all"), Cohort(6, (1, 4))
    m = len(recipe.build(cohort, 0).pool.shards[1])  # a liar holds all samples
    task = replace(recipe, proxy=SampleProxy(m)).build(cohort, 0)
    flipped, x = Adversary(ATTACKS.build("label_flip"), cohort, 2).poison(task), task.start()
    assert float(flipped.proxy()(x)) == float(task.proxy()(x))
    assert task.loss_of(x, [1]) == pytest.approx(float(task.proxy()(x)), rel=1e-12)
    assert flipped.loss_of(x, [1]) != task.loss_of(x, [1])
    with pytest.raises(InvalidInput, match=f"at most the {m} samples"):
        replace(recipe, proxy=SampleProxy(m + 1)).build(cohort, 0)


def test_a_task_that_is_made_of_no_samples_has_no_clean_one():
    with pytest.raises(InvalidInput, match="made of none"):
        Quadratic(proxy=SampleProxy()).build(Cohort.of(4), 0)


# The benchmark's entries.


@pytest.mark.parametrize("name", ["trial-trust", "hybrid"])
def test_entries_that_need_clean_data_are_granted_it_and_stand_apart(name):
    cell, entry = Cell.of("digits-dirichlet1-n20-f6"), load_entry(name)
    for spec in entry.specs(cell):
        assert spec["task"]["proxy"] == CLEAN
        assert Spec.of(spec).built().needs_proxy
    row = Row(cell.name, name, "", "", "", "2", "4", "accuracy", True, [0, 1, 2], {})
    assert not trusts(row)
    row.spec = entry.specs(cell)[0]
    assert trusts(row)
    assert "proxy" not in load_entry("rfa").specs(cell)[0]["task"]
    assert "proxy" not in replace(entry, method={"name": "hybrid", "by": "lot"}).specs(cell)[0]["task"]
