"""Estimated constants, audits of runs, explained methods, drawn bounds."""

from __future__ import annotations

import json
from dataclasses import replace
from math import inf, sqrt

import pytest
import torch

from byzopt.aggregators import rule_from
from byzopt.certificates.audit import audit
from byzopt.certificates.curvature import DENSE, extreme_eigenvalues, hessian
from byzopt.certificates.estimates import best_pair, dissimilarity_pairs, estimate_constants
from byzopt.certificates.promised import bound_curve, spec_constants
from byzopt.certificates.watching import round_figures
from byzopt.cohort import Cohort
from byzopt.errors import Status
from byzopt.experiments import Spec, simulate
from byzopt.methods import METHODS
from byzopt.tasks import Digits, LogisticRegression, Quadratic, Quartic, Task, WorkerProxy
from byzopt.tasks.partitions import IID
from byzopt.theory.promise import Constants
from tests.running import play

COHORT = Cohort.of(10, 2)
RULE = rule_from("nnm >> trimmed_mean", f=2)
DATA = {
    "n": 10,
    "f": 2,
    "rounds": 150,
    "lr": 1.0,
    "rule": "nnm >> trimmed_mean",
    "attack": "optimal_alie",
    "method": "robust_gd",
    "task": {
        "name": "quadratic",
        "d": 6,
        "noise": 0.0,
        "heterogeneity": 0.5,
        "spread": 0.3,
        "proxy": "worker",
        "gap": True,
    },
}


def matrix(d: int, seed: int = 0) -> torch.Tensor:
    raw = torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return raw + raw.T


@pytest.mark.parametrize("d", [5, DENSE, 300])
def test_extremes_of_a_hessian(d):
    whole = matrix(d)
    found = extreme_eigenvalues(lambda x: whole @ x, torch.zeros(d, dtype=torch.float64))
    exact = torch.linalg.eigvalsh(whole)
    slack = 1e-8 if d <= DENSE else 0.03
    assert found.high == pytest.approx(float(exact[-1]), rel=slack)
    assert found.norm == pytest.approx(float(exact.abs().max()), rel=slack)
    assert found.sure is (d <= DENSE)


def test_a_hessian_by_columns_follows_the_point():
    x = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    found = hessian(lambda y: y**3, x)
    torch.testing.assert_close(found, torch.diag(3 * x**2), rtol=1e-7, atol=1e-7)


def test_constants_of_a_quadratic_are_exact():
    recipe = Quadratic(d=6, mu=0.1, L=2.0, noise=0.7, heterogeneity=1.0, spread=0.4, proxy=WorkerProxy(1))
    task = recipe.build(COHORT, 3)
    known = estimate_constants(task, RULE, 2, 100)
    assert (known.n, known.f, known.d, known.rounds) == (10, 2, 6, 100)
    assert known.lipschitz == pytest.approx(2.0, rel=1e-6)
    assert known.mu == pytest.approx(0.1, rel=1e-6)
    assert known.delta == pytest.approx(float((task.spectrum - task.curvatures[1]).abs().max()), rel=1e-6)
    honest = task.curvatures[list(COHORT.honest)]
    assert known.local == pytest.approx(float(honest.amax(dim=1).square().mean().sqrt()), rel=1e-6)
    away = task.start() - task.optimum
    assert known.gap == pytest.approx(float(away @ (task.spectrum * away)) / 2, rel=1e-9)
    assert known.diameter == pytest.approx(float(away.norm()), rel=1e-6)
    assert known.gradient == pytest.approx(float((task.spectrum * away).norm()), rel=1e-9)
    assert known.sigma == 0.7
    assert known.bound > known.sigma  # of four draws of Gaussian noise, which has no bound
    assert "bound" not in known.exact
    assert known.kappa_squared == RULE.kappa_squared(10)
    rows = task.grads(task.start(), task.full())[list(COHORT.honest)]
    spread = float((rows - rows.mean(dim=0)).square().sum(dim=1).mean())
    assert known.zeta is None  # Hessians differ: no ζ holds everywhere, and no estimate stands beside that
    for g, b in known.heterogeneity:
        assert g**2 + b**2 * known.start_gradient**2 >= spread * (1 - 1e-9)
    assert (known.g, known.b) in known.heterogeneity
    gaps = [
        float((task.curvatures[i] * (task.optimum - task.centres[i]) ** 2).sum() / 2) for i in COHORT.honest
    ]
    assert known.star_gap >= sum(gaps) / len(gaps)


