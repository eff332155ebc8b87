"""Names in figures: drawn to the letter, each beside its own line, whatever it is made of."""

from __future__ import annotations

import warnings

import matplotlib as mpl
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure as Drawing

from byzopt.errors import Status
from byzopt.experiments import Outcome, Spec
from byzopt.experiments.store.run_directory import RunDirectory
from byzopt.reports import curves as of_a_run
from byzopt.reports import lettering
from byzopt.reports.curves import COLOURS
from byzopt.reports.lettering import distinct, letters
from byzopt.reports.study.cases import Case
from byzopt.reports.study.chart import Chart, own_names, slug
from byzopt.reports.study.figures_of import LOSS
from byzopt.reports.study.heat import heat_map
from byzopt.reports.study.lines import curve_chart
from byzopt.reports.study.report import joined_labels
from byzopt.reports.study.sizes import size_chart

HARD = ["_hidden", "", "$\\frac$", "$5 and $6", "a\n\tb", "中 \x1b[31m", "x" * 500]
DRAWN = ["_hidden", '""', "$\\frac$", "$5 and $6", "a\\n\\tb", "\\u4e2d \\x1b[31m"]


def seen(text: str) -> str:
    """What matplotlib shows of a text that it is given."""
    shown, usetex = mpl.text.Text(text=text)._preprocess_math(text)
    assert not usetex, "set as mathematics"
    return shown


@pytest.mark.parametrize(
    "name", ["$", "\\$", "$a$", "\\$a\\$", "$a\\$", "a_b^c", "\\alpha $x_$ \\$ $", "#%&~{}"]
)
def test_a_name_is_drawn_to_the_letter(name):
    assert seen(letters(name)) == name


def test_what_cannot_be_seen_is_spelt():
    assert letters("a\u202eb\u200bc\x9b\u2028\ud800é") == "a\\u202eb\\u200bc\\x9b\\u2028\\ud800é"
    assert letters("  x") == '"  x"'
    assert letters("") == '""'


def test_from_right_to_left_stands_between_marks_that_keep_the_rest_in_place(monkeypatch):
    monkeypatch.setattr(lettering, "_lays_out", lambda: True)
    assert letters("אב 1 גד (2 of 3 failed)") == "\u200eאב 1 גד\u200e (2 of 3 failed)"
    monkeypatch.setattr(lettering, "_lays_out", lambda: False)
    assert letters("אב") == "\\u05d0\\u05d1"


def test_names_that_would_look_the_same_are_told_apart():
    long = [f"{'x' * 300}{i}{'x' * 300}" for i in range(3)]
    assert len(set(distinct(long))) == 3
    assert all(len(name) < 200 for name in distinct(long))
    assert distinct(["a\n", "a\\n"]) == ["a\\n", "a\\n #2"]
    assert all(len(line) <= 46 for line in letters(long[0], 46).split("\n"))


def outcome(*losses: float) -> Outcome:
    return Outcome(Status.COMPLETED, 9, 1.0, tuple({"t": t, "loss": loss} for t, loss in enumerate(losses)))


def case(loss: float, **labels: str) -> Case:
    return Case(labels, 0, outcome(5.0, loss))


def beside(figure: Drawing) -> list[tuple[str, str]]:
    """The colour and the name of every entry in a figure's legend."""
    (legend,) = figure.legends
    lines = [getattr(handle, "lines", [handle])[0] if not hasattr(handle, "get_color") else handle
             for handle in legend.legend_handles]  # fmt: skip
    names = [seen(text.get_text()) for text in legend.get_texts()]
    return [(to_hex(line.get_color()).upper(), name) for line, name in zip(lines, names, strict=True)]


def drawn(monkeypatch, draw) -> Drawing:
    """The figure that `draw` saves or returns, drawn whole, without a warning."""
    kept = []
    plain = Drawing.savefig
    monkeypatch.setattr(Drawing, "savefig", lambda self, *a, **k: (kept.append(self), plain(self, *a, **k)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = draw()
        if isinstance(made, Chart):
            made._bytes("png")
    return kept[0]


def of_curves(tmp_path):
    return curve_chart("n", "t", LOSS, {name: [case(i + 1.0)] for i, name in enumerate(HARD)})


def of_sizes(tmp_path):
    return size_chart(
        "n", "t", ("$size$", "_y"), {name: {1.0: [i + 1.0], 2.0: [3.0]} for i, name in enumerate(HARD)}
    )


def of_run(tmp_path):
    spec = {"task": "quartic", "rule": "mean", "rounds": 9, "lr": 0.1}
    spec = Spec.of(spec | {"compare": {name: {"lr": 0.2 + i} for i, name in enumerate(HARD)}})
    store = RunDirectory(tmp_path / "run", spec)
    store.create()
    store.write_result({name: outcome(50.0, i + 1.0) for i, name in enumerate(["main", *HARD])})
    return of_a_run.draw_curves(tmp_path / "run")


@pytest.mark.parametrize("draw, before", [(of_curves, 0), (of_sizes, 0), (of_run, 1)])
def test_every_line_has_its_own_name(draw, before, tmp_path, monkeypatch):
    entries = beside(drawn(monkeypatch, lambda: draw(tmp_path)))
    assert [name for _, name in entries[before:][:6]] == DRAWN
    assert [colour for colour, _ in entries] == [COLOURS[i % len(COLOURS)] for i in range(len(entries))]
    assert len(entries) == len(HARD) + before


def test_rows_and_columns_of_a_map_have_their_own_names(monkeypatch):
    cells = {(row, column): [case(1.0, attack=row)] for row in HARD for column in HARD}
    figure = drawn(monkeypatch, lambda: heat_map("n", "t", LOSS, cells, ("$rows$", "")))
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        assert [seen(label.get_text()) for label in axis.get_ticklabels()][:6] == DRAWN
    assert seen(figure.axes[0].get_ylabel()) == "$rows$"


@pytest.mark.parametrize("row, column", [("x" * 500, "none"), ("none", "y " * 300), ("x" * 500, "y" * 500)])
def test_a_map_of_one_cell_has_room_for_long_names(row, column, monkeypatch):
    figure = drawn(monkeypatch, lambda: heat_map("n", "t", LOSS, {(row, column): [case(1.0)]}, ("a", "b")))
    box = figure.axes[0].get_position()
    assert min(box.width * figure.get_figwidth(), box.height * figure.get_figheight()) > 0.5  # inches


def test_a_users_own_settings_do_not_reach_figures(monkeypatch, tmp_path):
    with mpl.rc_context({"text.usetex": True, "font.family": "cursive"}):
        assert drawn(monkeypatch, lambda: of_curves(tmp_path))


def test_files_of_charts_have_names_of_their_own():
    names = [slug(text) for text in ("1e-16", "1e+16", "μ", "ν", "A", "a", "long " * 100)]
    found = own_names(names)
    assert len({name.lower() for name in found}) == len(found)
    assert max(map(len, found)) <= 130


def test_labels_of_several_axes_are_joined_without_loss():
    keys = [("a · b", "c"), ("a", "b · c")]
    assert len(set(joined_labels(keys).values())) == 2
