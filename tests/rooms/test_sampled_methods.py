"""Methods for samples of the workers: twins, reductions, thresholds, rounds in which most of a sample lie."""

from __future__ import annotations

from dataclasses import replace
from math import comb

import pytest
import torch
from torch import Tensor

from byzopt.aggregators import (
    NNM,
    Aggregator,
    ClippedChanges,
    LastRows,
    Mean,
    Median,
    PresentRows,
    TrimmedMean,
)
from byzopt.attacks import ALIE, Adversary, Attack, ShiftBack
from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput
from byzopt.experiments import Outcome, Spec, simulate
from byzopt.experiments.running import prepare_spec
from byzopt.experiments.trials.batched import BatchedTrials, batch_groups
from byzopt.layout import Layout
from byzopt.methods import METHODS, ByzVRMarina, ByzVRMarinaPP, DeMoA, MethodRecipe, RobustSGDM, RoSDHB
from byzopt.reproductions.loading import load_reproduction
from byzopt.rng import coin
from byzopt.tasks import TASKS, Task
from byzopt.theory import sampling
from byzopt.theory.promise import Constants
from byzopt.wire import COMPRESSORS, Identity, Link, RandK, SharedRandK
from byzopt.workers import Bernoulli, Coined, Participants
from tests.reference import sampled as twin
from tests.running import play

N, F, T, SEED = 9, 2, 25, 4
RULE = NNM(f=F) >> Median()
LOGISTIC = {"name": "logistic_regression", "batch": 2}


class Pulling(Attack):
    """Every liar wants the server to believe 3 x - 1."""

    name = "pulling"

    def forge(self, view, generator):
        return view.alike(3 * view.x - 1)


PULLING = Pulling()


def task_of(byzantine: int = F) -> Task:
    return TASKS.build(LOGISTIC).build(Cohort.of(N, byzantine), SEED)


def problem_of(task: Task, participants: Participants, p: float = 0.0) -> twin.Problem:
    def here(t: int) -> list[int]:
        mask = participants.mask(SEED, t, N)
        return [i for i in range(N) if mask is None or mask[i]]

    return twin.Problem(
        N,
        task.start(),
        lambda i, t, x: task.grads(x, task.draw(t))[i],
        lambda i, x: task.grads(x, task.full())[i],
        here,
        lambda i, t, x: 3 * x - 1 if i >= N - F else None,
        lambda t: coin(SEED, t, p),
    )


def path(recipe: MethodRecipe, rule: Aggregator = RULE, attack: Attack | str = PULLING, byzantine: int = F):
    snapshots = play(recipe, rule, attack, task_of(byzantine), N, byzantine, 0.3, T, SEED)
    return torch.stack([snapshot.x for snapshot in snapshots])


