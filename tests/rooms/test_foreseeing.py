"""What guards would do after sets of rows: at once as one by one, in other coordinates, under a search."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from byzopt.aggregators import Mean, rule_from
from byzopt.aggregators.core import foreseeing
from byzopt.aggregators.core.defence import Defence
from byzopt.aggregators.core.expulsion import Expulsion
from byzopt.aggregators.core.filters import Filter, RoundContext
from byzopt.attacks import AutoByz, View
from byzopt.attacks.adaptive.scene import scene
from byzopt.attacks.adaptive.trials import Trials
from byzopt.certificates.watching import RecordingFilter
from byzopt.cohort import Cohort
from byzopt.errors import TooManyFaults
from byzopt.experiments import Outcome, Spec
from byzopt.experiments.running import prepare_spec
from byzopt.experiments.trials.batched import BatchedTrials
from byzopt.methods import METHODS
from byzopt.methods.base import with_counts
from byzopt.rng import stream

GUARDS: dict[str, dict[str, Any]] = {
    "byzantine_sgd": {},
    "byzantine_sgd, V": {"noise": 3.0},
    "byzantine_sgd, path": {"noise": 3.0, "adaptive_A": True, "diameter": 1.0},
    "byzantine_sgd, printed": {"noise": 3.0, "thresholds": "printed"},
    "byzantine_sgd, epochs": {"noise": 3.0, "epochs": "doubling", "first": 3, "diameter": 1.0},
    "safeguard": {"windows": (3, 8)},
    "safeguard, V": {"windows": (3, 8), "noise": 0.4},
    "safeguard, limits": {"windows": (3, 8), "limits": (12.0, 20.0), "sums": "normalised", "reset": True},
    "safeguard, random": {"windows": (3, 8), "limits": (12.0, 20.0), "vmed": "random"},
    "safeguard, medoid": {"windows": (30, 40), "thresholds": "medoid"},
    "safeguard, window_end": {"windows": (3, 8), "thresholds": "window_end"},
    "safeguard, capped": {"windows": (3, 8), "thresholds": "capped", "limits": (9.0, 20.0)},
    "fldetector": {"warmup": 3, "window": 3, "memory": 2},
}
SKETCHED: dict[str, dict[str, Any]] = {
    "byzantine_sgd, sketch": {"sketch": 20},
    "safeguard, sketch": {"windows": (3, 8), "sketch": 20},
}
ALL = GUARDS | SKETCHED
ROUNDS = (1, 4, 14)
# Sums of a hundred terms, each rounded to 1e-16 of the largest, and squares of them whose roots are taken.
CLOSE = 1e-7
NEAR = 1e-5  # the same in float32, whose sums over rows are kept in it


def guard(name: str, n: int, f: int, rule: str = "mean") -> Filter:
    kind = name.partition(",")[0]
    chosen = METHODS.build(kind, **ALL[name])
    if "differing" in {field.name for field in fields(chosen)}:  # type: ignore[arg-type]
        chosen = METHODS.build(kind, **ALL[name], differing=True)
    return with_counts(chosen, n, f).build(rule_from(rule, f=f), 0.1, 60).filter


class Round(NamedTuple):
    """A guard in the middle of a run, and sets of rows `[K, n, d]` that might come next."""

    filter: Filter
    state: Any
    at: RoundContext
    sets: Tensor


def moment(
    name: str, n: int, d: int, t: int, dtype: torch.dtype = torch.float64, rule: str = "mean"
) -> Round:
    """Round t of a run in which worker n - 1 has sent rows that are far off. In the sets worker n - 2 is too,
    further and further; two have a row that is not finite."""
    filter, drawn = guard(name, n, 2, rule), stream(n, "rows")

    def honest(t: int) -> Tensor:
        return 1 + torch.randn(n, d, dtype=dtype, generator=drawn) / d**0.5

    x = torch.zeros(d, dtype=dtype)
    state = filter.init(x, n)
    for k in range(1, t):
        rows = honest(k)
        rows[-1] *= -5.0 * k
        _, state = filter.step(state, rows, RoundContext(k, x))
        x = x - 0.1 * rows[0]
    sets = torch.stack([honest(t) for _ in range(6)])
    sets[:, -2] += torch.tensor([0.0, 1.0, 30.0, 3e4, 0.0, 3.0], dtype=dtype).unsqueeze(-1)
    sets[4, -2, 0], sets[5, 0, -1] = torch.inf, torch.nan
    return Round(filter, state, RoundContext(t, x), sets)


def one_by_one(now: Round, rounds: int = 1) -> foreseeing.Foreseen:
    """By steps of the guard, whatever its `foresee` does."""
    found = []
    for rows in now.sets:
        try:
            answer, state = now.filter.step(now.state, rows, now.at)
            for ahead in range(1, rounds):
                _, state = now.filter.step(state, rows, now.at._replace(t=now.at.t + ahead))
        except TooManyFaults:
            found.append((torch.full_like(now.at.x, torch.nan), torch.ones(len(rows), dtype=torch.bool)))
            continue
        gone = torch.zeros(len(rows), dtype=torch.bool)
        gone[[one.worker for one in now.filter.expelled(state)]] = True
        found.append((answer, gone))
    return foreseeing.Foreseen(*(torch.stack(each) for each in zip(*found, strict=True)))


def same(found: Any, expected: Any, within: float) -> None:
    scale = float(expected.answers.nan_to_num(0).abs().amax()) or 1.0
    torch.testing.assert_close(found.answers, expected.answers, rtol=0.0, atol=within * scale, equal_nan=True)
    assert torch.equal(found.expelled, expected.expelled)


def test_these_are_all_methods_that_expel():
    methods = {name: with_counts(METHODS.build(name), 7, 2).build(Mean(), 0.1, 9) for name in METHODS}
    expelling = {name for name, method in methods.items() if method.filter.expels}
    assert expelling == {name.partition(",")[0] for name in ALL}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("n, d", [(5, 3), (9, 120)])
def test_sets_at_once_are_as_one_after_another(name, n, d):
    gone = 0
    for t in ROUNDS:
        for dtype, within in ((torch.float64, CLOSE), (torch.float32, NEAR)):
            now = moment(name, n, d, t, dtype)
            for rounds in (1, 2):
                expected = one_by_one(now, rounds)
                same(now.filter.foresee(now.state, now.sets, now.at, rounds), expected, within)
            gone += int(expected.expelled.sum())
    assert gone > 0  # somebody is, or nothing is tested


@pytest.mark.parametrize("name", ["byzantine_sgd", "safeguard, V"])
def test_rows_whose_distances_are_products_are_foreseen_alike(name):
    now = moment(name, 20, 700, 4)  # beyond `majority.DIRECT`
    same(now.filter.foresee(now.state, now.sets, now.at), one_by_one(now), CLOSE)


@pytest.mark.parametrize("name", GUARDS)
def test_a_guard_does_the_same_in_any_orthonormal_basis(name):
    for t in ROUNDS:
        now = moment(name, 9, 120, t)
        now = now._replace(sets=now.sets[:4])
        vectors = now.filter.vectors(now.state, now.at)
        basis = torch.linalg.qr(torch.cat([now.sets.flatten(0, 1), vectors]).T).Q
        assert basis.shape[1] < 100  # fewer than a guard takes for many
        found = Defence(now.filter, now.state, now.at).foresee(now.sets @ basis, vectors @ basis, 2)
        same(found._replace(answers=found.answers @ basis.T), one_by_one(now, 2), CLOSE)


@pytest.mark.parametrize("name", SKETCHED)
def test_a_sketch_says_of_no_basis_that_it_will_do(name):
    now = moment(name, 9, 120, 4)
    assert now.filter.vectors(now.state, now.at) is None


def test_a_state_is_left_as_it_is_and_many_sets_go_in_parts(monkeypatch):
    now = moment("safeguard", 9, 40, 14)
    at_once = now.filter.foresee(now.state, now.sets, now.at)
    monkeypatch.setattr(foreseeing, "MOST_NUMBERS", 5000)  # two sets and their states
    counts = []
    step = type(now.filter).step

    def counted(self: Filter, state: Any, rows: Tensor, at: RoundContext) -> Any:
        counts.append(len(rows))
        return step(self, state, rows, at)

    monkeypatch.setattr(type(now.filter), "step", counted)
    same(now.filter.foresee(now.state, now.sets, now.at), at_once, CLOSE)
    assert len(counts) > 1
    assert sum(counts) == len(now.sets)
    monkeypatch.undo()
    same(one_by_one(now), one_by_one(moment("safeguard", 9, 40, 14)), 0.0)


def test_what_the_rule_behind_a_guard_refuses_leaves_nobody():
    now = moment("byzantine_sgd", 9, 40, 14, rule="median")
    now.sets[1, :4] = torch.nan
    found = now.filter.foresee(now.state, now.sets, now.at)
    assert bool(found.answers[1].isnan().all())
    assert bool(found.expelled[1].all())
    assert bool(found.answers[0].isfinite().all())
    assert not bool(found.expelled[0].all())
    same(found, one_by_one(now), CLOSE)


@dataclass(frozen=True)
class TooLong(Filter):
    """A guard of somebody else's: who has sent more than `limit` altogether is gone."""

    limit: float = 20.0
    together: bool = False

    @property
    def batched(self) -> bool:
        return self.together

    def init(self, x0: Tensor, n: int) -> tuple[Tensor, int]:
        return x0.new_zeros(n), 0

    def step(self, state: Any, rows: Tensor, at: RoundContext) -> tuple[Tensor, Any]:
        sent = state[0] + rows.norm(dim=-1)
        kept = (sent <= self.limit).to(rows).unsqueeze(-1)
        return (rows * kept).sum(dim=-2) / kept.sum(dim=-2).clamp_min(1), (sent, state[1] + 1)

    def preview(self, state: Any, rows: Tensor, at: RoundContext) -> Tensor:
        return self.step(state, rows, at)[0]

    def expelled(self, state: Any) -> tuple[Expulsion, ...]:
        return tuple(Expulsion(i, state[1], "sum A") for i in torch.where(state[0] > self.limit)[0].tolist())


