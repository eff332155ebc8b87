"""Logistic regression with analytic gradients of all workers in one call."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from math import inf, sqrt
from statistics import fmean
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from byzopt import linalg
from byzopt.cohort import Cohort
from byzopt.errors import require
from byzopt.layout import Layout
from byzopt.rng import stream
from byzopt.tasks.base import TASKS, DataTaskRecipe, Relabel, Task
from byzopt.tasks.clipping import clipped, sizes
from byzopt.tasks.crowd import Crowd
from byzopt.tasks.data import FEATURES, libsvm, share_while_used
from byzopt.tasks.optimum import Lowest
from byzopt.tasks.partitions import IID, Partition
from byzopt.tasks.proxies import Proxy, ProxyLoss, owned
from byzopt.tasks.sampling import PoissonSample, Sampler, check_batch
from byzopt.theory.privacy import Uses

SYNTHETIC = (2000, 20)  # samples, features
EVERYTHING = None  # the batch that holds all of every worker's data


class LogisticTask(Task):
    """f_i(x) = mean over worker i's samples of log(1 + exp(z)) - y z, z = <a, x>, plus l2/2 ‖x‖².

    `shards[i]` are worker i's rows of `store` `[m, d]` and of the labels `[m]` in {0, 1}. Tasks on the same
    data share the store. Places are the samples in the order of their owners, so that a worker's are one
    slice, `bounds[i]` to `bounds[i + 1]`; place p is row `order[p]` of the store, with label `labels[p]`. One
    shard more than workers is the server's, which only its `proxy` loss sees; `owner` of that loss: a worker,
    or n. `gap` adds the figures of `Lowest`.
    """

    def __init__(
        self,
        cohort: Cohort,
        store: Tensor,
        labels: Tensor,
        shards: Sequence[Tensor],
        l2: float,
        batch: int,
        seed: int,
        owner: int | None = None,
        gap: bool = False,
    ) -> None:
        self.cohort, self.layout, self.l2 = cohort, Layout.flat(store.shape[1]), l2
        self.server = None if owner is None else (store[shards[owner]], labels[shards[owner]])
        shards = shards[: cohort.n]
        self.store, self.order, self.truth = store, torch.cat(list(shards)), labels
        self.labels = labels[self.order]  # what workers train on; `truth` is what is measured
        sizes = torch.tensor([len(shard) for shard in shards], device="cpu")
        self.bounds = [0, *sizes.cumsum(0).tolist()]
        owned = torch.split(torch.arange(len(self.order), device="cpu"), sizes.tolist())
        self.sampler = Sampler(owned, batch, seed) if batch else None
        # Weights of each place in its worker's own mean, and of each sample in the mean over honest workers.
        self.owner = torch.arange(cohort.n, device="cpu").repeat_interleave(sizes)
        self.share = 1 / sizes.double()[self.owner]
        honest = torch.zeros(cohort.n, dtype=torch.float64, device="cpu")
        honest[list(cohort.honest)] = 1 / len(cohort.honest)
        parts = self.share * honest[self.owner]
        self.weights = torch.zeros(len(store), dtype=torch.float64, device="cpu").index_add_(
            0, self.order, parts
        )
        self.lowest = Lowest(copy(self)) if gap else None

    @property
    def convexity(self) -> float:
        return self.l2

    @property
    def features(self) -> Tensor:
        """The features of all places, a copy `[places, d]`."""
        return self.store[self.order]

    def start(self) -> Tensor:
        return torch.zeros(self.layout.d, dtype=torch.float64, device="cpu")

    def draw(self, t: int) -> Tensor | None:
        return self.sampler.draw(t) if self.sampler else EVERYTHING

    def full(self) -> None:
        return EVERYTHING

    @property
    def passes(self) -> float:
        return self.sampler.passes(self.cohort.honest) if self.sampler else 1.0

    def grads(self, x: Tensor, batch: Tensor | None) -> Tensor:
        if batch is None:
            return self._full(x)
        n, b = batch.shape
        seen = self.store.index_select(0, self.order[batch].flatten())
        pull = residual((seen @ x).view(n, b), self.labels[batch]).div_(b)
        return torch.bmm(pull.unsqueeze(1), seen.view(n, b, -1)).squeeze(1).add_(x, alpha=self.l2)

    def rows_at(self, points: Tensor, batch: Tensor | None, workers: slice) -> Tensor:
        if batch is None:
            each = zip(points, range(self.n)[workers], strict=True)
            return torch.stack([self._whole(x, i) for x, i in each])
        places = batch[workers]
        k, b = places.shape
        seen = self.store.index_select(0, self.order[places].flatten()).view(k, b, -1)
        scores = torch.bmm(seen, points.unsqueeze(2)).squeeze(2)
        pull = residual(scores, self.labels[places]).div_(b)
        return torch.bmm(pull.unsqueeze(1), seen).squeeze(1).add_(points, alpha=self.l2)

    def poisson(self, t: int) -> PoissonSample:
        what, remedy = "Poisson samples", "Set `batch` to how many samples they are on average."
        require(self.sampler is not None, what, "be of a part of the data", "batch = 0: all of them", remedy)
        assert self.sampler is not None
        return self.sampler.poisson(t)

    def clipped_grads(
        self, x: Tensor, batch: Tensor | PoissonSample | None, radius: float, workers: slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        rows, counts = [], []
        drawn = batch.places if isinstance(batch, PoissonSample) else batch
        for i in range(self.n)[workers]:
            places = slice(self.bounds[i], self.bounds[i + 1]) if drawn is None else drawn[i]
            seen = self.store[self.order[places]]
            each = residual(seen @ x, self.labels[places]).unsqueeze(1) * seen
            counts.append(batch.batch if isinstance(batch, PoissonSample) else len(seen))
            rows.append(clipped(each, radius).sum(dim=0) / counts[-1])
        return torch.stack(rows).add_(x, alpha=self.l2), sizes(counts, x)

    def uses(self, rounds: int) -> Uses:
        if self.sampler is None:
            return Uses(rounds, rounds, float(rounds))
        return self.sampler.uses(rounds, self.cohort.honest)

    def _whole(self, x: Tensor, i: int) -> Tensor:
        """Worker i's gradient `[d]` at `x` over all of its data."""
        mine = slice(self.bounds[i], self.bounds[i + 1])
        seen = self.store[self.order[mine]]
        pull = residual(seen @ x, self.labels[mine]).div_(len(seen))
        return (pull @ seen).add_(x, alpha=self.l2)

    def _full(self, x: Tensor) -> Tensor:
        """Gradients over all places: one product of the workers' pulls on all samples with the store."""
        pull = self.share * residual((self.store @ x)[self.order], self.labels)
        m = len(self.store)
        pulls = torch.zeros(self.n * m, dtype=torch.float64, device="cpu").index_add_(
            0, self.owner * m + self.order, pull
        )
        return (pulls.view(self.n, m) @ self.store).add_(x, alpha=self.l2)

    def measure(self, x: Tensor) -> dict[str, float]:
        return measured([self], x.unsqueeze(0))[0]

    def measure_workers(self, x: Tensor) -> dict[str, list[float]]:
        """f_i(x) with its regulariser, and the share of worker i's samples on their side."""
        scores, honest = (self.store @ x)[self.order], list(self.cohort.honest)
        losses = self.share * -logsigmoid((2 * self.labels - 1) * scores)
        rights = self.share * ((scores > 0) == (self.labels == 1))
        means = [x.new_zeros(self.n).index_add_(0, self.owner, part)[honest] for part in (losses, rights)]
        return {"loss": (means[0] + self.l2 / 2 * (x @ x)).tolist(), "accuracy": means[1].tolist()}

    def loss_of(self, x: Tensor, workers: Sequence[int]) -> float:
        losses = []
        for i in workers:
            mine = slice(self.bounds[i], self.bounds[i + 1])
            scores = self.store[self.order[mine]] @ x
            losses.append(-logsigmoid((2 * self.labels[mine] - 1) * scores).mean())
        return float(torch.stack(losses).mean() + self.l2 / 2 * (x @ x))

    def crowd(self, tasks: Sequence[Any]) -> LogisticCrowd | None:
        return LogisticCrowd(tasks) if all(task.store is self.store for task in tasks) else None

    def objective(self, x: Tensor) -> tuple[float, Tensor]:
        scores, weights = self.store @ x, self.weights
        losses = -logsigmoid((2 * self.truth - 1) * scores)
        slope = (weights * residual(scores, self.truth)) @ self.store + self.l2 * x
        return float(weights @ losses + self.l2 / 2 * (x @ x)), slope

    def stated(self) -> dict[str, Any]:
        # The logistic loss of a score has curvature in (0, 1/4], and 1/4 at x = 0: the suprema are there.
        whole, smooth_squares, single = (
            torch.zeros(self.layout.d, self.layout.d, dtype=torch.float64, device="cpu"),
            [],
            [],
        )
        for i in self.cohort.honest:
            seen = self.store[self.order[self.bounds[i] : self.bounds[i + 1]]]
            gram, long = seen.T @ seen / (4 * len(seen)), seen * seen.square().sum(dim=1, keepdim=True)
            whole += gram / len(self.cohort.honest)
            smooth_squares.append((_top(gram) + self.l2) ** 2)
            # The mean over samples a of ‖(c a a' + l2) v‖² with c <= 1/4.
            single.append(_top(long.T @ seen / (16 * len(seen)) + 2 * self.l2 * gram) + self.l2**2)
        local = sqrt(fmean(smooth_squares))
        constants: dict[str, Any] = {
            "lipschitz": _top(whole) + self.l2,
            "mu": self.l2 or None,
            "local": local,
        }
        constants |= {
            "l0": sqrt(max(smooth_squares)),
            "l1": 0.0,
            "passes": self.passes,
            "convex": True,
            "least": 0.0,
        }
        if self.sampler is None:
            return constants | {"sampling": "exact", "sigma": 0.0, "bound": 0.0, "sample": local}
        share = 1 / self.sampler.batch  # of samples drawn independently, which a walk does no worse than
        constants["sample"] = sqrt(share * fmean(single) + (1 - share) * local**2)
        return constants | {"sampling": "fresh" if self.sampler.replacement else "walk"}

    def proxy(self) -> ProxyLoss | None:
        if self.server is None:
            return None
        features, signs = self.server[0], 2 * self.server[1] - 1
        return lambda x: -logsigmoid(signs * (features @ x)).mean() + self.l2 / 2 * (x @ x)

    def relabelled(self, workers: Sequence[int], relabel: Relabel) -> LogisticTask:
        changed = copy(self)
        changed.labels = self.labels.clone()
        for i in workers:
            mine = slice(self.bounds[i], self.bounds[i + 1])
            changed.labels[mine] = relabel(self.labels[mine], 2)
        return changed