def fitted(rows: list[Tensor]) -> Tensor:
    """The rule with the tolerance that so many rows allow."""
    f = min(F, (len(rows) - 1) // 2)
    return (NNM(f=f) >> Median(f=f))(torch.stack(rows)) if rows else None


@pytest.mark.parametrize("differences", ["sample", "full"])
@pytest.mark.parametrize("a", [0.05, 1.0])
def test_marina_pp_walks_as_its_slow_twin(differences, a):
    recipe = ByzVRMarinaPP(a=a, count=4, whole=7, p=0.2, differences=differences)
    problem = problem_of(task_of(), Coined(4, 7, 0.2), 0.2)
    slow = twin.marina_pp(problem, fitted, 0.3, a, T, differences == "full")
    torch.testing.assert_close(path(recipe), torch.stack(slow), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("absentees", ["fade", "kept"])
def test_demoa_walks_as_its_slow_twin(absentees):
    recipe = DeMoA(p=0.4, eta=0.3, absentees=absentees)
    problem = problem_of(task_of(), Bernoulli(0.4))
    slow = twin.demoa(problem, lambda rows: RULE(torch.stack(rows)), 0.3, 0.3, 0.4, T, absentees == "kept")
    torch.testing.assert_close(path(recipe), torch.stack(slow), rtol=1e-11, atol=1e-12)


def test_rosdhb_walks_as_its_slow_twin():
    recipe = RoSDHB(SharedRandK(k=3), eta=0.3)
    task = task_of()
    d = task.layout.d

    def kept(t: int) -> Tensor:
        noise = Link(t, SEED, Layout.flat(d)).uniform(torch.empty(N, d).double())[0]
        return noise >= noise.sort().values[-3]

    everybody = Bernoulli(1.0)
    slow = twin.rosdhb(problem_of(task, everybody), lambda rows: RULE(torch.stack(rows)), 0.3, 0.3, kept, T)
    torch.testing.assert_close(path(recipe), torch.stack(slow), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("a", [0.1, 10.0])
def test_the_heuristic_walks_as_its_slow_twin(a):
    chosen = Bernoulli(0.5, clip=a)
    attack, task = Pulling(), task_of()
    method = METHODS.build("robust_gd").build(RULE, 0.3).among(chosen)
    assert method.filter == ClippedChanges(PresentRows(RULE.as_filter()), a)
    outcome = simulate(task, RULE, 0.3, T, F, "robust_gd", attack, SEED, participants=chosen)
    slow = twin.clipped_changes(problem_of(task, chosen), fitted, 0.3, a, T)
    torch.testing.assert_close(outcome.x, slow[-1], rtol=1e-11, atol=1e-12)


def test_everybody_and_no_clipping_is_byz_vr_marina():
    for attack in ("none", "alie", "sign_flip"):
        plain = path(ByzVRMarina(p=0.3, compressor=Identity()), attack=attack)
        sampled = path(ByzVRMarinaPP(a=None, count=N, p=0.3), attack=attack)
        torch.testing.assert_close(sampled, plain, rtol=1e-12, atol=1e-13)
        wide = path(ByzVRMarinaPP(a=1e9, count=N, p=0.3), attack=attack)  # the same, about the last aggregate
        torch.testing.assert_close(wide, plain, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("absentees", ["fade", "kept"])
def test_demoa_with_everybody_is_worker_momentum(absentees):
    plain = path(RobustSGDM(eta=0.3), attack="alie")
    assert torch.equal(path(DeMoA(p=1.0, eta=0.3, absentees=absentees), attack="alie"), plain)


def test_rosdhb_with_all_coordinates_is_momentum_sgd():
    plain = path(RobustSGDM(eta=0.3), attack="none", byzantine=0)
    ours = path(RoSDHB(SharedRandK(k=10**6), eta=0.3), attack="none", byzantine=0)
    torch.testing.assert_close(ours, plain, rtol=1e-13, atol=1e-14)


def test_one_mask_for_all_keeps_rows_together():
    """Dispersion 0.91 becomes about 9.09 with one mask and about 796 with masks of their own (d/K = 10)."""
    generator = torch.Generator().manual_seed(0)
    n, d, k = 20, 100, 10
    common = torch.randn(d, generator=generator, dtype=torch.float64)
    common *= (796 - 9.09) ** 0.5 / (9 * 0.95) ** 0.5 / common.norm()  # (d/K - 1)‖s‖² (1 - 1/n)
    rows = common + torch.randn(n, d, generator=generator, dtype=torch.float64) * (0.91 / d / 0.95) ** 0.5
    spread = {}
    for kind in (SharedRandK(k=k), RandK(k=k)):
        found = [kind(rows, Link(t, 0, Layout.flat(d))) for t in range(1, 301)]
        spread[kind.name] = sum(float((m - m.mean(0)).square().sum(1).mean()) for m in found) / 300
    assert spread["shared_rand_k"] == pytest.approx(9.09, rel=0.1)
    assert spread["rand_k"] == pytest.approx(796, rel=0.1)


def test_a_shared_mask_has_the_messages_of_rand_k():
    kind = COMPRESSORS.build({"name": "shared_rand_k", "k": 3})
    assert kind.size(100) == RandK(k=3).size(100)
    assert kind.has_layout
    with pytest.raises(InvalidInput, match="Found True"):
        SharedRandK(seeded=True)


def test_thresholds_of_samples():
    assert sampling.least_sample(150, 30, 500) == 29
    assert sampling.least_sample(150, 30, 1500) == 31
    assert sampling.chernoff_sample(150, 30, 500) == 53
    assert [sampling.least_tolerance(150, 30, count, 500) for count in (40, 60, 100)] == [17, 22, 29]
    assert sampling.least_sample(10, 5, 100) is None
    assert sampling.least_sample(10, 0, 100) == 1
    found = sampling.excess_probability(12, 5, 6, 2)
    listed = sum(comb(5, k) * comb(7, 6 - k) for k in (3, 4, 5)) / comb(12, 6)
    assert found == pytest.approx(listed, rel=1e-14)


@pytest.mark.parametrize("at_half", [False, True])
def test_how_often_liars_outnumber_those_who_come_by_a_coin(at_half):
    for n, f, p in ((7, 2, 0.3), (6, 3, 0.5), (5, 0, 0.4), (4, 4, 0.2)):
        listed = 0.0
        for chosen in range(2**n):
            here = [i for i in range(n) if chosen >> i & 1]
            liars = sum(i < f for i in here)
            lost = 2 * liars >= len(here) > 0 if at_half else 2 * liars > len(here)
            listed += p ** len(here) * (1 - p) ** (n - len(here)) * lost
        assert sampling.outnumbered_probability(n, f, p, at_half) == pytest.approx(listed, rel=1e-13)
    with pytest.raises(InvalidInput, match="Found"):
        sampling.outnumbered_probability(5, 1, 1.5)


def test_the_reproduction_stands_beside_the_exact_probabilities():
    part = next(one for one in load_reproduction("sampling/majority-rounds").parts if one.beside == "theory")
    specs = {cell.at: part.sweep.specs()[len(part.seeds) * i] for i, cell in enumerate(part.cells)}
    assert len(specs) == 9
    for cell in part.cells:
        chosen, attack = specs[cell.at].participants, specs[cell.at].attack
        assert (specs[cell.at].n, len(specs[cell.at].cohort.byzantine)) == (20, 5)
        if isinstance(chosen, Bernoulli):
            share = sampling.outnumbered_probability(20, 5, chosen.p, attack.at_half)
        else:
            borne = (chosen.count - 1) // 2 if attack.at_half else chosen.count // 2
            share = sampling.excess_probability(20, 5, chosen.count, borne)
            share *= 1 - chosen.p if isinstance(chosen, Coined) else 1.0
        (told,) = cell.printed.values()
        assert told[0] == pytest.approx(share, abs=5.1e-5)  # printed with four digits
        if share:
            assert cell.tolerance == pytest.approx(3 * (share * (1 - share) / 9000) ** 0.5, abs=1e-4)
        else:
            assert cell.limit == "at_most"


def test_constants_of_marina_pp():
    expected = {1: (0.75, 1 / 15), 2: (0.552632, 0.133333), 4: (0.75129, 0.225)}
    for count, pair in expected.items():
        assert sampling.good_samples(20, 15, count, 0.25) == pytest.approx(pair, rel=3e-6)
    for count, value in {1: 142800, 4: 120994, 20: 140800}.items():
        assert sampling.marina_pp_constant(20, 15, count, 0.25, 0.1, 1.5, 1.0) == pytest.approx(
            value, rel=1e-6
        )


def test_the_promise_of_marina_pp_rests_on_its_premises():
    recipe = ByzVRMarinaPP(a=2.0, count=4, whole=20, p=0.1, differences="full", tolerated=1, cdelta=1.5)
    known = Constants(20, 5, 10, 10**6, attackers=5, l0=1.0, l1=0.0, gap=1.0, zeta=0.0)
    told = recipe.promise(known)
    assert told.missing == ()
    assert told.steps["lr"] == pytest.approx(1 / (1 + 120994.0144478842**0.5))
    assert told.bound == pytest.approx(2 / (told.steps["lr"] * 10**6))
    for change, known_too in (
        ({"a": 1.9}, {}),
        ({"cdelta": None}, {}),
        ({"differences": "sample"}, {}),
        ({"whole": 19}, {}),
        ({"tolerated": 2}, {}),
        ({}, {"lr": 0.01}),
        ({}, {"l1": 1.0}),
        ({}, {"zeta": 0.1}),
    ):
        assert replace(recipe, **change).promise(replace(known, **known_too)).bound is None


SETTING = {"name": "quadratic", "d": 10, "mu": 0.1, "noise": 1.0, "heterogeneity": 1.0}


def through_majorities(method: MethodRecipe | str, chosen: object = "all", rounds: int = 1200) -> Outcome:
    task = TASKS.build(SETTING).build(Cohort.of(20, 5), 1)
    attack = ShiftBack(scale=10.0, otherwise=ALIE())
    rule = TrimmedMean(f=5)
    return simulate(task, rule, 0.1, rounds, 5, method, attack, 1, eval_every=100, participants=chosen)


def late(outcome: Outcome) -> float:
    """Mean ‖∇f‖² over the last half of the records."""
    squares = [record["grad_norm"] ** 2 for record in outcome.records]
    return sum(squares[len(squares) // 2 :]) / (len(squares) - len(squares) // 2)


@pytest.mark.slow
def test_through_rounds_in_which_most_of_a_sample_lie():
    majorities = 0
    for t in range(1, 1201):
        mask = Bernoulli(0.2).mask(1, t, 20)
        majorities += 2 * int(mask[15:].sum()) > int(mask.sum())
    assert majorities > 60
    dropped = late(through_majorities("robust_gd", {"name": "bernoulli", "p": 0.2}))
    found = {
        "PP": late(through_majorities(ByzVRMarinaPP(a=1.0, count=4, p=0.1, differences="full"))),
        "DeMoA": late(through_majorities(DeMoA(p=0.2, eta=0.5))),
        "kept": late(through_majorities(DeMoA(p=0.2, eta=0.5, absentees="kept"))),
    }
    assert all(value < dropped / 3 for value in found.values()), (dropped, found)


def test_runs_of_sampled_methods_advance_together():
    base = {
        "task": LOGISTIC,
        "rule": "nnm >> median",
        "n": N,
        "f": F,
        "attack": "alie",
        "rounds": 8,
        "lr": 0.1,
    }
    for method in ({"name": "byz_vr_marina_pp", "count": 4}, {"name": "demoa"}, {"name": "rosdhb"}):
        specs = [Spec.of(base | {"method": method, "seed": seed}) for seed in range(3)]
        assert batch_groups(specs) == [(0, 1, 2)]
        both = BatchedTrials([prepare_spec(one, {}) for one in specs], None, lambda i, record: None)
        for spec, end in zip(specs, both.run(lambda t: False), strict=True):
            ready = prepare_spec(spec, {})
            alone = BatchedTrials([ready], None, lambda i, record: None).run(lambda t: False)[0]
            torch.testing.assert_close(end.x, alone.x, rtol=1e-11, atol=1e-12)


def test_a_method_that_samples_takes_no_other_sample():
    with pytest.raises(InvalidInput, match="given no others"):
        simulate(task_of(), "median", 0.1, 3, F, "demoa", participants="bernoulli")


def test_shift_back_shifts_back_where_liars_are_most():
    rows, cohort = torch.arange(12.0).view(6, 2), Cohort(6, (4, 5))
    adversary = Adversary(ShiftBack(scale=5.0), cohort, 2)
    state = adversary.start(torch.ones(2))
    ask = (torch.tensor([2.0, 0.0]), rows, torch.Generator(), lambda rows: rows.mean(0))
    most = torch.tensor([True, False, False, False, True, True])
    forged, state = adversary.forge_rows(state, 1, *ask, most)
    assert forged[4:].tolist() == [[5.0, -5.0]] * 2
    few = torch.tensor([True, True, True, False, True, False])
    forged, state = adversary.forge_rows(state, 2, *ask, few)
    assert forged[4].tolist() != [5.0, -5.0]
    half = torch.tensor([True, True, False, False, True, True])
    assert adversary.forge_rows(state, 3, *ask, half)[0][4].tolist() != [5.0, -5.0]
    assert adversary.attack.report(state) == {"shifted_back": 1.0}
    content = Adversary(ShiftBack(scale=5.0, at_half=True), cohort, 2)
    forged, state = content.forge_rows(content.start(torch.ones(2)), 1, *ask, half)
    assert forged[4:].tolist() == [[5.0, -5.0]] * 2
    assert content.attack.report(state) == {"shifted_back": 1.0}


@pytest.mark.parametrize(
    "make",
    [
        lambda: ByzVRMarinaPP(a=0.0),
        lambda: ByzVRMarinaPP(count=0),
        lambda: ByzVRMarinaPP(p=0.0),
        lambda: DeMoA(p=0.0),
        lambda: DeMoA(eta=1.5),
        lambda: RoSDHB(eta=0.0),
        lambda: RoSDHB(compressor=COMPRESSORS.build("top_k")).build(Mean(), 0.1),
        lambda: Bernoulli(0.5, clip=0.0),
        lambda: ShiftBack(scale=0.0),
        lambda: LastRows(Mean().as_filter()) and ClippedChanges(Mean().as_filter(), a=-1.0),
    ],
)
def test_what_cannot_be_is_refused(make):
    with pytest.raises(InvalidInput, match="Found"):
        make()
