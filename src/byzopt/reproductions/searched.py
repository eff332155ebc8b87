"""What attacks that search leave of the presets, as stored runs measured it, in sentences.

The figures in searched.json are those of `benchmarks/presets_searched.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from byzopt.experiments.specs.loading import presets

CALM, OWN = "none", "its own"  # kinds of runs beside the searches
FIGURES = ("accuracy", "gap", "loss")  # a run is judged by the first that it has


class PresetRun(NamedTuple):
    """A preset under one attack, on its own seed: the means of its figures over the last tenth of the rounds.

    Args:
        preset: Its name.
        kind: "none", "its own", or a search as `byzopt stress` names it.
        attack: The attack's name.
        figures: `accuracy` as a fraction where the task measures it, and `gap` or `loss`; None: it is not
            finite, or the run failed.
        status: How the run ended.
        run: Its id in a store.
    """

    preset: str
    kind: str
    attack: str
    figures: dict[str, float | None]
    status: str
    run: str

    @property
    def badness(self) -> tuple[bool, float]:
        """Larger for what is worse."""
        name = next(name for name in FIGURES if name in self.figures)
        value = self.figures[name]
        return value is None, 0.0 if value is None else -value if name == "accuracy" else value


@cache
def preset_runs() -> dict[str, tuple[PresetRun, ...]]:
    """The runs of every preset that were measured, by its name."""
    told = json.loads((files("byzopt.reproductions") / "searched.json").read_text(encoding="utf-8"))
    runs = [PresetRun(**one) for one in told]
    return {name: tuple(run for run in runs if run.preset == name) for name in presets()}


def worst_search(runs: Sequence[PresetRun]) -> PresetRun | None:
    """The search that did most; None where none was measured."""
    return max(
        (run for run in runs if run.kind not in (CALM, OWN)), key=lambda run: run.badness, default=None
    )


def searched_sentence(preset: str) -> str:
    """What searches leave of a preset, beside no attack and its own."""
    runs = preset_runs()[preset]
    worst, beside = worst_search(runs), {run.kind: run for run in runs if run.kind in (CALM, OWN)}
    if worst is None or len(beside) < 2:
        return "What an attack that searches leaves of it was not measured."
    searches = [run.kind for run in runs if run.kind not in beside]
    others = f", the worst of {len(searches)} searches" if len(searches) > 1 else ", the only search tried"
    figures = " and ".join(
        f"{spelled(name, value, True)} ({spelled(name, beside[CALM].figures[name])} without attack, "
        f"{spelled(name, beside[OWN].figures[name])} under its own, `{beside[OWN].attack}`)"
        for name, value in worst.figures.items()
    )
    ended = "" if worst.status in ("completed", "converged") else f" The run ended as {worst.status}."
    mild = " Its own attack does more." if worst.badness < beside[OWN].badness else ""
    return f"`{worst.kind}`{others}, leaves {figures}.{mild}{ended}"


def spelled(figure: str, value: float | None, named: bool = False) -> str:
    """A figure as people read it, in % or three digits; `named`: with what it is."""
    if value is None:
        return f"no finite {figure}" if named else "not finite"
    if figure == "accuracy":
        return f"{100 * value:.1f} % accuracy" if named else f"{100 * value:.1f}"
    return f"a {figure} of {value:.3g}" if named else f"{value:.3g}"


def searched_of(paper: str) -> dict[str, str]:
    """For each preset of a paper what searches leave of it."""
    return {name: searched_sentence(name) for name in preset_runs() if name.partition("/")[0] == paper}