def test_stated_regularisation_is_the_convexity():
    task = LogisticRegression(batch=0, l2=0.03).build(COHORT, 0)
    known = estimate_constants(task, RULE, 2, 100)
    assert known.mu == 0.03
    assert known.sigma == 0.0
    assert known.delta is None


def test_the_quartic_has_l1_and_no_convexity():
    task = Quartic().build(COHORT, 0)
    known = estimate_constants(task, RULE, 2, 100)
    assert known.mu is None
    assert known.lipschitz is None
    assert {"lipschitz", "mu", "zeta", "sigma", "gap", "star_gap", "l0", "l1"} <= known.exact
    for r in (0.01, 1.0, 10**0.5, 30.0):  # ‖∇²f_i‖ = 12 r² <= L0 + L1 ‖4 r² x + s_i‖ everywhere
        for i in COHORT.honest:
            x = torch.full((10,), r / 10**0.5, dtype=torch.float64)
            long = float((4 * r**2 * x + task.shifts[i]).norm())
            assert all(12 * r**2 <= l0 + l1 * long + 1e-9 for l0, l1 in known.smoothness)


def test_pairs_fit_every_point_and_the_best_has_the_least_floor():
    variances, squares = [1.0, 4.0, 2.0], [0.1, 9.0, 1.0]
    found = dissimilarity_pairs(variances, squares)
    for g, b in found:
        assert all(v <= g**2 + b**2 * s + 1e-12 for v, s in zip(variances, squares, strict=True))
    assert found[0] == pytest.approx((2.0, 0.0))
    best = best_pair(found, 0.1)
    floors = [g**2 / (1 - 0.1 * b**2) for g, b in found if 0.1 * b**2 < 1]
    assert best.g**2 / (1 - 0.1 * best.b**2) == min(floors)
    assert best_pair(found, None) == found[0]


def test_a_round_is_noted_by_its_formula():
    rows = matrix(5)[:4]
    mean = rows.mean(dim=0)
    g = mean + 0.5
    seen = round_figures(3, rows, g)
    variance = float(rows.var(dim=0, unbiased=False).sum())
    assert seen.variance == pytest.approx(variance)
    assert seen.error == pytest.approx(sqrt(5 * 0.25))
    assert seen.kappa_hat == pytest.approx(5 * 0.25 / variance)
    assert seen.linear_hat == pytest.approx(seen.error / float((rows - mean).norm(dim=1).mean()))
    assert round_figures(1, rows, mean).kappa_hat == round_figures(1, rows, mean).linear_hat == 0.0


@pytest.mark.parametrize("jitter", [0.0, 1e-16])
def test_an_error_without_any_spread_makes_kappa_infinite(jitter):
    rows = torch.ones(6, 3, dtype=torch.float64)
    rows = rows + jitter * matrix(6)[:, :3]
    seen = round_figures(1, rows, rows.mean(dim=0) + 1.7)
    assert seen.error > 2
    assert seen.kappa_hat == seen.linear_hat == inf
    assert round_figures(1, rows, rows.mean(dim=0)).kappa_hat == 0.0


