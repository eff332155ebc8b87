"""Runs in one batch are the runs alone: every attack, rule, method and task, however they end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from byzopt.aggregators import RULES, Mean
from byzopt.attacks import ATTACKS
from byzopt.errors import Status
from byzopt.experiments.specs.spec import Spec
from byzopt.experiments.trials.batched import BatchedTrials, batch_groups
from byzopt.experiments.trials.outcome import Outcome, Record, RunProgress
from byzopt.experiments.trials.prepared import PreparedRun, RunSettings, prepare
from byzopt.experiments.trials.trial import Trial
from byzopt.methods import METHODS
from byzopt.methods.base import with_counts
from byzopt.states import freeze, thaw
from tests.products import sampled
from tests.short_methods import short
from tests.spellings import may_stand

# One call for several runs may take its sums in another order than a call for one.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-3}
SMALL: dict[str, Any] = {
    "quartic": "quartic",
    "quadratic": "quadratic",
    "minibatch": {"name": "logistic_regression", "batch": 8},
    "full": {"name": "logistic_regression", "batch": 0},
    "digits": {"name": "digits", "batch": 8, "hidden": [16]},
}
PARTS = {name: with_counts(METHODS.build(name), 11, 2).build(Mean(), 0.1, 8) for name in METHODS}
POISONS = {"label_flip": "minibatch", "indistinguishable": "hard_lin"}
POISONS |= dict.fromkeys(["backdoor", "dba", "edge_case", "neurotoxin"], "digits")


def spec(**changes: Any) -> Spec:
    base = {"task": "quartic", "rule": "nnm >> krum", "method": "byz_nsgdm", "attack": "alie"}
    return Spec.of(base | {"rounds": 8, "lr": 0.1, "n": 11, "f": 2, "eval_every": 3} | changes)


def ready(one: Spec) -> PreparedRun:
    task = one.task.build(one.cohort, one.seed)
    method = one.method.build(one.rule, one.lr, one.rounds)
    where = {"placement": one.placement, "base": one.base}
    lengths = (one.seed, one.rounds, one.interval, dict(one.stop))
    return prepare(task, method, RunSettings(one.attack, one.f, *lengths, **where))


def alone(run: PreparedRun) -> Outcome:
    return Trial(run, RunProgress(run.start), lambda record: None).run(lambda t: False)


def together(runs: Sequence[PreparedRun]) -> list[Outcome]:
    return BatchedTrials(runs, None, lambda i, record: None).run(lambda t: False)


def agree(a: Record, b: Record, within: float) -> bool:
    # A certificate rests on the root of a sum that cancels: on the root of what rounding leaves.
    bounds = {k: 20 * within**0.5 if k.startswith("certified") else within for k in a}
    return a.keys() == b.keys() and all(a[k] == pytest.approx(b[k], rel=e, abs=e) for k, e in bounds.items())


def check(specs: Sequence[Spec]) -> list[Outcome]:
    """Together as alone."""
    runs = [ready(one) for one in specs]
    heard: list[list[Record]] = [[] for _ in runs]
    outcomes = BatchedTrials(runs, None, lambda i, record: heard[i].append(record)).run(lambda t: False)
    for one, run, found, said in zip(specs, runs, outcomes, heard, strict=True):
        own = alone(run)
        assert (found.status, found.rounds, found.message) == (own.status, own.rounds, own.message), one
        assert len(found.records) == len(own.records)
        assert tuple(said) == found.records
        within = TOLERANCE[run.task.start().dtype]
        assert all(agree(a, b, within) for a, b in zip(found.records, own.records, strict=True)), one
        torch.testing.assert_close(found.x, own.x, rtol=within, atol=within)
    return outcomes


@pytest.mark.parametrize("name", list(ATTACKS))
def test_every_attack(name: str) -> None:
    place = POISONS.get(name, "quartic")
    task = SMALL.get(place, place)
    same = [spec(task=task, attack=name, seed=seed, lr=lr) for seed, lr in ((0, 0.1), (1, 0.2))]
    check([*same, spec(task=task, attack=name, rule="median"), spec(task=task, attack="ipm")])


def test_runs_are_certified_each_against_its_own_attackers() -> None:
    liars: list[Any] = [2, 1, 0, 2]
    found = check([spec(rule="rfa", attackers=few, seed=seed) for seed, few in enumerate(liars)])
    for few, outcome in zip(liars, found, strict=True):
        told = [one["certified_squared"] for one in outcome.records if "certified_squared" in one]
        assert len(told) == 3
        assert max(told) == pytest.approx(11 / (11 - 2 * few), rel=0.1)


@pytest.mark.parametrize("name", list(RULES))
def test_every_rule(name: str) -> None:
    plain = [spec(rule=name, seed=seed) for seed in (0, 1)]
    before = "nnm >> " if may_stand(f"nnm >> {name}") else ""
    mixed = [spec(rule=before + name, attack="bit_flip", lr=lr) for lr in (0.1, 0.2)]
    check([*plain, *mixed, spec(rule=name, attack="nan"), spec(rule="bucketing >> mean")])


@pytest.mark.parametrize("method, task", sampled(METHODS, SMALL))
def test_every_method_on_every_small_task(method: str, task: str) -> None:
    of: Any = SMALL[task]
    if PARTS[method].needs_proxy:
        if task == "quartic":
            of = "quadratic"  # a quartic has no proxy loss
        of = ({"name": of} if isinstance(of, str) else of) | {"proxy": "worker"}
    guards = PARTS[method].filter.assumes_one_distribution
    recipe = {"name": method, "differing": True} if guards else short(method)
    check([spec(method=recipe, task=of, seed=seed, lr=lr) for seed in (0, 1) for lr in (0.02, 0.05)])


@pytest.mark.parametrize("method", ["byz_dm21", "br_diana", "byz_vr_marina", "byz_ef21_bc", "ef_sign"])
def test_adversaries_at_every_place(method: str) -> None:
    places = [("free", "own"), ("state", "own"), ("message", "own"), ("state", "last_honest")]
    made = [
        spec(method=method, task=SMALL["minibatch"], seed=seed, placement=place, base=base, attackers=liars)
        for place, base in places
        for seed, liars in ((0, 2), (1, 2), (0, [0, 4]), (2, 0))
    ]
    check(made)


def test_every_norm_and_the_servers_own_momentum() -> None:
    norms = ["euclidean", "sign", "spectral", {"name": "spectral", "exact": True, "vectors": "sign"}]
    methods = [{"name": "byz_nsgdm", "norm": norm} for norm in norms]
    later = {"name": "byz_nsgdm", "order": "normalise_then_momentum", "cutoff": 1e-10}
    restarted = {"name": "byz_nsgdm", "schedule": {"name": "doubling", "first": 2}}
    for method in (*methods, later, restarted):
        check([spec(task=SMALL["digits"], method=method, seed=seed, lr=0.05) for seed in (0, 0, 1)])


def test_runs_that_share_nothing_but_their_place_in_the_list() -> None:
    check(
        [
            spec(method={"name": "byz_nsgdm", "eta": 0.3}),
            spec(task=SMALL["digits"], rounds=4),
            spec(task={"name": "quartic", "d": 4}, rounds=11),
            spec(n=7, f=1, attackers=[0, 3]),
            spec(attackers=0, f=3),
            spec(attackers=[1, 4]),
            spec(task="quadratic", method="robust_gd"),
        ]
    )


def leavers() -> list[Spec]:
    return [
        spec(rounds=20, method="robust_gd", lr=5.0, rule="mean", attack="none"),  # diverges
        spec(rounds=20, attackers=4, attack="nan"),  # has no majority from the first round
        spec(rounds=20, attackers=4, attack={"name": "crash", "after": 9}),  # loses it in round 10
        spec(rounds=20, stop={"grad_norm": 1e9}),  # has converged before it starts
        spec(rounds=20, stop={"loss": 60.0}),  # converges on the way
        spec(rounds=5),
        spec(rounds=20),
        spec(rounds=20, seed=3),
    ]


def test_those_who_end_early_leave_and_the_others_go_on() -> None:
    statuses = [outcome.status for outcome in check(leavers())]
    assert statuses[0] in (Status.DIVERGED, Status.NONFINITE)
    assert statuses[1:5] == [Status.NO_MAJORITY, Status.NO_MAJORITY, Status.CONVERGED, Status.CONVERGED]
    assert statuses[5:] == [Status.COMPLETED] * 3


def test_the_same_batch_gives_the_same_numbers_again() -> None:
    first, second = (together([ready(one) for one in leavers()]) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert (a.records, a.status, a.message) == (b.records, b.status, b.message)
        assert isinstance(a.x, Tensor)
        assert a.x.equal(b.x)


@pytest.mark.parametrize("pause", [1, 7, 12])
@pytest.mark.parametrize("attack", ["alie", "gaussian", "mimic_variance", "stale"])
def test_a_batch_continued_from_its_checkpoint_is_the_same_batch(attack: str, pause: int) -> None:
    specs = [
        *leavers()[4:],
        spec(rounds=20, attack=attack, rule="centered_clipping"),
        spec(rounds=20, lr=0.3),
    ]
    whole = together([ready(one) for one in specs])
    runs = [ready(one) for one in specs]
    half = BatchedTrials(runs, None, lambda i, record: None)
    kept: list[RunProgress] = []

    def stop(t: int) -> bool:
        if t == pause:
            kept.extend(half.progress)
        return t == pause

    ended = half.run(stop)
    left = [i for i, outcome in enumerate(ended) if outcome.status is Status.INTERRUPTED]
    again = [ready(specs[i]) for i in left]
    thawed = [
        kept[i]._replace(state=thaw(freeze(kept[i].state), run.first.state))  # type: ignore[union-attr]
        for i, run in zip(left, again, strict=True)
    ]
    rest = BatchedTrials(again, thawed, lambda i, record: None).run(lambda t: False)
    for i, found in zip(left, rest, strict=True):
        assert found.records == whole[i].records
        assert found.status == whole[i].status
        assert isinstance(found.x, Tensor)
        assert found.x.equal(whole[i].x)


def test_a_checkpoint_holds_no_other_runs_memory() -> None:
    runs = [ready(spec(seed=seed)) for seed in range(5)]
    batch = BatchedTrials(runs, None, lambda i, record: None)
    batch.run(lambda t: t == 4)
    rows = batch.progress[2].state.engine.worker.v  # type: ignore[union-attr]
    assert rows.untyped_storage().nbytes() == rows.numel() * rows.element_size()


def test_every_round_is_told_once() -> None:
    told: list[int] = []
    batch = BatchedTrials([ready(spec(seed=s)) for s in (0, 1)], None, lambda i, record: None)
    batch.run(lambda t: bool(told.append(t)))
    assert told == list(range(1, 9))


def test_groups_hold_every_place_once_and_only_alike_ones() -> None:
    specs = [
        spec(),
        spec(seed=1, lr=0.5, attack="ipm", rule="mean", f=3, rounds=50),
        spec(method={"name": "byz_nsgdm", "eta": 0.2}),
        spec(task={"name": "quartic", "d": 3}),
        spec(n=12),
        spec(method={"name": "robust_sgdm", "schedule": "inverse_sqrt"}),
        spec(task="mnist"),
        spec(task="mnist", seed=1),
        spec(task="shakespeare"),
    ]
    found = batch_groups(specs)
    # Byz-NSGDM and momentum SGD have the same workers; models as large as MNIST's stay alone.
    assert found == [(0, 1, 5), (2,), (3,), (4,), (6,), (7,), (8,)]
    assert batch_groups([]) == []


def test_groups_are_bounded_by_memory() -> None:
    large = batch_groups([spec(task={"name": "quartic", "d": 1000}, seed=s) for s in range(30)])
    assert [len(group) for group in large] == [11, 11, 8]
    assert sorted(i for group in large for i in group) == list(range(30))
