"""Losses over a batch, and the sum of n workers' mean losses in one call where the loss allows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Loss = Callable[[Any, Tensor], Tensor]  # (output, targets) -> scalar mean over the batch
IGNORED = -100  # torch's mark of a target that counts neither above nor below the fraction


def sequence_cross_entropy(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """Mean cross-entropy per symbol: logits `[b, T, V]`, targets `[b, T]` of integers."""
    return functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction=reduction)


# Losses that are means of elementwise terms, so that all workers' terms can be taken at once.
ELEMENTWISE: frozenset[Any] = frozenset(
    {
        functional.cross_entropy,
        functional.nll_loss,
        functional.mse_loss,
        functional.binary_cross_entropy_with_logits,
        sequence_cross_entropy,
    }
)


def plain(loss: Loss) -> Loss:
    """`loss`, or the function that it stands for where it is a module with default settings."""
    return functional.cross_entropy if type(loss) is nn.CrossEntropyLoss and _is_default(loss) else loss


def sum_of_means(loss: Loss, output: Tensor, targets: Tensor, whole: Tensor) -> Tensor:
    """Σ_i loss(output_i, targets_i) for `output` `[n b, ...]` and `targets` `[n, b, ...]`.

    A known elementwise loss is one call, and `targets` may be part of the samples of the batch `whole`
    `[n, B, ...]`: the parts' losses then add up to the batch's. Any other is called for each worker's slice.
    """
    n, b = targets.shape[:2]
    if loss not in ELEMENTWISE:
        slices = output.reshape(n, b, *output.shape[1:])
        return torch.stack([loss(out, y) for out, y in zip(slices, targets, strict=True)]).sum()
    terms = loss(output, targets.flatten(0, 1), reduction="none").reshape(n, -1)  # type: ignore[call-arg]
    if targets.is_floating_point() or loss is functional.mse_loss:
        return terms.mean(dim=1).sum() * (b / whole.shape[1])
    counted = (whole != IGNORED).reshape(n, -1).sum(dim=1)
    return (terms.sum(dim=1) / counted).sum()


def slope(loss: Loss, output: Tensor, targets: Tensor) -> Tensor:
    """The gradient by `output` `[n b, ...]` of Σ_i loss(output_i, targets_i), `targets` `[n, b, ...]`."""
    n, b = targets.shape[:2]
    if loss is functional.cross_entropy and targets.ndim == 2 and not targets.is_floating_point():
        # softmax minus one at the label; a target that does not count has no slope.
        counted = targets != IGNORED
        ones = counted.to(output.dtype)
        share = (ones / ones.sum(dim=1, keepdim=True)).reshape(n * b, 1)
        labels = torch.where(counted, targets, 0).reshape(n * b, 1)
        # torch.softmax is several times slower over a short last dimension.
        chances = (output - output.amax(dim=1, keepdim=True)).exp_()
        return chances.mul_(share / chances.sum(dim=1, keepdim=True)).scatter_add_(1, labels, -share)
    with torch.enable_grad():
        leaf = output.detach().requires_grad_()
        return torch.autograd.grad(sum_of_means(loss, leaf, targets, targets), leaf)[0]


def _is_default(loss: nn.CrossEntropyLoss) -> bool:
    options = (loss.weight, loss.ignore_index, loss.reduction, loss.label_smoothing)
    return options == (None, IGNORED, "mean", 0.0)