@pytest.mark.parametrize("rule", ["nnm >> trimmed_mean", "trimmed_mean", "median", "krum", "nnm >> median"])
@pytest.mark.parametrize("attack", ["optimal_alie", "optimal_ipm", "bit_flip"])
def test_measured_kappa_stays_below_the_proved_one(rule, attack):
    found = audit(Spec.of(DATA | {"rule": rule, "attack": attack, "rounds": 20}))
    assert len(found.rounds) == 20
    assert [r.t for r in found.rounds] == list(range(1, 21))
    assert 0 < found.kappa_hat <= found.kappa
    assert 0 < found.linear_hat <= found.linear
    assert found.worst <= (found.kappa, found.linear)
    for r in found.rounds:
        assert r.kappa_hat <= r.certified * (1 + 1e-9)
        assert r.linear_hat <= r.certified_linear * (1 + 1e-9)
    assert found.kappa_hat == max(r.kappa_hat for r in found.rounds)
    assert found.zeta_squared == pytest.approx(found.kappa_hat * found.pair.g**2)
    assert found.alpha == pytest.approx(found.kappa_hat * found.pair.b**2)
    for r in found.rounds:
        assert r.variance <= found.pair.g**2 + found.pair.b**2 * r.grad_norm**2 + 1e-12
        assert r.error**2 <= found.zeta_squared + found.alpha * r.grad_norm**2 + 1e-12


@pytest.fixture(scope="module")
def estimated() -> tuple[Spec, Task, Constants, float]:
    """A spec under the worst ALIE, its task, what is estimated of it, and κ measured in 20 rounds."""
    spec = Spec.of(DATA | {"attack": "optimal_alie", "rounds": 40})
    task = spec.task.build(spec.cohort, spec.seed)
    return spec, task, estimate_constants(task, spec.rule, 2, 40), audit(spec, 20).kappa_hat


@pytest.mark.parametrize("name", ["robust_gd", "nag", "accelerated_extragradient", "pigs", "aeg_prox"])
def test_a_run_with_the_promised_steps_stays_below_the_promised_bound(name, estimated):
    """κ measured on the run itself: the theorem's own premise, and nothing looser."""
    spec, task, known, first = estimated
    changes = {"mu": known.mu} if name in ("nag", "accelerated_extragradient") else {}
    if name in ("pigs", "aeg_prox"):
        changes = {"mu": known.mu, "delta": known.delta}
    recipe = METHODS.build({"name": name} | changes)
    known = replace(known, unmet=0, watched=40, kappa_squared=2 * first)  # room for other iterates
    lr = recipe.promise(known).steps["lr"]
    spec = replace(spec, method=recipe, lr=lr)
    promise = audit(spec).measured[name]
    assert promise.bound is not None
    outcome = simulate(task, spec.rule, lr, 40, 2, recipe, spec.attack, eval_every=40)
    assert outcome.metrics["gap"] <= promise.bound
    assert outcome.metrics["gap"] > 0


def test_an_audit_says_where_a_run_broke_off():
    crash = {"name": "crash", "after": 4}
    found = audit(Spec.of(DATA | {"rule": "trimmed_mean", "attack": crash, "attackers": 4}))
    assert "NaN" in found.message
    assert [r.t for r in found.rounds] == [1, 2, 3, 4]


def test_an_audit_tells_how_far_it_is():
    heard = []
    task = {"name": "digits", "model": "linear", "proxy": {"name": "worker"}, "wd": 0.01, "dtype": "float64"}
    audit(Spec.of(DATA | {"task": task, "lr": 0.1}), 9, lambda *told: heard.append(told))
    assert heard[:9] == [("round", t, 9) for t in range(1, 10)]
    points = range(7)  # none yet, the start, the middle, the optimum, those of rounds 3, 6, 9
    assert heard[9:16] == [("curvature, point", k, 6) for k in points]
    assert [told[0] for told in heard[16:]] == ["similarity, point"] * 7 + ["noise, draw"] * 4


