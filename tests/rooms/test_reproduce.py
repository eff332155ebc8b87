"""Papers as commands: declarations, verdicts, tables and pages from stored runs, the command itself."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch

from byzopt.errors import InvalidInput, Status, UnknownName
from byzopt.experiments.specs.spec import Spec
from byzopt.experiments.sweeps import run_sweep
from byzopt.experiments.trials.outcome import Outcome
from byzopt.reports.reproduction import reproduction_charts, save_reproduction
from byzopt.reports.reproduction_page import (
    attack_sentence,
    cell_columns,
    cell_row,
    reproduction_markdown,
    verdict_counts,
)
from byzopt.reproductions.devices import on_device
from byzopt.reproductions.loading import load_reproduction, reproductions
from byzopt.reproductions.reproduction import Cell, Fit, Part, Quick, Reproduction, TableMeasure
from byzopt.reproductions.running import (
    ReproducedTables,
    collect_tables,
    measured_value,
    plan_parts,
    seconds_left,
)
from byzopt.reproductions.verdict import compare_cell

TINY = """
title = "Tiny"
paper = "a paper"

[[part]]
name = "quartic"
protocol = "as-written"
axes = ["attack", "method"]
seeds = [0, 1]
source = "a table"
measures = [
  {name = "norm", figure = "grad_norm"},
  {name = "rounds", figure = "grad_norm", how = "first_below", at = 60.0, digits = 0},
]
show = ["grad_norm"]
cells = [
  {at = ["BF", "Ours"], lr = 0.1, printed = [1.0, 0.5]},
  {at = ["BF", "Base"], lr = 0.01},
]
quick = {seeds = [1], spec = {rounds = 5}}

[part.spec]
task = "quartic"
rounds = 20
n = 10
f = 2
rule = "nnm >> median"

