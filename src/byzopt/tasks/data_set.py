"""Classification on a data set of the user's: by its path, or by the name that another package gives it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from byzopt.errors import require
from byzopt.rng import stream
from byzopt.tasks import models
from byzopt.tasks.base import TASKS
from byzopt.tasks.data import files, packages, samples, share_while_used
from byzopt.tasks.dealing import ByzantineData
from byzopt.tasks.devices import device_of
from byzopt.tasks.images import DTYPES, Images
from byzopt.tasks.partitions import IID, Partition
from byzopt.tasks.proxies import Proxy
from byzopt.tasks.vision import NETWORKS, Norm

Stamps = tuple[files.Stamp, ...]


@TASKS.register("data_set")
@dataclass(frozen=True)
class DataSet(Images):
    """Labelled samples of your own, from `data`: a path, or a name as `torchvision:CIFAR10`.

    A path is that of a `.npz` file, of tensors in a `.pt` file, of a LIBSVM file, or of a folder with a
    folder of images for each class; relative ones start where byzopt is run, then in the data directory.
    `torchvision:NAME`, `datasets:NAME` (or `datasets:NAME:CONFIG`) and `medmnist:NAME` are sets of those
    packages, where they are installed. Nothing in a file is executed. A spec's id holds the path and not the
    content: `digest` ties a run to it.

    Bytes are divided by 255. With `scale = "standard"` each channel of images, or each feature, then gets
    mean 0 and variance 1 over the training samples; "none" leaves values as they are. Where a set brings no
    test, and `test` names none, a random `test_share` of it is held out by the seed of the data. See `Images`
    for more on the fields.

    Args:
        data: Path, or package and name.
        test: Path of the test set, where `data` is a path and brings none.
        test_share: Share held out for the test where there is none, in (0, 1).
        digest: sha256 of the content at `data` (then of `test`); empty: not looked at.
        size: Side to which images of folders are brought, in pixels; 0: they have one size.
        scale: "standard" or "none".
        model: "mlp", "linear", "resnet18", "resnet20" or "vgg11".
        norm: Of the convolutional networks: "group", or "batch" as docs/tasks.md says.
        hidden: Widths of the hidden layers of the MLP.
        batch: Samples a worker and round, or "full".
        partition: Who owns which training samples.
        byzantine_data: What Byzantine workers draw from: a "share", "all", or a "mirror" of an honest one.
        validation: Number of training samples held out of all workers' data.
        dtype: "float32" or "float64".
        device: Where the model and the data are.
        wd: Weight decay: wd/2 ‖x‖² is part of every loss.
        proxy: The loss that the server owns, if any.
        pool: Side of the squares of pixels that are averaged.
        initial: Starting point: the "module" as it is made, or "zero".
        gap: Whether the gap to the least training loss is measured (linear, wd > 0, float64).

    Raises:
        MissingData: Nothing lies there, or a package cannot get what it was asked for.
        MissingExtra: The package is not installed.
        InvalidInput: Data that are damaged, of another shape, or not finite.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from byzopt import Cohort
        >>> from byzopt.tasks import DataSet
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "own.npz"
        ...     np.savez(path, x=np.random.default_rng(0).normal(size=(100, 6)), y=np.arange(100) % 2)
        ...     task = DataSet(data=str(path), model="linear").build(Cohort.of(10, byzantine=2), seed=0)
        >>> task.layout.d  # 6 weights and a bias for each of two classes
        14
    """

    data: str = ""
    test: str = ""
    test_share: float = 0.2
    digest: str = ""
    size: int = 0
    scale: Literal["standard", "none"] = "standard"
    model: Literal["mlp", "linear", "resnet18", "resnet20", "vgg11"] = "mlp"
    norm: Norm = "group"
    hidden: tuple[int, ...] = (64,)
    batch: int | Literal["full"] = 32
    partition: Partition = IID()
    byzantine_data: ByzantineData = "share"
    validation: int = 0
    dtype: Literal["float32", "float64"] = "float32"
    device: str = "cpu"
    wd: float = 0.0
    proxy: Proxy | None = None
    pool: int = 1
    initial: Literal["module", "zero"] = "module"
    gap: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.test_share < 1, "Parameter `test_share`", "lie in (0, 1)", self.test_share)
        require(self.size >= 0, "Parameter `size`", "be at least 0", self.size)
        alone = self.package is None or not (self.test or self.digest or self.size)
        rule = "be given with a path alone"
        require(alone, "`test`, `digest` and `size` of data_set", rule, f"data = {self.data!r}")

    @property
    def package(self) -> str | None:
        """The package that has the set; None for a path."""
        name = self.data.partition(":")[0]
        return name if name in packages.PACKAGES else None

    def pooled(self) -> str:
        if self.scale == "none":
            return ""
        return (
            "features are standardised by mean and variance of all workers' training samples. "
            'Set scale = "none", and scale the data by fixed numbers'
        )

    def loaded(self, data_seed: int) -> tuple[Tensor, ...]:
        example = 'as data = "mine.npz" or data = "torchvision:CIFAR10"'
        require(bool(self.data), "Parameter `data` of data_set", f"be a path or a name, {example}", "none")
        device = device_of(self.device)  # refused before anything is read
        paths = [] if self.package else [files.locate(name) for name in (self.data, self.test) if name]
        for path in paths:
            files.check_folder(path)  # before all that lies in it is looked at
        stamps = tuple(files.stamp(path) for path in paths)
        return _prepared(self, tuple(paths), stamps, data_seed, device)

    def content(self) -> dict[str, str]:
        names = [name for name in (self.data, self.test) if name and not self.package]
        paths = {name: files.locate(name) for name in names}
        for path in paths.values():
            files.check_folder(path)
        return {name: files.content(path, files.stamp(path)) for name, path in paths.items()}

    def network(self, shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
        if self.model in NETWORKS:
            return NETWORKS[self.model](shape, classes, self.norm, seed)
        return models.mlp((*shape, *(self.hidden if self.model == "mlp" else ()), classes), seed)

    def check_digest(self, paths: tuple[Path, ...]) -> None:
        """Raise `InvalidInput` where the content is another than the spec says."""
        if self.digest:
            each = [files.digest(path) for path in paths]
            found = each[0] if len(each) == 1 else sha256("".join(each).encode()).hexdigest()
            told, what = self.digest.lower(), f"The content of {self.data}"
            formed = re.fullmatch("[0-9a-f]{64}", told) is not None
            flaw = "" if formed else "What was given is no sha256, which has 64 hexadecimal digits. "
            remedy = f'{flaw}If this is the content that is meant, set digest = "{found}".'
            require(found == told, what, f"have the digest {self.digest}", found, remedy)


@share_while_used
def _prepared(
    task: DataSet, paths: tuple[Path, ...], stamps: Stamps, data_seed: int, device: torch.device
) -> tuple[Tensor, ...]:
    """Training samples and labels, then those of the test; the same tensors for equal tasks."""
    task.check_digest(paths)
    inputs, labels, *test = _checked(task.data, paths, stamps, task.size)
    if not test:
        order = torch.randperm(len(inputs), generator=stream(data_seed, "data_set", "test"), device="cpu")
        count = max(1, round(task.test_share * len(inputs)))
        remedy = "Lower `test_share`, or name a `test`."
        require(count < len(inputs), "The held out test samples", "leave some", len(inputs), remedy)
        held, kept = order[:count].sort().values, order[count:].sort().values
        inputs, labels, test = inputs[kept], labels[kept], [inputs[held], labels[held]]
    samples.tell_empty(labels, test[1], task.data)
    parts = [_shaped(part, task) for part in (inputs, test[0])]
    if task.scale == "standard":
        parts = _standardised(*parts)
    if task.model not in NETWORKS:
        parts = [part.flatten(1) for part in parts]
    placed = [part.to(device, DTYPES[task.dtype]) for part in parts]
    return placed[0], labels.to(device), placed[1], test[1].to(device)


@share_while_used
def _checked(data: str, paths: tuple[Path, ...], stamps: Stamps, size: int) -> tuple[Tensor, ...]:
    """What a set holds, checked: two tensors, or four with those of its test."""
    if paths:
        found = files.read(paths[0], paths[1] if len(paths) > 1 else None, size)
    else:
        package, _, name = data.partition(":")
        found = packages.read_named(package, name)
    train = samples.checked(found.train, data, found.channels_last)
    samples.classes_in(train[1], data)
    if found.test is None:
        return train
    test = samples.checked(found.test, f"the test of {data}", found.channels_last)
    samples.of_one_kind(found.train[0], found.test[0], data)
    samples.alike(train, test, data)
    return *train, *test


def _shaped(inputs: Tensor, task: DataSet) -> Tensor:
    images = inputs.ndim == 4
    found = f"samples of shape {list(inputs.shape[1:])}"
    fits = images or (task.model not in NETWORKS and task.pool == 1)
    require(fits, f"Model {task.model!r} with pool = {task.pool}", "have images", found, 'Use model = "mlp".')
    return functional.avg_pool2d(inputs, task.pool) if task.pool > 1 else inputs


def _standardised(train: Tensor, test: Tensor) -> list[Tensor]:
    """Both with the channels or features of `train` at mean 0 and variance 1; a constant one becomes 0."""
    axes = [0, 2, 3] if train.ndim == 4 else [0]
    mean = train.double().mean(dim=axes, keepdim=True)
    spread = train.double().sub(mean).square().mean(dim=axes, keepdim=True).sqrt()
    spread = torch.where(spread > 0, spread, 1.0)
    return [((part.double() - mean) / spread).to(part.dtype) for part in (train, test)]
