"""Image classification: scikit-learn's digits and MNIST, dealt to workers by a partition."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from math import isqrt, prod
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from byzopt.cohort import Cohort
from byzopt.errors import require
from byzopt.rng import stream
from byzopt.tasks import data, models
from byzopt.tasks.base import TASKS, DataTaskRecipe
from byzopt.tasks.data import share_while_used
from byzopt.tasks.dealing import ByzantineData, dealt, picked
from byzopt.tasks.devices import device_of
from byzopt.tasks.modules import ModuleTask
from byzopt.tasks.partitions import Dirichlet, Partition, SortedByLabel
from byzopt.tasks.pool import Pool
from byzopt.tasks.proxies import Proxy, owned
from byzopt.tasks.sampling import check_batch

CLASSES = 10
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Images(DataTaskRecipe):
    """What sets of labelled samples share: a model, and training samples dealt to workers.

    `model` with `hidden` widths of the MLP; `batch` samples a worker and round; `partition` by label.
    `byzantine_data="share"`: the partition deals to all n workers, and what falls to the Byzantine is lost to
    the others. `"all"`: the honest share everything, and each Byzantine worker draws from all of it (the
    released code of arXiv:2603.12512). `"mirror"`: the honest share everything, and each Byzantine worker
    holds the samples of an honest one, in turn. `validation` random training samples held out of all
    workers' data, for choosing rates. `measure` gives `loss` and `accuracy` on the whole test set, and
    `validation_loss`, `validation_accuracy`.

    `batch = "full"` takes full gradients. `wd`/2 ‖x‖² is part of every loss, weights and biases alike.
    `proxy` is the loss that the server owns: "worker" for an honest worker's, "server" for one more share of
    the partition, "sample" for a clean sample of all. `pool` averages squares of so many pixels. `initial` is
    the module's own start or "zero".
    With `gap` (linear, wd > 0, float64) `measure` adds `train_loss`, its `grad_norm` and its `gap`.
    """

    tested: ClassVar[bool] = True
    model: str
    hidden: tuple[int, ...]
    batch: int | Literal["full"]
    partition: Partition
    byzantine_data: ByzantineData
    validation: int
    dtype: Literal["float32", "float64"]
    device: str
    wd: float
    proxy: Proxy | None
    pool: int
    initial: Literal["module", "zero"]
    gap: bool

    def __post_init__(self) -> None:
        enough = self.batch == "full" or self.batch >= 1
        require(enough, "Parameter `batch`", "be at least 1, or 'full'", self.batch)
        require(self.pool >= 1, "Parameter `pool`", "be at least 1", self.pool)
        convex = not self.gap or (self.model == "linear" and self.wd > 0 and self.dtype == "float64")
        settings = f"{self.model} with wd = {self.wd} in {self.dtype}"
        require(convex, "A task with `gap`", "have a linear model, wd > 0 and float64", settings)
        require(self.validation >= 0, "Parameter `validation`", "be at least 0", self.validation)
        require(min(self.hidden, default=1) >= 1, "Parameter `hidden`", "hold positive widths", self.hidden)

    def build_on(self, cohort: Cohort, seed: int, data_seed: int) -> ModuleTask:
        images, labels, *test = self.loaded(data_seed)
        classes = 1 + int(max(labels.max(), test[1].max()))
        m, held = len(images), self.validation
        require(held < m, "Parameter `validation`", f"leave some of the {m} training samples", held)
        if self.batch != "full":
            check_batch(self.batch, m - held)
        order = torch.randperm(m, generator=stream(data_seed, "images", "validation"), device="cpu")
        kept, out = order[held:].sort().values, order[:held].sort().values
        generator = stream(data_seed, "images", "partition")
        owner, chosen = owned(self.proxy, cohort, len(kept), stream(data_seed, "images", "proxy"))
        whose = labels.cpu()[kept], kept, self.byzantine_data, owner == cohort.n
        shards, server = dealt(self.partition, cohort, *whose, generator)
        server = server if chosen is None else kept[chosen]
        task = ModuleTask(
            self._module(tuple(images.shape[1:]), classes, seed),
            functional.cross_entropy,
            Pool.dealt(images, labels, shards),
            batch=self.batch,
            test=(test[0], test[1]),
            validation=picked(out, images, labels) if held else None,
            seed=seed,
            byzantine=cohort.byzantine,
            device=self.device,
            dtype=DTYPES[self.dtype],
            wd=self.wd,
            proxy=owner if server is None else picked(server, images, labels),
            gap=self.gap,
        )
        if task.lowest:  # attackers whose data are not dealt with the others' change nothing about it
            owners = cohort.n if self.byzantine_data == "share" else len(cohort.honest)
            task.lowest.key = (self, owners, cohort.honest, data_seed)
        return task

    @abstractmethod
    def loaded(self, data_seed: int) -> tuple[Tensor, ...]:
        """Training samples `[m, ...]` as the model takes them and labels `[m]`, then those of the test."""

    @abstractmethod
    def network(self, shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
        """The model for samples of this shape, as PyTorch starts it."""

    def _module(self, shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
        """The model for samples of this shape."""
        module = self.network(shape, classes, seed)
        if self.initial == "zero":
            for parameter in module.parameters():
                nn.init.zeros_(parameter)
        return module


@dataclass(frozen=True)
class Squares(Images):
    """Square grey images that a package or a download brings. See `Images`."""

    pixels: ClassVar[int]

    @property
    def dimension(self) -> int | None:
        if self.model == "cnn":
            return None
        sizes = (*self.sample, *(self.hidden if self.model == "mlp" else ()), CLASSES)
        return sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(sizes))

    @property
    def worker_bytes(self) -> int:
        drawn = 0 if self.batch == "full" else self.batch * prod(self.sample)
        return ((self.dimension or 0) + drawn) * DTYPES[self.dtype].itemsize

    @staticmethod
    @abstractmethod
    def images() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Train and test `(images [m, side, side], labels [m])`, scaled as the model wants them."""

    def loaded(self, data_seed: int) -> tuple[Tensor, ...]:
        return prepared(type(self), self.pool, self.sample, DTYPES[self.dtype], device_of(self.device))

    @property
    def sample(self) -> tuple[int, ...]:
        """The shape of a sample as the model takes it."""
        side = isqrt(self.pixels) // self.pool
        return (1, side, side) if self.model == "cnn" else (side * side,)

    def network(self, shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
        hidden = self.hidden if self.model == "mlp" else ()
        return models.mnist_cnn(seed) if self.model == "cnn" else models.mlp((*shape, *hidden, classes), seed)


@TASKS.register("digits")
@dataclass(frozen=True)
class Digits(Squares):
    """scikit-learn's 8 x 8 digits: 1,442 training and 355 test images, pixels in [0, 1]; no file needed.

    See `Images` for more on the fields.

    Args:
        model: "mlp" or "linear".
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
        initial: Starting point: the "module" as PyTorch makes it, or "zero".
        gap: Whether the gap to the least training loss is measured (linear, wd > 0, float64).

    Examples:
        >>> from byzopt import Cohort, Digits
        >>> task = Digits().build(Cohort.of(20, byzantine=3), seed=0)
        >>> x = task.start()
        >>> rows = task.grads(x, task.draw(1))  # one gradient from each worker, in round 1
        >>> rows.shape == (20, len(x))
        True
        >>> sorted(task.measure(x))
        ['accuracy', 'loss']
    """

    pixels: ClassVar[int] = 64
    model: Literal["mlp", "linear"] = "mlp"
    hidden: tuple[int, ...] = (64,)
    batch: int | Literal["full"] = 32
    partition: Partition = Dirichlet(alpha=1.0)
    byzantine_data: ByzantineData = "share"
    validation: int = 0
    dtype: Literal["float32", "float64"] = "float32"
    device: str = "cpu"
    wd: float = 0.0
    proxy: Proxy | None = None
    pool: int = 1
    initial: Literal["module", "zero"] = "module"
    gap: bool = False

    @staticmethod
    def images() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        return data.digits()

    def pooled(self) -> str:
        return ""  # pixels are divided by 16


@TASKS.register("mnist")
@dataclass(frozen=True)
class Mnist(Squares):
    """MNIST: 60,000 training and 10,000 test images, pixels / 255 normalised by (0.1307, 0.3081).

    Defaults are the protocol of arXiv:2603.12512, Section 6: the MLP 784-128-64-10, batch 64, samples sorted
    by label. `model="cnn"` is the network of its released code. See `Images` for more on the fields.

    Args:
        model: "mlp", "cnn" or "linear".
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
        initial: Starting point: the "module" as PyTorch makes it, or "zero".
        gap: Whether the gap to the least training loss is measured (linear, wd > 0, float64).

    Raises:
        MissingData: The files are neither on disk nor downloadable.

    Examples:
        >>> from byzopt import Mnist
        >>> Mnist(model="linear").batch  # its `build` reads the files
        64
    """

    pixels: ClassVar[int] = 784
    model: Literal["mlp", "cnn", "linear"] = "mlp"
    hidden: tuple[int, ...] = (128, 64)
    batch: int | Literal["full"] = 64
    partition: Partition = SortedByLabel()
    byzantine_data: ByzantineData = "share"
    validation: int = 0
    dtype: Literal["float32", "float64"] = "float32"
    device: str = "cpu"
    wd: float = 0.0
    proxy: Proxy | None = None
    pool: int = 1
    initial: Literal["module", "zero"] = "module"
    gap: bool = False

    @staticmethod
    def images() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        (train, labels), (test, test_labels) = data.mnist()
        return (_normalised(train), labels), (_normalised(test), test_labels)

    def pooled(self) -> str:
        return ""  # one mean and one deviation, both fixed


@share_while_used
def prepared(
    kind: type[Squares], pool: int, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, ...]:
    """Training images `[m, *shape]` and labels, test images and labels: the same tensors for every task."""
    (images, labels), (others, their) = kind.images()
    if pool > 1:
        images, others = (functional.avg_pool2d(part.unsqueeze(1), pool) for part in (images, others))
    placed = [part.reshape(-1, *shape).to(device, dtype) for part in (images, others)]
    return placed[0], labels.to(device), placed[1], their.to(device)


def _normalised(pixels: Tensor) -> Tensor:
    return (pixels.float() / 255 - 0.1307) / 0.3081