class LogisticCrowd(Crowd):
    """Logistic regressions on one store: points are measured together, since the data are read once."""

    tasks: tuple[LogisticTask, ...]

    def measure(self, x: Tensor, who: Sequence[int]) -> list[dict[str, float]]:
        return measured([self.tasks[r] for r in who], x)


def measured(tasks: Sequence[LogisticTask], x: Tensor) -> list[dict[str, float]]:
    """What tasks on one store measure at their points `x` `[R, d]`."""
    first, weights = tasks[0], torch.stack([task.weights for task in tasks])
    scores = x @ first.store.T
    losses = (weights * -logsigmoid((2 * first.truth - 1) * scores)).sum(dim=1)
    l2 = torch.tensor([[task.l2] for task in tasks], dtype=x.dtype, device="cpu")
    slopes = (weights * residual(scores, first.truth)) @ first.store + l2 * x
    rights = (weights * ((scores > 0) == (first.truth == 1))).sum(dim=1)
    losses = losses + l2[:, 0] / 2 * x.square().sum(dim=1)
    figures = zip(losses.tolist(), linalg.norm(slopes).tolist(), rights.tolist(), strict=True)
    each = [dict(zip(("loss", "grad_norm", "accuracy"), values, strict=True)) for values in figures]
    for task, row in zip(tasks, each, strict=True):
        if task.lowest:
            row["gap"] = row["loss"] - task.lowest.value
    return each


