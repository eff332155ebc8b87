"""Losses over a batch, and the sum of n workers' mean losses in one call where the loss allows it."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from byzopt.errors import InvalidInput, require

Loss = Callable[[Any, Tensor], Tensor]  # (output, targets) -> scalar mean over the batch
IGNORED = -100  # torch's mark of a target that counts neither above nor below the fraction


def sequence_cross_entropy(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """Mean cross-entropy per symbol: logits `[b, T, V]`, targets `[b, T]` of integers.

    Args:
        logits: `[b, T, V]`.
        targets: Integers in 0 .. V - 1, `[b, T]`.
        reduction: "mean", "sum" or "none", as in PyTorch.

    Returns:
        One number, in nats a symbol; with "none" the losses of all symbols.

    Examples:
        >>> import torch
        >>> from byzopt import sequence_cross_entropy
        >>> sequence_cross_entropy(torch.zeros(2, 5, 4), torch.zeros(2, 5, dtype=torch.int64))  # log 4
        tensor(1.3863)
    """
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


_FUNCTIONS: dict[type, Any] = {
    nn.CrossEntropyLoss: functional.cross_entropy,
    nn.NLLLoss: functional.nll_loss,
    nn.MSELoss: functional.mse_loss,
    nn.BCEWithLogitsLoss: functional.binary_cross_entropy_with_logits,
}


def unwrap_loss(loss: Loss) -> Loss:
    """`loss`, or the function that it stands for where it is a module with default settings."""
    known = _FUNCTIONS.get(type(loss))
    return known if known is not None and _is_default(loss) else loss


def termwise(loss: Loss, output: Any, targets: Tensor) -> bool:
    """Whether `loss` is known to be a mean of terms that belong to one sample each, for outputs and targets
    like these, so that it can be taken from parts of a batch."""
    loss = unwrap_loss(loss)
    if loss not in ELEMENTWISE or not isinstance(output, Tensor):
        return False
    # Where these two broadcast, every output meets every target.
    squares = loss in (functional.mse_loss, functional.binary_cross_entropy_with_logits)
    return len(output) == len(targets) and (output.shape == targets.shape or not squares)


def counted(targets: Tensor) -> Tensor:
    """Which targets count, as ones and zeros: all but those of torch's `ignore_index`."""
    return torch.ones_like(targets) if targets.is_floating_point() else (targets != IGNORED).long()


def sum_of_means(loss: Loss, output: Tensor, targets: Tensor, whole: Tensor) -> Tensor:
    """Σ_i loss(output_i, targets_i) for `output` `[n b, ...]` and `targets` `[n, b, ...]`.

    A known elementwise loss is one call, and `targets` may be part of the samples of the batch `whole`
    `[n, B, ...]`: the parts' losses then add up to the batch's. Any other is called for each worker's slice.
    """
    n, b = targets.shape[:2]
    if not termwise(loss, output, targets.flatten(0, 1)):
        slices = output.reshape(n, b, *output.shape[1:])
        return torch.stack([loss(out, y).reshape(()) for out, y in zip(slices, targets, strict=True)]).sum()
    terms = loss(output, targets.flatten(0, 1), reduction="none").reshape(n, -1)  # type: ignore[call-arg]
    if targets.is_floating_point() or loss is functional.mse_loss:
        return terms.mean(dim=1).sum() * (b / whole.shape[1])
    # A batch without a target that counts has no loss; its gradient is zero, as torch's is.
    number = counted(whole).reshape(n, -1).sum(dim=1).clamp_min(1)
    return (terms.sum(dim=1) / number).sum()


def slope(loss: Loss, output: Tensor, targets: Tensor) -> Tensor:
    """The gradient by `output` `[n b, ...]` of Σ_i loss(output_i, targets_i), `targets` `[n, b, ...]`."""
    n, b = targets.shape[:2]
    if loss is functional.cross_entropy and targets.ndim == 2 and not targets.is_floating_point():
        # softmax minus one at the label; a target that does not count has no slope.
        counts = targets != IGNORED
        ones = counts.to(output.dtype)
        share = (ones / ones.sum(dim=1, keepdim=True).clamp_min(1)).reshape(n * b, 1)
        labels = torch.where(counts, targets, 0).reshape(n * b, 1)
        # torch.softmax is several times slower over a short last dimension.
        chances = (output - output.amax(dim=1, keepdim=True)).exp_()
        return chances.mul_(share / chances.sum(dim=1, keepdim=True)).scatter_add_(1, labels, -share)
    with torch.enable_grad():
        leaf = output.detach().requires_grad_()
        return torch.autograd.grad(sum_of_means(loss, leaf, targets, targets), leaf)[0]


def _is_default(loss: Any) -> bool:
    """Whether a loss module is as its class makes it without arguments."""
    options = [getattr(loss, name, None) for name in ("weight", "pos_weight")]
    plainly = loss.reduction == "mean" and getattr(loss, "ignore_index", IGNORED) == IGNORED
    return plainly and options == [None, None] and not getattr(loss, "label_smoothing", 0.0)


def adopted_loss(loss: Loss, *place: torch.device | torch.dtype) -> Loss:
    """The loss; a module is copied, to a device and dtype where these are given, as its calls may change it.

    Errors: `InvalidInput` for a loss with parameters to train, which are no coordinates of the module.
    """
    if isinstance(loss, type):
        name = f"{'nn.' if loss.__module__.startswith('torch.nn') else ''}{loss.__name__}"
        require(False, "The loss", "be an instance, not a class", name, f"Pass an instance: {name}().")
    if not callable(loss):
        raise InvalidInput(f"The loss should be called on (output, targets). Found {type(loss).__name__}.")
    if not isinstance(loss, nn.Module):
        return loss
    trained = [name for name, p in loss.named_parameters() if p.requires_grad]
    require(
        not trained,
        "The loss",
        "have no parameters of its own to train",
        ", ".join(trained),
        "Make them part of the module, or freeze them with `requires_grad_(False)`.",
    )
    copy = deepcopy(loss)
    for part in place:
        copy = copy.to(part)
    return copy
