"""Accusations that hold: no liar gets an honest worker expelled, and those in the open go."""

from __future__ import annotations

import json
from math import exp

import pytest
import torch

from byzopt.aggregators import Mean
from byzopt.aggregators.core.filters import RoundContext
from byzopt.aggregators.guards import pairs
from byzopt.aggregators.guards.guard import HistoryGuard
from byzopt.aggregators.guards.majority import Crowd
from byzopt.aggregators.guards.safeguard import Safeguard
from byzopt.distributed import RobustOptimizer
from byzopt.errors import InvalidInput
from byzopt.experiments import Spec, run
from byzopt.methods import ByzantineSGD, SafeguardSGD
from byzopt.rng import stream
from byzopt.theory import safeguard as theory
from byzopt.theory.accusing import odd_limit
from byzopt.theory.byzantine_epochs import Epoch
from byzopt.theory.byzantine_sgd import GuardSetting, expels_honest, slack
from byzopt.theory.promise import Constants
from tests.liars import (
    LIES,
    Lie,
    Rows,
    alternate,
    copy,
    drawn,
    honest,
    huge_in_every_third,
    rounds_of,
    shadow,
    sleeper,
    straddle,
    together,
    wild,
)
from tests.products import sampled
from tests.ranks import play_ranks
from tests.reference import accusing as twin


def gone(guard: Safeguard | HistoryGuard, rows: Rows) -> dict[int, int]:
    """Who was expelled, and in which round."""
    x = torch.zeros_like(rows[0][0])
    state = guard.init(x, len(rows[0]))
    for t, each in enumerate(rows, start=1):
        _, state = guard.step(state, each, RoundContext(t, x))
        # The next point follows from this round's rows, and lies in the ball.
        x = each.median(dim=0).values.clamp(-0.3, 0.3)
    return {one.worker: one.round for one in guard.expelled(state)}


