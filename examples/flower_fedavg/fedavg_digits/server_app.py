"""The ServerApp: byzopt's strategy where FedAvg was; nothing else has changed."""

from __future__ import annotations

from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from torch.utils.data import DataLoader

from byzopt.flower import RobustFedAvg
from fedavg_digits.task import Net, images, test

app = ServerApp()


def global_evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    net = Net()
    net.load_state_dict(arrays.to_torch_state_dict())
    loss, accuracy = test(net, DataLoader(images(), batch_size=360))
    return MetricRecord({"loss": loss, "accuracy": accuracy})


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    # Was: strategy = FedAvg(min_available_nodes=int(config["nodes"]))
    strategy = RobustFedAvg(
        min_available_nodes=int(config["nodes"]), rule=str(config["rule"]), f=int(config["faulty"])
    )
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(Net().state_dict()),
        train_config=ConfigRecord({"lr": float(config["learning-rate"])}),
        num_rounds=int(config["rounds"]),
        timeout=float(config["timeout"]),
        evaluate_fn=global_evaluate,
    )
    last = max(result.evaluate_metrics_serverapp)
    print(f"test accuracy {result.evaluate_metrics_serverapp[last]['accuracy']:.3f} after round {last}")
    for node, rank in zip(result.nodes, result.watch.ranks, strict=True):
        print(f"node {node}: suspicion {rank.suspicion:.2f}, weight {rank.weight:.2f}")
