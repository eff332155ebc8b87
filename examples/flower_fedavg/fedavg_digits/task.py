"""What server and clients share: a small CNN with batch norm, who has which images, training, a test."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

TEST = 360  # images that no client has


class Net(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(8 * 9, 10),
        )


def images(part: int | None = None, parts: int = 1) -> TensorDataset:
    """The images and labels of one part of `parts`; without a part, the test images."""
    pixels, labels = load_digits(return_X_y=True)
    inputs = torch.tensor(pixels / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    mixed = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    mine = mixed[:TEST] if part is None else mixed[TEST:][part::parts]
    return TensorDataset(inputs[mine], torch.tensor(labels)[mine])


def train(net: nn.Module, loader: DataLoader[tuple[Tensor, ...]], epochs: int, lr: float) -> float:
    """Train; the mean loss of all batches."""
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    net.train()
    losses = []
    for _ in range(epochs):
        for inputs, labels in loader:
            optimizer.zero_grad()
            loss = cross_entropy(net(inputs), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return sum(losses) / len(losses)


def test(net: nn.Module, loader: DataLoader[tuple[Tensor, ...]]) -> tuple[float, float]:
    """Mean loss and accuracy."""
    net.eval()
    loss = right = 0.0
    with torch.no_grad():
        for inputs, labels in loader:
            outputs = net(inputs)
            loss += float(cross_entropy(outputs, labels, reduction="sum"))
            right += float((outputs.argmax(dim=1) == labels).sum())
    size = len(loader.dataset)  # type: ignore[arg-type]
    return loss / size, right / size
