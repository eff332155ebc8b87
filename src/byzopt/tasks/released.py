"""MNIST and tiny Shakespeare with the data order of the code released with arXiv:2603.12512.

Reproduced index for index: who owns which samples, and which of them each worker takes in every round. The
order never depends on the run's seed. Not reproduced: dropout masks, which are CUDA's there; and the last
bits of sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput, require
from byzopt.tasks import data
from byzopt.tasks.base import TASKS, TaskRecipe
from byzopt.tasks.devices import device_of
from byzopt.tasks.grads import lent_rng, sequence_cross_entropy
from byzopt.tasks.images import CLASSES, Mnist, prepared
from byzopt.tasks.models import GPT
from byzopt.tasks.modules import Everything, ModuleTask
from byzopt.tasks.pool import Pool
from byzopt.tasks.sampling import Sampler
from byzopt.tasks.text import TRAIN_SHARE, blocks, encoded, gpt_bytes

Order = Callable[[int, int], Tensor]  # (worker, epoch) -> places in its shard


class ReleasedSampler(Sampler):
    """Epochs of `rounds` batches: round r of an epoch takes the next `batch` places of `order(i, epoch)`."""

    def __init__(self, shards: Sequence[Tensor], batch: int, rounds: int, order: Order) -> None:
        super().__init__(shards, batch, seed=0)
        self.rounds, self.order = rounds, order
        self._known: tuple[int, Tensor] = (-1, torch.empty(0, device="cpu"))

    def over(self, shards: Sequence[Tensor]) -> ReleasedSampler:
        return ReleasedSampler(shards, self.batch, self.rounds, self.order)

    def draw(self, t: int) -> Tensor:
        require(t >= 1, "The round", "be at least 1", t)
        epoch, r = divmod(t - 1, self.rounds)
        if self._known[0] != epoch:
            length = self.rounds * self.batch
            self._known = (
                epoch,
                torch.stack([shard[self.order(i, epoch)[:length]] for i, shard in enumerate(self.shards)]),
            )
        return self._known[1][:, r * self.batch : (r + 1) * self.batch]


class ReleasedTask(ModuleTask):
    """A task that is known by its minibatches alone."""

    def full(self) -> Everything:
        raise InvalidInput(
            "A released task has no full gradients: it is its minibatches. Found a call for one. "
            "Use `mnist` or `shakespeare`."
        )


class FixedDropout(nn.Module):
    """Dropout whose mask hangs on a sample's place in its batch alone: the same in every round and worker."""

    mask: Tensor
    per_worker: int | None = None  # samples of a worker, where those of several go through together

    def __init__(self, p: float, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mask", (torch.rand(shape, dtype=torch.float32, device="cpu") >= p) / (1 - p))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        places = torch.arange(len(x), device=x.device) % (self.per_worker or len(x))
        return x * self.mask[places % len(self.mask)]


@TASKS.register("mnist_released")
@dataclass(frozen=True)
class ReleasedMnist(TaskRecipe):
    """MNIST as the code released with arXiv:2603.12512 runs it: a CNN with dropout, sorted honest data.

    The training set sorted by label, its first images appended until the honest workers divide it, is cut in
    order; in epoch e worker i permutes its part by PyTorch's generator of seed i³ + e and takes 30 batches.
    Byzantine workers take every h-th of one permutation (seed e) of all images. The seed decides the model's
    start alone: `torch.manual_seed(seed)`, default initialisation. `dropout` is "fixed" (one mask for
    everything, as its CUDA runs had; our masks), "fresh", or "none". Tested on the first `eval_samples`
    images in order of labels; 0 for all but the last 16, which are nines.

    Args:
        batch: Samples a worker and round.
        rounds: Rounds of an epoch.
        dropout: Masks: "fixed", "fresh" or "none".
        eval_samples: Number of test images; 0: all but the last 16.
        device: Where the model and the data are.

    Raises:
        MissingData: The files are neither on disk nor downloadable.

    Examples:
        >>> from byzopt import ReleasedMnist
        >>> ReleasedMnist(dropout="none").batch  # its `build` reads the files
        64
    """

    tested: ClassVar[bool] = True
    batch: int = 64
    rounds: int = 30
    dropout: Literal["fixed", "fresh", "none"] = "fixed"
    eval_samples: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        _least(self, 1, "batch", "rounds")
        _least(self, 0, "eval_samples")

    @property
    def worker_bytes(self) -> int:
        return 4 * 784 * self.batch

    def build(self, cohort: Cohort, seed: int) -> ReleasedTask:
        where = device_of(self.device)
        inputs, labels, others, truth = prepared(Mnist, 1, (1, 28, 28), torch.float32, where)
        h = len(cohort.honest)
        parts = _cut(labels.argsort(stable=True).cpu(), h)
        everything = torch.arange(len(labels), device="cpu")
        honest_shards = iter(parts)
        shards = [everything if i in cohort.byzantine else next(honest_shards) for i in range(cohort.n)]
        rank = {worker: k for k, worker in enumerate(cohort.honest)}

        def order(i: int, epoch: int) -> Tensor:
            if i in rank:
                return _permuted(len(shards[i]), rank[i] ** 3 + epoch)
            return _padded(_permuted(len(labels), epoch), h)[cohort.byzantine.index(i) :: h]

        test = truth.argsort(stable=True)[: self.eval_samples or len(truth) // 128 * 128]
        return ReleasedTask(
            _cnn(seed, self.dropout, self.batch),
            functional.cross_entropy,
            Pool.dealt(inputs, labels, shards),
            batch=self.batch,
            test=(others[test], truth[test]),
            seed=seed,
            byzantine=cohort.byzantine,
            device=self.device,
            sampler=ReleasedSampler(shards, self.batch, self.rounds, order),
        )


@TASKS.register("shakespeare_released")
@dataclass(frozen=True)
class ReleasedShakespeare(TaskRecipe):
    """Tiny Shakespeare as the code released with arXiv:2603.12512 runs it: 7 rounds of batch 64 an epoch.

    Honest workers own consecutive blocks, the last one the rest; worker i permutes its part in epoch e by the
    seed e + 1000 i. Byzantine workers copy data and order of the first honest ones. Perplexity on the first
    `eval_samples` validation blocks. Our dropout masks are fresh for every worker and round.

    Args:
        batch: Blocks a worker and round.
        context: Characters of a block.
        layers: Layers of the model.
        heads: Heads of attention.
        width: Width of the model.
        dropout: Share of activations dropped, in [0, 1).
        eval_samples: Number of validation blocks.
        device: Where the model and the data are.

    Raises:
        MissingData: The file is neither on disk nor downloadable.

    Examples:
        >>> from byzopt import ReleasedShakespeare
        >>> ReleasedShakespeare().context  # its `build` reads the file
        128
    """

    tested: ClassVar[bool] = True
    batch: int = 64
    context: int = 128
    layers: int = 4
    heads: int = 4
    width: int = 128
    dropout: float = 0.1
    eval_samples: int = 768
    device: str = "cpu"

    def __post_init__(self) -> None:
        _least(self, 1, "batch", "context", "layers", "heads", "width")
        _least(self, 0, "eval_samples")
        require(0 <= self.dropout < 1, "Parameter `dropout`", "lie in [0, 1)", self.dropout)
        fits = self.width % self.heads == 0
        require(fits, "Parameter `width`", "be a multiple of `heads`", f"{self.width} and {self.heads}")

    @property
    def worker_bytes(self) -> int:
        return gpt_bytes(self.layers, self.width, self.batch, self.context)

    def build(self, cohort: Cohort, seed: int) -> ReleasedTask:
        codes, symbols = encoded(data.shakespeare())
        cut = int(TRAIN_SHARE * len(codes))
        inputs, targets = blocks(codes[:cut], self.context)
        test, truth = (part[: self.eval_samples] for part in blocks(codes[cut:], self.context))
        h, size = len(cohort.honest), len(inputs) // len(cohort.honest)
        parts = [
            torch.arange(k * size, (k + 1) * size if k < h - 1 else len(inputs), device="cpu")
            for k in range(h)
        ]
        rank = {worker: k for k, worker in enumerate(cohort.honest)}
        rank |= {worker: k % h for k, worker in enumerate(cohort.byzantine)}
        shards = [parts[rank[i]] for i in range(cohort.n)]

        def order(i: int, epoch: int) -> Tensor:
            return _permuted(len(shards[i]), epoch + 1000 * rank[i])

        rounds = size // self.batch
        shape = (self.context, self.layers, self.heads, self.width, self.dropout)
        return ReleasedTask(
            GPT(symbols, *shape, seed),
            sequence_cross_entropy,
            Pool.dealt(inputs, targets, shards),
            batch=self.batch,
            test=(test, truth),
            seed=seed,
            byzantine=cohort.byzantine,
            device=self.device,
            sampler=ReleasedSampler(shards, self.batch, rounds, order),
        )


def _least(recipe: TaskRecipe, least: int, *names: str) -> None:
    for name in names:
        value = getattr(recipe, name)
        require(value >= least, f"Parameter `{name}` of {recipe.name}", f"be at least {least}", value)


def _permuted(m: int, seed: int) -> Tensor:
    return torch.randperm(m, generator=torch.Generator().manual_seed(seed), device="cpu")


def _padded(order: Tensor, h: int) -> Tensor:
    """The first samples again at the end, until h divides the length."""
    return torch.cat([order, order[: -len(order) % h]])


def _cut(order: Tensor, h: int) -> list[Tensor]:
    return list(_padded(order, h).chunk(h))


def _cnn(seed: int, dropout: str, batch: int) -> nn.Module:
    """The released network, started by PyTorch's own generator of this seed."""
    with lent_rng(seed % 2**32):
        first, second = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3)
        wide, last = nn.Linear(9216, 128), nn.Linear(128, CLASSES)
        drops: list[nn.Module] = [nn.Identity(), nn.Identity()]
        if dropout == "fixed":
            drops = [FixedDropout(0.25, (batch, 64, 1, 1)), FixedDropout(0.5, (batch, 128))]
        elif dropout == "fresh":
            drops = [nn.Dropout2d(0.25), nn.Dropout(0.5)]
    middle = (nn.MaxPool2d(2), drops[0], nn.Flatten())
    return nn.Sequential(first, nn.ReLU(), second, *middle, wide, nn.ReLU(), drops[1], last)
