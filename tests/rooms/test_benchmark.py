"""The benchmark: tuning, the pointwise worst case, ranks and ties, strangers' entries, replays, the page."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context

import pytest
from msgspec.structs import replace

from byzopt.benchmark import (
    Cell,
    Entry,
    by_cell,
    cells,
    evaluate,
    load_entry,
    overall,
    places,
    read_rows,
    replay,
    score,
    shipped_entries,
)
from byzopt.benchmark.attacking import strike
from byzopt.benchmark.evaluating import play_here, tuning_sweep
from byzopt.benchmark.facts import different, slower
from byzopt.benchmark.protocol import ATTACK_SET, ATTACKS, HELD_OUT, PROTOCOL, SEEDS, TASKS, TUNED_AGAINST
from byzopt.benchmark.rows import Hit, Row
from byzopt.benchmark.scoring import interval, resamples
from byzopt.benchmark.storing import change_row, read_row, store_row, write_row, write_rows
from byzopt.errors import InvalidInput, UnknownName
from byzopt.reports.benchmark import save_board
from byzopt.reports.board import board_tables
from byzopt.reports.board_charts import cell_charts
from byzopt.stress import ENSEMBLE
from tests.benchmark import ATTACKS as SMALL
from tests.benchmark import CELL, DEFENCE, entered, measured_there, shrink

RULE = '''
"""A rule of somebody else's."""

from dataclasses import dataclass

from byzopt.aggregators import CoordinateRule


@dataclass(frozen=True)
class Middle(CoordinateRule):
    """Between the mean and the median."""

    share: float = 0.5
    positional = False

    def columns(self, block):
        return self.share * block.mean(dim=0) + (1 - self.share) * block.median(dim=0).values
