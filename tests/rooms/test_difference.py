"""How different honest rows are: recorded along runs, and when that rules every promise out."""

from __future__ import annotations

import json
from math import inf, isclose

import pytest
import torch

from byzopt.aggregators import TrimmedMean
from byzopt.certificates.watching import watch_run
from byzopt.engines.honest_rows import honest_figures
from byzopt.experiments import run
from byzopt.experiments.specs.spec import Spec
from byzopt.experiments.sweeps import Sweep, plan_sweep, run_sweep
from byzopt.stress import stress
from byzopt.stress.difference import difference_of
from byzopt.theory.disagreement import fitted, indistinct

SPEC = {
    "task": {"name": "quadratic", "d": 8},
    "rule": "median",
    "method": "byz_nsgdm",
    "attack": "ipm",
    "lr": 0.1,
    "rounds": 7,
    "eval_every": 3,
    "n": 9,
    "f": 2,
}
NAMES = {"honest_variance", "relative_variance"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_figures_are_those_of_the_honest_rows_that_came(dtype):
    rows = torch.randn(7, 300, generator=torch.Generator().manual_seed(0)).to(dtype) + 1
    present = torch.tensor([True, True, False, True, True, True, True])
    here = rows[[1, 3, 6]].double()
    variance = float((here - here.mean(0)).square().sum(1).mean())
    found = honest_figures(rows, (1, 2, 3, 6), present)
    # Sums of 900 float64 numbers in another order.
    assert found["honest_variance"] == pytest.approx(variance, rel=1e-12)
    square = float(here.mean(0).square().sum())
    assert found["relative_variance"] == pytest.approx(variance / square, rel=1e-12)


def test_equal_rows_opposed_rows_and_nobody():
    assert honest_figures(torch.ones(4, 3), (0, 1, 2)) == {"honest_variance": 0.0, "relative_variance": 0.0}
    assert honest_figures(torch.zeros(4, 3), (0, 1, 2))["relative_variance"] == 0
    opposed = torch.tensor([[1.0], [-1.0]])
    assert honest_figures(opposed, (0, 1)) == {"honest_variance": 1.0, "relative_variance": inf}
    huge = torch.tensor([[1e300], [-1e300], [1e300]], dtype=torch.float64)
    assert honest_figures(huge, (0, 1, 2))["relative_variance"] == inf  # never NaN
    assert honest_figures(opposed, ()) == {}
    assert honest_figures(opposed, (0, 1), torch.tensor([False, False])) == {}


def test_a_run_under_attack_records_them_where_it_measures(tmp_path):
    records = run(Spec.of(SPEC), out=tmp_path / "run").main.records
    assert [record["t"] for record in records if record.keys() >= NAMES] == [3, 6, 7]
    assert not NAMES & records[0].keys()  # nothing was sent before round 1
    assert run(Spec.of(SPEC), out=tmp_path / "run").main.records == records  # as stored
    calm = run(Spec.of(SPEC | {"attackers": 0})).main.records
    assert not any(NAMES & record.keys() for record in calm)


def test_what_is_recorded_is_what_the_honest_workers_sent():
    spec = Spec.of(SPEC | {"eval_every": 1})
    records = run(spec).main.records[1:]
    for record, seen in zip(records, watch_run(spec, spec.rounds).seen, strict=True):
        # The same rows, summed in another order.
        assert record["honest_variance"] == pytest.approx(seen.variance, rel=1e-6)
        assert record["relative_variance"] == pytest.approx(seen.variance / seen.grad_norm**2, rel=1e-6)


def test_runs_side_by_side_record_what_each_alone_would(tmp_path):
    spec = {key: value for key, value in SPEC.items() if key != "rule"}
    sweep = Sweep(name="s", spec=spec, grid={"rule": ["median", "mean"]})
    plan = plan_sweep(sweep, tmp_path)
    run_sweep(plan, jobs=0)
    for one in plan.expansion.runs:
        found = plan.store.read_outcome(one.id).records
        alone = run(one.spec).main.records
        for record, other in zip(found, alone, strict=True):
            assert record.keys() == other.keys()
            for name in NAMES & record.keys():
                assert isclose(record[name], other[name], rel_tol=1e-9)


@pytest.mark.parametrize(("n", "f"), [(20, 3), (20, 6), (11, 5), (3, 1)])
def test_beyond_the_limit_the_same_rows_have_opposite_means(n, f):
    for above in (1.001, 2.0, 100.0):
        h = above * indistinct(n, f)
        # (f/N) (1 - f/N) D²/(1 - f D/N)² = h, with a = 1: a quadratic equation in D.
        p = f / (n - f)
        root = (p * (1 - p) / h) ** 0.5
        distance = 1 / (p - root)
        rows = torch.tensor([1 - distance] * f + [1.0] * (n - f), dtype=torch.float64).unsqueeze(1)
        near = honest_figures(rows, range(f, n))
        far = honest_figures(rows, range(n - f))
        assert near["relative_variance"] <= far["relative_variance"]
        assert far["relative_variance"] == pytest.approx(h, rel=1e-6)
        assert rows[f:].mean() > 0 > rows[: n - f].mean()


def test_below_the_limit_a_rule_keeps_its_promise():
    """The trimmed mean's squared error is at most r · variance: below ‖m‖² its answer points along m."""
    n, f = 9, 2
    drawn = torch.Generator().manual_seed(0)
    for k in range(200):
        rows = torch.randn(n, 1, generator=drawn, dtype=torch.float64) + 1.2
        figures = honest_figures(rows, range(f, n))
        rows[:f] = (-1.0) ** k * 10 ** (k % 3)
        if figures["relative_variance"] < indistinct(n, f):
            assert float(TrimmedMean(f=f)(rows) * rows[f:].mean()) > 0
    assert indistinct(4, 2) == 0
    assert indistinct(4, 0) == inf


def test_the_fit_is_exact_on_a_line_and_never_below_zero():
    assert fitted([1, 3, 5], [0, 1, 2]) == pytest.approx((1, 2))
    assert fitted([5, 3, 1], [0, 1, 2]) == (3, 0)  # falling: a constant
    constant, slope = fitted([0, 0, 5], [0, 1, 2])
    assert (constant, slope) == (0, 2)  # through the origin: Σ xy/Σ x²
    assert fitted([2.0], [1.0]) == (2, 0)


def test_what_rounds_come_to_is_said_with_its_premises():
    mild = difference_of([(1.0, 1.0), (2.0, 1.5)], 20, 3)
    assert (mild.beyond, mild.h) == (0, 1.25)
    assert "differ little enough" in mild.sentences()[1]
    hard = difference_of([(8.0, 8.0), (16.0, 8.0), (1.0, inf)], 20, 6)
    assert hard.beyond == 3
    said = " ".join(hard.sentences())
    assert "sees these rows alone" in said
    assert "arXiv:2309.13591" in said
    assert hard.fit.breakdown < 6 / 20 <= mild.fit.breakdown
    assert difference_of([(0.0, 0.0)], 4, 2).beyond == 1  # half lie: equal rows do not help


def test_stress_says_how_different_honest_rows_were(tmp_path, monkeypatch, byzopt):
    found = stress(Spec.of(SPEC), tmp_path / "one", attacks=["alie"])
    different = found.difference("median")
    assert different.rounds == 6  # three of each run: without attack, and under one
    assert (different.n, different.f) == (9, 2)
    task = 'task = {name = "quadratic", d = 8}'
    rest = [f"{key} = {json.dumps(value)}" for key, value in SPEC.items() if key != "task"]
    (tmp_path / "my.toml").write_text("\n".join([task, *rest]), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    options = ("--attacks", "alie", "--jobs", "0", "--store", "two")
    data = json.loads(byzopt("stress", "my.toml", *options, "--json").out)
    assert data["honest_rows"]["median"]["h"] == pytest.approx(different.h)
    assert data["trials"][0]["honest_rows"]["rounds"] == 3
    assert "Honest rows differ: h = " in byzopt("stress", "my.toml", *options).out
