"""Reports on a store: what they group, the numbers they show, the page."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from byzopt.errors import InvalidInput, Status, UnknownName
from byzopt.experiments import Outcome, Spec
from byzopt.experiments.sweeps import Shelf, Sweep, Tune, run_sweep
from byzopt.reports.study import make
from byzopt.reports.study.cases import load, ordered

SPEC = {"task": "digits", "rounds": 10, "lr": 0.1, "eval_every": 5}
LOST = Outcome(Status.NO_MAJORITY, 0, 0.1, ({"t": 0, "loss": 2.0, "accuracy": 0.1},), "too many")


def ended(*accuracies: float, seconds: float = 2.0, **more: float) -> Outcome:
    """A run with these accuracies at rounds 0, 5, 10."""
    records = tuple(
        {"t": 5 * i, "loss": 2.0 - value, "accuracy": value, "gradients": 5.0 * i, "bits": 50.0 * i} | more
        for i, value in enumerate(accuracies)
    )
    return Outcome(Status.COMPLETED, 10, seconds, records)


def filled(root: Path, *runs: tuple[dict, Outcome]) -> Path:
    shelf = Shelf(root)
    for i, (keys, outcome) in enumerate(runs):
        shelf.put(f"{i:016x}", Spec.of(SPEC | keys), outcome, [], [])
    return root


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def store(tmp_path):
    """Two rules, two attacks, two seeds; one rule lost its majority once."""
    finals = {("mean", "none"): (0.9, 0.8), ("mean", "alie"): (0.3, None)}
    finals |= {("rfa", "none"): (0.7, 0.7), ("rfa", "alie"): (0.5, 0.6)}
    runs = [
        ({"rule": rule, "attack": attack, "seed": seed}, LOST if value is None else ended(0.1, 0.4, value))
        for (rule, attack), values in finals.items()
        for seed, value in enumerate(values)
    ]
    return filled(tmp_path / "st", *runs)


def test_a_map_holds_means_over_seeds_and_no_mean_where_a_run_failed(store, tmp_path):
    make(store).save(tmp_path / "out", html=False)
    cells = {(row["attack"], row["rule"]): row for row in read(tmp_path / "out" / "attack-by-rule.csv")}
    assert float(cells["none", "mean"]["mean"]) == pytest.approx(85)
    assert float(cells["alie", "rfa"]["mean"]) == pytest.approx(55)
    assert (cells["alie", "mean"]["mean"], cells["alie", "mean"]["failed"]) == ("", "1")


def test_the_worst_case_ranks_by_the_worst_attack_and_failure_is_last(store, tmp_path):
    make(store).save(tmp_path / "out", html=False)
    first, second = read(tmp_path / "out" / "worst-case.csv")
    assert (first["rule"], first["worst attack"], first["Test accuracy (%), mean"]) == (
        "rfa",
        "alie",
        "55.0 %",
    )
    assert first["over its seeds"] == "50.0 % to 60.0 %"
    assert (second["rule"], second["Test accuracy (%), mean"]) == ("mean", "failed")
    assert second["runs that failed"] == "1 of 4"


def test_the_cost_of_a_target_is_that_of_the_first_record_that_reaches_it(store, tmp_path):
    make(store, ("accuracy", 0.55)).save(tmp_path / "out", html=False)
    rows = {(row["rule"], row["attack"]): row for row in read(tmp_path / "out" / "to-target.csv")}
    assert rows["mean", "alie"]["seeds that reach it"] == "0 of 2"
    found = rows["rfa", "alie"]
    assert (found["seeds that reach it"], found["rounds"], found["bits / worker"]) == ("1 of 2", "10", "100")
    assert found["≈ s"] == "2"
    make(store, ("loss", 1.6)).save(tmp_path / "other", html=False)
    rows = {(row["rule"], row["attack"]): row for row in read(tmp_path / "other" / "to-target.csv")}
    assert rows["rfa", "none"]["rounds"] == "5"


def test_the_target_by_default_is_nine_tenths_of_the_way(store):
    (sheet,) = [sheet for sheet in make(store).sheets if sheet.name == "to-target"]
    assert "at least 82" in sheet.caption  # from 10 to 90


def test_a_target_that_no_record_has_is_refused(store):
    with pytest.raises(UnknownName, match="acuracy"):
        make(store, ("acuracy", 0.5))


def test_curves_hold_every_record_of_every_seed(store, tmp_path):
    make(store).save(tmp_path / "out", html=False)
    rows = read(tmp_path / "out" / "accuracy-attack-none.csv")
    assert len(rows) == 2 * 2 * 3
    assert {(row["series"], row["seed"], row["t"]) for row in rows} >= {("mean", "1", "10")}
    for kind in ("png", "svg"):
        assert (tmp_path / "out" / f"accuracy-attack-none.{kind}").stat().st_size > 1000


def test_tolerance_by_heterogeneity_is_of_the_worst_attack(tmp_path):
    def task(alpha: float) -> dict:
        return {"task": {"name": "digits", "partition": {"name": "dirichlet", "alpha": alpha}}}

    store = filled(
        tmp_path / "st",
        *[
            ({"rule": "mean", "attack": attack, "f": f} | task(alpha), ended(0.1, 0.2, value - 0.01 * f))
            for attack, value in (("none", 0.9), ("alie", 0.5))
            for f in (1, 2)
            for alpha in (0.1, 10.0)
        ],
    )
    make(store).save(tmp_path / "out", html=False)
    cells = read(tmp_path / "out" / "f-by-heterogeneity.csv")
    assert {(row["f"], row["split of the data"]): float(row["mean"]) for row in cells} == {
        ("1", "dirichlet(alpha=0.1)"): pytest.approx(49),
        ("1", "dirichlet(alpha=10)"): pytest.approx(49),
        ("2", "dirichlet(alpha=0.1)"): pytest.approx(48),
        ("2", "dirichlet(alpha=10)"): pytest.approx(48),
    }


def test_bounds_stand_beside_measurements(tmp_path):
    kept = ({"rule": "mean", "seed": 0}, ended(0.1, 0.5, 0.9, loss_bound=2.0))
    broken = ({"rule": "mean", "seed": 1}, ended(0.1, 0.5, 0.9, loss_bound=1.0))
    report = make(filled(tmp_path, kept, broken))
    (sheet,) = [sheet for sheet in report.sheets if sheet.name == "bounds"]
    assert [row[-1] for row in sheet.rows] == ["holds", "EXCEEDED"]
    assert sheet.rows[0][-4:-1] == ("1.1", "2", "0.55")


def test_labels_show_what_varies_under_a_name_and_nothing_else(tmp_path):
    attacks = [{"name": "ipm", "scale": 1.0}, {"name": "ipm", "scale": 2.0}, "alie"]
    study = load(filled(tmp_path, *[({"rule": "mean", "attack": a}, ended(0.1, 0.2)) for a in attacks]))
    assert study.values("attack") == ["ipm(scale=1)", "ipm(scale=2)", "alie"]
    assert study.varied == ["attack"]
    assert study.fixed["task"] == "digits"


def test_labels_are_ordered_as_people_count():
    assert ordered(["10", "9", "none", "b", "a", "x(alpha=0.5)"]) == [
        "x(alpha=0.5)",
        "9",
        "10",
        "none",
        "a",
        "b",
    ]


class Page(HTMLParser):
    """What a page asks a browser to fetch, its ids, and whether its elements nest."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched, self.ids, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        told = dict(attrs)
        self.fetched += [told[name] for name in ("src", "href", "xlink:href") if name in told]
        self.ids += [told["id"]] if "id" in told else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else_and_is_made_for_phones(store, tmp_path):
    make(store).save(tmp_path / "out", html=True)
    text = (tmp_path / "out" / "index.html").read_text()
    page = Page(text)
    assert not page.open
    assert all(link.startswith(("#", "data:")) for link in page.fetched)
    assert len(set(page.ids)) == len(page.ids)
    assert "<script" not in text
    assert 'name="viewport"' in text
    assert text.count("<svg") == 1 + 2 + 2  # a map; accuracy and loss, an attack each
    assert "too many" in text  # the reason of the run that failed
    for target in re.findall(r'xlink:href="#([^"]+)"', text):
        assert target in page.ids


