"""Reports on a store: what they group, the numbers they show, the page."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from byzopt.errors import InvalidInput, Status, UnknownName
from byzopt.experiments import Outcome, Spec
from byzopt.experiments.sweeps import RunStore, Sweep, Tune, run_sweep
from byzopt.reports.study import captions, latex, make_report, page, save_study
from byzopt.reports.study.cases import Case, WorkerCounts, load_study, ordered
from byzopt.reports.study.chart import Chart
from byzopt.reports.study.latex_tables import latex_table
from byzopt.reports.study.sheet import ReportTable

SPEC = {"task": "digits", "rounds": 10, "lr": 0.1, "eval_every": 5}
MEAN = "Test accuracy (%), mean"
LOST = Outcome(Status.NO_MAJORITY, 0, 0.1, ({"t": 0, "loss": 2.0, "accuracy": 0.1},), "too many")


def ended(*accuracies: float, seconds: float = 2.0, **more: float) -> Outcome:
    """A run with these accuracies at rounds 0, 5, 10."""
    records = tuple(
        {"t": 5 * i, "loss": 2.0 - value, "accuracy": value, "gradients": 5.0 * i, "bits": 50.0 * i} | more
        for i, value in enumerate(accuracies)
    )
    return Outcome(Status.COMPLETED, 10, seconds, records)


def filled(root: Path, *runs: tuple[dict, Outcome]) -> Path:
    store = RunStore(root)
    for i, (keys, outcome) in enumerate(runs):
        store.save_run(f"{i:016x}", Spec.of(SPEC | keys), outcome, [], [])
    return root


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def drawn():
    """For tests that look at drawings: the others are spared them."""


@pytest.fixture(autouse=True)
def spared(request, monkeypatch):
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(Chart, "_bytes", lambda self, kind: b"<svg></svg>")


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
    save_study(make_report(store), tmp_path / "out", html=False)
    cells = {(row["attack"], row["rule"]): row for row in read(tmp_path / "out" / "attack-by-rule.csv")}
    assert float(cells["none", "mean"][MEAN]) == pytest.approx(85)
    assert float(cells["none", "mean"]["Test accuracy (%), sd"]) == pytest.approx(50**0.5)
    assert float(cells["alie", "rfa"][MEAN]) == pytest.approx(55)
    lost = cells["alie", "mean"]
    assert (lost[MEAN], lost["Test accuracy (%), count"], lost["runs that failed"]) == ("", "1", "1")


def test_the_worst_case_ranks_by_the_worst_attack_and_failure_is_last(store, tmp_path):
    save_study(make_report(store), tmp_path / "out", html=False)
    first, second = read(tmp_path / "out" / "worst-case.csv")
    assert (first["rule"], first["worst attack"], float(first[MEAN])) == ("rfa", "alie", 55.0)
    assert [float(first[f"Test accuracy (%), {end}"]) for end in ("least", "largest")] == [50.0, 60.0]
    assert (second["rule"], second["worst attack"], second[MEAN]) == ("mean", "alie", "")
    assert (second["runs that failed"], second["runs"]) == ("1", "4")


def test_the_cost_of_a_target_is_that_of_the_first_record_that_reaches_it(store, tmp_path):
    save_study(make_report(store, ("accuracy", 0.55)), tmp_path / "out", html=False)
    rows = {(row["rule"], row["attack"]): row for row in read(tmp_path / "out" / "to-target.csv")}
    assert (rows["mean", "alie"]["seeds that reach it"], rows["mean", "alie"]["rounds, median"]) == ("0", "")
    found = rows["rfa", "alie"]
    assert (found["seeds that reach it"], found["seeds"]) == ("1", "2")
    assert [float(found[f"rounds, {of}"]) for of in ("median", "least", "largest")] == [10.0] * 3
    assert (float(found["bits / worker, median"]), float(found["≈ s, median"])) == (100.0, 2.0)
    save_study(make_report(store, ("loss", 1.6)), tmp_path / "other", html=False)
    rows = {(row["rule"], row["attack"]): row for row in read(tmp_path / "other" / "to-target.csv")}
    assert float(rows["rfa", "none"]["rounds, median"]) == 5


def test_the_target_by_default_is_nine_tenths_of_the_way(store):
    (sheet,) = [sheet for sheet in make_report(store).sheets if sheet.name == "to-target"]
    assert "at least 82" in sheet.caption  # from 10 to 90


def test_a_target_that_no_record_has_is_refused(store):
    with pytest.raises(UnknownName, match="acuracy"):
        make_report(store, ("acuracy", 0.5))


@pytest.mark.slow
def test_curves_hold_every_record_of_every_seed(store, tmp_path, drawn):
    save_study(make_report(store), tmp_path / "out", html=False)
    rows = read(tmp_path / "out" / "accuracy-attack-none.csv")
    assert len(rows) == 2 * 2 * 3
    assert {(row["series"], row["seed"], row["t"]) for row in rows} >= {("mean", "1", "10")}
    for kind in ("png", "svg", "pdf"):
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
    save_study(make_report(store), tmp_path / "out", html=False)
    cells = read(tmp_path / "out" / "f-by-heterogeneity.csv")
    assert {(row["f"], row["split of the data"]): float(row[MEAN]) for row in cells} == {
        ("1", "dirichlet(alpha=0.1)"): pytest.approx(49),
        ("1", "dirichlet(alpha=10)"): pytest.approx(49),
        ("2", "dirichlet(alpha=0.1)"): pytest.approx(48),
        ("2", "dirichlet(alpha=10)"): pytest.approx(48),
    }


def test_bounds_stand_beside_measurements(tmp_path):
    kept = ({"rule": "mean", "seed": 0}, ended(0.1, 0.5, 0.9, loss_bound=2.0))
    broken = ({"rule": "mean", "seed": 1}, ended(0.1, 0.5, 0.9, loss_bound=1.0))
    report = make_report(filled(tmp_path, kept, broken))
    (sheet,) = [sheet for sheet in report.sheets if sheet.name == "bounds"]
    assert [row[-1] for row in sheet.rows] == ["holds", "EXCEEDED"]
    assert sheet.rows[0][-4:-1] == pytest.approx((1.1, 2, 0.55))
    assert sheet.texts[0][-4:-1] == ("1.1", "2", "0.55")


def test_labels_show_what_varies_under_a_name_and_nothing_else(tmp_path):
    attacks = [{"name": "ipm", "scale": 1.0}, {"name": "ipm", "scale": 2.0}, "alie"]
    study = load_study(filled(tmp_path, *[({"rule": "mean", "attack": a}, ended(0.1, 0.2)) for a in attacks]))
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


def test_final_values_have_mean_spread_and_count_of_every_figure_in_numbers(store, tmp_path):
    save_study(make_report(store), tmp_path / "out", html=False)
    rows = {(row["rule"], row["attack"]): row for row in read(tmp_path / "out" / "final-values.csv")}
    assert len(rows) == 4
    found = rows["mean", "none"]
    assert [float(found[f"Test accuracy (%), {of}"]) for of in ("mean", "sd", "count")] == pytest.approx(
        [85, 50**0.5, 2]
    )
    assert [float(found[f"Loss, {of}"]) for of in ("mean", "sd", "count")] == pytest.approx(
        [1.15, 0.005**0.5, 2]
    )
    lost = rows["mean", "alie"]
    assert (lost[MEAN], lost["Test accuracy (%), sd"], lost["runs that failed"], lost["runs"]) == (
        "",
        "",
        "1",
        "2",
    )


def test_every_share_is_in_percent_and_every_column_says_so(store, tmp_path):
    save_study(make_report(store, ("accuracy", 0.55)), tmp_path / "out", html=False)
    for path in (tmp_path / "out").glob("*.csv"):
        for row in read(path):
            for name, value in row.items():
                if "accuracy" in name.lower():
                    assert "(%)" in name
                    assert value == "" or name.endswith(("count", "sd")) or float(value) >= 10


def test_captions_say_how_many_workers_which_seeds_and_what_the_band_is(store, tmp_path):
    report = make_report(store)
    about = "n = 20 workers, f = 3 tolerated, 3 attackers; seeds 0 and 1."
    for chart in report.curves:
        assert "Bands: from the smallest to the largest value of any seed." in chart.caption
    for one in (*report.curves, *report.maps, *report.sheets):
        assert about in one.caption
        assert latex.escaped(one.caption) in one.latex
    save_study(report, tmp_path / "out", html=True)
    captions = re.findall("<figcaption>(.*?)</figcaption>", (tmp_path / "out" / "index.html").read_text())
    assert len(captions) == len(report.curves) + len(report.maps)
    assert all(about in text for text in captions)


def test_people_read_a_mean_with_its_spread_in_one_column_and_files_hold_both():
    head = ("rule", "m, mean", "m, sd", "m, count", "c, median", "c, least", "c, largest")
    rows = [("a", 1.5, 0.25, 2, 3.0, 1.0, 12345.0), ("b", 1.5, None, 1, 3.0, 3.0, 3.0), ("c", *[None] * 6)]
    sheet = ReportTable("n", "t", "", head, rows, {"m, mean": ".1f", "m, sd": ".1f"})
    names, texts, numeric = sheet.joined
    assert names == ["rule", "m, mean ± sd", "m, count", "c, median (least to largest)"]
    assert texts == [["a", "1.5 ± 0.2", "2", "3 (1 to 12,345)"], ["b", "1.5", "1", "3"], ["c", *"---"]]
    assert numeric == [False, True, True, True]
    assert next(csv.DictReader(sheet.csv.splitlines()))["c, largest"] == "12345.0"


def test_captions_name_few_numbers_and_count_many():
    assert captions.numbers_text([3, 1, 1]) == "1 and 3"
    assert captions.numbers_text(range(30)) == "0 to 29"
    assert captions.numbers_text(range(0, 60, 2)) == "0 to 58 (30 of them)"
    lone = Case({}, 7, LOST, WorkerCounts(10, 2, 0))
    assert captions.describe_cases([lone]) == "n = 10 workers, f = 2 tolerated, no attackers; seed 7."
    assert captions.describe_cases([Case({}, 7, LOST)]) == "seed 7."


@pytest.mark.slow
def test_drawings_are_vectors_with_their_fonts_in_them(store, tmp_path, drawn):
    save_study(make_report(store), tmp_path / "out", html=False)
    raw = (tmp_path / "out" / "attack-by-rule.pdf").read_bytes()
    assert raw.startswith(b"%PDF")
    assert b"/FontFile2" in raw
    assert b"/Type3" not in raw
    assert b"/Subtype /Image" not in raw
    assert "<image" not in (tmp_path / "out" / "attack-by-rule.svg").read_text()


NASTY = ["\\end{document}", "a_b & 50 % #1 ~ ^ {x", "[1] *", "$\\frac$", "é ł 中 ‖∇f‖ \n", "--- << >> `\"'"]


def test_latex_says_every_name_to_the_letter():
    assert latex.escaped("a_b & 5 %") == r"a\_b \& 5 \%"
    assert latex.escaped("é中") == r"\'{e}\textbackslash{}u4e2d"
    assert latex.latex_number("-1.5e-07") == r"$-1.5 \times 10^{-7}$"
    assert latex.latex_number("12,345") == "$12{,}345$"
    assert latex.latex_number("85.0 ± 7.1") == r"$85.0 \pm 7.1$"
    for name in NASTY:
        plain = re.sub(r"\\.", "", latex.escaped(name))
        assert plain.isascii()
        assert not set(plain) & set("$&#%_^~<>|`")
        assert plain.count("{") == plain.count("}")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no LaTeX")
def test_latex_compiles(store, tmp_path, drawn):
    out = tmp_path / "out"
    report = make_report(store)
    sheet = ReportTable("hard", NASTY[0], "".join(NASTY), tuple(NASTY), [tuple(NASTY)] * 60)
    sheets = (*report.sheets, sheet, sheet._replace(name="short", rows=[(1.0, None, *NASTY[:4])]))
    save_study(replace(report, sheets=sheets), out, html=False)
    needs = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}"
    files = "".join(rf"\input{{{path.stem}}}\clearpage " for path in sorted(out.glob("*.tex")))
    (out / "all.tex").write_text(rf"{needs}{files}\end{{document}}")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "all.tex"]
    told = subprocess.run(command, cwd=out, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout[-2000:]
    assert "Overfull" not in (out / "all.log").read_text(errors="replace")


@pytest.mark.parametrize("labels", [1, 2, 6])
def test_a_wide_latex_table_is_split_and_never_made_smaller(labels):
    head = [f"label {i}" for i in range(labels)] + [f"figure {i}, mean, sd" for i in range(11)]
    rows = [
        ["a rather long name " * (1 + i) for i in range(labels)] + [f"{i}.{k}" for k in range(11)]
        for i in (1, 2)
    ]
    text = latex_table("wide", "What it says", head, rows, [False] * labels + [True] * 11)
    parts = text.split(r"\begin{table}")[1:]
    assert len(parts) > 1
    assert "resizebox" not in text
    assert text.count(r"\label{tab:wide}") == 1
    for part in parts:
        for i in range(labels):
            assert f"label {i}" in part
    for i, row in enumerate(rows):
        for k in range(11):
            assert text.count(f"${i + 1}.{k}$") == 1, row


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


def test_the_page_needs_nothing_else_and_is_made_for_phones(store, tmp_path, drawn):
    save_study(make_report(store), tmp_path / "out", html=True)
    text = (tmp_path / "out" / "index.html").read_text()
    page = Page(text)
    assert not page.open
    assert all(link.startswith(("#", "data:")) for link in page.fetched)
    assert len(set(page.ids)) == len(page.ids)
    assert "<script" not in text
    assert 'name="viewport"' in text
    assert 'class="bar"' not in text  # this map is narrow
    assert text.count('class="scroll" tabindex="0"') == text.count('class="scroll"') >= 5
    assert text.count("<svg") == 1 + 2 + 2  # a map; accuracy and loss, an attack each
    assert "too many" in text  # the reason of the run that failed
    for target in re.findall(r'xlink:href="#([^"]+)"', text):
        assert target in page.ids


def test_the_colours_of_a_wide_map_do_not_scroll_with_it(tmp_path):
    attacks = ["none", "alie", "ipm", "bit_flip"]
    runs = [
        ({"rule": rule, "attack": a}, ended(0.1, 0.2)) for rule in ("mean", "rfa", "median") for a in attacks
    ]
    text = page.render_page(make_report(filled(tmp_path / "st", *runs)))
    figure = re.search(r"<figure>.*?</figure>", text[text.index('id="maps"') :], re.DOTALL)[0]
    scrolled, _, rest = figure.partition("</div>")
    assert "<svg" in scrolled
    assert 'class="bar"' not in scrolled
    assert 'class="bar"' in rest
    assert rest.count("#", 0, rest.index("</i>")) == 17  # colours
    assert "Wider than the screen" in text


def test_names_are_escaped(tmp_path):
    outcome = Outcome(Status.ERROR, 0, 0.0, (), "<b>bad & worse</b>")
    report = make_report(
        filled(tmp_path / "st", ({"rule": "mean"}, outcome), ({"rule": "rfa"}, ended(0.1, 0.2)))
    )
    save_study(report, tmp_path / "out", html=True)
    assert "&lt;b&gt;bad &amp; worse" in (tmp_path / "out" / "index.html").read_text()


def test_a_store_where_all_failed_still_has_a_report(tmp_path):
    failed = Outcome(Status.ERROR, 0, 0.0, (), "no")
    report = make_report(filled(tmp_path / "st", ({"rule": "mean"}, failed)))
    assert save_study(report, tmp_path / "out", html=True)


def test_damage_is_named_and_left_out(store):
    victim = store / f"{0:016x}"
    (victim / "records.parquet").write_bytes(b"")
    report = make_report(store)
    assert list(report.study.damaged) == [victim.name]
    assert len(report.study.cases) == 7


def test_figures_that_are_not_finite_or_beyond_reckoning_stop_no_chart(tmp_path):
    extremes = (float("inf"), float("nan"), 1.7e308, -1.7e308, 5e-324)
    rules = ("krum", "rfa", "median", "trimmed_mean", "meamed")
    ends = [({"rule": rule}, ended(0.1, 0.2, value)) for rule, value in zip(rules, extremes, strict=True)]
    report = make_report(filled(tmp_path / "st", ({"rule": "mean"}, ended(0.1, 0.2)), *ends))
    assert save_study(report, tmp_path / "out", html=True)
    assert any("are not drawn" in chart.caption for chart in report.curves)
    rows = read(tmp_path / "out" / "accuracy.csv")
    assert len(rows) == 2 + 3 * len(extremes)  # the numbers are all there


def test_a_store_without_runs_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="finished run"):
        make_report(tmp_path)


def test_the_numbers_behind_a_chart_are_at_full_precision(tmp_path):
    store = filled(tmp_path / "st", ({"rule": "mean"}, ended(0.1, 1 / 3, 2 / 3)))
    save_study(make_report(store), tmp_path / "out", html=False)
    shown = [float(row["Test accuracy (%)"]) for row in read(tmp_path / "out" / "accuracy.csv")]
    assert shown == [10.0, pytest.approx(100 / 3, rel=1e-14), pytest.approx(200 / 3, rel=1e-14)]
    assert (
        json.loads((store / f"{0:016x}" / "result.json").read_text())["variants"]["main"]["accuracy"] == 2 / 3
    )


def test_what_a_sweep_chose_is_a_table(tmp_path):
    spec = {"task": "quartic", "rounds": 6, "eval_every": 3}
    grid = {"rule": ["mean", "nnm >> krum"], "lr": [0.01, 0.2], "seed": [0, 1]}
    swept = run_sweep(Sweep(spec=spec, grid=grid, tune=Tune(("lr",), "loss")), tmp_path / "st", jobs=0)
    save_study(make_report(tmp_path / "st"), tmp_path / "out", html=True)
    (path,) = (tmp_path / "out").glob("tuned-*.csv")
    rows = {row["rule"]: row for row in read(path)}
    for cell in swept.tuned["cells"]:
        row = rows[cell["cell"]["rule"]]
        assert float(row["lr"]) == cell["chosen"]["lr"]
        assert float(row["Loss"]) == cell["score"]
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
    (sheet,) = (sheet for sheet in make_report(tmp_path / "st", bounds=True).sheets if sheet.name == "bounds")
    assert len(sheet.rows) == 4
    for row in sheet.rows:
        assert row[-5] == "gap"
        assert float(row[-4]) <= float(row[-3])
    assert not [sheet for sheet in make_report(tmp_path / "st").sheets if sheet.name == "bounds"]


def test_a_copy_of_a_run_is_no_second_seed(tmp_path):
    """Nor is the run with records at other rounds, or without those of its workers."""
    store = filled(
        tmp_path,
        ({"rule": "median", "seed": 0}, ended(0.1, 0.5, 0.9)),
        ({"rule": "median", "seed": 0}, ended(0.1, 0.5, 0.9)),
        ({"rule": "median", "seed": 0, "eval_every": 10}, ended(0.1, 0.9)),
        ({"rule": "median", "seed": 1}, ended(0.1, 0.4, 0.8)),
    )
    report = make_report(store)
    assert [case.seed for case in report.study.cases] == [0, 1]
    assert report.study.repeated == {f"{1:016x}": f"{0:016x}", f"{2:016x}": f"{0:016x}"}
    assert "<b>2</b> the same as another" in page.render_page(report)
