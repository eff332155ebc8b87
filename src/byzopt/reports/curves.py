"""Figures of stored runs: loss, and accuracy or gradient norm, against rounds, gradients or bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from byzopt.experiments import MAIN, Outcome
from byzopt.experiments.specs.plain_spec import PlainSpec
from byzopt.experiments.store.reading import read_run
from byzopt.experiments.trials.outcome import has_finite_square
from byzopt.files import write_atomically
from byzopt.reports.lettering import WIDE as LEGEND
from byzopt.reports.lettering import distinct, heights, inked, legend, letters, longest
from byzopt.reports.tables import attack_of, rule_names, spec_title

NAME = "curves.png"
# Okabe and Ito's palette, told apart with any colour vision; styles tell lines apart without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":")
WIDE = 50.0  # figures that span this factor are drawn on a log axis
SHORT = 40  # letters of a name in a note within the axes
ROOM = 1.15  # how far above the robust run's largest figure the axis goes


Axis: TypeAlias = Literal["rounds", "gradients", "bits"]


class Panel(NamedTuple):
    """What one set of axes shows: the records' key, the axis label, the factor to its unit."""

    key: str
    label: str
    scale: float = 1.0


class DrawnBound(NamedTuple):
    """A proved bound by round, the records' key that it bounds, and that figure's label. `least`: it bounds
    the least value so far alone."""

    key: str
    label: str
    rounds: tuple[float, ...]
    values: tuple[float, ...]
    least: bool = False


PANELS = (
    Panel("accuracy", "Test accuracy (%)", 100.0),
    Panel("perplexity", "Perplexity (symbols)"),
    Panel("grad_norm", "Gradient norm ‖∇f(x)‖ of the honest loss"),
)
LOSS = Panel("loss", "Loss")
# What may lie along the horizontal axis: the records' key, and the label.
AXES: dict[Axis, tuple[str, str]] = {
    "rounds": ("t", "Communication rounds"),
    "gradients": ("gradients", "Minibatch gradients per worker"),
    "bits": ("bits", "Bits sent per worker"),
}


@inked
def draw_curves(out: Path, bound: DrawnBound | None = None, axis: Axis = "rounds") -> Path:
    """Draw a finished run's `curves.png` from its stored records, and return its path.

    `bound` is what theory promises of the spec's own run, drawn beside the figure that it bounds, by round.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    run = read_run(out)
    spec, outcomes = run.spec, run.outcomes
    first = outcomes[MAIN].records[0] if outcomes[MAIN].records else {}
    panels = [LOSS, *[panel for panel in PANELS if panel.key in first][:1]]
    if bound is not None and bound.key in first and bound.key != "loss":
        panels[0] = Panel(bound.key, bound.label)
    names = distinct([_label(name, spec, outcome) for name, outcome in outcomes.items()], LEGEND)
    columns = min(3 if longest(names) <= SHORT else 2, len(names))
    height = 4.0 + 0.22 * -(-heights(names) // columns)
    figure = Figure(figsize=(5.6 * len(panels), height), layout="constrained")
    FigureCanvasAgg(figure)
    handles: list[Any] = []
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        handles = _panel(axes, panel, outcomes, axis)
        if bound is not None and panel.key == bound.key and axis == "rounds":
            _bound(axes, bound)
    figure.suptitle(
        letters(f"{spec_title(spec)}, attack {attack_of(spec)!r}"),
        x=0.01,
        ha="left",
        fontsize=12,
        weight="bold",
    )
    legend(figure, handles, names, columns)
    return _saved(figure, out / NAME)


def _panel(axes: Any, panel: Panel, outcomes: Mapping[str, Outcome], axis: Axis = "rounds") -> list[Any]:
    """One quantity of all runs, a line each. The robust run sets the scale; what leaves it is clipped and
    named."""
    drawn: list[Any] = []
    lines = {name: _line(panel, outcome, AXES[axis][0]) for name, outcome in outcomes.items()}
    top, log = _scale(panel, lines)
    for i, (name, (rounds, values)) in enumerate(lines.items()):
        style = {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[i % len(STYLES)]}
        # The spec's own run lies on top of the others.
        drawn += axes.plot(rounds, values, linewidth=2.2 if name == MAIN else 1.6, zorder=9 - i, **style)
        if (outcomes[name].status.failed or outcomes[name].risen) and rounds:
            axes.plot(rounds[-1:], [min(values[-1], top)], "x", color=style["color"], markersize=9, zorder=10)
    axes.set_xlabel(letters(AXES[axis][1]))
    axes.set_ylabel(letters(panel.label))
    if log:
        # Not left to matplotlib, whose margin is a share of decades that are clipped.
        axes.set_yscale("log")
        axes.set_ylim(bottom=min(v for _, values in lines.values() for v in values if v > 0) / 3)
    if panel.key == "accuracy":
        axes.set_ylim(0, 101)
    elif any(max(values, default=0.0) > top for _, values in lines.values()):
        axes.set_ylim(top=top) if log else axes.set_ylim(0, top)
        _note(axes, {name: max(values, default=0.0) for name, (_, values) in lines.items()}, top)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return drawn


def _bound(axes: Any, bound: DrawnBound) -> None:
    mark = "_" if len(bound.rounds) == 1 else ""
    axes.plot(bound.rounds, bound.values, color="0.4", linestyle=":", linewidth=1.6, marker=mark)
    axes.set_yscale("log")
    axes.set_ylim(top=2 * max(bound.values))
    end = (bound.rounds[-1], bound.values[-1])
    axes.annotate(
        "bound of the least so far" if bound.least else "bound",
        end,
        (0, 5),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=9,
    )


def _line(panel: Panel, outcome: Outcome, along: str) -> tuple[list[float], list[float]]:
    seen = [
        record for record in outcome.records if panel.key in record and has_finite_square(record[panel.key])
    ]
    seen = [record for record in seen if has_finite_square(record.get(along, 0.0))]
    # The start has no ledger yet: nothing was computed and nothing sent.
    return [record.get(along, 0.0) for record in seen], [panel.scale * record[panel.key] for record in seen]


def _scale(panel: Panel, lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> tuple[float, bool]:
    """The largest figure to show, and whether on a log axis, after the spec's own run and all the starts."""
    starts = [values[0] for _, values in lines.values() if values]
    shown = [*lines[MAIN][1], *starts]
    if panel.key == "accuracy" or not shown:
        return 100.0, False
    log = min(shown) > 0 and max(shown) > WIDE * min(shown)
    return max(shown) * (10.0 if log else ROOM), log


def _note(axes: Any, peaks: Mapping[str, float], top: float) -> None:
    labelled = zip(distinct(list(peaks), most=SHORT), peaks.values(), strict=True)
    gone = [f"{name} leaves the axis: up to {peak:,.4g}" for name, peak in labelled if peak > top]
    axes.text(
        0.98, 0.97, "\n".join(gone), transform=axes.transAxes, ha="right", va="top", fontsize=9, color="0.25"
    )


def _label(name: str, spec: PlainSpec, outcome: Outcome) -> str:
    label = f"{spec.data['method']['name']}, {rule_names(spec)}" if name == MAIN else name
    return f"{label} ({outcome.ending})" if outcome.status.failed or outcome.risen else label


def _saved(figure: Any, path: Path) -> Path:
    from io import BytesIO

    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    if not (path.is_file() and path.read_bytes() == buffer.getvalue()):  # what is there may be read-only
        write_atomically(path, buffer.getvalue())
    return path