'''
SWING = """
from dataclasses import dataclass
from typing import ClassVar

from byzopt.attacks import Attack, Knowledge


@dataclass(frozen=True)
class Swing(Attack):
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"honest"})
    scale: float = 100.0

    def forge(self, view, generator):
        return view.alike(-self.scale * view.honest.mean(dim=0))
"""


@pytest.fixture
def small(monkeypatch):
    shrink(monkeypatch)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A store in which two defences were measured in the small cell."""
    folder = tmp_path_factory.mktemp("benchmark")
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        for source in (entered(folder), "mean"):
            write_row(folder / "store", evaluate(CELL, load_entry(source), folder / "store"))
    return folder / "store"


def test_a_defence_is_tuned_by_its_worst_and_scored_by_its_worst(measured, small):
    median, row = sorted(read_rows(measured), key=lambda one: one.entry == "my-median")[::-1]
    assert (median.entry, row.entry) == ("my-median", "mean")
    for one in (median, row):
        assert list(one.hits) == list(SMALL)
        chosen = {"lr": one.spec["lr"]}
        best = min(one.tries, key=lambda tried: tried.score)
        assert best.setting == chosen
        assert len(one.tries) == 3
        found = score(one)
        means = {name: sum(hit.values) / len(SEEDS) for name, hit in one.hits.items() if name != "no attack"}
        assert found.attack == max(means, key=means.get)
        assert found.value == pytest.approx(max(means.values()))
        assert found.low <= found.value <= found.high
        assert found.clean == pytest.approx(sum(one.hits["no attack"].values) / 3)
    assert score(row).value > 2 * score(median).value  # the mean falls to a lie ten times as long


def test_what_is_stored_is_not_run_again(measured, small):
    (median,) = [row for row in read_rows(measured) if row.entry == "my-median"]
    again = evaluate(
        CELL,
        load_entry(measured.parent / "my-median"),
        measured,
        play=lambda plan, over: pytest.fail("played again"),
    )
    assert again == median


@pytest.mark.slow
def test_a_stopped_measurement_goes_on_to_the_same_figures(measured, small, tmp_path):
    (whole,) = [row for row in read_rows(measured) if row.entry == "my-median"]
    entry, calls = load_entry(measured.parent / "my-median"), []

    def play(plan, over):
        calls.append(plan)
        play_here(plan, over)

    part = evaluate(CELL, entry, tmp_path, play=play, over=lambda: len(calls) > 2)
    assert list(part.hits) == list(SMALL)[:1]
    assert score(part) is None
    rest = evaluate(CELL, entry, tmp_path)
    assert {name: hit.values for name, hit in rest.hits.items()} == {
        name: hit.values for name, hit in whole.hits.items()
    }


def test_a_row_replays_to_the_last_digit_and_a_changed_one_does_not(measured, small, tmp_path, byzopt):
    (row,) = [row for row in read_rows(measured) if row.entry == "my-median"]
    assert replay(row, "alie", tmp_path / "again") == row.hits["alie"].values
    with pytest.raises(InvalidInput, match="An attack of this row should be one of no attack, "):
        replay(row, "nothing", tmp_path / "none")
    row.hits["alie"].values[1] += 1e-15
    write_rows([row], tmp_path / "rows.json")
    words = ("benchmark", "replay", str(tmp_path / "rows.json"), "my-median", "--cell", CELL.name)
    changed = byzopt(*words, "--attack", "alie")
    assert changed.status == 1
    assert "alie: DIFFERS" in changed.out
    same = byzopt(*words, "--attack", "no attack")
    assert (same.status, same.out.startswith("no attack: the same")) == (0, True)


def test_a_strangers_rule_and_attack_are_entered_from_folders(small, tmp_path, byzopt):
    text = DEFENCE.replace('rule = "median"', 'rule = "parts.py:Middle"')
    place = entered(tmp_path, "middle", text)
    (place / "parts.py").write_text(RULE, encoding="utf-8")
    store = tmp_path / "store"
    assert byzopt("benchmark", "run", str(place), "--store", str(store)).status == 0
    before = read_rows(store)[0]
    assert set(before.hits) == set(SMALL)
    assert before.spec["lr"] in (0.1, 0.5, 1.0)
    swing = entered(tmp_path, "swing", 'kind = "attack"\ntitle = "Far"\nattack = "parts.py:Swing"\n')
    (swing / "parts.py").write_text(SWING, encoding="utf-8")
    assert byzopt("benchmark", "run", str(swing), "--store", str(store)).status == 0
    after = read_rows(store)[0]
    assert set(after.outside) == {"swing"}
    assert score(after).value == score(before).value  # the score is over the set alone
    assert score(after).known > score(after).value
    assert score(after).known_attack == "swing"
    assert strike(CELL, load_entry(swing), store, play=lambda plan, over: pytest.fail("again")) == (1, 0)
    assert byzopt("benchmark", "run", str(place), "--store", str(store)).status == 0
    assert read_rows(store)[0] == after  # measured again, a defence keeps what others' attacks did
    said = byzopt("benchmark", "table", str(store), "--json")
    assert [one["entry"] for one in json.loads(said.out)] == ["middle"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("lr = 1.0", "lr = 0.5"), "be 3 different ones"),
        (("[[settings]]\nlr = 1.0\n", ""), "be 3 different ones"),
        (("lr = 1.0", 'lr = 1.0\n"method.eta" = 0.1'), "all set the same keys"),
        (("lr = 0.1", "rounds = 9"), "be `lr`, of `method` or of `rule`"),
        (("lr = 0.1", '"task.batch" = 9'), "be `lr`, of `method` or of `rule`"),
        (("lr = 0.1", "seed = 9"), "be `lr`, of `method` or of `rule`"),
        (('rule = "median"', ""), "name its `rule`"),
        (('rule = "median"', 'rule = "median"\nattack = "alie"'), "leave attacks to the benchmark"),
        (('rule = "median"', 'rule = "median"\nspeed = 1'), "Unknown key 'speed'"),
        (('rule = "median"', 'rule = "median"\nname = "best"'), "be called by its folder"),
        (("lr = ", '"method.eta" = '), "name `lr`"),
        (('title = "The median"', f'title = "{300 * "x"}"'), "at most 200 printable characters"),
        (('title = "The median"', 'title = "\\u001b[31m"'), "at most 200 printable characters"),
        (('rule = "median"', 'rule = "median"\nkind = "bribe"'), "kind"),
    ],
)
def test_an_entry_that_would_have_an_advantage_is_refused(change, reason, tmp_path):
    assert change[0] in DEFENCE
    with pytest.raises(InvalidInput, match=reason):
        load_entry(entered(tmp_path, text=DEFENCE.replace(*change, 1)))


def test_names_that_files_and_pages_cannot_have_are_refused(tmp_path):
    for name in ("", "A", "a b", "../up", "x" * 41, "<b>"):
        with pytest.raises(InvalidInput, match="An entry's name"):
            Entry(name, "t", rule="median", settings=({"lr": 1}, {"lr": 2}, {"lr": 3}))
    with pytest.raises(UnknownName, match="entry of the benchmark"):
        load_entry(tmp_path / "nowhere")
    with pytest.raises(UnknownName, match="cell of the benchmark"):
        Cell.of("digits-iid-n20-f9")


def test_every_shipped_entry_fits_the_core_or_says_why_not():
    fits = dict.fromkeys(shipped_entries(), 0)
    for name in fits:
        entry = load_entry(name)
        for cell in cells("core"):
            with suppress(InvalidInput):
                entry.specs(cell)
                fits[name] += 1
    assert {name for name, count in fits.items() if count < 8} == {"bucketing-rfa"}  # 10 buckets bear 4


def test_settings_are_chosen_on_what_no_figure_is_taken_of():
    assert HELD_OUT not in SEEDS
    assert set(TUNED_AGAINST) < set(ATTACKS)
    for task in TASKS:
        sweep = tuning_sweep(Cell(task, "iid", 20, 3), load_entry("rfa"))
        runs = sweep.expand().runs  # a choice on test samples is refused here
        assert {run.spec.seed for run in runs} == {HELD_OUT}
        assert [run.spec.lr for run in runs[:3]] == [TASKS[task].length * lr for lr in (0.3, 1.0, 3.0)]
        assert len(runs) == 3 * len(TUNED_AGAINST)


def test_sizes_hold_one_another():
    quick, core, full = (cells(size) for size in ("quick", "core", "full"))
    assert (len(quick), len(core), len(full)) == (1, 8, 33)
    assert set(quick) < set(core) < set(full)
    assert all(Cell.of(cell.name) == cell for cell in full)
    with pytest.raises(InvalidInput, match="be quick, core or full"):
        cells("huge")
    known = {name: dict(ENSEMBLE[name]) for name in ATTACKS if name != "no attack"}
    assert all(known[name].items() <= dict(ATTACKS[name]).items() for name in known)


def by_hand(entry, figures, *, trusted=(), calm=(0.9, 0.9, 0.9), rules=(0,), cell="digits-iid-n20-f3"):
    """A row of accuracies: under no attack `calm`, under all attacks but the named ones the same."""
    hits = {name: Hit(list(calm), [], {}, "completed", 0.0) for name in ATTACKS}
    hits |= {name: Hit(list(values), [], {}, "completed", 0.0) for name, values in figures.items()}
    return Row(
        cell, entry, entry.title(), "", "", PROTOCOL, ATTACK_SET, "accuracy", True, [0, 1, 2], {},
        rules=list(rules), trusted=list(trusted), hits=hits,
    )  # fmt: skip


def test_the_worst_is_pointwise_and_seeds_are_paired():
    row = by_hand("a", {"alie": (0.5, 0.7, 0.9), "mimic": (0.8, 0.6, 0.4)})
    found = score(row)
    assert (found.attack, found.value) == ("mimic", pytest.approx(0.6))
    assert found.low == pytest.approx(0.4)
    assert found.high == pytest.approx(1.9 / 3)  # seeds 0, 1 and 1
    assert len(resamples(3)) == 27
    assert resamples(8) == resamples(8)
    assert len(resamples(8)) == 4000
    assert interval(list(range(1000))) == (25, 974)


def test_a_run_that_failed_is_the_worst_and_what_was_not_measured_has_no_score():
    row = by_hand("a", {"alie": (0.9, None, 0.9)})
    assert score(row).value == pytest.approx(0.6)
    del row.hits["mimic"]
    assert score(row) is None
    assert places([row]) == []


def test_ranks_are_for_what_the_seeds_tell_and_the_rest_is_a_tie():
    rows = [
        by_hand("mean", {"alie": (0.1, 0.1, 0.1)}, calm=(0.9, 0.9, 0.9)),
        by_hand("best", {"alie": (0.80, 0.84, 0.82)}),
        by_hand("close", {"alie": (0.79, 0.85, 0.81)}),
        by_hand("clear", {"alie": (0.50, 0.52, 0.51)}),
        by_hand("clean-data", {"alie": (0.89, 0.89, 0.89)}, trusted=(0,)),
    ]
    placed = places(rows)
    ranks = {one.row.entry: (one.rank, one.tied) for one in placed}
    assert ranks == {
        "best": (1, True), "close": (1, True), "clear": (3, False), "mean": (4, False),
        "clean-data": (1, False),
    }  # fmt: skip
    shares = {one.row.entry: one.share for one in placed}
    assert shares["mean"] == pytest.approx(0, abs=1e-12)  # what is no better than guessing
    assert shares["clear"] == pytest.approx((0.51 - 0.1) / 0.8)
    other = by_hand("clear", {"alie": (0.9, 0.9, 0.9)}, cell="digits-iid-n20-f6")
    begun = {
        one.entry: (one.rank, one.cells, one.counted)
        for one in overall([*rows, other], by_cell([*rows, other]))
    }
    assert begun["best"] == (1, 1, 1)  # one of four defences: the cell does not count yet
    assert begun["clear"] == (3, 1, 1)
    other = [other, by_hand("best", {"alie": (0.1, 0.1, 0.1)}, cell="digits-iid-n20-f6")]
    everything = overall([*rows, *other], by_cell([*rows, *other]))
    found = {one.entry: (one.rank, one.cells) for one in everything}
    assert found == {
        "clear": (1, 2),
        "best": (2, 2),
        "close": (None, 1),
        "mean": (None, 1),
        "clean-data": (1, 1),
    }


def test_the_page_shows_what_is_not_run_and_escapes_what_strangers_wrote(tmp_path):
    rows = [by_hand("mean", {}), by_hand("mine", {"alie": (0.1, 0.5, 0.7)}, rules=(0, 1))]
    rows[1].title = "<script>alert(1)</script>"
    rows[1].refused, rows[1].remarks = "", "<img>"
    old = by_hand("old", {})
    old.attack_set = "0"
    made = save_board([*rows, old], tmp_path / "page")
    assert [path.name for path in made] == ["index.html", "rows.json"]
    assert read_rows(tmp_path / "page" / "rows.json") == [*rows, old]
    text = made[0].read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "<img>" not in text
    assert "not run" in text
    assert "10.0, 50.0, 70.0" in text  # every seed, not a mean alone
    tables = {one.name: one for one in board_tables([*rows, old])}
    assert tables["outdated"].rows == [("digits-iid-n20-f3", "old", PROTOCOL, "0")]
    coverage = {line[0]: line[1:] for line in tables["coverage"].rows}
    every = len(shipped_entries()) + 1
    assert coverage["digits-dirichlet1-n20-f3"] == ("none", "none", "none", f"all {every}")
    whole, part, misfit, missing = coverage["digits-iid-n20-f3"]
    assert (whole, part, misfit) == ("mean, mine", "none", "none")
    assert missing.split(", ") == [name for name in shipped_entries() if name != "mean"]


def test_nobody_stands_above_one_with_a_better_score():
    """b is below a for certain; c, which has less than b, is below nobody for certain."""
    rows = [
        by_hand("a", {"alie": (0.80, 0.81, 0.82)}),
        by_hand("b", {"alie": (0.70, 0.71, 0.72)}),
        by_hand("c", {"alie": (0.10, 0.95, 0.60)}),
    ]
    rows = [replace(row, cell=name) for row in rows for name in ("digits-iid-n20-f3", "digits-iid-n20-f6")]
    for placed in by_cell(rows).values():
        assert [(one.row.entry, one.rank, one.tied) for one in placed] == [
            ("a", 1, True), ("b", 2, True), ("c", 2, True),
        ]  # fmt: skip
    everywhere = overall(rows, by_cell(rows))
    assert [(one.entry, one.rank) for one in everywhere] == [("a", 1), ("b", 2), ("c", 2)]


def test_columns_are_there_where_they_say_something_and_cells_stand_in_the_order_of_runs():
    late, early = (
        by_hand("a", {}, cell="digits-iid-n20-f3"),
        by_hand("a", {}, cell="digits-dirichlet1-n20-f6"),
    )
    tables = {one.name: one for one in board_tables([late, early])}
    names = [name for name in tables if name.startswith("cell-")]
    assert names == ["cell-digits-dirichlet1-n20-f6", "cell-digits-iid-n20-f3"]
    assert {"best known", "by", "round / mean's"}.isdisjoint(tables[names[0]].head)
    late.outside, late.slower = {"mine": Hit([0.2] * 3, [], {}, "completed", 0.0)}, 1.5
    table = {one.name: one for one in board_tables([late, early])}[names[1]]
    line = dict(zip(table.head, table.rows[0], strict=True))
    assert (line["best known"], line["by"], line["round / mean's"]) == (pytest.approx(20), "mine", 1.5)


def test_what_has_no_finite_mean_is_named_beside_the_chart_and_counted_in_the_map():
    cell = Cell.of("a9a-iid-n20-f3")
    rows = [by_hand(name, {}, calm=(0.1, 0.2, 0.3), cell=cell.name) for name in ("good", "lost")]
    rows[1].hits["alie"].values = [0.1, None, 0.2]
    for row in rows:
        row.figure, row.rises, row.start = "gap", False, 0.4
    found = {chart.name.split("-")[0]: chart for chart in cell_charts(cell, places(rows))}
    assert "not drawn: lost." in found["price"].caption
    assert {row["defence"] for row in found["price"].rows} == {"good", "lost"}
    assert list(found["attacks"].grid.columns) == list(ATTACKS)


@pytest.mark.slow
def test_lots_are_drawn_twice_and_a_defence_that_does_not_fit_says_why(small, tmp_path):
    entry = load_entry("bucketing-rfa")
    row = evaluate(Cell("small", "iid", 20, 3), entry, tmp_path, over=lambda: False)
    assert [stages[0]["seed"] for stages in row.rules] == [0, 1]
    assert len(row.hits["alie"].runs) == 6
    assert len(row.hits["alie"].values) == 3
    refused = evaluate(
        CELL, load_entry(entered(tmp_path, "odd", DEFENCE.replace("median", "bulyan", 2))), tmp_path
    )
    assert "n >= 4 f + 3" in refused.refused
    assert refused.hits == {}


def test_facts_are_of_the_data_and_of_the_defence(measured, small):
    (row,) = [row for row in read_rows(measured) if row.entry == "my-median"]
    found = different(CELL)
    assert [t for t, _ in found] == [1, 2, 8]
    assert all(h > 0 for _, h in found)
    assert found[-1][1] > found[0][1]  # gradients shrink on the way, and their differences stay
    assert not slower(row) <= 0  # how much more is for a quiet machine to say; NaN on one that is too busy


def test_damaged_rows_are_named(tmp_path):
    place = tmp_path / "benchmark" / "cell"
    place.mkdir(parents=True)
    (place / "x.json").write_text('{"cell": 1}', encoding="utf-8")
    with pytest.raises(InvalidInput, match="should hold rows as byzopt wrote them"):
        read_rows(tmp_path)
    with pytest.raises(InvalidInput, match=r"Found nothing at .*rows\.json\. .* writes DIR/rows\.json"):
        read_rows(tmp_path / "gone" / "rows.json")
    (tmp_path / "page").mkdir()
    with pytest.raises(InvalidInput, match=r"hold a row of the benchmark\. Found none\. Run `byzopt"):
        read_rows(tmp_path / "page")
    write_rows([], tmp_path / "page" / "rows.json")
    with pytest.raises(InvalidInput, match=r"Name .*page.rows\.json"):
        read_rows(tmp_path / "page")


def test_no_budget_takes_nothing_from_what_is_stored(measured, small, byzopt):
    before = [row for row in read_rows(measured) if row.entry == "my-median"]
    place, store = str(measured.parent / "my-median"), str(measured)
    done = byzopt("benchmark", "run", place, "--store", store, "--budget", "0.001s")
    assert (done.status, "not all was measured" in done.err) == (0, False)
    assert [row for row in read_rows(measured) if row.entry == "my-median"] == before
    cut = byzopt("benchmark", "run", place, "--store", f"{store}-new", "--budget", "0.001s")
    assert (cut.status, "not all was measured; go on with: " in cut.err) == (4, True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (('rule = "median"', 'rule = "medain"'), "Unknown rule or pre-aggregator 'medain'. Did you mean"),
        (('rule = "median"', 'rule = "parts.py:Gone"'), "parts.py"),
        (('rule = "median"', 'rule = "median(power=2)"'), "power"),
        (('"robust_gd"', '"robust_dg"'), "robust_gd"),
        (("lr = 0.1", 'lr = 0.1\n"method.speed" = 1'), "speed"),
        (('rule = "median"', 'rule = "trimmed_mean(f=9)"'), "leave n and f to the cell. Found f = 9"),
        (('rule = "median"', 'rule = "trimmed_mean(f=3)"'), "leave n and f to the cell"),
        (('rule = "median"', 'rule = "nnm(f=4) >> rfa"'), "leave n and f to the cell"),
        (('rule = "median"', "rule = \"gas(rule='krum(f=2)')\""), "leave n and f to the cell"),
        (('"robust_gd"', '"fldetector", f = 2'), "leave n and f to the cell"),
    ],
)
def test_what_fits_no_cell_is_refused_before_any_run(change, reason, small, tmp_path, byzopt):
    assert change[0] in DEFENCE
    text = DEFENCE.replace(*change)
    if "method.speed" in change[1]:
        for lr in ("lr = 0.5", "lr = 1.0"):
            text = text.replace(lr, f'{lr}\n"method.speed" = 2')
    done = byzopt("benchmark", "run", str(entered(tmp_path, text=text)), "--store", str(tmp_path / "store"))
    assert (done.status, reason in done.err) == (2, True), done.err
    assert not (tmp_path / "store").exists()
    with pytest.raises(InvalidInput):
        evaluate(CELL, load_entry(tmp_path / "my-median"), tmp_path / "store")


def test_all_shipped_entries_leave_to_the_cell_what_is_the_cells():
    for name in shipped_entries():
        load_entry(name).check()


def test_an_emptier_row_takes_no_place_and_others_changes_stay(tmp_path):
    whole, other = by_hand("a", {"alie": (0.1, 0.2, 0.3)}), by_hand("a", {}, rules=(1,))
    write_row(tmp_path, whole)
    part = by_hand("a", {"alie": (0.4, 0.4, 0.4)})
    part.hits = {"alie": part.hits["alie"]}
    change_row(tmp_path, part, lambda row: row.outside.update(mine=row.hits["alie"]))
    kept = store_row(tmp_path, part)
    assert list(kept.hits) == list(ATTACKS)
    assert kept.hits["alie"].values == [0.4, 0.4, 0.4]
    assert list(kept.outside) == ["mine"]
    refused = by_hand("a", {}, rules=())
    refused.hits, refused.refused = {}, "it does not fit"
    assert store_row(tmp_path, refused) is None
    assert read_row(tmp_path, kept.cell, "a") == kept
    assert not change_row(tmp_path, other, lambda row: row.hits.clear())  # of another setting
    assert store_row(tmp_path, other) == other  # whole: it takes the place


@pytest.mark.parametrize("name", ["rfa", "mean", "alie", "mimic"])
def test_names_of_others_are_refused(name, tmp_path):
    with pytest.raises(InvalidInput, match="not be called as"):
        load_entry(entered(tmp_path, name))
    tries = ({"lr": 1}, {"lr": 2}, {"lr": 3})
    with pytest.raises(InvalidInput, match="not be called as"):
        evaluate(Cell.of("digits-iid-n20-f3"), Entry(name, "t", rule="median", settings=tries), tmp_path)


@pytest.mark.parametrize("rate", ["true", "'1'", "[1.0]", "0", "-1.0", "nan", "inf"])
def test_rates_that_are_no_numbers_above_0_are_refused(rate, tmp_path):
    with pytest.raises(InvalidInput, match="be a finite number"):
        load_entry(entered(tmp_path, text=DEFENCE.replace("lr = 1.0", f"lr = {rate}")))


def test_damaged_rows_are_left_out_and_equal_ones_count_once(tmp_path, byzopt):
    good = by_hand("good", {"alie": (0.1, 0.2, 0.3)})
    changes = [
        {"cell": "nope"}, {"seeds": []}, {"curves": {"alie": [[1.0, 2.0, 3.0]]}}, {"start": 1e308},
        {"figure": "gap"}, {"entry": "../up"}, {"different": [[1.0]]},
        *({"hits": {"alie": Hit(values, [], {}, "completed", 0.0)}} for values in ([], [0.5], [1e308] * 3)),
        {"hits": {"strange": good.hits["alie"]}}, {"outside": {"alie": good.hits["alie"]}},
    ]  # fmt: skip
    for change in changes:
        bad = by_hand("bad", {})
        for key, value in change.items():
            setattr(bad, key, value)
        write_rows([good, bad], tmp_path / "rows.json")
        damaged = {}
        assert read_rows(tmp_path / "rows.json", damaged) == [good], change
        assert list(damaged) == [f"{tmp_path / 'rows.json'}, row 2"]
        with pytest.raises(InvalidInput, match="as byzopt wrote"):
            read_rows(tmp_path / "rows.json")
    once = str(tmp_path / "rows.json")
    said = byzopt("benchmark", "table", once, once, "--json")
    assert said.status == 1
    assert "row 2" in said.err
    assert "counted once: 1 row that" in said.err
    assert [(one["entry"], one["rank"]) for one in json.loads(said.out)] == [("good", 1)]
    write_rows([by_hand("good", {})], tmp_path / "other.json")
    differ = byzopt("benchmark", "table", once, str(tmp_path / "other.json"))
    assert "be the same in all sources" in differ.err


DRAWING = """
import torch
from dataclasses import dataclass, field
from typing import NamedTuple

from byzopt import Method, MethodRecipe
from byzopt.aggregators import CoordinateRule
from byzopt.attacks import Attack, Remembering
from byzopt.servers import Descent
from byzopt.wire import Direct
from byzopt.workers import Estimator


@dataclass(frozen=True)
class Loose(CoordinateRule):
    def columns(self, block):
        return block.mean(dim=0) + 0.1 * torch.randn(block.shape[1])


@dataclass(frozen=True)
class Counting(CoordinateRule):
    calls: list = field(default_factory=list)

    def columns(self, block):
        self.calls.append(1)
        return block.mean(dim=0) / len(self.calls)


@dataclass(frozen=True)
class Noise(Estimator):
    def init(self, x, oracle):
        return oracle(x) * torch.rand(1), ()

    def step(self, state, x, oracle):
        return self.init(x, oracle)


@dataclass(frozen=True)
class Noisy(MethodRecipe):
    def build(self, rule, lr, rounds=None):
        return Method(Noise(), Direct(), rule.as_filter(), Descent(lr))


@dataclass(frozen=True)
class Erratic(Attack):
    def forge(self, view, generator):
        return view.own * torch.rand(1)


class Way(NamedTuple):
    way: torch.Tensor


@dataclass(frozen=True)
class OneWay(Remembering):
    def start(self, cohort, x):
        return Way(torch.randn(x.shape))

    def step(self, state, view, generator):
        return view.alike(state.way), state
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('rule = "median"', 'rule = "parts.py:Loose"'),
        ('rule = "median"', 'rule = "parts.py:Counting"'),
        ('method = {name = "robust_gd"}', 'method = "parts.py:Noisy"'),
        (DEFENCE, 'kind = "attack"\ntitle = "By chance"\nattack = "parts.py:Erratic"\n'),
        (DEFENCE, 'kind = "attack"\ntitle = "One way"\nattack = "parts.py:OneWay"\n'),
    ],
    ids=["rule", "memory", "method", "attack", "start"],
)
def test_parts_that_do_not_repeat_themselves_are_measured_nowhere(
    old, new, measured, small, tmp_path, byzopt
):
    place = entered(tmp_path, "chance", DEFENCE.replace(old, new))
    (place / "parts.py").write_text(DRAWING, encoding="utf-8")
    store = tmp_path / "store"
    shutil.copytree(measured, store)
    before = read_rows(store)
    done = byzopt("benchmark", "run", str(place), "--store", str(store))
    assert done.status == 1
    assert "Entry chance should come to the same point" in done.err
    assert read_rows(store) == before


def test_an_entry_that_fails_stops_no_other(measured, small, tmp_path, byzopt):
    store = tmp_path / "store"
    shutil.copytree(measured, store)
    path = store / "benchmark" / CELL.name / "mean.json"
    path.write_bytes(path.read_bytes()[:50])
    place = str(measured.parent / "my-median")
    done = byzopt("benchmark", "run", "mean", place, "--store", str(store))
    assert done.status == 1
    assert "mean failed: " in done.err
    assert "Move it away" in done.err
    assert "my-median: worst gap" in done.err


@pytest.mark.slow
def test_two_commands_on_one_store_at_once_leave_the_rows_that_one_leaves(measured, small, tmp_path):
    store, names = tmp_path / "store", [str(measured.parent / "my-median"), "mean"]
    words = [["benchmark", "run", *order, "--store", str(store)] for order in (names, names[::-1])]
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        assert list(pool.map(measured_there, words)) == [0, 0]

    def figures(place):
        return {row.entry: {name: hit.values for name, hit in row.hits.items()} for row in read_rows(place)}

    assert figures(store) == figures(measured)