def safeguard(f: int, last: int) -> Safeguard:
    return Safeguard((last // 2, last), last, measured="pairs", f=f)


@pytest.mark.parametrize("lie", [honest, copy, shadow, together, huge_in_every_third])
@pytest.mark.parametrize("n, f", [(5, 2), (6, 2), (5, 1)])
def test_two_and_three_accuse_as_their_slow_twin_does(n, f, lie):
    rows = rounds_of(lie, n, f, 3, 45)
    state, sums = pairs.empty_window(n, torch.device("cpu")), torch.zeros(n, 3, dtype=torch.float64)
    for t, each in enumerate(rows, start=1):
        sums = sums + each
        every = torch.ones(n, dtype=torch.bool)
        state = pairs.extended(state, Crowd(each, every), Crowd(sums, every))
        if t % 9 == 0:
            drifted, odd = pairs.accused(state, t, f, 0.5)
            expected = twin.accused(torch.stack(rows[:t]).numpy(), f, 0.5)
            assert set((drifted | odd).nonzero().flatten().tolist()) == expected


@pytest.mark.parametrize("rounds", [1, 7, 40, 300])
@pytest.mark.parametrize("level", [0.3, 1e-3, 1e-6])
def test_how_often_one_may_be_the_odd_one_out(rounds, level):
    limit = odd_limit(rounds, level)
    assert limit > rounds or twin.chance(limit, rounds) <= level
    assert limit == 0 or twin.chance(limit - 1, rounds) > level
    assert limit > rounds / 3


LAWS = ("normal", "heavy", "line", "two kinds", "fading")


@pytest.mark.parametrize("d, size", sampled([1, 12], [(5, 2), (6, 2), (8, 2), (9, 4), (10, 4)]))
def test_no_strategy_gets_an_honest_worker_expelled(d, size):
    """All strategies under all laws, side by side in one batch."""
    n, f = size
    played = [(lie.__name__, law) for lie in LIES for law in LAWS]
    many = [rounds_of(lie, n, f, d, 100, law) for lie in LIES for law in LAWS]
    guard = safeguard(f, 100)
    state = guard.init(many[0][0][0], n)
    state = torch.utils._pytree.tree_map(lambda part: part.expand(len(many), *part.shape).clone(), state)
    for t in range(1, 101):
        rows = torch.stack([one[t - 1] for one in many])
        _, state = guard.step(state, rows, RoundContext(t, rows[:, 0]))
    kept = state.roster.good[:, : n - f].all(dim=1)
    assert [who for who, fine in zip(played, kept.tolist(), strict=True) if not fine] == []


@pytest.mark.parametrize("lie", [copy, shadow, straddle, wild, together])
def test_a_guard_without_a_known_noise_expels_no_honest_worker_either(lie):
    for n, f in ((5, 2), (9, 4)):
        guard = HistoryGuard((Epoch(120, 1.0, 0.1),), None, f=f)
        assert not [worker for worker in gone(guard, rounds_of(lie, n, f, 8, 120)) if worker < n - f]


@pytest.mark.parametrize(
    "lie, n, f, within",
    [
        (together, 9, 4, 60),
        (together, 10, 4, 50),
        (sleeper, 11, 4, 110),
        (alternate, 20, 3, 60),
        (wild, 10, 4, 15),  # noise without drift shows from n = 2 f + 2 on
        (huge_in_every_third, 20, 3, 150),
    ],
)
def test_liars_in_the_open_are_expelled_in_time(lie, n, f, within):
    expelled = gone(safeguard(f, 200), rounds_of(lie, n, f, 40, 200))
    assert set(expelled) == set(range(n - f, n))
    assert max(expelled.values()) <= within


def test_equal_rows_and_rounding_accuse_nobody():
    """Without noise honest rows differ by rounding alone, which may lean to one side for ever."""
    for dtype in (torch.float32, torch.float64):
        base = torch.randn(4, dtype=dtype, generator=stream(1))
        eps = torch.finfo(dtype).eps
        rows = [
            (base * (1 + eps * torch.tensor([0, 1, -1, 1, 0]).unsqueeze(1))).to(dtype) for _ in range(200)
        ]
        assert not gone(safeguard(2, 200), rows)


def test_many_workers_are_told_by_pairs_alone():
    n = pairs.THREES + 2
    state = pairs.empty_window(n, torch.device("cpu"))
    assert state.odd.numel() == 0
    rows = torch.randn(n, 3, dtype=torch.float64, generator=stream(2))
    every = Crowd(rows, torch.ones(n, dtype=torch.bool))
    state = pairs.extended(state, every, every)
    drifted, odd = pairs.accused(state, 1, 3, 0.05)
    assert not (drifted | odd).any()


QUADRATIC = {"name": "quadratic", "d": 200, "noise": 1.0, "heterogeneity": 0.0}


@pytest.mark.parametrize(
    "attack, n, method", sampled(["mimic_index", "mimic_variance"], [9, 10], ["safeguard", "byzantine_sgd"])
)
def test_who_copies_an_honest_worker_expels_nobody(attack, n, method):
    data = {"task": QUADRATIC, "rule": "mean", "method": method, "attack": attack, "rounds": 120, "lr": 0.01}
    assert run(Spec.of(data | {"n": n, "f": 4})).main.expelled == ()


DIGITS = {"name": "digits", "partition": "iid", "hidden": []}


@pytest.mark.parametrize("method", ["safeguard", {"name": "byzantine_sgd", "noise": 1.0}])
@pytest.mark.parametrize("task", [DIGITS, QUADRATIC | {"heterogeneity": 0.1}])
def test_a_guard_is_refused_where_data_differ_unless_it_is_asked_for_by_name(method, task):
    data = {"task": task, "rule": "mean", "method": method, "rounds": 2, "lr": 0.1, "n": 5, "f": 1}
    with pytest.raises(InvalidInput, match=r"one distribution.*differ by.*differing"):
        run(Spec.of(data))
    named = {"name": method} if isinstance(method, str) else method
    assert run(Spec.of(data | {"method": named | {"differing": True}})).main.rounds == 2


def test_a_task_that_cannot_tell_is_refused_too(monkeypatch):
    from byzopt.tasks.quadratic import QuadraticTask

    def none(task: QuadraticTask) -> None:
        raise InvalidInput("no full gradients")

    data = {"task": QUADRATIC, "rule": "mean", "method": "safeguard", "rounds": 2, "lr": 0.1, "n": 5, "f": 1}
    assert run(Spec.of(data)).main.rounds == 2
    monkeypatch.setattr(QuadraticTask, "full", none)
    with pytest.raises(InvalidInput, match="nobody can tell"):
        run(Spec.of(data))


def optimizers(rank: int) -> list[str]:
    found = []
    for differing in (False, True):
        for recipe in (SafeguardSGD(f=1, differing=differing), ByzantineSGD(f=1, differing=differing)):
            x = torch.nn.Parameter(torch.zeros(3))
            method = recipe.build(Mean(), 0.1, 10)
            try:
                RobustOptimizer([x], method, 0.1, topology="server")
                found.append("")
            except InvalidInput as error:
                found.append(str(error))
    return found


def test_optimizers_over_ranks_see_no_data_and_want_to_be_asked_too():
    for refused in play_ranks(3, optimizers):
        assert all("differing=True" in text for text in refused[:2])
        assert refused[2:] == ["", ""]


@pytest.mark.parametrize("recipe", [SafeguardSGD(), ByzantineSGD()])
def test_whoever_goes_by_pairs_must_know_f(recipe):
    with pytest.raises(InvalidInput, match="know `f`"):
        recipe.build(Mean(), 0.1, 10)


# Known V: the paper's tests, which hold from n = 2 f + 1 on whatever the liars do.


def bounded(lie: Lie, n: int, f: int, last: int, drift: float = 0.0) -> Rows:
    """Honest rows of length 1 about a mean; worker 0's drifts."""
    sums, made = torch.zeros(n, 4, dtype=torch.float64), []
    for t in range(1, last + 1):
        rows = torch.nn.functional.normalize(drawn("normal", n, 4, t, 3), dim=1)
        rows[0, 0] += drift
        lie(rows, f, t, sums)
        sums = sums + rows
        made.append(rows)
    return made


KNOWN = {
    "default": HistoryGuard((Epoch(120, 1.0, 0.1),), 1.0, "default"),
    "proved": HistoryGuard((Epoch(120, 1.0, 0.1),), 1.0, "proved"),
    "windows": Safeguard((60, 120), 120, noise=1.0),
}


@pytest.mark.parametrize("lie, guard", sampled(LIES, KNOWN))
def test_with_a_known_noise_no_strategy_gets_an_honest_worker_expelled(lie, guard):
    at = GuardSetting(9, 4, 120, 1.0, 1.0)
    assert guard == "windows" or expels_honest(at, guard) < 0.05
    assert not [worker for worker in gone(KNOWN[guard], bounded(lie, 9, 4, 120)) if worker < 5]


def test_the_chance_of_an_honest_expulsion_is_the_documented_formula():
    at = GuardSetting(10, 4, 2000, 1.0, 1.0)
    assert expels_honest(at, "default") == pytest.approx(20 * (exp(-at.log / 2) + exp(-2 * at.log)))
    assert expels_honest(at, "proved") <= at.p_fail / at.rounds
    assert expels_honest(at, "printed") == 1
    assert expels_honest(at, "default", anytime=True) == 1
    assert expels_honest(at, "proved", anytime=True) <= at.p_fail
    assert theory.windows_expel_honest((20, 100), 100, 9) < 1e-20


@pytest.mark.parametrize("lie", [honest, straddle, copy])
def test_differences_up_to_the_slack_are_borne_and_large_ones_are_not(lie):
    at = GuardSetting(9, 4, 400, 1.25, 1.0)  # V has room for what the drift adds to noise of length 1
    borne = slack(at, "proved")
    assert slack(at, "default") < borne < 0.25
    guard = HistoryGuard((Epoch(400, 1.0, 0.1),), 1.25, "proved")
    assert 0 not in gone(guard, bounded(lie, 9, 4, 400, borne))
    if lie is honest:  # the others stand by worker 0
        assert 0 in gone(HistoryGuard((Epoch(400, 1.0, 0.1),), 1.25), bounded(lie, 9, 4, 400, 1.2))
    least = theory.window_slack(400, 400, 9, 1.25)
    assert 0 not in gone(Safeguard((400,), 400, noise=1.25), bounded(lie, 9, 4, 400, min(least, 0.25)))


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"method": "safeguard"}, ["probability 0.95, whatever 2 liars of 9 do", "no differences"]),
        ({"method": "safeguard", "n": 5}, ["2 f + 1, f liars who stand together"]),
        ({"method": {"name": "safeguard", "noise": 1.0}}, ["at most", "up to V = 1", "up to ζ ="]),
        ({"method": {"name": "safeguard", "limits": [9.0, 30.0]}}, ["within 4.5, 15 of their mean"]),
        ({"method": {"name": "safeguard", "thresholds": "medoid"}}, ["empirical", "`c` is at least"]),
        ({"method": {"name": "safeguard", "thresholds": "medoid"}, "f": 4}, ["copies of one honest sum"]),
        ({"method": {"name": "safeguard", "thresholds": "capped"}}, ["even without liars"]),
        ({"method": "byzantine_sgd"}, ["whatever the noise is"]),
        ({"method": {"name": "byzantine_sgd", "noise": 1.0}}, ["at most 0.", "by the path walked"]),
        ({"method": {"name": "byzantine_sgd", "noise": 1.0, "thresholds": "printed"}}, ["nothing is proved"]),
        ({"task": QUADRATIC | {"heterogeneity": 0.3}}, ["here ζ =", "refused unless"]),
    ],
)
def test_what_expulsions_rest_on_is_said_with_numbers(changes, told):
    data = {"task": QUADRATIC | {"d": 5}, "rule": "mean", "method": "safeguard", "rounds": 50, "lr": 0.1}
    spec = Spec.of(data | {"n": 9, "f": 2} | changes)
    zeta = spec.task.heterogeneity  # of the right size; `explain` estimates it
    known = Constants(n=spec.n, f=spec.f, d=5, rounds=50, zeta=zeta)
    text = " / ".join(spec.method.expulsion(known))
    assert all(part in text for part in told), text


def test_methods_that_expel_nobody_say_nothing_of_it():
    from byzopt.methods import METHODS

    known = Constants(n=9, f=2, d=5, rounds=50)
    silent = [name for name in METHODS if METHODS.build(name, n=9, f=2).expulsion(known) == ()]
    assert set(METHODS) - set(silent) == {"byzantine_sgd", "safeguard", "fldetector"}


def test_explain_prints_what_expulsions_rest_on(byzopt):
    said = byzopt("explain", "byzantine-sgd/quadratic", "--json")
    (first, *_) = json.loads(said.out)["expulsion"]
    assert "whatever 4 liars of 20 do" in first
