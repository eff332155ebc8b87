"""Runs on one graph as a batch beside the same runs one by one: what a sweep gains.

    python benchmarks/graph_sweeps.py        # under a minute

R runs of one topology, mixer and number of liars: two attacks, as many seeds of each. Rounds of the batch and
of every run alone alternate, from the same states, on one thread; that they have the same bits is checked
first. Least times of as many repetitions as fit, per run and round. Writes docs/results/graph_sweeps.md and
.json.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch

from _peers_env import described, machine, table, write
from byzopt.engines import OnGraph, rounds_on_graph
from byzopt.engines.batched_graph import BatchedGraphRuns, GraphLane
from byzopt.experiments import Spec
from byzopt.experiments.running import prepare_spec

WORLDS = {"topology": {"name": "two_worlds", "k": 8}, "mixer": "cs+", "liars": "everywhere", "spread": 1.0}
TORUS = {"topology": "torus", "mixer": "he", "liars": "everywhere", "spread": 1.0}
BRIDGE = TORUS | {"mixer": "screen", "order": "combine_adapt"}
CASES: dict[str, tuple[dict[str, Any], tuple[str, str]]] = {
    "two worlds of 13, cs+, b = 4": (
        {"n": 30, "f": 4, "graph": WORLDS, "task": {"name": "quadratic", "d": 5}},
        ("spectral", "dissensus"),
    ),
    "the same, lies alike for all": (
        {"n": 30, "f": 4, "graph": WORLDS, "task": {"name": "quadratic", "d": 5}},
        ("alie", "ipm"),
    ),
    "torus 4 x 4, he, b = 1": (
        {"n": 17, "f": 1, "graph": TORUS, "task": {"name": "quadratic", "d": 100}},
        ("spectral", "two_faced"),
    ),
    "torus 4 x 4, BRIDGE-T, b = 1": (
        {"n": 17, "f": 1, "graph": BRIDGE, "task": {"name": "quadratic", "d": 100}, "rule": "trimmed_mean"},
        ("spectral", "dissensus"),
    ),
    "two worlds of 13, logistic regression": (
        {"n": 30, "f": 4, "graph": WORLDS, "task": {"name": "logistic_regression", "batch": 8}},
        ("spectral", "alie"),
    ),
}
SHARED = {"rounds": 100, "lr": 0.05, "method": "robust_sgdm"}


def lanes_of(shared: dict[str, Any], attacks: tuple[str, str], count: int) -> list[GraphLane]:
    """Prepared runs after their first round."""
    lanes = []
    for seed in range(count // 2):
        for attack in attacks:
            ready = prepare_spec(Spec.of(SHARED | shared | {"attack": attack, "seed": seed}), {})
            assert isinstance(ready.engine, OnGraph)
            lanes.append(GraphLane(ready.engine, ready.first.state))
    return lanes


def measured(name: str, count: int, seconds: float) -> dict[str, Any]:
    """Milliseconds of a run's round, in the batch and alone."""
    shared, attacks = CASES[name]
    lanes = lanes_of(shared, attacks, count)
    batch = BatchedGraphRuns(lanes)

    def alone() -> list[torch.Tensor]:
        return [next(rounds_on_graph(run, state, state.t + 1)).x for run, state in lanes]

    assert torch.equal(batch.round().x, torch.stack(alone()))
    times: dict[str, list[float]] = {"batch": [], "alone": []}
    ends = time.perf_counter() + seconds
    while len(times["batch"]) < 3 or time.perf_counter() < ends:
        for case, call in (("batch", batch.round), ("alone", alone)):
            began = time.perf_counter()
            call()
            times[case].append(1e3 * (time.perf_counter() - began) / count)
    least = {case: min(found) for case, found in times.items()}
    return {"case": name, "runs": count, "ms": least, "times": least["alone"] / least["batch"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="for each line")
    parser.add_argument("--runs", type=int, nargs="*", default=[6, 30])
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = [measured(name, count, given.seconds) for name in CASES for count in given.runs]
    head = ["what", "runs", "alone (ms a run and round)", "in the batch (ms)", "times as fast"]
    rows = [[one["case"], one["runs"], one["ms"]["alone"], one["ms"]["batch"], one["times"]] for one in found]
    on = machine()
    text = (
        f"{described(on)}; one thread. Runs of two attacks with as many seeds each; least times of a round. "
    )
    text += "`python benchmarks/graph_sweeps.py` makes this page. The bits are those of each run alone.\n"
    page = ["# Runs on one graph as a batch\n", text, table(head, rows)]
    print(page[-1])
    write("graph_sweeps", "\n".join(page), {"machine": on, "lines": found})


if __name__ == "__main__":
    main()