def test_the_command_shows_that_too(byzopt, monkeypatch, spec_file):
    monkeypatch.setattr("byzopt.cli.progress.EVERY", 0.0)
    said = byzopt("audit", spec_file, "--rounds", "5")
    assert said.status == 0
    told = said.err.splitlines()
    assert told[:5] == [f"round {t}/5" for t in range(1, 6)]
    said = byzopt("explain", spec_file)
    assert said.status == 0
    assert "noise, draw" in said.err


def test_momentum_and_minibatches_can_be_audited_too():
    data = DATA | {"method": "byz_nsgdm", "task": {"name": "logistic_regression"}, "lr": 0.1, "rounds": 15}
    found = audit(Spec.of(data), 10)
    assert len(found.rounds) == 10
    assert found.known.sigma > 0
    promise = found.proved["byz_nsgdm"]
    assert promise.vacuous
    assert any("permutations" in premise for premise in promise.estimated)


def test_bounds_by_round_fall_to_the_floor():
    spec = Spec.of(DATA)
    found = bound_curve(spec, spec_constants(spec))
    assert found.key == "gap"
    assert not found.least
    assert list(found.values)[-1] == 150
    bounds = list(found.values.values())
    assert bounds == sorted(bounds, reverse=True)
    assert found.promise.floor <= bounds[-1] < bounds[0] < found.promise.trivial
    other = Spec.of(DATA | {"method": "nesterov"})
    assert bound_curve(other, spec_constants(other)).values == {}


# The commands


@pytest.fixture
def spec_file(tmp_path):
    from byzopt.experiments.specs.toml import dumps

    path = tmp_path / "spec.toml"
    path.write_text(dumps(Spec.of(DATA | {"rounds": 12}).data), encoding="utf-8")
    return str(path)


def test_audit_command_prints_and_speaks_json(byzopt, spec_file):
    said = byzopt("audit", spec_file, "--rounds", "7")
    assert said.status == 0
    text = said.out
    assert "kappa-hat" in text
    assert "Delta" in text
    said = byzopt("audit", spec_file, "--json", "rounds=9")
    assert said.status == 0
    found = json.loads(said.out)
    assert len(found["rounds"]) == 9
    assert found["kappa_hat"] <= found["kappa"]
    assert set(found["proved"]) == set(METHODS)
    assert found["constants"]["lipschitz"] == pytest.approx(1.0, rel=1e-6)
    said = byzopt("audit", spec_file, "--rounds", "0")
    assert said.status == 2


def test_explain_command_prints_cards_and_numbers(byzopt, spec_file):
    for name in METHODS:
        said = byzopt("explain", name)
        assert said.status == 0
        assert name in said.out
    said = byzopt("explain", spec_file, "method=pigs", "--json")
    assert said.status == 0
    found = json.loads(said.out)
    assert found["method"] == "pigs"
    assert found["promise"]["steps"]["lr"] == pytest.approx(0.25 / max(0.1, found["constants"]["delta"]))
    said = byzopt("explain", spec_file)
    assert said.status == 0
    assert "Theorem A" in said.out
    said = byzopt("explain", "pigz")
    assert said.status == 2
    assert "pigs" in said.err
    said = byzopt("explain", "pigs", "lr=1")
    assert said.status == 2


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_explained_and_audited_on_a_spec(byzopt, spec_file, name):
    guards = name in ("byzantine_sgd", "safeguard")
    rule, wish = ("mean", ["method.differing=true"]) if guards else ("nnm >> trimmed_mean", [])
    spec = (spec_file, f"method={name}", f"rule={rule}", "attack=alie", *wish)
    said = byzopt("explain", *spec, "--json")
    assert said.status == 0
    found = json.loads(said.out)
    assert found["method"] == name
    said = byzopt("audit", *spec, "--rounds", "3", "--json")
    assert said.status == 0
    found = json.loads(said.out)
    assert [r["t"] for r in found["rounds"]] == [1, 2, 3]
    assert set(found["proved"]) == set(METHODS)