def _top(square: Tensor) -> float:
    """The largest eigenvalue of a symmetric matrix."""
    return float(torch.linalg.eigvalsh(square)[-1])


def residual(scores: Tensor, labels: Tensor) -> Tensor:
    """The derivative of log(1 + exp(z)) - y z by the score z."""
    return torch.sigmoid(scores).sub_(labels)


@TASKS.register("logistic_regression")
@dataclass(frozen=True)
class LogisticRegression(DataTaskRecipe):
    """Binary logistic regression with l2/2 ‖x‖², no intercept, float64, x^0 = 0.

    `data`: LIBSVM's "a9a" (32561 x 123) or "w8a" (49749 x 300), or "synthetic": 2000 x 20 standard normal
    features with labels drawn from a logistic model, made from the seed. `batch` samples a worker and round,
    0 for all of its data. `unit_norm` scales each row of features to length 1 (rows of zeros stay).
    `partition` deals the samples to all n workers, Byzantine ones too; with `byzantine_data = "honest"` to
    the G honest ones, and the j-th Byzantine worker uses the shard of the (j mod G)-th honest one again.
    `proxy` is the loss that the server owns: an honest "worker"'s, that of one more share of the partition
    ("server"), or that of a clean "sample" of all.

    Measured on the honest workers' true labels: `loss`, the mean over honest workers of their training
    losses; `grad_norm` of it; `accuracy`, weighted alike; with `gap` also `gap` to the least loss, solved for
    once. The setting of arXiv:2603.15144 is `data = "a9a"`, `l2 = 0.00056`, `unit_norm = true`, `batch = 1`,
    `partition = "strided"`, `byzantine_data = "honest"`. There L = 0.113766 and f* = 0.3656807 over all data.

    Args:
        data: "a9a", "w8a" or "synthetic".
        l2: Weight of ‖x‖²/2.
        batch: Samples a worker and round; 0: all of its data.
        unit_norm: Whether each sample's features are scaled to length 1.
        partition: Who owns which samples.
        proxy: The loss that the server owns, if any.
        gap: Whether the gap to the least loss is measured.
        byzantine_data: What Byzantine workers hold: their "share", or an "honest" worker's.

    Raises:
        MissingData: LIBSVM's file is neither on disk nor downloadable.

    Examples:
        >>> from byzopt import Cohort, LogisticRegression
        >>> task = LogisticRegression().build(Cohort.of(20, byzantine=3), seed=0)
        >>> x = task.start()
        >>> rows = task.grads(x, task.draw(1))  # one gradient from each worker, in round 1
        >>> rows.shape == (20, len(x))
        True
        >>> sorted(task.measure(x))
        ['accuracy', 'grad_norm', 'loss']
    """

    tested: ClassVar[bool] = False

    data: Literal["a9a", "w8a", "synthetic"] = "synthetic"
    l2: float = 0.01
    batch: int = 32
    unit_norm: bool = False
    partition: Partition = IID()
    proxy: Proxy | None = None
    gap: bool = False
    byzantine_data: Literal["share", "honest"] = "share"

    def __post_init__(self) -> None:
        valid = 0 <= self.l2 < inf
        require(valid, "Parameter `l2` of logistic_regression", "be finite and at least 0", self.l2)
        require(self.batch >= 0, "Parameter `batch`", "be at least 1, or 0 for all data", self.batch)

    @property
    def dimension(self) -> int:
        return SYNTHETIC[1] if self.data == "synthetic" else FEATURES[self.data]

    @property
    def worker_bytes(self) -> int:
        return 8 * (1 + self.batch) * self.dimension

    def pooled(self) -> str:
        return ""  # features are as the file has them, or of length 1, each by itself

    def build_on(self, cohort: Cohort, seed: int, data_seed: int) -> LogisticTask:
        features, labels = _samples(self.data, data_seed if self.data == "synthetic" else 0, self.unit_norm)
        check_batch(self.batch, len(labels))
        generator = stream(data_seed, "partition")
        owner, chosen = owned(self.proxy, cohort, len(labels), stream(data_seed, "proxy"))
        serves = owner == cohort.n
        dealt_to = cohort.n if self.byzantine_data == "share" else len(cohort.honest)
        dealt = self.partition.split(labels, len(labels), dealt_to + serves, generator)
        server = dealt[dealt_to:]
        shards = dealt[:dealt_to] if self.byzantine_data == "share" else _reused(dealt[:dealt_to], cohort)
        shards = [*shards, *server]
        if chosen is not None:
            owner, shards = cohort.n, [*shards, chosen]
        return LogisticTask(cohort, features, labels, shards, self.l2, self.batch, seed, owner, self.gap)


