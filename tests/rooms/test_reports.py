"""Figures and tables: from stored records only, with honest scales."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from byzopt.errors import Status
from byzopt.experiments import Outcome, Spec, run
from byzopt.experiments.specs.overrides import apply_settings
from byzopt.reports import curves, tables

SPEC = {"task": "quartic", "rule": "nnm >> krum", "attack": "bit_flip", "rounds": 10, "lr": 0.1}
BESIDE = [
    "compare.wild.method=robust_sgdm",
    "compare.wild.lr=10",
    "compare.lost.attack=nan",
    "compare.lost.rule=mean",
]


def shown(spec: Spec, outcomes: dict[str, Outcome]) -> str:
    console = Console(file=StringIO(), width=160, markup=False)  # as `cli.terminal.console`
    console.print(tables.outcome_table(spec, outcomes))
    return console.file.getvalue()


def outcome(*losses: float, status: Status = Status.COMPLETED, **more: float) -> Outcome:
    return Outcome(status, 9, 1.25, tuple({"t": t, "loss": loss, **more} for t, loss in enumerate(losses)))


def test_a_table_has_a_row_for_each_variant_and_only_the_figures_there_are():
    spec = Spec.of(apply_settings(SPEC, BESIDE))
    text = shown(spec, run(spec).outcomes)
    for word in ("quartic: 3 of 20", "nnm >> krum", "wild", "diverged", "lost", "no_majority", "grad norm"):
        assert word in text
    assert "accuracy" not in text
    assert len(list(tables.outcome_notes(run(spec).outcomes))) == 2


EVERYBODY = tuple((worker, 2 + worker, "sum B") for worker in range(5))
LISTED = "main: expelled workers " + ", ".join(f"{worker} (round {t}, {why})" for worker, t, why in EVERYBODY)


@pytest.mark.parametrize(
    "gone, told",
    [
        (EVERYBODY[4:], ["main: expelled workers 4 (round 6, sum B)"]),
        (
            EVERYBODY[3:],
            [
                "main: expelled workers 3 (round 5, sum B), 4 (round 6, sum B)",
                "main: 1 of the 2 expelled is honest",
            ],
        ),
        (
            EVERYBODY,
            [
                LISTED,
                "main: 4 of the 5 expelled are honest",
                "main: nobody is left since round 6 of 9: no row counted after it",
            ],
        ),
    ],
)
def test_of_the_expelled_is_told_how_many_were_honest_and_whether_anybody_is_left(gone, told):
    spec, ended = Spec.of(SPEC | {"n": 5, "f": 1}), replace(outcome(1.0), expelled=gone)
    assert list(tables.outcome_notes({"main": ended}, {"main": spec}))[: len(told)] == told
    assert list(tables.outcome_notes({"main": ended})) == told[:1]  # who is honest is not known


def test_names_in_a_table_are_text_and_no_markup():
    spec = Spec.of(SPEC | {"compare": {"[red]x": {"lr": 1.0}}})
    assert "[red]x" in shown(spec, {"main": outcome(1.0), "[red]x": outcome(2.0)})


def test_accuracy_is_shown_in_percent_and_no_attackers_as_no_attack():
    spec = Spec.of(SPEC | {"attackers": 0})
    text = shown(spec, {"main": outcome(1.0, accuracy=0.987)})
    assert "98.7 %" in text
    assert "bit_flip" not in text


def test_curves_of_every_kind_of_end_are_a_png(tmp_path):
    result = run(Spec.of(apply_settings(SPEC, BESIDE)), out=tmp_path / "r")
    path = curves.draw_curves(result.out)
    assert path == tmp_path / "r" / "curves.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert len(path.read_bytes()) > 10_000


def test_curves_need_nothing_but_the_directory(tmp_path, monkeypatch):
    run(Spec.of(SPEC), out=tmp_path / "r")
    monkeypatch.setattr("byzopt.tasks.Quartic.build", lambda *_: pytest.fail("the task was built"))
    assert curves.draw_curves(tmp_path / "r").exists()


def drawn(**found: Outcome):
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    curves._panel(axes, curves.LOSS, found)
    return axes


def test_a_variant_that_blows_up_is_clipped_and_named_and_does_not_squash_the_rest():
    axes = drawn(main=outcome(2.0, 1.0), wild=outcome(2.0, 300.0))
    assert axes.get_ylim()[1] == pytest.approx(2.3)
    assert [text.get_text() for text in axes.texts] == ["wild leaves the axis: up to 300"]


def test_nothing_is_clipped_where_all_curves_fit():
    axes = drawn(main=outcome(2.0, 1.0), calm=outcome(2.0, 0.5))
    assert not axes.texts
    assert axes.get_yscale() == "linear"


def test_decades_are_drawn_on_a_log_axis():
    axes = drawn(main=outcome(100.0, 0.01), gone=outcome(100.0, 1e80), solved=outcome(100.0, 0.0))
    assert axes.get_yscale() == "log"
    assert axes.get_ylim() == pytest.approx((0.01 / 3, 1000))


def test_a_failed_run_ends_in_a_cross():
    axes = drawn(main=outcome(2.0, 1.0), lost=outcome(2.0, status=Status.NO_MAJORITY))
    assert [line.get_marker() for line in axes.lines] == ["None", "None", "x"]
