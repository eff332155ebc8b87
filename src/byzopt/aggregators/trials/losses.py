"""What steps that are tried come to on the loss that the server owns."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from byzopt.errors import InvalidInput

ServerLoss = Callable[[Tensor], Tensor]  # x [d] to one number


def owned_loss(proxy: ServerLoss | None, what: str) -> ServerLoss:
    """The loss that the server owns. Errors: a server that owns none."""
    if proxy is None:
        raise InvalidInput(
            f"{what} should have a loss that the server owns. Found none. "
            'Give the task one (task.proxy = "sample"), or use another method, such as robust_sgdm.'
        )
    return proxy


def trial_losses(loss: ServerLoss, x: Tensor, steps: Tensor, length: float) -> Tensor:
    """The loss at x - `length` · step for each of `steps` `[k, d]`: `[k]` in float64, infinite for NaN.

    Equal points are asked for once: an attacker who tries many sets of rows moves few rows of each.
    """
    points = (x - length * steps.to(x.device)).to(x.dtype)
    known: dict[bytes, float] = {}
    values = []
    with torch.no_grad():
        for point, key in zip(points, points.cpu(), strict=True):
            name = key.numpy().tobytes()
            if name not in known:
                known[name] = float(loss(point))
            values.append(known[name])
    return torch.tensor(values, dtype=torch.float64, device="cpu").nan_to_num(nan=torch.inf, posinf=torch.inf)