@pytest.mark.parametrize(
    "preset",
    ["byz-nsgdm/quartic", "byzantine-sgd/hard_lin", "byzantine-sgd/quadratic"],
)
def test_presets_are_audited(byzopt, preset):
    said = byzopt("audit", preset, "--rounds", "3", "--json")
    assert said.status == 0
    found = json.loads(said.out)
    assert len(found["rounds"]) == 3
    assert found["message"] == ""


def test_a_run_that_diverges_is_audited_up_to_there(byzopt, spec_file):
    said = byzopt("audit", spec_file, "lr=1e9", "--json")
    assert said.status == 0
    found = json.loads(said.out)
    assert "every reasonable range" in found["message"]
    assert len(found["rounds"]) < 12


def test_an_adversary_that_hugs_finds_the_guard_behind_the_audit():
    method = {"name": "byzantine_sgd", "noise": 1.0, "diameter": 1.0, "differing": True}
    spec = Spec.of(DATA | {"method": method, "attack": "hug", "rounds": 20, "lr": 0.1, "rule": "mean"})
    task = spec.task.build(COHORT, 0)
    *_, end = play(spec.method, spec.rule, spec.attack, task, 10, 2, 0.1, 20)
    honest = task.grads(end.asked, task.draw(20))[:8].mean(dim=0)
    assert audit(spec).rounds[-1].error == pytest.approx(float((end.aggregate - honest).norm()), rel=1e-9)


@pytest.mark.parametrize(
    "words, what",
    [
        (("explain", "nope"), "Unknown method"),
        (("explain", "SPEC", "method=nagg"), "nag"),
        (("explain", "SPEC", "method.mu=1"), "Unknown key"),
        (("explain", "none.toml"), "no file"),
        (("audit", "none.toml"), "no file"),
        (("audit", "SPEC", "f=6"), "2 f < n"),
        (("audit", "SPEC", "rule=krumm"), "krum"),
        (("audit", "SPEC", "task=hard_lin", "method=pigs"), "server owns"),
        (("audit", "SPEC", "lr"), "key=value"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(byzopt, spec_file, words, what):
    said = byzopt(*(spec_file if word == "SPEC" else word for word in words))
    assert said.status == 2
    told = said.err
    assert what in told
    assert told.startswith("byzopt: error: ")
    assert "Traceback" not in told


def test_a_bound_is_drawn_or_refused_before_the_run(byzopt, spec_file, tmp_path):
    out = tmp_path / "out"
    said = byzopt("run", spec_file, "--bound", "--out", str(out))
    assert said.status == 0
    assert (out / "curves.png").stat().st_size > 0
    other = tmp_path / "other"
    said = byzopt("run", spec_file, "method=nesterov", "--bound", "--out", str(other))
    assert said.status == 2
    assert "no theorem" in said.err
    assert not other.exists()


# The protocol in small


def reached(task, method, lr, level, rounds, rule="nnm >> trimmed_mean") -> float:
    outcome = simulate(task, rule, lr, rounds, 1, method, "alie", eval_every=1, stop={"gap": level})
    return outcome.rounds if outcome.status is Status.CONVERGED else float("inf")


def test_on_digits_similarity_beats_momentum_beats_descent():
    recipe = Digits(
        model="linear",
        batch="full",
        wd=1e-2,
        dtype="float64",
        partition=IID(),
        byzantine_data="mirror",
        proxy=WorkerProxy(0),
        gap=True,
        initial="zero",
    )
    task = recipe.build(Cohort.of(11, 1), 0)
    start = task.measure(task.start())["gap"]
    levels = 0.2 * start
    pigs = reached(task, "pigs", 4.0, levels, 30)
    nag = reached(task, "nesterov", 0.1, levels, 100)
    gd = reached(task, "robust_gd", 0.1, levels, 150)
    assert pigs * 2 < nag < gd / 2
