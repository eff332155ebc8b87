"""Searched attacks behind every door: what they ask is the rule that answers, or they are refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from byzopt.aggregators import LastRows, PresentRows, RowMomentum, rule_from
from byzopt.aggregators.core.defence import Defence
from byzopt.aggregators.core.filters import Filter, RoundContext
from byzopt.attacks import ATTACKS, Adversary, Attack, AutoByz, Limited, Sleeper, View
from byzopt.attacks.limited import GuessedRules
from byzopt.certificates.audit import audit
from byzopt.cohort import Cohort
from byzopt.engines import Graph, OnGraph, Simulated, begin, rounds
from byzopt.engines.on_graph import MeanAfter
from byzopt.errors import InvalidInput
from byzopt.experiments import Spec
from byzopt.graphs import Complete
from byzopt.layout import Layout
from byzopt.methods import METHODS
from byzopt.mixers import Screen
from byzopt.rng import stream
from byzopt.servers import ServerContext
from byzopt.stress import stress
from byzopt.tasks import Task
from byzopt.workers import PARTICIPANTS
from tests.short_methods import short

CHEAP = {"name": "autobyz", "budget": "cheap"}
SPEC = {
    "task": {"name": "quadratic", "d": 8},
    "rule": "median",
    "method": "robust_gd",
    "lr": 0.1,
    "rounds": 3,
    "n": 9,
    "f": 2,
}


class Bowl(Task):
    """f_i(x) = ‖x - c_i‖²/2, with gradients that shrink from round to round."""

    def __init__(self) -> None:
        self.cohort, self.layout = Cohort.of(12, 3), Layout(("w", "b"), ((4, 3), (4,)))
        self.centres = torch.randn(12, 16, dtype=torch.float64, generator=stream(5, "centres"))

    def start(self) -> Tensor:
        return torch.ones(16, dtype=torch.float64)

    def draw(self, t: int) -> int:
        return t

    def full(self) -> int:
        return 0

    def grads(self, x: Tensor, batch: int) -> Tensor:
        return x - self.centres * (1 + 0.1 * batch)

    def measure(self, x: Tensor) -> dict[str, float]:
        return {"loss": float(x @ x)}


@dataclass(frozen=True)
class Spy(Attack):
    """An attack of a test: three times the honest mean, and what the defence says to that."""

    told: dict[int, Tensor] = field(default_factory=dict)
    knows: ClassVar[frozenset[str]] = frozenset({"honest", "defence"})

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        forged = view.alike(3 * view.honest.mean(dim=0))
        self.told[view.t] = view.defence(view.with_forged(forged))
        return forged


def against(name: str, participants: Any = "all", last: int = 4) -> Iterator[tuple[Tensor, Tensor]]:
    """What an attack was told that the server would answer, and what it answered, for each round in which
    a liar took part."""
    task, spy = Bowl(), Spy()
    recipe = METHODS.build(short(name), n=12, f=3, noise=50.0)
    built = recipe.build(rule_from("nnm >> rfa", f=3), 0.1, 16).among(PARTICIPANTS.build(participants))
    adversary = Adversary(spy, task.cohort, 3)
    engine = Simulated(task, built.worker, built.wire, adversary, 0, built.down, built.participants)
    start = begin(built, task.start(), ServerContext(task.layout, lambda x: (x @ x) ** 2), task.n)
    for snapshot in rounds(built, engine, start, last):
        if snapshot.state.t in spy.told:
            yield spy.told[snapshot.state.t], snapshot.aggregate


@pytest.mark.parametrize("name", METHODS)
def test_of_every_method_attackers_see_the_rule_that_answers(name):
    pairs = list(against(name))
    assert pairs
    for told, answered in pairs:
        torch.testing.assert_close(told, answered, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("absent", ["drop", "keep"])
def test_where_some_are_absent_attackers_see_the_rule_that_answers(absent):
    pairs = list(against("robust_sgdm", {"name": "exactly", "count": 8, "absent": absent}))
    assert pairs
    for told, answered in pairs:
        torch.testing.assert_close(told, answered, rtol=1e-12, atol=1e-14)


def turned(attack: Attack, rows: Tensor, b: int, rule: str = "mean") -> float:
    """The cosine between the answer under attack and the honest mean."""
    answer = rule_from(rule, f=b)(attack(rows, byzantine=b, rule=rule_from(rule, f=b))).double()
    mean = rows[: len(rows) - b].double().mean(dim=0)
    return float(answer @ mean / answer.norm() / mean.norm())


@pytest.mark.parametrize("n, b", [(2, 1), (4, 3), (7, 2)])
def test_where_honest_rows_do_not_differ_liars_do_not_send_them(n, b):
    rows = torch.tensor([1.0, -2.0, 0.5, 3.0]).expand(n, 4).clone()
    for attack in (AutoByz(budget="cheap"), AutoByz("workers", budget="cheap")):
        assert turned(attack, rows, b) < -0.99


def test_a_round_of_equal_rows_does_not_settle_in_which_space_a_rule_is_asked():
    attack, cohort, rule = AutoByz(budget="cheap"), Cohort.of(9, 2), rule_from("median", f=2)
    equal, differing = torch.ones(9, 300), torch.randn(9, 300, generator=stream(0, "rows"))
    state = attack.start(cohort, equal[0])
    for t, rows in ((1, equal), (2, differing)):
        view = View(t, equal[0], rows, cohort, 2, attack.knows, rule)
        _, state = attack.step(state, view, stream(0, t))
        assert int(state.space) == {1: -1, 2: 1}[t]  # not yet known, then some columns


def test_rows_too_long_to_be_squared_end_no_search():
    rows = 1e200 * torch.randn(6, 9, dtype=torch.float64, generator=stream(0, "rows"))
    assert bool(AutoByz()(rows, byzantine=2).isfinite().all())


@pytest.mark.parametrize("name", [name for name in ATTACKS if ATTACKS.build(name).finite])
def test_finite_rows_of_a_short_dtype_are_answered_by_finite_ones(name):
    attack, loss = ATTACKS.build(name), lambda x: (x * x.sin()).sum()
    rows = 2e4 * torch.randn(7, 5, dtype=torch.float64, generator=stream(0, "rows"))
    half = rows.clamp(-6e4, 6e4).half()
    assert bool(attack(half, byzantine=2, loss=loss).isfinite().all())


def test_many_candidates_of_long_rows_are_asked_about_in_pieces(monkeypatch):
    rows, asked = torch.randn(9, 50, dtype=torch.float64, generator=stream(0, "rows")) + 0.3, []

    class Whole:
        """A defence that is asked about whole rows: one that remembers where they were."""

        def __call__(self, rows):
            return self.batch(rows[None])[0]

        def batch(self, sets):
            asked.append(sets.numel())
            return (sets - torch.linspace(0, 1, 50, dtype=sets.dtype)).median(dim=1).values

    attack, cohort = AutoByz(budget="cheap"), Cohort.of(9, 2)
    view = View(1, rows[0], rows, cohort, 2, attack.knows, Whole())
    at_once = attack.forge(view, stream(0, "attack"))
    monkeypatch.setattr("byzopt.attacks.adaptive.trials.MOST_NUMBERS", 9 * 50 * 10)
    assert max(asked) > 9 * 50 * 10
    asked.clear()
    assert torch.equal(attack.forge(view, stream(0, "attack")), at_once)
    assert max(asked) == 9 * 50 * 10


def test_a_guard_that_refuses_rows_refuses_a_candidate():
    class Guard:
        at = RoundContext(1, torch.zeros(6))
        expels = True

        def __call__(self, rows):
            return rows.mean(dim=0)

        def foresee(self, rows, vectors=None, rounds=1):
            long = rows[:, 7:].norm(dim=-1).amax(dim=-1, keepdim=True) > self.limit
            return rows.mean(dim=1).masked_fill(long, torch.nan), long.expand(-1, 9)

    rows = torch.randn(9, 6, generator=stream(0, "rows")) + 0.3
    guard = Guard()
    for guard.limit in (4.0, 0.0):  # some rows, and all: then there is no limit to keep to
        attack, cohort = AutoByz(budget="cheap"), Cohort.of(9, 2)
        view = View(1, rows[0], rows, cohort, 2, attack.knows, guard)
        forged = attack.forge(view, stream(0, "attack"))
        assert bool(forged.isfinite().all())
        assert guard.limit == 0 or float(forged.norm(dim=1).max()) <= guard.limit


@pytest.mark.parametrize("wrap", [PresentRows, lambda rule: LastRows(PresentRows(rule)), RowMomentum])
def test_lots_are_not_known_inside_another_memory(wrap):
    def around(spelling: str) -> Filter:
        rule = rule_from(spelling, f=2).as_filter()
        return RowMomentum(rule, 0.5) if wrap is RowMomentum else wrap(rule)

    x = torch.zeros(4)
    for spelling, count in (("bucketing >> rfa", 3), ("rfa", 1)):
        filter = around(spelling)
        assert len(Defence(filter, filter.init(x, 9), RoundContext(1, x)).draws()) == count


@pytest.mark.parametrize("together", [True, False])
def test_lots_of_a_rule_on_a_graph_are_not_known(together):
    task, rows = Bowl(), torch.randn(12, 16, dtype=torch.float64, generator=stream(1, "rows"))
    adversary = Adversary(AutoByz(), task.cohort, 3)
    for spelling, count in (("bucketing >> median", 3), ("median", 1)):
        rule = rule_from(spelling, f=2)
        graph = Graph(Complete(), Screen(), together=together)
        method = METHODS.build("robust_gd").build(rule, lr=0.1)
        run = OnGraph(task, method, graph, adversary, b=3, seed=0)
        defence = MeanAfter(run, rows[run.honest], 1)
        draws = defence.draws()
        assert len(draws) == count
        assert (len({tuple(each(rows).tolist()) for each in (defence, *draws)}) > 1) == (count > 1)


def test_a_search_leaves_no_rounds_in_an_audit():
    found = audit(Spec.of({**SPEC, "attack": CHEAP}))
    assert [one.t for one in found.rounds] == [1, 2, 3]


def test_on_a_graph_the_search_looks_at_moves_and_not_at_places():
    x, attack, cohort = torch.ones(6, dtype=torch.float64), AutoByz(budget="cheap"), Cohort.of(9, 2)
    rows = x + 0.3 + torch.randn(9, 6, dtype=torch.float64, generator=stream(0, "rows"))
    rule, far = rule_from("trimmed_mean", f=2), 1000 * x  # they move on, away from 0

    def cosine(shift: Tensor, places: bool) -> float:
        """Of the nodes' move under attack with the honest mean's."""
        some = (1, x + shift, rows + shift, cohort, 2, attack.knows, rule)
        view = View(*some, places=places)
        move = rule(view.with_forged(attack.forge(view, stream(0, "attack")))) - shift - x
        mean = rows[:7].mean(dim=0) - x
        return float(move @ mean / move.norm() / mean.norm())

    # Far away rows have three digits less; candidates that do as much harm may then change places.
    assert cosine(far, True) == pytest.approx(cosine(0 * far, True), abs=1e-3)
    assert cosine(far, False) > cosine(far, True) + 0.03


def test_an_attack_inside_another_sees_a_row_for_every_honest_worker():
    present = torch.tensor([True, False] * 4 + [True])
    rows, attack = torch.randn(9, 6, generator=stream(0, "rows")), Sleeper(AutoByz(budget="cheap"), until=1)
    forged, _ = Adversary(attack, Cohort.of(9, 2), 2).forge_rows(
        attack.start(Cohort.of(9, 2), rows[0]),
        2,
        rows[0],
        rows,
        stream(0, "attack"),
        rule_from("median", f=2),
        present,
    )
    assert bool(forged.isfinite().all())


def test_the_guessed_median_is_the_median():
    for n in (4, 5):
        rows = torch.randn(n, 7, dtype=torch.float64, generator=stream(n, "rows"))
        torch.testing.assert_close(GuessedRules(1).draws()[0](rows), rows.quantile(0.5, dim=0))


BEHIND = {
    "a wire": {"method": "byz_dm21", "placement": "message"},
    "a compressor": {"method": "byz_ef21", "placement": "state"},
    "an intake": {"rule": "mean", "asynchrony": {"clock": "equal", "intake": "kardam"}},
}


@pytest.mark.parametrize("where", BEHIND)
def test_a_search_that_would_ask_another_rule_is_refused(where):
    for attack in (CHEAP, "optimal_ipm", {"name": "sleeper", "attack": CHEAP}):
        with pytest.raises(InvalidInput, match=r"searches .* Found .* Take an attack that does not search"):
            Spec.of({**SPEC, **BEHIND[where], "attack": attack})
    for attack in ("alie", {"name": "limited", "attack": CHEAP, "threat": "no_rule"}):
        Spec.of({**SPEC, **BEHIND[where], "attack": attack})


def test_only_who_is_shown_the_rule_searches_it():
    assert {name for name in ATTACKS if ATTACKS.build(name).searches} == {
        "autobyz",
        "optimal_alie",
        "optimal_ipm",
    }
    for threat, searches in (("omniscient", True), ("one_round_late", True), ("no_rule", False)):
        assert Limited(AutoByz(), threat).searches == searches


def test_stress_leaves_out_what_cannot_be_and_says_why(tmp_path):
    spec = Spec.of({**SPEC, **BEHIND["an intake"], "attack": "none"})
    found = stress(spec, tmp_path)
    assert found.rules == ("intake kardam",)
    assert "searched: cos" in found.unfit
    assert "intake 'kardam'" in found.unfit["searched: cos"]
    assert found.unfit["label flip"] == "the task has no labels"
    assert found.complete("intake kardam")
    assert not set(found.attacks) & found.unfit.keys()
    with pytest.raises(InvalidInput, match="intake 'kardam'"):
        stress(spec, tmp_path, attacks=["searched: cos"])
