"""Promises with one premise broken at a time: then no bound and no floor is given, and the reason is told."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from byzopt.errors import InvalidInput
from byzopt.methods import METHODS
from byzopt.schedules import Anytime
from byzopt.theory import byz_dm21, byzantine_limits, byzantine_sgd, inexact, nsgdm, safeguard
from byzopt.theory.byzantine_epochs import Curved, schedule
from byzopt.theory.premises import below
from byzopt.theory.promise import Constants, Premise, Promise, Standing, promise, strongest

# A problem of which everything is known, and on which every theorem holds.
GOOD = Constants(
    n=20, f=3, d=10, rounds=200, attackers=3, tolerated=3, rule="mean", horizon=200,
    lipschitz=1.0, local=1.0, sample=1.0, passes=1.0, l0=1.0, l1=0.1, mu=0.2, convex=True,
    sigma=0.1, bound=0.2, sampling="fresh", zeta=0.0, pairs=((0.01, 0.01),), delta=0.3, diameter=1.0,
    gradient=1.0, start_gradient=1.0, start_rows=1.0, gap=2.0, star_gap=0.1,
    kappa_linear=0.5, kappa_squared=0.3, unmet=0, watched=200,
    exact=frozenset({"lipschitz", "bound", "diameter", "zeta"}),
)  # fmt: skip
TOP = {"name": "top_k", "ratio": 0.5}
EPOCHS = {"noise": 0.2, "diameter": 1.0, "epochs": "theory", "mu": 0.2, "L": 1.0, "n": 20, "f": 3}
# Recipes with a bound (or a floor), by a name of their own, and what they change of that problem.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gd": ({"name": "robust_gd"}, {}),
    "gd without convexity": ({"name": "robust_gd"}, {"mu": None}),
    "sgdm": ({"name": "robust_sgdm", "eta": 1.0}, {}),
    "nag": ({"name": "nag", "mu": 0.2}, {}),
    "nag, small tau": ({"name": "nag", "mu": 0.2, "alpha": 0.01}, {}),
    "extragradient": ({"name": "accelerated_extragradient", "mu": 0.2}, {}),
    "pigs": ({"name": "pigs", "delta": 0.3, "mu": 0.2}, {"lr": 1.0}),
    "pigs, by hand": ({"name": "pigs"}, {"lr": 0.5}),
    "aeg_prox": ({"name": "aeg_prox", "delta": 1.0, "mu": 0.2, "alpha": 1e-4, "lipschitz": 1.0}, {"lr": 1.0}),
    "dm21": ({"name": "byz_dm21", "compressor": TOP}, {"lr": 1e-4}),
    "sgdm21": ({"name": "byz_ef21_sgdm", "compressor": TOP}, {"lr": 1e-4}),
    "nsgdm": ({"name": "byz_nsgdm", "schedule": "fixed_horizon"}, {"lr": 0.5}),
    "nsgdm, falling": ({"name": "byz_nsgdm", "schedule": "inverse_sqrt"}, {"lr": 0.01}),
    "nsgdm, early": ({"name": "byz_nsgdm", "schedule": "fixed_horizon"}, {"lr": 0.5, "rounds": 100}),
    "byzantine_sgd": ({"name": "byzantine_sgd", "noise": 0.2, "diameter": 1.0}, {"lr": 0.1}),
    "byzantine_sgd, rough": (
        {"name": "byzantine_sgd", "noise": 0.2, "diameter": 1.0, "average": "nonsmooth"},
        {"lr": 0.1},
    ),
    "byzantine_sgd, epochs": ({"name": "byzantine_sgd", **EPOCHS}, {"lr": 1.0}),
}
# What breaks a premise: changes of the problem, and of the recipe.
BROKEN: tuple[dict[str, Any], ...] = (
    {"f": 10}, {"attackers": 4}, {"attackers": None}, {"tolerated": 2}, {"tolerated": None}, {"rule": "krum"},
    {"rule": None}, {"kappa_linear": None, "kappa_squared": None}, {"zeta": None, "pairs": ()}, {"zeta": 0.1},
    {"lipschitz": None, "gradient": None}, {"lipschitz": None, "exact": frozenset({"lipschitz"})},
    {"local": None}, {"mu": None}, {"mu": 0.1}, {"delta": None}, {"delta": 40.0}, {"sigma": None},
    {"sampling": None}, {"sampling": "biased"}, {"gap": None}, {"star_gap": None}, {"start_rows": None},
    {"l0": None}, {"convex": None, "mu": None}, {"convex": False}, {"bound": None}, {"bound": 0.3},
    {"bound": 0.3, "exact": frozenset()}, {"spread": 0.1, "exact": frozenset()}, {"diameter": None},
    {"diameter": 2.0}, {"pairs": ((0.0, 100.0),), "zeta": None}, {"unmet": None}, {"unmet": 1},
    {"trusts": (0, 19), "betrayed": (19,)},
    {"lr": 1e6}, {"horizon": 400}, {"lipschitz": 2.0}, {"kappa_linear": None, "kappa_squared": None,
    "origin": "measured"}, {"kappa_linear": None, "kappa_squared": None, "origin": "certified"},
)  # fmt: skip
RECIPES: tuple[dict[str, Any], ...] = (
    {"schedule": "anytime"}, {"schedule": "inverse_sqrt"}, {"schedule": {"name": "fixed_horizon", "p": 1.5}},
    {"norm": "sign"}, {"momentum": "heavy_ball"}, {"order": "normalise_then_momentum"}, {"cutoff": 0.1},
    {"eta": 0.5}, {"mu": 0.5}, {"tau": 0.3}, {"alpha": 1e-9}, {"tau_factor": 1.0}, {"sec": 0.5},
    {"longer": True, "sec": 5.0}, {"init": "zero"}, {"compressor": {"name": "rand_k", "ratio": 0.5}},
    {"thresholds": "printed"}, {"anytime": True}, {"adaptive_A": True}, {"mean_over_good": True},
    {"sketch": 4}, {"epochs": "doubling"}, {"epochs": "doubling", "grow": True}, {"epochs": "practical"},
    {"noise": None}, {"diameter": None}, {"n": 30}, {"L": 0.5}, {"p_fail": 0.999999}, {"delta": 0.01},
)  # fmt: skip


def made(case: str, known: Mapping[str, Any] = {}, recipe: Mapping[str, Any] = {}) -> Promise:
    own, problem = CASES[case]
    found = METHODS.build({**own, **recipe}).promise(replace(GOOD, **{**problem, **known}))
    assert found is not None
    return found


def bare(premise: Premise) -> str:
    """A premise without the figure of its edge, which may hang on the rest."""
    return re.sub(r"at most 0\.0\d+$", "at most", premise.what)


def broken(case: str) -> list[tuple[dict[str, Any], Promise]]:
    """What of all changes this method knows and breaks a premise of it."""
    found = [(change, made(case, change)) for change in BROKEN]
    for change in RECIPES:
        try:
            found.append((change, made(case, recipe=change)))
        except (InvalidInput, TypeError, ValueError):
            continue  # another method's parameter, or one that the recipe itself refuses
    return [(change, told) for change, told in found if told.broken]


@pytest.mark.parametrize("case", CASES)
def test_a_promise_holds_where_every_premise_stands(case):
    told = made(case)
    assert told.broken == ()
    assert told.bound is not None or told.floor is not None
    assert {premise.verdict for premise in told.premises} <= {Standing.HOLDS, Standing.ESTIMATED}


@pytest.mark.parametrize("case", CASES)
def test_with_one_premise_broken_there_is_neither_bound_nor_floor(case):
    for change, told in broken(case):
        assert told.bound is None, change
        assert told.floor is None, change
        assert told.missing, change
        assert not told.vacuous


@pytest.mark.parametrize("case", CASES)
def test_every_premise_can_be_broken(case):
    """So that none of them is there for show, and none was forgotten above."""
    seen = {bare(premise) for _, told in broken(case) for premise in told.broken}
    # A gap that is not known costs the bound and not the floor, as L does with PIGS; with a longer step PIGS
    # has another theorem, and so has descent without convexity.
    mute = {"f(x^0) - f* is known"} if case != "nsgdm" else set()
    mute |= {"f is L-smooth", "η is at most 0.25/max(Δ, μ)"} if "pigs" in case else set()
    mute |= {"f is μ-strongly convex (or μ-PŁ)"} if case in ("gd", "sgdm") else set()
    assert {bare(premise) for premise in made(case).premises} - seen <= mute


def test_no_method_with_a_bound_is_left_out():
    for name in METHODS:
        own = {recipe["name"] for recipe, _ in CASES.values()}
        told = METHODS.build(name).promise(GOOD)
        assert name in own or told is None or (told.bound is None and told.floor is None)


def test_a_floor_or_bound_that_is_not_finite_is_none():
    told = Promise("t", "gap", bound=float("inf"), floor=float("nan"))
    assert (told.bound, told.floor) == (None, None)
    assert len(told.missing) == 2


def test_a_formula_is_not_asked_where_a_premise_fails():
    def asked() -> Promise:
        raise AssertionError

    fails = Premise("something", Standing.FAILS, "found otherwise")
    told = promise("a theorem", "gap", [fails, Premise("more", Standing.UNKNOWN)], asked)
    assert told.missing == ("fails: something: found otherwise", "unknown: more")
    good = Promise("b", "gap", bound=1.0)
    assert strongest([told, replace(good, bound=2.0), good]) is good


def test_a_bound_that_is_no_less_than_the_start_is_vacuous():
    told = made("dm21", {"sigma": 50.0})
    assert told.bound > told.trivial == 1.0
    assert told.vacuous
    assert made("gd").vacuous is False
    assert made("gd", {"gap": 1e-9}).vacuous


@pytest.mark.parametrize("case", ["gd", "nag", "extragradient", "pigs", "aeg_prox", "dm21", "sgdm21"])
def test_the_edge_that_is_printed_is_accepted_and_what_lies_above_is_not(case):
    own = {"lr": None} if not {"delta", "alpha"} & CASES[case][0].keys() else {}
    edge = made(case, own).steps["lr"]
    for digits in (2, 3, 6, 12):
        typed = float(below(edge, digits))
        assert typed <= edge < typed * (1 + 10 ** (1 - digits)) * (1 + 1e-9)
        assert made(case, {"lr": typed}).broken == ()
    assert made(case, {"lr": edge}).broken == ()
    strict = {"sec": 5.0} if case == "pigs" else {}  # no longer step then
    above = made(case, {"lr": edge * 1.001}, strict)
    assert (above.bound, above.floor) == (None, None)
    assert len(above.broken) == 1


def test_the_edge_of_theorem_1_is_accepted_as_printed():
    problem = nsgdm.Problem(1.0, 0.37, 10.0, 17, 0.1, 1.0, 0.5, 1.0)
    for kappa in (0.1, 17 / 7, 33.3):
        for rounds in (1, 1000, 10**6):
            cap = nsgdm.max_gamma0(0.37, kappa, rounds)
            assert nsgdm.theorem_bound(problem, kappa, rounds, cap).total > 0
            with pytest.raises(InvalidInput) as refused:
                nsgdm.theorem_bound(problem, kappa, rounds, 2 * cap)
            printed = str(refused.value).partition("(0, ")[2].partition("]")[0]
            assert nsgdm.theorem_bound(problem, kappa, rounds, float(printed)).total > 0


@pytest.mark.parametrize("value", [1 / 3, 2 / 3, 0.0365217944, 9.9999999e-7, 0.99999999, 123456789.0, 1e300])
@pytest.mark.parametrize("digits", [1, 3, 6])
def test_numbers_are_rounded_down(value, digits):
    told = float(below(value, digits))
    assert value * (1 - 1.1 * 10 ** (1 - digits)) <= told <= value


def test_pairs_are_used_together_and_each_theorem_takes_its_own():
    pairs = ((1.0, 0.0), (0.1, 0.5), (0.01, 3.0))
    known = {"pairs": pairs, "zeta": None, "exact": frozenset({"lipschitz"})}
    for case in ("gd", "nag", "pigs", "dm21", "sgdm21"):
        alone = [made(case, known | {"pairs": (pair,)}) for pair in pairs]
        told = made(case, known)
        assert (told.bound, told.floor) == (strongest(alone).bound, strongest(alone).floor)
    assert made("gd", known).remarks[0] != made("dm21", known).remarks[0]


@pytest.mark.parametrize(
    "call",
    [
        lambda: byzantine_sgd.GuardSetting(10, 9, 100, 1.0, 1.0),
        lambda: byzantine_sgd.GuardSetting(10, 5, 100, 1.0, 1.0),
        lambda: byzantine_sgd.GuardSetting(10, 4, 100, float("inf"), 1.0),
        lambda: byzantine_sgd.GuardSetting(10, 4, 100, 1.0, -1.0),
        lambda: schedule(Curved(10, 9, 1.0, 1.0, 1.0, 1.0), 2),
        lambda: byzantine_limits.convex_floor(10, 0.9, 1.0, 1.0, 100),
        lambda: safeguard.crowd_factor(10, 9),
        lambda: nsgdm.bound_along(nsgdm.Problem(1, 1, 1, 1), 0.0, [0.1, 0.2], 0.5),
        lambda: nsgdm.bound_along(nsgdm.Problem(1, 1, 1, 1), 0.0, [0.8, 0.2], 0.5),
        lambda: byz_dm21.gradient_bound(byz_dm21.DM21Setting(1, 1, 1, 1, 1, 1, 5), 1.0, 10, 1.0, 1.0, 1.0),
    ],
)
def test_formulas_refuse_what_their_theorem_does_not_cover(call):
    with pytest.raises(InvalidInput, match="should"):
        call()


def test_what_a_theorem_does_not_admit_has_no_number():
    for found in inexact.complexity(inexact.InexactOracle(1.0, 1.5), 1.0, 0.1, 0.5).values():
        assert not found.holds
        assert found.floor == found.bound(1.0, 10) == float("inf")


def test_the_bound_along_steps_is_that_of_equal_steps_and_below():
    problem = nsgdm.Problem(1.0, 0.2, 10.0, 17, 0.1, 1.0, 0.5, 1.0)
    equal = nsgdm.bound_along(problem, 0.5, [0.01] * 300, 0.1)
    rough = nsgdm.bound_at(problem, 0.5, 300, 0.01, 0.1)
    assert equal.curvature == pytest.approx(rough.curvature)
    assert equal.lag == pytest.approx(rough.lag)
    assert equal.attacked_noise == pytest.approx(rough.attacked_noise)
    assert 0.3 * rough.total < equal.total <= rough.total
    falling = nsgdm.bound_along(problem, 0.5, [0.01 / k**0.5 for k in range(1, 301)], 0.1)
    assert falling.start > equal.start  # the way is shorter


# The commands

SPEC = {
    "n": 10, "f": 2, "rounds": 30, "lr": 0.5, "rule": "nnm >> trimmed_mean", "attack": "alie",
    "method": "robust_gd",
    "task": {"name": "quadratic", "d": 4, "mu": 0.5, "noise": 0.0, "heterogeneity": 0.1, "gap": True},
}  # fmt: skip
BALL = {"name": "byzantine_sgd", "noise": 2.0, "diameter": 3.0}
LINE = {"task": {"name": "hard_lin", "clip": 2.0}, "method": BALL, "rule": "mean", "rounds": 60, "lr": 0.01}
# Specs with one premise broken, and a word of the reason.
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a rule that tolerates nobody": ({"rule": "mean"}, "tolerates 0 with f = 2"),
    "more liars than f": ({"attackers": 4}, "4 liars with f = 2"),
    "a rule without a coefficient": ({"rule": "sign_majority"}, "no coefficient is proved"),
    "a trusted worker that lies": ({"rule": {"name": "monna", "trusted": 9}}, "of whom [9] lie"),
    "a step above 1/L": ({"lr": 1.01}, "at most 1/L"),
    "a schedule": ({"method": {"name": "robust_gd", "schedule": "inverse_sqrt"}}, "step is constant"),
    "printed thresholds": (LINE | {"method": BALL | {"thresholds": "printed"}}, "found printed"),
    "a ball without the optimum": (LINE | {"method": BALL | {"diameter": 0.5}}, "D = 0.5"),
    "noise beyond V": (LINE | {"method": BALL | {"noise": 1.5}}, "2 with V = 1.5"),
    "another distribution each": (
        {"method": BALL | {"differing": True}, "rule": "mean", "lr": 0.01},
        "ζ = 0",
    ),
}


def written(path, changes: Mapping[str, Any]) -> str:
    from byzopt.experiments import Spec
    from byzopt.experiments.specs.toml import dumps

    path.write_text(dumps(Spec.of(SPEC | changes).data), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", WRONG)
def test_commands_print_no_bound_where_a_premise_fails(byzopt, tmp_path, name):
    changes, reason = WRONG[name]
    path = written(tmp_path / "spec.toml", changes)
    said = byzopt("explain", path, "--json")
    assert said.status == 0
    found = json.loads(said.out)["promise"]
    assert (found["bound"], found["floor"]) == (None, None)
    assert any(reason in line for line in found["missing"])
    assert {"fails", "unknown"} & {premise["verdict"] for premise in found["premises"]}
    said = byzopt("explain", path)
    assert said.status == 0
    text = said.out
    assert "  bound: none" in text
    assert "  floor: none" in text
    said = byzopt("audit", path, "--rounds", "3", "--json")
    assert said.status == 0
    found = json.loads(said.out)
    own = found["proved"][Specs.method(changes)]
    assert (own["bound"], own["floor"]) == (None, None)
    said = byzopt("run", path, "--bound", "--out", str(tmp_path / "out"))
    assert said.status == 2
    assert "no" in said.err
    assert not (tmp_path / "out").exists()


class Specs:
    """Names in changes of a spec."""

    @staticmethod
    def method(changes: Mapping[str, Any]) -> str:
        method = changes.get("method", "robust_gd")
        return method if isinstance(method, str) else method["name"]


@pytest.mark.slow
def test_reports_draw_the_bound_of_the_checked_promise_only(byzopt, tmp_path):
    good, wrong = written(tmp_path / "good.toml", {}), written(tmp_path / "wrong.toml", {"lr": 1.01})
    store = tmp_path / "store"
    for place, path in (("good", good), ("wrong", wrong)):
        said = byzopt("run", path, "--out", str(store / place))
        assert said.status == 0
    said = byzopt("report", str(store), "--bound")
    assert said.status == 0
    text = " ".join(said.out.split())
    assert "at most 1/L" in text
    (bounds,) = (store / "report").glob("bounds*.csv")
    rows = bounds.read_text().splitlines()
    assert len(rows) == 2  # the head, and the run whose step is admitted
    assert "holds" in rows[1]
    (promises,) = (store / "report").glob("promises*.csv")
    first, second = promises.read_text().splitlines()[1:]
    assert ",none," in second
    assert ",none," not in first
    assert "G = " in first


def test_explain_names_what_a_bound_rests_on(byzopt, tmp_path):
    path = written(tmp_path / "spec.toml", {"task": {"name": "logistic_regression", "batch": 8}, "lr": 1e-3})
    said = byzopt("explain", path, "--json")
    assert said.status == 0
    found = json.loads(said.out)["promise"]
    assert found["bound"] is not None
    assert any("permutations" in line for line in found["estimated"])
    assert any("σ" in line for line in found["estimated"])
    said = byzopt("explain", path)
    assert said.status == 0
    assert "rests on estimates" in said.out


def test_schedules_that_the_proof_does_not_cover():
    told = METHODS.build("byz_nsgdm")
    assert replace(told, schedule=Anytime()).promise(GOOD).bound is None


def test_the_pair_of_smoothness_constants_says_why_it_is_used():
    several = METHODS.build("byz_nsgdm").promise(replace(GOOD, lr=0.1, curves=((1.0, 0.0), (1e6, 0.0))))
    assert "with L0 = 1, L1 = 0: of all pairs (L0, L1) that fit" in several.remarks[0]
    step = next(premise for premise in several.premises if "ln 2 / L1" in premise.what)
    assert "no upper edge" in step.how
    assert "inf" not in step.how