def _reused(dealt: list[Tensor], cohort: Cohort) -> list[Tensor]:
    """Honest workers' shards, used again by the Byzantine ones in turn; in the order of all workers."""
    owner = dict(zip(cohort.honest, dealt, strict=True))
    owner |= {i: dealt[j % len(dealt)] for j, i in enumerate(cohort.byzantine)}
    return [owner[i] for i in range(cohort.n)]


@share_while_used
def _samples(name: str, seed: int, unit_norm: bool) -> tuple[Tensor, Tensor]:
    """Features and labels, read or made once; `seed` matters for synthetic data only."""
    features, labels = _synthetic(seed) if name == "synthetic" else libsvm(name)
    if unit_norm:
        lengths = torch.linalg.vector_norm(features, dim=1, keepdim=True)
        features = features / torch.where(lengths > 0, lengths, 1.0)
    return features, labels


def _synthetic(seed: int) -> tuple[Tensor, Tensor]:
    generator = stream(seed, "logistic_regression", "synthetic")
    m, d = SYNTHETIC
    features = torch.randn(m, d, dtype=torch.float64, generator=generator, device="cpu")
    model = torch.randn(d, dtype=torch.float64, generator=generator, device="cpu")
    chance = torch.sigmoid(features @ model)
    return features, torch.bernoulli(chance, generator=generator).long()