@pytest.mark.parametrize("together", [False, True])
def test_a_guard_of_ones_own_is_foreseen_by_its_steps(together):
    filter, x = TooLong(together=together), torch.zeros(6, dtype=torch.float64)
    _, state = filter.step(filter.init(x, 5), torch.ones(5, 6).double(), RoundContext(1, x))
    sets = torch.ones(4, 5, 6, dtype=torch.float64)
    sets[2, 3] = 9.0
    now = Round(filter, state, RoundContext(2, x), sets)
    for each in (filter, RecordingFilter(filter, (0, 1, 2))):
        assert each.expels
        found = each.foresee(state, sets, now.at)
        same(found, one_by_one(now), CLOSE)
        assert found.expelled.nonzero().tolist() == [[2, 3]]


N, F, D = 20, 3, 400
COHORT = Cohort.of(N, F)


def searched(filter: Filter, rounds: int = 3) -> list[tuple[Defence, Tensor, Any]]:
    """A search against a guard, of each round: the guard before it, the rows, the attack's state after it."""
    attack, x, seen = AutoByz(budget="cheap"), torch.zeros(D, dtype=torch.float64), []
    memory, state = attack.start(COHORT, x), filter.init(x, N)
    for t in range(1, rounds + 1):
        rows = 0.3 + torch.randn(N, D, dtype=torch.float64, generator=stream(t, "rows"))
        defence = Defence(filter, state, RoundContext(t, x))
        view = View(t, x, rows, COHORT, F, attack.knows, defence)
        forged, memory = attack.step(memory, view, stream(0, "attack", t))
        rows = view.with_forged(forged)
        seen.append((defence, rows, memory))
        out, state = filter.step(state, rows, defence.at)
        x = x - 0.1 * out
    return seen


