"""Data sets by the names that `torchvision`, `datasets` and `medmnist` give them, where those are there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from importlib import import_module
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from byzopt.errors import ByzoptError, MissingData, MissingExtra, require, unknown
from byzopt.tasks.data.samples import Loaded, Pair
from byzopt.tasks.data.store import OFFLINE, roots

INPUTS = ("image", "img", "pixels", "features", "inputs", "x")
LABELS = ("label", "labels", "fine_label", "target", "targets", "y")


def read_named(package: str, name: str) -> Loaded:
    """The set that a package calls so. What the package downloads it keeps in a folder of its own, in the
    first directory for data.

    Errors: `MissingExtra`, `MissingData`, and `UnknownName` for names that the package does not have.
    """
    try:
        module = import_module(package)
    except ImportError as error:
        raise MissingExtra(
            f"Data set {package}:{name} needs {package}. Found: {error}. Run pip install {package}."
        ) from None
    try:
        return PACKAGES[package](module, name)
    except ByzoptError:
        raise
    except Exception as error:  # whatever a package raises where it has no network, no disk, no such set
        told = " ".join(str(error).split())[:300] or type(error).__name__
        raise MissingData(f"Data set {package}:{name} could not be had. {package} said: {told}") from None


def _torchvision(module: ModuleType, name: str) -> Loaded:
    known = [one for one in dir(module.datasets) if one[:1].isupper()]
    if name not in known:
        raise unknown("data set of torchvision", name, known)
    make, options = getattr(module.datasets, name), {"root": _root("torchvision"), "download": _online()}
    parameters = signature(make).parameters
    options = {key: value for key, value in options.items() if key in parameters}
    parts: list[Any]
    if "train" in parameters:
        parts = [make(**options, train=train) for train in (True, False)]
    else:
        rule = "have a parameter `train` or `split`"
        require("split" in parameters, f"torchvision's {name}", rule, sorted(parameters))
        parts = [make(**options, split=split) for split in ("train", "test")]
    return Loaded(*(_pairs((part[i] for i in range(len(part))), name) for part in parts))


def _datasets(module: ModuleType, name: str) -> Loaded:
    path, _, config = name.partition(":")
    offline = {} if _online() else {"download_config": module.DownloadConfig(local_files_only=True)}
    found = module.load_dataset(path, config or None, **offline)
    require("train" in found, f"Data set datasets:{name}", "have a split `train`", sorted(found))
    test = next((found[split] for split in ("test", "validation") if split in found), None)
    return Loaded(_columns(found["train"], name), None if test is None else _columns(test, name))


def _columns(part: Any, name: str) -> Pair:
    columns = list(part.column_names)
    chosen = []
    for what, names in (("inputs", INPUTS), ("labels", LABELS)):
        column = next((one for one in names if one in columns), None)
        require(column is not None, f"The {what} of datasets:{name}", f"be called one of {names}", columns)
        chosen.append(column)
    return _pairs(zip(*(part[column] for column in chosen), strict=True), name)


def _medmnist(module: ModuleType, name: str) -> Loaded:
    if name not in module.INFO:
        raise unknown("data set of medmnist", name, list(module.INFO))
    make = getattr(module, module.INFO[name]["python_class"])
    options = {"root": _root("medmnist"), "download": _online()}
    parts = [make(split=split, **options) for split in ("train", "test")]
    return Loaded(*((part.imgs, part.labels) for part in parts))


def _pairs(samples: Iterable[tuple[Any, Any]], name: str) -> Pair:
    """Samples (image, label) one after the other, as two arrays."""
    images, labels = [], []
    for image, label in samples:
        indexed = getattr(image, "mode", "") == "P"  # Pillow's bytes are then places in a palette
        images.append(np.asarray(image.convert("RGB") if indexed else image))
        labels.append(label)
    shapes = sorted({image.shape for image in images})
    require(len(shapes) == 1, f"All samples of {name}", "have one shape", shapes[:5])
    kinds = sorted({str(image.dtype) for image in images})
    require(len(kinds) == 1, f"All samples of {name}", "have one dtype", kinds)
    return np.stack(images), np.asarray(labels)


def _root(package: str) -> str:
    """Where a package keeps what it downloads; it is made if need be."""
    path: Path = roots()[0] / package
    path.mkdir(parents=True, exist_ok=True)
    return str(path)


def _online() -> bool:
    return os.environ.get(OFFLINE, "").lower() in ("", "0", "off", "no")


PACKAGES: dict[str, Callable[[ModuleType, str], Loaded]] = {
    "torchvision": _torchvision,
    "datasets": _datasets,
    "medmnist": _medmnist,
}
