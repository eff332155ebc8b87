"""Data sets of users as tensors: checked, images as `[m, channels, side, side]`, labels as whole numbers."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from byzopt.errors import InvalidInput, require

Pair = tuple[Any, Any]
REGRESSION = "Targets of regressions need a task of your own: docs/tasks.md."
_FEW = 10  # classes that a warning names
COLOURS = (1, 3, 4)  # channels by which images are known


class Loaded(NamedTuple):
    """Inputs and labels for training, and for the test where there is one, as they are stored."""

    train: Pair
    test: Pair | None = None

    @property
    def channels_last(self) -> bool:
        """Whether the format says so, whatever the shape."""
        return False


class LoadedPictures(Loaded):
    """What folders of images hold."""

    @property
    def channels_last(self) -> bool:
        return True


def checked(pair: Pair, what: str, channels_last: bool = False) -> tuple[Tensor, Tensor]:
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
    return _floating(_as_images(inputs, what, channels_last), what), _whole(labels, what)


NAMES = ("inputs", "labels")


def classes_in(labels: Tensor, what: str) -> None:
    """Raise `InvalidInput` unless there are two or more classes, one of them with two or more samples."""
    name, most, count = f"The labels of {what}", int(labels.max()), len(labels)
    require(most < count, name, "be fewer classes than samples", f"a label {most} with {count:,} samples")
    sizes = labels.bincount()
    found = int((sizes > 0).sum())
    require(found > 1, name, "be of two or more classes", f"one class, {most}")
    require(
        bool((sizes > 1).any()),
        name,
        "be of fewer classes than samples",
        f"a class for each of {found:,}",
        REGRESSION,
    )


def tell_empty(train: Tensor, test: Tensor, what: str) -> None:
    """Warn of classes from 0 to the largest label that have no training sample."""
    most = int(max(train.max(), test.max()))
    empty = (train.bincount(minlength=most + 1) == 0).nonzero().flatten().tolist()
    if empty:
        more = f" and {len(empty) - _FEW:,} more" if len(empty) > _FEW else ""
        named = ", ".join(map(str, empty[:_FEW])) + more
        warnings.warn(
            f"No training sample of {what} has the label {named}, though labels go up to {most}: a model has "
            "outputs for classes that it never sees. Number classes from 0 without gaps, or hold out less.",
            UserWarning,
            stacklevel=2,
        )


def of_one_kind(train: Any, test: Any, what: str) -> None:
    """Raise `InvalidInput` unless inputs of training and test are of one kind, and so get one scale."""
    wanted, found = _kind(train), _kind(test)
    remedy = "Bytes are divided by 255 and other numbers are not: save both with one dtype, on one scale."
    require(found == wanted, f"The test inputs of {what}", f"be {wanted}, as in training", found, remedy)


def _kind(inputs: Any) -> str:
    if inputs.dtype in (torch.uint8, np.uint8):
        return "bytes"
    if inputs.dtype in (torch.bool, np.bool_):
        return "truth values"
    real = inputs.is_floating_point() if isinstance(inputs, Tensor) else inputs.dtype.kind == "f"
    return "floating numbers" if real else "whole numbers"


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
    labels = labels.long() if labels.dtype == torch.bool else labels
    whole = bool(torch.isfinite(labels).all()) and bool((labels == labels.round()).all())
    require(whole, name, rule, "others", REGRESSION)
    least = float(labels.min())
    require(least >= 0, name, rule, f"{least:g}", "Number the classes from 0.")
    most = float(labels.max())
    require(most < 1 << 31, name, "be fewer classes than samples", f"a label {most:g}")
    return labels.long()


def _as_images(inputs: Tensor, what: str, channels_last: bool) -> Tensor:
    """`[m, channels, height, width]` of all that has more than one axis; channels may come last."""
    if inputs.ndim == 3:
        return inputs.unsqueeze(1)
    if inputs.ndim == 4 and inputs.shape[3] in COLOURS:
        rule = "have 1, 3 or 4 channels on their first or on their last axis, not such numbers on both"
        remedy = "Leave out an axis of one channel, or pad the images so that they are wider."
        found = f"samples of shape {list(inputs.shape[1:])}"
        require(channels_last or inputs.shape[1] not in COLOURS, f"The inputs of {what}", rule, found, remedy)
        return inputs.permute(0, 3, 1, 2).contiguous()
    return inputs
