"""The ServerApp: byzopt's strategy where FedAvg would be, and the accuracy after every round."""

from __future__ import annotations

import torch
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from byzopt.flower import RobustStrategy, arrays_of
from robust_digits.task import images, net

app = ServerApp()


def accuracy(t: int, arrays: ArrayRecord) -> MetricRecord:
    inputs, targets = images()
    model = net()
    model.load_state_dict(arrays.to_torch_state_dict())
    with torch.no_grad():
        right = model(inputs).argmax(dim=1) == targets
    return MetricRecord({"accuracy": float(right.float().mean())})


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    strategy = RobustStrategy(
        str(config["rule"]),
        method={"name": "robust_sgdm", "eta": 0.5},
        lr=4.0,
        f=int(config["faulty"]),
        n=int(config["nodes"]),
    )
    result = strategy.start(
        grid,
        arrays_of(net()),
        num_rounds=int(config["rounds"]),
        timeout=float(config["timeout"]),
        evaluate_fn=accuracy,
    )
    last = max(result.evaluate_metrics_serverapp)
    print(f"test accuracy {result.evaluate_metrics_serverapp[last]['accuracy']:.3f} after round {last}")
    for node, rank in zip(result.nodes, result.watch.ranks, strict=True):
        print(f"node {node}: suspicion {rank.suspicion:.2f}, weight {rank.weight:.2f}")
