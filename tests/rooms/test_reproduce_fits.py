"""Numbers made of several cells, curves against bits, and what the declarations of fits say."""

from __future__ import annotations

import json
from math import inf, nan

import pytest

from byzopt.errors import Status, UnknownName
from byzopt.experiments.sweeps import run_sweep
from byzopt.experiments.trials.outcome import Outcome
from byzopt.reports.reproduction import save_reproduction
from byzopt.reproductions.fits import fit_values, level_crossing, log_log_slope
from byzopt.reproductions.loading import load_reproduction
from byzopt.reproductions.reproduction import Cell, Expected, Fit, Part, TableMeasure
from byzopt.reproductions.running import collect_tables, measured_value, plan_parts
from byzopt.reproductions.verdict import compare_cell
from byzopt.theory import byzantine_limits as limits
from byzopt.theory.byzantine_sgd import GuardSetting, nonsmooth_step
from tests.arena import rescaled

SIZES = ("1", "4", "16")


def declared(fit, axes=("who", "size"), labels=("a", "b"), **changes):
    choices = {axes[0]: {label: {} for label in labels}, axes[1]: {size: {} for size in SIZES}}
    cells = tuple(Cell((label, size)) for label in labels for size in SIZES)
    usual = {"seeds": (0, 1), "measures": (TableMeasure("m", "loss"),), "fits": (fit,)}
    return Part("p", "q", axes, choices, cells, **(usual | changes))


def told(part, value, missing=0):
    """The fits of a part whose cells have `value(label, size)` for seeds 0 and 1, times 0.9 and 1.1."""
    lines = []
    for cell in part.cells:
        middle = value(cell.at[0], float(cell.at[1]))
        values = {seed: None if middle is None else middle * (0.9 + 0.2 * seed) for seed in part.seeds}
        lines.append(compare_cell(part, cell, part.measures[0], values, missing))
    return fit_values(part, part.fits[0], lines)


def test_slopes_are_those_of_powers_and_nothing_else():
    assert log_log_slope([(x, 3 * x**-0.5) for x in (1.0, 2.0, 10.0)]) == pytest.approx(-0.5)
    assert log_log_slope([(1.0, 1.0)]) is None
    assert log_log_slope([(1.0, 1.0), (2.0, 0.0)]) is None
    assert log_log_slope([(1.0, 1.0), (2.0, nan)]) is None


def test_a_crossing_lies_between_two_sizes_on_log_axes():
    assert level_crossing([(1.0, 4.0), (4.0, 1.0)], 2.0) == pytest.approx(2.0)
    assert level_crossing([(1.0, 1.0), (4.0, 4.0), (16.0, 1.0)], 2.0) == pytest.approx(2.0)
    assert level_crossing([(1.0, 4.0), (4.0, 3.0)], 2.0) is None


def test_a_fit_for_every_setting_of_the_other_axes():
    fit = Fit("slope", over="size", printed=(Expected(("a",), -1.0), Expected(("b",), -1.0, or_less=True)))
    part = declared(fit)
    one, other = told(part, lambda who, size: size**-1.2 if who == "a" else size**-3.0)
    assert (one.labels, one.verdict) == ({"who": "a"}, "agrees")
    assert one.value == pytest.approx(-1.2)
    assert one.spread == pytest.approx(0, abs=1e-12)  # seeds differ by a factor, which no slope sees
    assert (other.at, other.verdict) == (("b",), "agrees")
    assert told(part, lambda who, size: size**-0.7)[0].verdict == "differs"
    assert told(part, lambda who, size: size**-0.7)[1].verdict == "differs"
    assert told(part, lambda who, size: None)[0].verdict == "no value"
    assert told(part, lambda who, size: size**-1.0, missing=1)[0].verdict == "runs of 6 cells to come"
    assert told(declared(Fit("s", "size")), lambda who, size: 1.0)[0].verdict == "nothing expected"
    assert told(declared(fit, shortened=True), lambda who, size: size)[0].verdict == "shortened, not compared"


def test_slopes_of_crossings_and_the_least_of_settings():
    fit = Fit("cross", over="size", how="crossing", level=1.0, then="who", printed=(Expected((), -2.0),))
    part = declared(fit, labels=("0.5", "1"))
    (one,) = told(part, lambda who, size: 4 / (size * float(who) ** 2) if who == "1" else 15.9 / size)
    assert one.value == pytest.approx(-2, abs=0.01)
    assert one.verdict == "agrees"
    least = declared(Fit("best", over="size", how="least", tolerance=0.1, printed=(Expected(("a",), 1.0),)))
    one, other = told(least, lambda who, size: None if size == 1 else size / 4)
    assert (one.value, one.verdict, other.value) == (1.0, "agrees", 1.0)
    with pytest.raises(UnknownName, match="axis"):
        declared(Fit("f", over="sizes"))


