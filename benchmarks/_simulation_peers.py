"""The peer's half of `simulation.py`: ByzFL's clients and server, run in the peers' own environment.

    python benchmarks/_simulation_peers.py THREADS ROUNDS W1 W3     # one JSON object: workload -> ms a round

A round is what ByzFL's own training loop does in one: gradients of the honest clients with momentum, the
attack, the server's step, the new model sent to all clients. Evaluation is left out. All is float32, the
only precision that ByzFL's server works in.
"""

from __future__ import annotations

import json
import sys
import time
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import _unused  # noqa: F401

N, F = 20, 3


class W1(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))


class W3(nn.Module):
    """‖x‖⁴ + ⟨x, noise⟩ at x = (1 .. 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.ones(10))

    def forward(self, noise: Any) -> Any:
        return (self.x @ self.x) ** 2 + noise @ self.x


class W4(nn.Linear):
    def __init__(self) -> None:
        super().__init__(123, 1, bias=False)

    def forward(self, x: Any) -> Any:
        return super().forward(x).squeeze(-1)


class Itself(nn.Module):
    """The mean of the model's output as the loss."""

    def forward(self, output: Any, targets: Any) -> Any:
        return output.mean()


def images(m: int, shape: tuple[int, ...]) -> TensorDataset:
    return TensorDataset(torch.randn(m, *shape), torch.randint(10, (m,)))


def workloads() -> dict[str, tuple[str, str, Any, int]]:
    """Name -> model, loss, one client's data, batch."""
    logistic = TensorDataset(torch.rand(1628, 123), torch.randint(2, (1628,)).float())
    noise = TensorDataset(0.003 * torch.randn(1000, 10), torch.zeros(1000))
    return {
        "W1": ("W1", "CrossEntropyLoss", images(1000, (784,)), 64),
        "W3": ("W3", "Itself", noise, 1),
        "W4": ("W4", "BCEWithLogitsLoss", logistic, 32),
        "W4f": ("W4", "BCEWithLogitsLoss", logistic, 1628),
        "W5": ("cnn_mnist", "NLLLoss", images(1000, (1, 28, 28)), 32),
    }


def milliseconds(model: str, loss: str, data: Any, batch: int, rounds: int) -> float:
    from byzfl import ByzantineClient, Client, Server

    def loader() -> DataLoader[Any]:
        return DataLoader(data, batch_size=batch, shuffle=True)

    shared = {"model_name": model, "device": "cpu"}
    own = {"loss_name": loss, "LabelFlipping": False, "nb_labels": 10, "momentum": 0.9}
    clients = [
        Client(shared | own | {"training_dataloader": loader(), "store_per_client_metrics": False})
        for _ in range(N - F)
    ]
    rate = {"learning_rate": 1e-3, "weight_decay": 0.0, "milestones": [], "learning_rate_decay": 1.0}
    rule = {"name": "GeometricMedian", "parameters": {"nu": 0.1, "T": 8}}
    mixing = [{"name": "NNM", "parameters": {"f": F}}]
    server = Server(
        shared
        | rate
        | {"optimizer_name": "SGD", "test_loader": loader(), "aggregator_info": rule}
        | {"pre_agg_list": mixing}
    )
    liars = ByzantineClient({"name": "ALittleIsEnough", "f": F, "parameters": {"tau": 1.0}})
    times = []
    for _ in range(rounds + 2):
        began = time.perf_counter()
        for client in clients:
            client.compute_gradients()
        honest = [client.get_flat_gradients_with_momentum() for client in clients]
        server.update_model_with_gradients(honest + liars.apply_attack(honest))
        state = server.get_dict_parameters()
        for client in clients:
            client.set_model_state(state)
        times.append(time.perf_counter() - began)
    return 1e3 * median(times[2:])


def main(threads: int, rounds: int, names: list[str]) -> None:
    from byzfl.fed_framework import models

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    for kind in (W1, W3, W4):
        setattr(models, kind.__name__, kind)
    nn.Itself = Itself  # type: ignore[attr-defined]
    slow = {"W4f": 4, "W5": 8}
    found = {}
    for name in names:
        found[name] = milliseconds(*workloads()[name], max(3, rounds // slow.get(name, 1)))
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
