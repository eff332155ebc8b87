"""What server and clients share: the model, its loss, and who has which images."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

TEST = 360  # images that no client has

loss = nn.functional.cross_entropy


def net() -> nn.Module:
    """Softmax regression."""
    torch.manual_seed(0)
    return nn.Linear(64, 10)


def images(part: int | None = None, parts: int = 1) -> tuple[Tensor, Tensor]:
    """The images and labels of one part of `parts`; without a part, the test images."""
    pixels, labels = load_digits(return_X_y=True)
    inputs, targets = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels)
    mixed = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))
    mine = mixed[:TEST] if part is None else mixed[TEST:][part::parts]
    return inputs[mine], targets[mine]