def test_the_mean_over_the_last_records():
    records = tuple({"t": t, "loss": loss} for t, loss in ((0, 9.0), (1, 1.0), (2, 2.0), (3, 3.0)))
    ended = Outcome(Status.COMPLETED, 3, 0.0, records)
    assert measured_value(TableMeasure("m", "loss", "tail", 2), ended) == 2.5
    assert measured_value(TableMeasure("m", "loss", "tail", 9), ended) == 3.75
    broken = Outcome(Status.COMPLETED, 3, 0.0, ({"t": 0, "loss": inf},))
    assert measured_value(TableMeasure("m", "loss", "tail", 2), broken) is None


SMALL = """
title = "Small"
paper = "a paper"
remarks = "What it is."
[[part]]
name = "line"
protocol = "as-written"
axes = ["rule", "rounds T"]
seeds = 12
measures = [{name = "gap", figure = "loss", digits = 3}]
fits = [{name = "slope", over = "rounds T", printed = [{at = ["mean"], value = -0.5}]}]
show = ["gap_share"]
against = ["rounds", "gradients", "bits"]
quick = {seeds = [0, 1], spec = {rounds = 5}}
cells = [{at = ["mean", "10"]}, {at = ["mean", "40"]}]
[part.spec]
task = {name = "hard_lin", theta = 0.05}
n = 6
f = 0
attackers = 0
lr = 0.02
[part.choices]
rule.mean = {rule = "mean"}
"rounds T"."10" = {rounds = 10}
"rounds T"."40" = {rounds = 40}
"""


@pytest.mark.slow
def test_from_a_declaration_to_a_page_with_a_fit(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    it = load_reproduction(path)
    assert it.parts[0].seeds == tuple(range(12))
    assert [spec.rounds for spec in it.chosen(quick=True).parts[0].sweep.specs()] == [5] * 4
    (plan,) = plan_parts(it, tmp_path / "store")
    assert run_sweep(plan, jobs=0).finished
    found = collect_tables(it, tmp_path / "store")
    assert found.fitted[0].value == pytest.approx(
        log_log_slope([(10.0, found.lines[0].mean), (40.0, found.lines[1].mean)])
    )
    made = {one.name for one in save_reproduction(found, tmp_path / "out")}
    assert {f"line-as-written-gap-share{by}-mean.png" for by in ("", "-by-bits", "-by-gradients")} <= made
    page = (tmp_path / "out" / "README.md").read_text()
    assert "| slope | rule mean | -0.50 |" in page
    assert "Seeds 0 to 11." in page
    assert "seed 3" not in page
    (fit,) = json.loads((tmp_path / "out" / "results.json").read_text())["fits"]
    assert fit["of"] == {"rule": "mean"}
    assert fit["value"] == found.fitted[0].value
    bits = (tmp_path / "out" / "line-as-written-gap-share-by-bits-mean.csv").read_text().splitlines()
    assert bits[0] == "series,seed,t,bits,Gap share"
    assert bits[-1].startswith("40,11,40,1280.0,")


def test_settings_of_the_slopes_follow_from_theory():
    for part in load_reproduction("byzantine-sgd/slopes").parts:
        for spec in part.sweep.specs() if part.name.startswith("line") else ():
            at = GuardSetting(spec.n, spec.f, spec.rounds, 1.0, 1.0)
            theta = rescaled(spec.n, spec.f, spec.rounds, 1.0, at.log)
            assert spec.task.theta == pytest.approx(theta, rel=1e-4)
            assert spec.lr == pytest.approx(nonsmooth_step(at, theta), rel=1e-3)
            assert (spec.attack.name == "hug") == (spec.f > 0)


def test_liars_of_the_lower_bounds_are_as_many_as_cannot_be_told():
    guessing, hug = load_reproduction("byzantine-sgd/lower-bounds").chosen(seeds=(0,)).parts
    for cell, spec in zip(guessing.cells, guessing.sweep.specs(), strict=True):
        slope_ = getattr(spec.task, "theta", None) or spec.task.mu * spec.task.distance
        share = len(spec.cohort.byzantine) / spec.n
        assert spec.attack.rounds == spec.rounds
        if cell.printed:
            assert limits.fraction(slope_, 1.0, spec.rounds) == pytest.approx(share, rel=1e-4)
        else:
            assert limits.fraction(slope_, 1.0, spec.rounds) > share
    for spec in hug.sweep.specs():
        at = GuardSetting(spec.n, spec.f, spec.rounds, 1.0, 1.0)
        assert spec.lr == pytest.approx(nonsmooth_step(at, spec.task.theta), rel=1e-3)


def test_every_method_and_attack_of_the_released_curves_is_declared():
    parts = {part.name: part for part in load_reproduction("byz-dm21/a9a").parts}
    baselines = {cell.at for cell in parts["baselines"].cells}
    assert len(baselines) == 9 * 5
    assert parts["baselines"].against == ("rounds", "gradients", "bits")
    assert {at[0] for at in baselines} == {"ALIE", "IPM", "SF", "LF", "NA"}
    assert parts["equal-steps"].seeds == (0, 1, 2)
