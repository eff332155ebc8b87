"""The picture of a stress test: the figure by attack, and the curves of the worst runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from byzopt.experiments.sweeps import RunStore
from byzopt.files import write_atomically
from byzopt.reports.curves import COLOURS, STYLES
from byzopt.reports.lettering import inked, letters
from byzopt.stress.running import Stress
from byzopt.stress.verdict import Trial

NAME = "stress.png"


@inked
def draw(result: Stress) -> Path:
    """Draws `stress.png` into the store: bars by attack, and each rule's worst run over rounds."""
    from io import BytesIO

    from matplotlib.figure import Figure

    height = max(
        4.0, 1.6 + 0.34 * len({one.attack for one in result.trials}) * max(1.0, 0.6 * len(result.rules))
    )
    attacks = list(dict.fromkeys(one.attack for one in result.trials))
    figure = Figure(figsize=(11, height), layout="constrained")
    bars, curves = figure.subplots(1, 2)
    done, every = result.measured(result.rules[0]), len(result.attacks)
    if done < every:
        bars.set_title(f"So far {done} of {every} attacks", fontsize="medium")
    _bars(bars, result, attacks)
    _curves(curves, result)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    path = result.store / NAME
    write_atomically(path, buffer.getvalue())
    return path


def _bars(axes: Any, result: Stress, attacks: list[str]) -> None:
    height = 0.8 / len(result.rules)
    for k, rule in enumerate(result.rules):
        values = [_shown(result.of(rule, attack)) for attack in attacks]
        places = [i + (k - (len(result.rules) - 1) / 2) * height for i in range(len(attacks))]
        axes.barh(places, values, height=height, color=COLOURS[k % len(COLOURS)], label=letters(rule))
    axes.set_yticks(range(len(attacks)), [letters(attack) for attack in attacks])
    axes.invert_yaxis()
    axes.legend(loc="lower left", fontsize="small")
    accuracy = all(one.larger_is_better for one in result.trials)
    axes.set_xlabel(result.heading)
    if accuracy:
        axes.set_xlim(0, 100)
    axes.grid(axis="x", alpha=0.3)


def _curves(axes: Any, result: Stress) -> None:
    store = RunStore(result.store)
    for k, rule in enumerate(result.rules):
        one = result.worst(rule)
        if one is None:
            continue
        records = [r for r in store.read_outcome(one.runs[0]).records if one.figure in r]
        scale = 100.0 if one.larger_is_better else 1.0
        axes.plot(
            [r["t"] for r in records],
            [scale * r[one.figure] for r in records],
            color=COLOURS[k % len(COLOURS)],
            linestyle=STYLES[k // len(COLOURS) % len(STYLES)],
            label=letters(f"{rule}: {one.attack}"),
        )
    accuracy = all(one.larger_is_better for one in result.trials)
    axes.set_xlabel("Communication rounds")
    axes.set_ylabel("Accuracy, worst attack (%)" if accuracy else "Loss, worst attack")
    if accuracy:
        axes.set_ylim(0, 100)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(loc="best", fontsize="small")


def _shown(one: Trial | None) -> float:
    if one is None or one.value is None:
        return float("nan")
    return 100 * one.value if one.larger_is_better else one.value
