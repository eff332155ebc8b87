"""What searched attacks leave of the presets: each as it is, but under attacks of `byzopt stress`.

    python benchmarks/presets_searched.py [--store DIR] [--minutes M] [--write]

Every preset is trained without attack, under its own attack, and under searches of `autobyz`, each once, on
the preset's seed. Presets that take long meet one search. A run is that of `byzopt stress PRESET`, with the
same store, and is stored as it ends: the same command goes on where it was stopped, and after M minutes no
further round is begun. One process. `--write` writes what is stored to the package, where
`byzopt list presets` and `byzopt reproduce` find it, and runs nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from byzopt.experiments import Outcome, load
from byzopt.experiments.sweeps import Sweep, plan_sweep, run_sweep
from byzopt.registry import plain
from byzopt.stress.catalogue import ENSEMBLE
from byzopt.stress.verdict import tail_mean

OUT = Path(__file__).parent.parent / "src" / "byzopt" / "experiments" / "presets" / "searched.json"
SEARCHES = tuple(f"searched: {objective}" for objective in ("shrink", "workers", "drift", "cos"))
FIGURES = ("accuracy", "gap", "loss")  # the first that a run has is its figure
PRESETS = {  # those that cost least first, and how many of the searches they meet
    "byz-nsgdm/digits": 4,
    "privacy/digits": 4,
    "local-steps/digits": 4,
    "asynchrony/quadratic": 4,
    "sampling/quadratic": 4,
    "byzantine-sgd/quadratic": 4,
    "byzantine-sgd/hard_lin": 4,
    "byz-dm21/ratio": 4,
    "byz-nsgdm/quartic": 4,
    "byzantine-sgd/a9a": 4,
    "byz-nsgdm/mnist": 1,
    "byz-dm21/a9a": 1,
    "inexact-gradient/short": 1,
    "byz-dm21/mnist": 1,
    "inexact-gradient/long": 0,
    "byz-nsgdm/shakespeare": 0,
}


def figure(outcome: Outcome) -> tuple[str, float]:
    """The figure by which a run is judged, and its mean over the last tenth of the rounds."""
    name = next(name for name in FIGURES if any(name in record for record in outcome.records))
    return name, tail_mean(outcome, name)


def measured(
    preset: str, attack: dict[str, Any], store: Path, over: Callable[[], bool]
) -> dict[str, Any] | None:
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
    name, value = figure(outcome)
    return {"figure": name, "value": value, "status": str(outcome.status), "run": run.id}


def measurements(store: Path, over: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """All runs, first those that every preset has."""
    for attack in ("none", "its own", *SEARCHES):
        for preset, searches in PRESETS.items():
            if attack in SEARCHES[searches:]:
                continue
            own = plain(load(preset, compare=False).attack)
            data = {"none": {"name": "none"}, "its own": own}.get(attack) or dict(ENSEMBLE[attack])
            if not searches or (found := measured(preset, data, store, over)) is None:
                continue
            named = {"attack": own["name"]} if attack == "its own" else {}
            yield {"preset": preset, "kind": attack, **named, **found}


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
        print(one, flush=True)
    if options.write:
        OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
