"""What the examples of this folder share: scikit-learn's digits, split over ranks, and a small model."""

import torch
from sklearn.datasets import load_digits
from torch import nn


def digits(rank: int, ranks: int) -> torch.utils.data.TensorDataset:
    """This rank's share of the training samples."""
    x, y = samples()
    return torch.utils.data.TensorDataset(x[300:][rank::ranks], y[300:][rank::ranks])


def samples() -> tuple[torch.Tensor, torch.Tensor]:
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    return torch.tensor(data.data, dtype=torch.float32)[order] / 16, torch.tensor(data.target)[order]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))


def accuracy(model: nn.Module) -> float:
    """On 300 samples that no rank trains on."""
    x, y = samples()
    with torch.no_grad():
        return float((model(x[:300]).argmax(dim=1) == y[:300]).float().mean())