def test_names_are_escaped(tmp_path):
    outcome = Outcome(Status.ERROR, 0, 0.0, (), "<b>bad & worse</b>")
    report = make(filled(tmp_path / "st", ({"rule": "mean"}, outcome), ({"rule": "rfa"}, ended(0.1, 0.2))))
    report.save(tmp_path / "out", html=True)
    assert "&lt;b&gt;bad &amp; worse" in (tmp_path / "out" / "index.html").read_text()


def test_a_store_where_all_failed_still_has_a_report(tmp_path):
    failed = Outcome(Status.ERROR, 0, 0.0, (), "no")
    report = make(filled(tmp_path / "st", ({"rule": "mean"}, failed)))
    assert report.save(tmp_path / "out", html=True)


def test_damage_is_named_and_left_out(store):
    victim = store / f"{0:016x}"
    (victim / "records.parquet").write_bytes(b"")
    report = make(store)
    assert list(report.study.damaged) == [victim.name]
    assert len(report.study.cases) == 7


def test_a_store_without_runs_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="finished run"):
        make(tmp_path)


def test_the_numbers_behind_a_chart_are_at_full_precision(tmp_path):
    store = filled(tmp_path / "st", ({"rule": "mean"}, ended(0.1, 1 / 3, 2 / 3)))
    make(store).save(tmp_path / "out", html=False)
    assert [float(row["accuracy"]) for row in read(tmp_path / "out" / "accuracy.csv")] == [0.1, 1 / 3, 2 / 3]
    assert (
        json.loads((store / f"{0:016x}" / "result.json").read_text())["variants"]["main"]["accuracy"] == 2 / 3
    )


