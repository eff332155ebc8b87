"""Data sets of users as tensors: checked, images as `[m, channels, side, side]`, labels as whole numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from byzopt.errors import InvalidInput, require

Pair = tuple[Any, Any]
COLOURS = (1, 3, 4)  # channels by which images are known


class Loaded(NamedTuple):
    """Inputs and labels for training, and for the test where there is one, as they are stored."""

    train: Pair
    test: Pair | None = None


def checked(pair: Pair, what: str) -> tuple[Tensor, Tensor]:
    """Inputs `[m, ...]` as floating values, bytes as shares of 255, and labels `[m]` as int64.

    Errors: `InvalidInput` that names the set: no numbers, no samples, other lengths, NaN or Inf, labels that
    are no whole numbers from 0.
    """
    inputs, labels = (_tensor(part, f"The {name} of {what}") for part, name in zip(pair, NAMES, strict=True))
    shape = tuple(inputs.shape)
    rule = "have shape [m, features], [m, height, width] or [m, channels, height, width], with m >= 1"
    require(2 <= inputs.ndim <= 4 and 0 not in shape, f"The inputs of {what}", rule, list(shape))
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels.squeeze(1)
    wanted, found = [len(inputs)], list(labels.shape)
    require(found == wanted, f"The labels of {what}", f"have shape {wanted}, one for each input", found)
    return _as_images(_floating(inputs, what)), _whole(labels, what)


NAMES = ("inputs", "labels")


def alike(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], what: str) -> None:
    """Raise `InvalidInput` unless test samples look like those of the training, and show no other labels."""
    wanted, found = list(train[0].shape[1:]), list(test[0].shape[1:])
    require(found == wanted, f"The test samples of {what}", f"have shape {wanted}, as in training", found)
    most, shown = int(train[1].max()), int(test[1].max())
    rule = f"lie in 0..{most}, as in training"
    require(shown <= most, f"The test labels of {what}", rule, f"one of {shown}")


def _tensor(values: Any, what: str) -> Tensor:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        # A copy in this machine's byte order, which may be written to.
        kind = np.dtype(np.float64) if values.dtype.itemsize > 8 else values.dtype.newbyteorder("=")
        if kind.kind == "u" and kind.itemsize > 1:
            kind = np.dtype(np.int64)
        values = torch.from_numpy(values.astype(kind))
    if not isinstance(values, Tensor):
        found = f"an array of {values.dtype}" if isinstance(values, np.ndarray) else type(values).__name__
        raise InvalidInput(f"{what} should be an array of real numbers. Found {found}.")
    real = not (values.is_complex() or values.is_quantized or values.layout is not torch.strided)
    require(real, what, "be an array of real numbers", f"a tensor of {values.dtype}, {values.layout}")
    tensor: Tensor = values
    return tensor


def _floating(inputs: Tensor, what: str) -> Tensor:
    if inputs.dtype == torch.uint8:
        return inputs.float() / 255
    if not inputs.is_floating_point():
        return inputs.float()
    inputs = inputs if inputs.dtype in (torch.float32, torch.float64) else inputs.float()
    good = torch.isfinite(inputs.flatten(1)).all(dim=1)
    if not good.all():
        bad = (~good).nonzero().flatten()
        found = f"NaN or Inf in {len(bad):,} of {len(inputs):,}, first in sample {int(bad[0])}"
        require(False, f"The inputs of {what}", "be finite", found, "Clean the data first.")
    return inputs


def _whole(labels: Tensor, what: str) -> Tensor:
    name, rule = f"The labels of {what}", "be whole numbers from 0, one for each class"
    whole = bool(torch.isfinite(labels).all()) and bool((labels == labels.round()).all())
    require(whole, name, rule, "others", "Targets of regressions need a task of your own: docs/tasks.md.")
    least = float(labels.min())
    require(least >= 0, name, rule, f"{least:g}", "Number the classes from 0.")
    most, count = float(labels.max()), len(labels)
    require(most < count, name, "be fewer classes than samples", f"a label {most:g} with {count:,} samples")
    return labels.long()


def _as_images(inputs: Tensor) -> Tensor:
    """`[m, channels, height, width]` of all that has more than one axis; channels may come last."""
    if inputs.ndim == 3:
        return inputs.unsqueeze(1)
    if inputs.ndim == 4 and inputs.shape[1] not in COLOURS and inputs.shape[3] in COLOURS:
        return inputs.permute(0, 3, 1, 2).contiguous()
    return inputs
