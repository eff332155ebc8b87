"""AutoByz: what its search finds, against attacks that are prescribed; what it may see, and leaves alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import acos, degrees
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from byzopt.aggregators import rule_from
from byzopt.aggregators.centered_clipping import Following
from byzopt.aggregators.core.defence import Defence
from byzopt.aggregators.core.filters import RoundContext
from byzopt.attacks import ATTACKS, Attack, AutoByz, Limited, View
from byzopt.attacks.adaptive.autobyz import _ask
from byzopt.attacks.adaptive.scene import COLUMNS, scene
from byzopt.attacks.adaptive.trials import Trials, seen
from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput
from byzopt.experiments import load, run
from byzopt.rng import stream

N, F, D = 20, 3, 300
COHORT = Cohort.of(N, F)


def honest_rows(d: int = D, seed: int = 0) -> Tensor:
    """Rows of workers whose data differ: the spread is five times the length of the mean."""
    drawn = torch.randn(N, d, dtype=torch.float64, generator=stream(seed, "rows"))
    clusters = torch.randn(4, d, dtype=torch.float64, generator=stream(seed, "clusters"))
    return 0.5 * drawn + clusters[torch.arange(N) % 4] + 0.2


def defence(spelling: str, d: int = D) -> Defence:
    rule = rule_from(spelling, f=F).as_filter()
    x = torch.zeros(d, dtype=torch.float64)
    return Defence(rule, rule.init(x, N), RoundContext(1, x))


def forged(attack: object, rows: Tensor, against: Defence, t: int = 1) -> Tensor:
    """The rows `[n, d]` that the server gets when the last f forge."""
    view = View(t, torch.zeros_like(rows[0]), rows, COHORT, F, attack.knows, against)
    state = attack.start(COHORT, rows[0])
    return view.with_forged(attack.step(state, view, stream(0, "attack", t))[0])


def turn(rows: Tensor, against: Defence) -> float:
    """Degrees between the answer and the honest mean."""
    answer, mean = against(rows), rows[list(COHORT.honest)].mean(dim=0)
    return degrees(acos(max(-1.0, min(1.0, float(answer @ mean / answer.norm() / mean.norm())))))


RULES = [
    "nnm >> rfa",
    "nnm >> krum",
    "krum",
    "multi_krum",
    "median",
    "trimmed_mean",
    "nnm >> trimmed_mean",
    "rfa",
]


@pytest.mark.parametrize("spelling", RULES)
def test_it_turns_the_answer_further_than_every_prescribed_attack(spelling):
    against, rows = defence(spelling), honest_rows()
    fixed = [
        turn(forged(ATTACKS.build(name), rows, against), against)
        for name in ("alie", "ipm", "min_max", "sign_flip")
    ]
    assert turn(forged(AutoByz(), rows, against), against) >= max(fixed) - 0.5


@pytest.mark.parametrize(
    "spelling, space", [("nnm >> rfa", "span"), ("median", "columns"), ("nnm >> median", "columns")]
)
def test_the_space_is_probed_and_gives_the_answers_of_whole_rows(spelling, space):
    against, rows = defence(spelling), honest_rows()
    honest = rows[list(COHORT.honest)]
    whole = scene(honest, honest.mean(dim=0), honest.mean(dim=0))
    trials = Trials([_ask(against, None)], COHORT.honest, COHORT.byzantine)
    some = torch.zeros(3, F, 17 + 6, dtype=torch.float64)
    some[0, :, 17], some[1, :, 2], some[2, :, 18] = -0.7, 1.3, 0.5
    generator = stream(0, "attack")
    assert trials.space(whole, some, generator) == space
    small = seen(whole, space, generator)
    assert small.honest.shape[1] < D
    gram, wide = (trials.sets(at, some)[0] for at in (small, whole))
    torch.testing.assert_close(gram @ gram.T, wide @ wide.T, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("d", [60, 200, D])  # also where columns by lot are all of them, in another order
@pytest.mark.parametrize("spelling", ["centered_clipping", "nnm >> centered_clipping"])
def test_what_a_rule_remembers_goes_with_it_into_the_span(spelling, d):
    against, rows = defence(spelling, d), honest_rows(d)
    before = against.state
    found = forged(AutoByz(budget="cheap"), rows, against)
    assert bool(found.isfinite().all())
    assert against.state is before
    aside = replace(against, state=against.filter.step(before, 9 * rows, against.at)[1])
    honest = rows[list(COHORT.honest)]
    some = torch.zeros(3, F, 17 + 6).double()
    some[0, :, 17], some[1, :, 2], some[2, :, 18] = -0.7, 1.3, 0.5
    for known in (against, aside):  # also before there is anything to remember
        whole = scene(honest, honest.mean(dim=0), honest.mean(dim=0), known.vectors)
        trials = Trials([_ask(known, None)], COHORT.honest, COHORT.byzantine, hides=known.hides)
        assert trials.space(whole, some, stream(0, "attack")) == "span"
        small = seen(whole, "span", stream(0, "attack"))
        met = torch.stack([known(set_) for set_ in trials.sets(whole, some)])
        found = trials.answers(small, some)[0]
        torch.testing.assert_close(found @ small.honest.T, met @ honest.T, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(met, torch.stack([against(set_) for set_ in trials.sets(whole, some)]))
    with pytest.raises(InvalidInput, match="have its"):
        aside.batch(rows[None, :, :5])


@pytest.mark.parametrize("d", [60, D])
def test_who_does_not_say_what_it_remembers_is_asked_about_whole_rows(d):
    @dataclass(frozen=True)
    class Quiet(Following):
        def vectors(self, state, at):
            return None

    said = defence("centered_clipping", d)
    against = replace(said, filter=Quiet(said.filter.rule))
    rows = honest_rows(d)
    honest = rows[list(COHORT.honest)]
    whole = scene(honest, honest.mean(dim=0), honest.mean(dim=0), against.vectors)
    trials = Trials([_ask(against, None)], COHORT.honest, COHORT.byzantine, hides=against.hides)
    assert trials.space(whole, torch.zeros(3, F, 17 + 6).double(), stream(0, "attack")) == "whole"


def test_lots_are_not_known():
    against = defence("bucketing >> rfa")
    draws = against.draws()
    assert len(draws) == 3
    assert all(each.at.t != against.at.t for each in draws)
    known = defence("nnm >> rfa")
    (alone,) = known.draws()
    assert alone is known


def test_what_the_rule_refuses_is_a_candidate_that_fails():
    rows = honest_rows()

    def refusing(all_rows: Tensor) -> Tensor:
        if float(all_rows[-1].norm()) > 60:
            raise InvalidInput("Too long.")
        return all_rows.mean(dim=0)

    found = forged(AutoByz(budget="cheap"), rows, refusing)
    assert float(found[-1].norm()) <= 60
    assert turn(found, refusing) > turn(rows, refusing) + 20


def test_equal_rounds_forge_equal_rows():
    against, rows = defence("nnm >> rfa"), honest_rows()
    assert torch.equal(forged(AutoByz(), rows, against), forged(AutoByz(), rows, against))


def test_liars_that_a_guard_would_expel_are_no_candidates():
    class Guard:
        at = RoundContext(1, torch.zeros(D, dtype=torch.float64))
        expels = True

        def __call__(self, rows):
            return rows.mean(dim=0)

        def foresee(self, rows, vectors=None, rounds=1):
            assert vectors is None  # it says of none
            centre = rows.median(dim=-2, keepdim=True).values
            return rows.mean(dim=-2), (rows - centre).norm(dim=-1) > 25

    rows, guard = honest_rows(), Guard()
    found = forged(AutoByz(budget="cheap"), rows, guard)
    assert not bool(guard.foresee(found)[1][list(COHORT.byzantine)].any())
    assert turn(found, guard) > turn(rows, guard)


def told(threat: str, rows: Tensor, before: Tensor) -> tuple[Tensor, bool]:
    """What an attack under this threat model sees as honest rows in round 2, and whether it gets the rule."""
    seen_here = {}

    @dataclass(frozen=True)
    class Spy(Attack):
        """An attack of a test, which writes down what it is handed."""

        knows: ClassVar[frozenset[str]] = frozenset({"honest", "defence"})

        def forge(self, view, generator):
            seen_here[view.t] = view.honest, view.defence
            return view.like.zero_()

    attack, against = Limited(Spy(), threat), defence("median")
    state = attack.start(COHORT, rows[0])
    for t, sent in ((1, before), (2, rows)):
        view = View(t, torch.zeros(D, dtype=torch.float64), sent, COHORT, F, attack.knows, against)
        _, state = attack.step(state, view, stream(0, t))
    return seen_here[2][0], seen_here[2][1] is against


def test_a_threat_model_hands_over_what_it_says_and_nothing_else():
    rows, before = honest_rows(seed=0), honest_rows(seed=1)
    honest, own = list(COHORT.honest), rows[list(COHORT.byzantine)]
    for threat, expected, rule in (
        ("omniscient", rows[honest], True),
        ("no_rule", rows[honest], False),
        ("one_round_late", before[honest], True),
        ("own_data", own[torch.arange(len(honest)) % F], False),
    ):
        saw, knew = told(threat, rows, before)
        assert torch.equal(saw, expected), threat
        assert knew == rule, threat


def test_knowing_less_never_helps_the_search():
    against, rows = defence("nnm >> rfa"), honest_rows()
    everything = turn(forged(Limited(AutoByz(), "omniscient"), rows, against), against)
    assert everything == turn(forged(AutoByz(), rows, against), against)
    for threat in ("no_rule", "own_data"):
        assert turn(forged(Limited(AutoByz(), threat), rows, against), against) <= everything + 1e-6


def test_krum_takes_a_row_against_the_mean():
    against, rows = defence("krum"), honest_rows()
    for attack in (AutoByz(), AutoByz(budget="cheap")):
        assert turn(forged(attack, rows, against), against) > 179


@pytest.mark.parametrize("spelling", ["nnm >> rfa", "trimmed_mean"])
def test_the_winners_of_a_round_begin_the_next(spelling):
    against, rows, attack = defence(spelling), honest_rows(), AutoByz(budget="cheap")
    state, reached = attack.start(COHORT, rows[0]), []
    for t in (1, 2, 3):
        view = View(t, torch.zeros(D, dtype=torch.float64), rows, COHORT, F, attack.knows, against)
        sent, state = attack.step(state, view, stream(0, "attack", t))
        reached.append(turn(view.with_forged(sent), against))
    # What is jittered differs by 1e-6 of the spread; the columns of trimmed means are drawn anew each time.
    assert reached[1] >= reached[0] - 0.5
    assert reached[2] > reached[0] - 0.5


def test_drawn_columns_stand_for_all():
    rows = honest_rows()[: N - F]
    rows[:, : D // 10] *= 20  # most of what rows hold is in some of the columns
    whole = scene(rows, rows.mean(dim=0), rows.mean(dim=0))
    wide = whole.honest.shape[1]
    assert wide > COLUMNS
    sums, counts = [], []
    for seed in range(200):
        small = seen(whole, "columns", stream(seed, "attack"))
        sums.append(float(small.aim.square() @ small.weights))
        counts.append(float(small.weights.sum()))
        assert abs(len(small.aim) - COLUMNS) <= 1
    # Unbiased: means of 200 draws, each off by a few percent.
    assert sum(sums) / 200 == pytest.approx(float(whole.aim.square().sum()), rel=0.01)
    assert sum(counts) / 200 == pytest.approx(wide, rel=0.02)
    cosine = whole.cosines(rows[0], 0.0)
    assert float(small.cosines(small.honest[0], 0.0)) == pytest.approx(float(cosine), abs=0.05)


@pytest.mark.parametrize("spelling", ["multi_krum", "nnm >> trimmed_mean"])
def test_it_turns_the_answer_against_as_many_workers_as_can_be(spelling):
    against = defence(spelling)
    lengths = torch.where(torch.arange(N) % 4 == 0, 6.0, 1.0).double()  # few have most of the mean
    rows = lengths[:, None] * (torch.randn(N, D, dtype=torch.float64, generator=stream(0, "rows")) + 0.02)
    honest = rows[list(COHORT.honest)]

    def opposed(objective: str) -> int:
        answer = against(forged(AutoByz(objective), rows, against))
        return int((honest @ answer < 0).sum())

    assert opposed("workers") > opposed("cos") + 2


@pytest.mark.parametrize("spelling", ["nnm >> rfa", "krum", "median"])
def test_it_leads_the_model_towards_zero(spelling):
    against, rows = defence(spelling), honest_rows()
    x = torch.randn(D, dtype=torch.float64, generator=stream(0, "x"))
    mean = rows[list(COHORT.honest)].mean(dim=0)
    away = mean / mean.norm() - x / x.norm()

    def reached(objective: str, at: Tensor) -> float:
        attack = AutoByz(objective, "cheap")
        view = View(1, at, rows, COHORT, F, attack.knows, against)
        sent = attack.step(attack.start(COHORT, at), view, stream(0, "attack", 1))[0]
        answer = against(view.with_forged(sent))
        return float(answer @ away / answer.norm() / away.norm())

    # A step is minus the answer: one along x shrinks x.
    assert reached("shrink", x) < reached("cos", x) - 0.02
    # At 0 there is no way to shrink, and the mean alone counts: the same but for jitter of 1e-6 a row.
    zero = torch.zeros(D, dtype=torch.float64)
    assert reached("shrink", zero) == pytest.approx(reached("cos", zero), abs=1e-4)


@pytest.mark.parametrize("spelling", ["mean", "nnm >> rfa", "krum", "trimmed_mean", "centered_clipping"])
def test_it_leads_the_answer_far_away(spelling):
    against, rows = defence(spelling), honest_rows()
    mean = rows[list(COHORT.honest)].mean(dim=0)

    def reached(attack: object) -> float:
        return float((against(forged(attack, rows, against)) - mean).norm())

    others = AutoByz("cos", "cheap"), ATTACKS.build("min_max"), ATTACKS.build("alie")
    # The guesses for a coordinate rule are compared in 256 of the 300 columns.
    assert reached(AutoByz("dist", "cheap")) >= 0.98 * max(map(reached, others))


def test_it_leads_places_towards_zero_too():
    against, x = defence("median"), 5 * torch.randn(D, dtype=torch.float64, generator=stream(0, "x"))
    points = x + honest_rows()  # a node's row is where it goes, not against what

    def along(objective: str) -> float:
        attack = AutoByz(objective, "cheap")
        view = View(1, x, points, COHORT, F, attack.knows, against, places=True)
        sent = attack.step(attack.start(COHORT, x), view, stream(0, "attack", 1))[0]
        move = against(view.with_forged(sent)) - x
        return float(move @ x / move.norm() / x.norm())

    assert along("shrink") < along("cos") - 0.02


@pytest.mark.slow
def test_a_model_that_is_led_towards_zero_stays_there():
    fixed = ["rounds=60", "eval_every=60", "task.hidden=[32]", "task.byzantine_data=all", "rule=nnm >> rfa"]
    usual = [*fixed, "task.partition={name='dirichlet', alpha=0.1}"]
    reached = {}
    for objective in ("shrink", "cos"):
        attack = f"attack={{name='autobyz', objective='{objective}', budget='cheap'}}"
        reached[objective] = run(load("byz-nsgdm/digits", [*usual, attack], compare=False)).main
    # Ten classes, and one of them said of everything; away from 0 the cosine alone leaves more.
    assert reached["shrink"].metrics["accuracy"] < 0.2
    assert reached["shrink"].x.norm() < 0.5 * reached["cos"].x.norm()