[part.choices]
attack.BF = {attack = "bit_flip"}
method.Ours = {method = "byz_nsgdm"}
method.Base = {method = "robust_sgdm"}
"""


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def part(**changes):
    usual = {"name": "p", "protocol": "q", "axes": ("a",), "choices": {"a": {"x": {}}}}
    usual |= {"cells": (), "measures": (TableMeasure("m", "loss"),), "seeds": (0, 1, 2)}
    return Part(**(usual | changes))


def verdict(values, printed=(10.0, 0.8), missing=0, kind="printed", **changes):
    cell = Cell(("x",), printed={} if printed is None else {"m": printed}, kind=kind)
    own = part(**changes)
    return compare_cell(own, cell, own.measures[0], dict(enumerate(values)), missing).verdict


@pytest.mark.parametrize("name", reproductions())
def test_every_declaration_loads_and_all_its_runs_are_valid(name):
    it = load_reproduction(name)
    assert it.title
    assert it.paper
    assert it.remarks
    for one in it.parts:
        runs = one.sweep.expand().runs
        assert len(runs) == len(one.cells) * len(one.seeds), "cells that are one run"
        assert (
            all(cell.kind != "unprinted" for cell in one.cells)
            or one.beside != "paper"
            or one.runs != 3
            or one.map
        )
    short = it.chosen(quick=True)
    assert sum(len(p.cells) * len(p.seeds) for p in short.parts) < sum(
        len(p.cells) * len(p.seeds) for p in it.parts
    )


def test_tables_are_whole():
    it = load_reproduction("byz-nsgdm/table1")
    assert {(one.name, one.protocol, len(one.cells)) for one in it.parts} == {
        (name, protocol, 27)
        for name in ("quartic", "mnist", "shakespeare")
        for protocol in ("as-released", "as-written")
    }
    assert len(it.chosen(["quartic,as-released"]).parts) == 1
    kinds = [cell.kind for cell in it.chosen(["quartic,as-released"]).parts[0].cells]
    assert kinds.count("chaotic") == 4
    assert load_reproduction("byz-nsgdm/figure3").parts[0].cells == it.parts[0].cells


def test_attackers_copy_whom_the_authors_runs_copied():
    it = load_reproduction("byz-nsgdm/table1").chosen(["mnist,as-released,Mimic,RFA,Ours"])
    specs = it.parts[0].sweep.specs()
    assert [(spec.seed, spec.attack.index) for spec in specs] == [(0, 6), (42, 2), (123, 14)]


def test_verdicts():
    # Mean 10, deviation with divisor 3 of 0.8165: both print as the paper's.
    assert verdict((9.0, 10.0, 11.0)) == "to the digit"
    assert verdict((9.0, 10.0, 11.1)) == "agrees"
    assert verdict((12.0, 13.0, 14.0)) == "differs"
    assert verdict((12.0, 13.0, 14.0), tolerance=2.0) == "agrees"
    assert verdict((12.0, 13.0, 14.0), relative=0.2) == "agrees"
    # Two standard errors of the difference: 2 sqrt(2 * 0.96 / 3) = 1.6, and half a printed digit.
    assert verdict((11.6, 11.6, 11.6), (10.0, 0.0)) == "differs"
    # A single run has no spread, and the paper's is not its own.
    assert verdict((10.0,), (10.0, 0.8)) == verdict((78.4,), (91.9, 4.6)) == "one run"
    assert verdict((9.0,), (10.0, 0.8), missing=2) == "one run; 2 of 3 runs to come"
    assert verdict((10.04,), (10.0, None)) == "agrees"
    assert verdict((11.9,), (10.0, None), tolerance=2.0) == "agrees"
    assert verdict((10.2,), (10.0, 0.0)) == "differs"
    assert verdict((9.0, None, 11.0)) == "no value in 1 of 3 runs"
    assert verdict((9.0, 10.0), missing=1) == "agrees; 1 of 3 runs to come"
    assert verdict((), missing=3) == "3 of 3 runs to come"
    assert verdict((9.0, 10.0, 11.0), None) == "nothing printed"
    assert verdict((99.0,), kind="chaotic") == "chaotic, not compared"
    assert verdict((89.0, 98.0, 98.1), kind="bimodal", mode=95.0) == "bimodal: 2 of 3 above 95"
    assert verdict((9.0, 10.0, 11.0), shortened=True) == "shortened, not compared"


@pytest.mark.parametrize(
    "measure, value, told",
    [
        (TableMeasure("m", "loss", "first_below", 0.1, digits=0), 30.0, "agrees"),
        (TableMeasure("m", "loss", "first_below", 0.1, digits=0), 40.0, "differs"),
        (
            TableMeasure("m", "loss", "first_below", 0.1, digits=0),
            60.0,
            "shortened, not compared",
        ),  # at the end
        (
            TableMeasure("m", "loss", "first_below", 0.1, digits=0),
            None,
            "shortened, not compared",
        ),  # or later
        (TableMeasure("m", "loss", "first_below", 0.1, scale=2.0, digits=0), 60.0, "differs"),
        (TableMeasure("m", "loss", "at", 59.0), 30.0, "agrees"),
        (TableMeasure("m", "loss", "at", 60.0), 30.0, "shortened, not compared"),
        (TableMeasure("m", "loss"), 30.0, "shortened, not compared"),
        (TableMeasure("m", "loss", "least"), 30.0, "shortened, not compared"),
        (TableMeasure("m", "loss", "tail", 2.0), 30.0, "shortened, not compared"),
    ],
)
def test_what_shortening_cannot_change_is_judged(measure, value, told):
    short = {"measures": (measure,), "shortened": True}
    assert verdict((value,), (30.0, None), unchanged=60, **short) == told
    assert verdict((value,), (30.0, None), **short) == "shortened, not compared"


SHORT = {
    "fewer rounds": ({}, {"rounds": 5, "eval_every": 2}, 5),
    "looked at elsewhere": ({}, {"rounds": 5, "eval_every": 1}, 0),
    "another size": ({}, {"rounds": 5, "eval_every": 2, "n": 12}, 0),
    "other data": ({}, {"rounds": 5, "eval_every": 2, "task": {"name": "quartic", "d": 3}}, 0),
    "a schedule by the horizon": (
        {"method": {"name": "byz_nsgdm", "schedule": "fixed_horizon"}},
        {"rounds": 5, "eval_every": 2},
        0,
    ),
}


@pytest.mark.parametrize("measure", [TableMeasure("m", "loss", "at", 2.0), TableMeasure("m", "loss")])
@pytest.mark.parametrize("case", SHORT)
def test_a_shortened_part_knows_which_of_its_rounds_are_those_of_the_whole(case, measure):
    more, quick, rounds = SHORT[case]
    spec = {"task": "quartic", "rule": "mean", "method": "robust_sgdm", "rounds": 20, "lr": 0.1}
    spec |= {"eval_every": 2} | more
    choices = {"a": {"x": {"attack": "alie"}}}
    own = part(
        choices=choices, cells=(Cell(("x",)),), spec=spec, quick=Quick(spec=quick), measures=(measure,)
    )
    (short,) = Reproduction("r", "t", "p", (own,)).chosen(quick=True).parts
    assert short.shortened
    assert short.unchanged == (rounds if measure.how == "at" else 0)  # a last value is never an early one


def test_a_chart_by_size_leaves_out_what_some_seed_has_no_value_of(tmp_path):
    fit = Fit("slope of m", "a")
    cells = tuple(Cell((size,)) for size in ("1", "2", "4"))
    own = part(choices={"a": {"1": {}, "2": {}, "4": {}}}, cells=cells, fits=(fit,))
    values = [{0: 1.0, 1: 3.0}, {0: 1.0, 1: None}, {0: 4.0, 1: 6.0}]
    lines = tuple(compare_cell(own, *one, 1) for one in zip(cells, own.measures * 3, values, strict=True))
    found = {(own.name, own.protocol, cell.at): [] for cell in cells}
    (chart,) = reproduction_charts(ReproducedTables(Reproduction("r", "t", "p", (own,)), found, lines))
    assert [(row["a"], row["m, mean"], row["m, count"]) for row in chart.rows] == [
        (1.0, 2.0, 2),
        (4.0, 5.0, 2),
    ]
    assert "left out: 1" in chart.caption


def test_a_cell_may_have_a_limit():
    for limit, sign, low, high in (
        ("at_least", "≥", "differs", "agrees"),
        ("at_most", "≤", "agrees", "differs"),
    ):
        measure, cell = TableMeasure("m", "loss"), Cell(("x",), printed={"m": (1.0, None)}, limit=limit)
        own = part(cells=(cell,), measures=(measure,), tolerance=5.0)
        for values, told in (
            ({0: 0.5, 1: 0.9}, low),
            ({0: 1.1, 1: 9.0}, high),
            ({0: 0.9, 1: 1.1}, "differs"),
        ):
            line = compare_cell(own, cell, measure, values, 0)
            assert (line.verdict, line.difference) == (told, None)
            assert f"{sign} 1.0" in cell_row(line)
        assert compare_cell(own, cell, measure, {0: None, 1: 1.1}, 0).verdict == "no value in 1 of 2 runs"


def test_a_cell_may_have_a_tolerance_of_its_own():
    measure = TableMeasure("m", "loss")
    for own, told in ((None, "agrees"), (0.5, "differs"), (2.0, "agrees")):
        cell = Cell(("x",), printed={"m": (1.0, None)}, tolerance=own)
        one = part(cells=(cell,), measures=(measure,), tolerance=1.5)
        assert compare_cell(one, cell, measure, {0: 2.0}, 0).verdict == told


def test_orientation_figures_are_marked_as_our_own():
    measure, cell = TableMeasure("m", "loss"), Cell(("x",), printed={"m": (1.0, None)})
    for named, head in (("paper", "paper"), ("theory", "theory"), ("orientation", "orientation (our own)")):
        own = part(cells=(cell,), measures=(measure,), beside=named)
        line = compare_cell(own, cell, measure, {0: 1.0}, 0)
        assert head in cell_columns(own)
        assert verdict_counts([line]) == ("Verdicts" + f" beside {head}" * (named != "paper") + ": 1 agrees.")
        page = reproduction_markdown(ReproducedTables(Reproduction("r", "t", "p", (own,)), {}, (line,)))
        assert f"| {head} |" in page


def test_attackers_can_be_spread_over_the_labels_of_mnist():
    sizes = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]  # of the training set's labels
    labels = torch.arange(10).repeat_interleave(torch.tensor(sizes))
    held = {}
    for name in ("byz-nsgdm/table1", "byz-nsgdm/mnist-spread"):
        own = next(
            one
            for one in load_reproduction(name).parts
            if one.name == "mnist" and one.protocol != "as-released"
        )
        spec = own.sweep.specs()[0]
        shards = spec.task.partition.split(labels, len(labels), spec.n, torch.Generator())
        held[own.protocol] = {int(label) for i in spec.cohort.honest for label in labels[shards[i]].unique()}
        assert len(own.cells) == 27
    assert held == {"as-written": set(range(9)), "liars-spread": set(range(10))}
    (as_written,) = load_reproduction("byz-nsgdm/table1").chosen(["mnist,as-written"]).parts
    assert "89.9 %" in " ".join(as_written.remarks.split())


def test_stored_pages_say_what_their_numbers_say_today():
    """After a change to verdicts, words or declarations: python scripts/pages.py."""
    place = Path(__file__).parents[2] / "scripts" / "pages.py"
    spec = importlib.util.spec_from_file_location("pages", place)
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    stale = [path.name for path, text in pages.made().items() if path.read_text(encoding="utf-8") != text]
    assert not stale


def test_what_is_read_off_records():
    records = tuple({"t": t, "gap": gap} for t, gap in ((0, 1.0), (2, 0.3), (4, 0.2), (6, 0.25)))
    ended = Outcome(Status.COMPLETED, 6, 0.0, records)
    assert measured_value(TableMeasure("a", "gap"), ended) == 0.25
    assert measured_value(TableMeasure("a", "gap", "least", scale=10.0), ended) == 2.0
    assert measured_value(TableMeasure("a", "gap", "at", 2), ended) == 0.3
    assert measured_value(TableMeasure("a", "gap", "first_below", 0.3), ended) == 2
    assert measured_value(TableMeasure("a", "gap", "first_below", 0.1), ended) is None
    assert measured_value(TableMeasure("a", "gap", "at", 3), ended) is None
    assert measured_value(TableMeasure("a", "other"), ended) is None
    assert measured_value(TableMeasure("a", "gap"), Outcome(Status.DIVERGED, 6, 0.0, records)) is None


def test_a_reproduction_from_runs_to_its_page(tiny, tmp_path):
    it, store = load_reproduction(tiny), tmp_path / "store"
    before = collect_tables(it, store)
    assert {line.verdict for line in before.lines} == {"2 of 2 runs to come"}
    (plan,) = plan_parts(it, store)
    assert plan.to_play == 4
    assert seconds_left(plan) > 0
    assert run_sweep(plan, jobs=0).finished
    assert plan_parts(it, store)[0].to_play == 0  # stored runs are not run again
    told = collect_tables(it, store)
    assert [line.verdict for line in told.lines] == ["differs", *["nothing printed"] * 3]
    made = {path.name for path in save_reproduction(told, tmp_path / "out")}
    assert {"README.md", "results.json", "quartic-as-written-grad_norm-BF.png"} <= {
        name.replace("grad-norm", "grad_norm") for name in made
    }
    numbers = json.loads((tmp_path / "out" / "results.json").read_text())
    first = numbers["cells"][0]
    outcome = plan.store.read_outcome(first["runs"]["1"])
    assert first["values"]["1"] == outcome.metrics["grad_norm"]
    assert first["paper"] == [1.0, 0.5]
    assert first["spec"]["lr"] == 0.1
    assert numbers["environment"]
    page = (tmp_path / "out" / "README.md").read_text()
    assert "| BF | Ours | norm | 1.0 ± 0.5 |" in page
    assert "seed 1" in page
    assert "The verdicts rest on `bit_flip`, and on no attack that searches" in page


@pytest.mark.parametrize(
    ("attacks", "said"),
    [
        (["alie", "ipm", "alie", "none"], "rest on `alie`, `ipm`, and on no attack that searches"),
        (["autobyz", "ipm"], "`autobyz` searches each round"),
        (["none"], "Nobody attacks in these runs"),
        ([], ""),
    ],
    ids=["prescribed", "searched", "nobody", "no runs"],
)
def test_a_page_says_on_which_attacks_its_verdicts_rest(attacks, said):
    base = {
        "task": "quartic",
        "rule": "median",
        "method": "robust_gd",
        "lr": 0.1,
        "n": 9,
        "f": 2,
        "rounds": 2,
    }
    found = attack_sentence([Spec.of(base | {"attack": attack}) for attack in attacks])
    assert said in found
    assert bool(found) == bool(attacks)
    calm = attack_sentence([Spec.of(base | {"attack": "alie", "attackers": 0})])
    assert "Nobody attacks" in calm


def test_choices(tiny):
    it = load_reproduction(tiny)
    assert [cell.at for cell in it.chosen(["base"]).parts[0].cells] == [("BF", "Base")]
    assert it.chosen(seeds=(7,)).parts[0].seeds == (7,)
    short = it.chosen(quick=True).parts[0]
    assert short.shortened
    assert short.seeds == (1,)
    assert short.spec["rounds"] == 5
    assert it.parts[0].spec["rounds"] == 20
    with pytest.raises(InvalidInput, match="Known words"):
        it.chosen(["nothing"])
    with pytest.raises(UnknownName, match="reproduction"):
        load_reproduction("byz-nsgdm/tabel1")


@pytest.mark.parametrize(
    "old, new, told",
    [
        ('title = "Tiny"', 'titel = "Tiny"', "Did you mean 'title'"),
        ("[[part]]", "[part]", "`part` of reproduction tiny should be a list of tables"),
        ('name = "quartic"', 'nme = "quartic"', "Did you mean 'name'"),
        ("  {at = ", "  {to = ", "labels, `at`"),
        ("[1.0, 0.5]", '["much"]', "`printed` of a cell of part quartic"),
        ("[1.0, 0.5]", "[1.0, 0.5, 2.0]", "`printed` of a cell of part quartic"),
        ("measures = [", "fits = 3\nmeasures = [", "`fits` of part quartic should be a list"),
        ("{seeds = [1], spec = {rounds = 5}}", "true", "`quick` of part quartic should be a table"),
        ('attack.BF = {attack = "bit_flip"}', "", "none for attack"),
        ('"BF", "Ours"', '"FB", "Ours"', "Unknown attack 'FB'"),
        ('"BF", "Ours"', '"BF"', "labels for"),
        ("seeds = [0, 1]", 'seeds = "two"', "`seeds`"),
        (
            'name = "quartic"',
            'from = "byz-nsgdm/table1"\nname = "quatic"',
            "Unknown part 'quatic as",
        ),
        ("title", "[title", "valid TOML"),
    ],
)
def test_what_is_no_declaration_is_refused_in_words(tiny, old, new, told):
    assert old in TINY
    tiny.write_text(TINY.replace(old, new, 1))
    with pytest.raises(InvalidInput, match=re.escape(told)):
        load_reproduction(tiny)


def test_a_declaration_needs_measures(tiny):
    before, _, rest = TINY.partition("measures = [")
    tiny.write_text(before + rest.partition("]\n")[2])
    with pytest.raises(InvalidInput, match="`measures` of part quartic"):
        load_reproduction(tiny)


def test_only_what_has_a_device_goes_to_it():
    it = load_reproduction("byz-nsgdm/table1").chosen(["RFA,BF,Ours"])
    placed = on_device(it, "meta")
    devices = {
        (one.name, one.protocol): getattr(one.sweep.specs()[0].task, "device", None) for one in placed.parts
    }
    assert devices["quartic", "as-released"] is None
    assert devices["mnist", "as-released"] == devices["mnist", "as-written"] == "meta"
    assert on_device(it, "cpu") is it


def test_the_command(tiny, tmp_path, byzopt, monkeypatch):
    def call(*words):
        return byzopt("reproduce", *words)

    store = str(tmp_path / "store")
    status, out, _ = call()
    assert status == 0
    assert "byz-nsgdm/table1" in out
    status, out, err = call(str(tiny), "--store", store, "--dry-run", "--quick")
    assert status == 0
    assert not out
    assert "2 of 2 runs to come" in err
    assert "only its first rounds are compared" in err
    status, out, err = call(str(tiny), "--store", store, "--jobs", "0")
    assert status == 0
    assert "differs" in out
    assert "4 of 4 runs to come" in err
    assert re.search(r"^in all at most about \d+ s of one core", err, re.MULTILINE)  # before it begins
    assert re.search(r"^all runs took \d+ s$", err, re.MULTILINE)
    assert re.search(r"^4 runs, \d+ s of computing in all$", out, re.MULTILINE)
    status, out, err = call(str(tiny), "--store", store, "--jobs", "0", "--json", "--cells", "Ours")
    assert status == 0
    assert len(json.loads(out)["cells"]) == 2
    assert "0 of 2 runs to come" in err
    assert "took" not in err
    next((tmp_path / "store").glob("*/result.json")).unlink()
    monkeypatch.setattr("byzopt.reproductions.running.seconds_left", lambda plan: pytest.fail("timed again"))
    status, out, err = call(str(tiny), "--store", store, "--jobs", "0", "--checkpoint-every", "0.5")
    assert status == 0
    assert "1 of 4 runs to come" in err
    assert call(str(tiny), "--store", str(tmp_path / "new"), "--checkpoint-every", "0")[0] == 2
    assert call(str(tiny), "--seeds", "a")[0] == 2


def test_a_page_holds_no_markup_but_its_own_and_the_declarations_formatting(tmp_path):
    hostile = "a|b<script>1</script>[x](javascript:alert(1))\\u001b[2J"
    text = TINY.replace('"BF"', f'"{hostile}"').replace("attack.BF", f'attack."{hostile}"')
    for plain in ("Tiny", "a paper", "a table"):
        text = text.replace(f'"{plain}"', f'"{hostile} {plain} *told* [here](https://a.b/c)"')
    text = text.replace('name = "norm"', f'name = "norm {hostile}"').replace("[0, 1]", "[0]")
    path = tmp_path / "hostile.toml"
    path.write_text(text)
    it = load_reproduction(path)
    for plan in plan_parts(it, tmp_path / "store"):
        run_sweep(plan, jobs=0)
    page = reproduction_markdown(collect_tables(it, tmp_path / "store"))
    assert not re.search(r"<(?=[a-zA-Z/!?])", page)
    assert not re.search(r"(?<!\\)\]\(javascript", page)
    assert "\x1b" not in page
    assert "*told* [here](https://a.b/c)" in page  # what the paper is and its source may be formatted
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 4
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows} == {len(cell_columns(it.parts[0])) + 1}
