"""What one faulty client of five costs a Flower app that trains locally, by strategy and fault.

    python benchmarks/flower_faults.py

The app is `examples/flower_fedavg`, and its nodes live in this process. Prints the test accuracy after the
last round as a table, or the exception that ended a run. Needs the extra `flower`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples" / "flower_fedavg")]

from fedavg_digits import client_app, server_app, task
from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp.strategy import FedAvg, Strategy
from tests.flowers import PlayGrid

from byzopt.flower import RobustFedAvg

FAULTS = (None, "lies", "nan", "another_model", "boasts", "crashes")
STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "FedAvg()": FedAvg,
    **{
        f'RobustFedAvg(rule="{rule}", f=1)': partial(RobustFedAvg, rule=rule, f=1)
        for rule in ("rfa", "nnm >> rfa", "median", "trimmed_mean", "centered_clipping", "krum")
    },
    'RobustFedAvg(rule="nnm >> rfa", f=1, weighted_by_key="num-examples")': partial(
        RobustFedAvg, rule="nnm >> rfa", f=1, weighted_by_key="num-examples"
    ),
}


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--rounds", type=int, default=5)
    given.add_argument("--epochs", type=int, default=2, help="local epochs in a round")
    given.add_argument("--seeds", type=int, default=3, help="runs over which the accuracy is averaged")
    options = given.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    print("| strategy | " + " | ".join(fault or "nobody" for fault in FAULTS) + " |")
    print("| --- |" + " --- |" * len(FAULTS))
    for name, make in STRATEGIES.items():
        cells = [cell(make, fault, options) for fault in FAULTS]
        print(f"| `{name}` | " + " | ".join(cells) + " |", flush=True)


def cell(make: Callable[[], Strategy], fault: str | None, options: argparse.Namespace) -> str:
    """The mean accuracy of some runs, or the exception that ended one."""
    try:
        runs = [accuracy(make(), fault, options, seed) for seed in range(options.seeds)]
    except Exception as error:
        return type(error).__name__
    return f"{sum(runs) / len(runs):.3f}"


def accuracy(strategy: Strategy, fault: str | None, options: argparse.Namespace, seed: int) -> float:
    """Of one run, whose last node has that fault."""
    torch.manual_seed(seed)
    settings = {"batch-size": 32, "local-epochs": options.epochs}
    grid = PlayGrid(client_app.app, 5, run_config=settings)
    if fault:
        grid.contexts[-1].node_config["faulty"] = fault
    result = strategy.start(
        grid,
        ArrayRecord(task.Net().state_dict()),
        num_rounds=options.rounds,
        train_config=ConfigRecord({"lr": 0.05}),
        evaluate_fn=server_app.global_evaluate,
    )
    return float(result.evaluate_metrics_serverapp[options.rounds]["accuracy"])


if __name__ == "__main__":
    main()