@pytest.mark.parametrize(
    "name, rule, space",
    [
        ("byzantine_sgd", "mean", "span"),
        ("safeguard, limits", "mean", "span"),
        ("safeguard", "median", "columns"),
        ("byzantine_sgd, sketch", "mean", "whole"),
        ("own", "mean", "whole"),
    ],
)
def test_a_search_asks_a_guard_in_as_few_coordinates_as_tell_the_same(name, rule, space):
    spaces = {"span": 0, "columns": 1, "whole": 2}
    filter = TooLong(60.0) if name == "own" else guard(name, N, F, rule)
    for defence, rows, memory in searched(filter, 2):
        assert int(memory.space) == spaces[space]
        harmless = rows.clone()
        harmless[list(COHORT.byzantine)] = rows[list(COHORT.honest)].mean(dim=0)
        now, before = defence.foresee(torch.stack([rows, harmless])).expelled[:, list(COHORT.byzantine)]
        assert not bool((now & ~before).any())


def test_what_is_remembered_may_be_far_longer_than_rows():
    filter = guard("byzantine_sgd", N, F)
    defence, rows, _ = searched(filter, 3)[-1]
    sums = defence.state.sums
    long = sums._replace(b=torch.cat([sums.b[:-1], 1e9 * sums.b[-1:]]))
    defence = Defence(filter, defence.state._replace(sums=long), defence.at)
    honest = rows[list(COHORT.honest)]
    whole = scene(honest, honest.mean(dim=0), honest.mean(dim=0), defence.vectors)
    small = whole.rotated()
    assert small.honest.shape[1] < D
    for at in (whole, small):
        torch.testing.assert_close(
            at.honest @ at.remembered.T, honest @ whole.remembered.T, rtol=1e-9, atol=1e-3
        )
    some = torch.zeros(2, F, N - F + 6, dtype=torch.float64)
    some[1, :, N - F] = -0.5
    trials = Trials([], COHORT.honest, COHORT.byzantine, defence)
    wide, narrow = (trials.answers(at, some)[0] @ at.honest.T for at in (whole, small))
    torch.testing.assert_close(wide, narrow, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("thresholds", ["capped", "medoid", "pairs"])
def test_runs_of_one_guard_under_a_search_advance_together(thresholds):
    limits = {"limits": (3.0, 9.0)} if thresholds == "capped" else {}
    method = {"name": "safeguard", "windows": [3, 6], "thresholds": thresholds, "differing": True, **limits}
    base = {"task": "quadratic", "rule": "mean", "method": method, "lr": 0.05, "rounds": 5, "n": 7, "f": 2}
    attack = {"name": "autobyz", "objective": "dist", "budget": "cheap"}
    specs = [Spec.of(base | {"attack": attack, "seed": seed}) for seed in (0, 1)]
    both = advanced(specs)
    for one, spec in zip(both, specs, strict=True):
        (alone,) = advanced([spec])
        assert one.status == alone.status
        assert one.expelled == alone.expelled
        torch.testing.assert_close(one.x, alone.x, rtol=1e-9, atol=1e-9)


def advanced(specs: list[Spec]) -> list[Outcome]:
    runs = [prepare_spec(one, {}) for one in specs]
    return BatchedTrials(runs, None, lambda i, record: None).run(lambda t: False)


@pytest.mark.parametrize("ahead, left", [(1, 0), (2, F)])
def test_a_search_spends_no_more_than_leaves_it_its_places(monkeypatch, ahead, left):
    monkeypatch.setattr("byzopt.attacks.adaptive.trials.AHEAD", ahead)
    filter = METHODS.build("safeguard", windows=(30,), limits=(100.0,)).build(Mean(), 0.1, 60).filter
    defence, rows, _ = searched(filter, 8)[-1]
    after = filter.step(defence.state, rows, defence.at)[1]
    gone = {one.worker for one in filter.expelled(after)}
    assert len(set(COHORT.byzantine) - gone) == left
    assert not gone & set(COHORT.honest)
