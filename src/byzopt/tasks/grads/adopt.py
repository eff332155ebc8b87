"""What becomes of a user's module before gradients are taken: a copy that fits, or one clear refusal."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from byzopt.errors import InvalidInput, require

COPYING = "Remove what cannot be copied (locks, open files) from the module."


def trainable_copy(module: nn.Module) -> nn.Module:
    """A copy of `module` to take gradients of; embeddings in it have dense gradients, of equal value.

    `torch.compile`, `DataParallel` and the like are taken off. Errors: `InvalidInput` for what is no plain
    module with real parameters that exist, for statistics shared between processes, and for what cannot be
    copied.
    """
    require(isinstance(module, nn.Module), "The module", "be an nn.Module", type(module).__name__)
    module = _unwrapped(module)
    _refuse(module)
    copy = copied(module)
    for layer in copy.modules():
        if isinstance(layer, (nn.Embedding, nn.EmbeddingBag)):
            layer.sparse = False
    return copy


def copied(module: nn.Module) -> nn.Module:
    """A deep copy. Tensors that an earlier forward pass left as attributes are cut off from its graph."""
    memo: dict[int, object] = {}
    for layer in module.modules():
        for value in vars(layer).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    try:
        return deepcopy(module, memo)
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).strip()}"
        raise InvalidInput(f"The module should be copyable. Found {reason}. {COPYING}") from error


def untracked(module: nn.Module) -> list[str]:
    """Let norms with running statistics keep none, which changes nothing in training mode; their names.

    In evaluation mode they then take the statistics of what they are given. A norm that stays in evaluation
    mode when the module is set to train is frozen, and keeps its own.
    """
    module.train()
    tracking = []
    for name, layer in module.named_modules():
        if isinstance(layer, _NormBase) and layer.training and layer.track_running_stats:
            layer.track_running_stats = False
            layer.running_mean = layer.running_var = layer.num_batches_tracked = None
            tracking.append(name)
    return tracking


def by_batch(module: nn.Module) -> list[nn.Module]:
    """Batch norms that look at the batch when the module is set to train."""
    module.train()
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.training]


def refuse_single_samples(norms: list[nn.Module], samples: int) -> None:
    """Raise `InvalidInput` where one worker's single sample would be the whole of a batch norm's batch."""
    if norms and samples < 2:
        raise InvalidInput(
            f"A module with {type(norms[0]).__name__} should be given at least 2 samples of a worker at a "
            f"time, since each normalises by its own. Found {samples}. Raise `batch`, or use GroupNorm."
        )


def _unwrapped(module: nn.Module) -> nn.Module:
    while True:
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            module = module.module
        elif isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):  # torch.compile
            module = inner
        else:
            return module


def _refuse(module: nn.Module) -> None:
    for name, layer in module.named_modules():
        what = f"{type(layer).__name__} {name!r}" if name else type(layer).__name__
        if isinstance(layer, torch.jit.ScriptModule):
            raise InvalidInput(
                f"The module should be made of Python modules. Found TorchScript ({what}), whose parameters "
                "cannot be replaced. Pass the module that it was compiled from."
            )
        if isinstance(layer, nn.SyncBatchNorm):
            raise InvalidInput(
                f"Workers should not share batch statistics. Found {what}. Use BatchNorm, with which each "
                "worker normalises by its own batch, or GroupNorm."
            )
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if isinstance(tensor, (UninitializedParameter, UninitializedBuffer)):
            raise InvalidInput(
                f"The module's parameters should have shapes. Found {name!r} of a lazy module, which has "
                "seen no samples. Call the module on a batch first."
            )
    for name, parameter in module.named_parameters():
        if parameter.is_complex():
            raise InvalidInput(
                f"The module's parameters should be real. Found {name!r} of {parameter.dtype}. Hold it as a "
                "real parameter with `torch.view_as_real`, and go back by `torch.view_as_complex` in forward."
            )
