"""What searched attacks leave of the presets: each as it is, but under attacks of `byzopt stress`.

    python benchmarks/presets_searched.py [--store DIR] [--minutes M] [--write]

Every preset is trained without attack, under its own attack, and under searches of `autobyz`, each once, on
the preset's seed. Presets that take long meet one search, or none. A run is that of `byzopt stress PRESET`
with the same store, and is stored as it ends: the same command goes on where it was stopped, and after M
minutes no further round is begun. One process. `--write` writes what is stored to the package, where
`byzopt list presets` and `byzopt reproduce` find it, and to docs/results, and runs nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from _peers_env import table
from _stressed import prose
from byzopt.experiments import Outcome, load
from byzopt.experiments.sweeps import Sweep, plan_sweep, run_sweep
from byzopt.registry import plain
from byzopt.reproductions.searched import CALM, FIGURES, OWN, PresetRun, spelled, worst_search
from byzopt.stress.catalogue import ENSEMBLE
from byzopt.stress.planning import defence_of
from byzopt.stress.verdict import tail_mean

ROOT = Path(__file__).parent.parent
JSON = ROOT / "src" / "byzopt" / "reproductions" / "searched.json"
PAGE = ROOT / "docs" / "results" / "presets_searched.md"
LENGTHS = ("shrink", "dist", "workers", "drift", "cos")  # where steps are as long as the answer
DIRECTIONS = ("shrink", "workers", "drift", "cos")  # where their length is set
PRESETS = {  # those that cost least first, and the objectives of the searches that they meet
    "byz-nsgdm/digits": DIRECTIONS,
    "privacy/digits": LENGTHS,
    "local-steps/digits": LENGTHS,
    "asynchrony/quadratic": LENGTHS,
    "sampling/quadratic": LENGTHS,
    "byz-dm21/ratio": LENGTHS,
    "byzantine-sgd/a9a": LENGTHS,
    "byz-nsgdm/quartic": DIRECTIONS,
    "byzantine-sgd/quadratic": LENGTHS[1:],  # its optimum is at 0
    "byzantine-sgd/hard_lin": LENGTHS[1:],
    "inexact-gradient/short": ("dist",),
    "byz-nsgdm/mnist": ("shrink",),
    "byz-dm21/mnist": ("shrink",),
    "byz-dm21/a9a": ("shrink",),
    "inexact-gradient/long": (),
    "byz-nsgdm/shakespeare": (),
}
KINDS = (CALM, OWN, *(f"searched: {objective}" for objective in LENGTHS))


def figures(outcome: Outcome) -> dict[str, float | None]:
    """The accuracy, if there is one, and the gap or else the loss, over the last tenth of the rounds."""
    known = [name for name in FIGURES if any(name in record for record in outcome.records)]
    chosen = [name for name in known if name != "loss" or "gap" not in known]
    means = {name: tail_mean(outcome, name) for name in chosen}
    failed = outcome.status not in ("completed", "converged")
    return {name: value if isfinite(value) and not failed else None for name, value in means.items()}


def measured(
    preset: str, kind: str, attack: dict[str, Any], store: Path, over: Callable[[], bool]
) -> PresetRun | None:
    """What became of a preset under an attack; None where `over` came before its end."""
    spec = dict(load(preset, compare=False).data)
    every = spec.get("eval_every") or max(1, int(spec["rounds"]) // 50)
    shared = {**spec, "attack": attack, "eval_every": every}
    grid = {"rule": [shared.pop("rule")], "seed": [shared.pop("seed", 0)]}
    plan = plan_sweep(Sweep("stress", spec=shared, grid=grid), store)
    if plan.to_play and not over():
        run_sweep(plan, jobs=0, stopped=over)
        plan = plan_sweep(plan.sweep, store)
    if plan.to_play:
        return None
    (run,) = plan.expansion.runs
    outcome = plan.store.read_outcome(run.id)
    return PresetRun(preset, kind, attack["name"], figures(outcome), str(outcome.status), run.id)


def measurements(store: Path, over: Callable[[], bool]) -> Iterator[PresetRun]:
    """All runs, first those that every preset has."""
    for preset, kind in _order():
        own = plain(load(preset, compare=False).attack)
        attack = {CALM: {"name": "none"}, OWN: own}.get(kind) or dict(ENSEMBLE[kind])
        found = measured(preset, kind, attack, store, over)
        yield from [found] if found is not None else []


def _order() -> Iterator[tuple[str, str]]:
    """A preset and a kind of run after the other: the first search of each before the second of any."""
    for place in range(len(KINDS)):
        for preset, objectives in PRESETS.items():
            kinds = [CALM, OWN, *(f"searched: {objective}" for objective in objectives)] if objectives else []
            if place < len(kinds):
                yield preset, kinds[place]


def page(found: Sequence[PresetRun]) -> str:
    """A table of all that was measured, and what was not."""
    whole = {preset: {run.kind: run for run in found if run.preset == preset} for preset in PRESETS}
    rows = []
    for preset, runs in whole.items():
        worst = worst_search(list(runs.values()))
        spec = load(preset, compare=False)
        for figure in worst.figures if worst else ():
            cells = [spelled(figure, runs[kind].figures[figure]) if kind in runs else "-" for kind in KINDS]
            cells = [
                f"**{cell}**" if kind == worst.kind else cell for kind, cell in zip(KINDS, cells, strict=True)
            ]
            who = f"{spec.method.name}, {defence_of(spec)}, {len(spec.cohort.byzantine)} of {spec.n}"
            unit = f"{figure}, %" if figure == "accuracy" else figure
            rows.append([f"`{preset}`", f"`{who}`", runs[OWN].attack, unit, *cells])
    searched = [f"`{objective}`" for objective in LENGTHS]
    text = [
        "# What searched attacks leave of the presets",
        "",
        prose(
            "Written by `python benchmarks/presets_searched.py --write` from stored runs. Each preset as it",
            "is, without attack, under its own, and under objectives of",
            f"[autobyz](../reference/attacks/autobyz.md): {', '.join(searched)}. One seed, the preset's own;",
            "means over the last tenth of the rounds. In bold the search that did most by a preset's first",
            "figure. A dash: not measured. A run is that of",
            '`byzopt stress PRESET --attacks "searched: shrink"`. Differences of a point may be chance.',
            "`shrink` leads towards 0, and helps where the optimum is there, as on the quartic.",
        ),
        "",
        table(
            [
                "preset",
                "method, defence, liars",
                "its own attack",
                "figure",
                "no attack",
                "its own",
                *searched,
            ],
            rows,
        ),
    ]
    left = [preset for preset, runs in whole.items() if worst_search(list(runs.values())) is None]
    for why, names in (
        ("as a training takes hours on a CPU", [preset for preset in left if not PRESETS[preset]]),
        ("so far", [preset for preset in left if PRESETS[preset]]),
    ):
        if names:
            listed = ", ".join(f"`{preset}`" for preset in names)
            text += [prose(f"**Not measured** under a search, {why}: {listed}."), ""]
    return "\n".join(text).rstrip() + "\n"


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--store", type=Path, default=Path("byzopt-presets"))
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    end = time.monotonic() + (0 if options.write else 60 * options.minutes)
    found = []
    for one in measurements(options.store, lambda: time.monotonic() >= end):
        found.append(one)
        print(f"{one.preset}, {one.kind}: {one.figures}", flush=True)
    if options.write:
        told = json.dumps([one._asdict() for one in found], indent=1, allow_nan=False)
        JSON.write_text(told + "\n", encoding="utf-8")
        PAGE.write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