def test_what_a_sweep_chose_is_a_table(tmp_path):
    spec = {"task": "quartic", "rounds": 6, "eval_every": 3}
    grid = {"rule": ["mean", "nnm >> krum"], "lr": [0.01, 0.2], "seed": [0, 1]}
    swept = run_sweep(Sweep(spec=spec, grid=grid, tune=Tune(("lr",), "loss")), tmp_path / "st", jobs=0)
    make(tmp_path / "st").save(tmp_path / "out", html=True)
    (path,) = (tmp_path / "out").glob("tuned-*.csv")
    rows = {row["rule"]: row for row in read(path)}
    for cell in swept.tuned["cells"]:
        row = rows[cell["cell"]["rule"]]
        assert float(row["lr"]) == cell["chosen"]["lr"]
        assert float(row["loss"]) == pytest.approx(cell["score"], rel=1e-3)
    assert "Tuned settings" in (tmp_path / "out" / "index.html").read_text()


def test_bounds_of_theorems_are_put_beside_stored_runs(tmp_path):
    task = {"name": "quadratic", "d": 5, "noise": 0.0, "gap": True}
    spec = {
        "task": task,
        "method": "robust_gd",
        "rule": "nnm >> krum",
        "rounds": 12,
        "eval_every": 4,
        "lr": 0.1,
    }
    run_sweep(
        Sweep(spec=spec, grid={"attack": ["alie", "bit_flip"], "seed": [0, 1]}), tmp_path / "st", jobs=0
    )
    (sheet,) = (sheet for sheet in make(tmp_path / "st", bounds=True).sheets if sheet.name == "bounds")
    assert len(sheet.rows) == 4
    for row in sheet.rows:
        assert row[-5] == "gap"
        assert float(row[-4]) <= float(row[-3])
    assert not [sheet for sheet in make(tmp_path / "st").sheets if sheet.name == "bounds"]
