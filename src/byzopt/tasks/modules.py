"""Any `nn.Module`, any loss, any data for each worker: a task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from functools import partial
from math import ceil, exp
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from byzopt.cohort import Cohort
from byzopt.errors import require
from byzopt.tasks.base import Change, Relabel, Task
from byzopt.tasks.clipping import mean_of_clipped, sizes
from byzopt.tasks.devices import device_of
from byzopt.tasks.given import check_batch_setting, check_labels, check_numbers, labels_told
from byzopt.tasks.grads import (
    Loss,
    Metric,
    Softmax,
    Strategy,
    WorkerGradients,
    accuracy,
    adopted_loss,
    classes,
    default_metrics,
    sequence_cross_entropy,
    trainable_copy,
)
from byzopt.tasks.grads.losses import ELEMENTWISE, counted, unwrap_loss
from byzopt.tasks.optimum import Lowest
from byzopt.tasks.pool import Pair, Pool, cast, check_samples
from byzopt.tasks.proxies import ProxyLoss, WorkerProxy
from byzopt.tasks.sampling import PoissonSample, Sampler
from byzopt.theory.privacy import Uses

FEW = 64  # samples, at most, of a worker to look at the module with, where batches are whole shards
SETTLING = 512  # samples, at least, that running statistics are taken from where figures are measured


class Batch(NamedTuple):
    """Round t's samples of all workers: inputs and targets `[n, b, ...]`."""

    inputs: Tensor
    targets: Tensor
    t: int


class Everything(NamedTuple):
    """All samples of every worker, of the task that they belong to."""

    shards: tuple[Tensor, ...]


class ModuleTask(Task):
    """Minimise the mean over workers of `loss(module(inputs), targets)` on each worker's own samples.

    `module` and `loss` are copied and stay as they are; x^0 is the module's parameters that require
    gradients, in order. `loss(output, targets)` gives one number for a batch, as a rule the mean over it; a
    loss that is none (class weights, a sum, contrastive) is taken of all samples at once.

    `workers` is a pair `(inputs [m_i, ...], targets [m_i, ...])` for each worker, of any lengths, or a
    `Pool`. Each round every worker draws `batch` samples, walking through permutations of its own, or with
    `batch="full"` takes all it has.
    `byzantine` is a count (the last workers) or indices.
    `strategy` of gradients: see `WorkerGradients`; "auto" warns when it has to loop over workers.

    `measure` gives `loss` and `metrics` on `test` (without it: on the honest workers' samples) in evaluation
    mode, and the same with prefix `validation_` on `validation`. `metrics` are numbers by name,
    `metric(output, targets)` of the outputs for the whole set; by default `accuracy` where logits are
    `[b, classes]` and targets integers. `perplexity` = exp(loss) is added for `sequence_cross_entropy`.
    `full` gradients are in evaluation mode.

    `wd`/2 ‖x‖² is part of every worker's loss, of `objective` and of the proxy loss, not of what is measured
    on sets. `proxy` is the loss that the server owns: a worker's, by its number, or that on a pair of the
    server's own samples. With `gap`, `measure` adds the mean honest training loss `train_loss` (`objective`),
    its `grad_norm`, and its `gap` to the least value, solved for once: the objective has to have one minimum.

    `sampler` replaces that walk through permutations; its shards are the workers' places in the pool.

    Batch norms take the statistics of each worker's own batch, `full` gradients those of all its samples.
    Nobody keeps running statistics: `measure` uses averages over honest workers' batches of the first rounds,
    taken at the point that it measures, and a `UserWarning` says so.

    Floating values are held in `dtype` (float32 or float64) on `device`. Errors: `InvalidInput` for data that
    are no tensors, empty, not finite or of unequal lengths, and for modules as `WorkerGradients` says.

    Args:
        module: The model; copied.
        loss: `loss(output, targets)` of a batch, one number; copied.
        workers: A pair (inputs `[m_i, ...]`, targets `[m_i, ...]`) for each worker, or a `Pool`.
        batch: Samples a worker and round, or "full".
        test: Pair of samples on which figures are measured; None: the honest workers' own.
        validation: Pair of samples measured under names that begin with `validation_`.
        seed: Of the order of samples and of what the module draws.
        byzantine: How many workers lie, the last ones; or which.
        metrics: Functions `metric(output, targets)` of a whole set, by name.
        strategy: How gradients are taken: "auto", "grouped", "vmap" or "loop".
        device: Where the model and the data are.
        dtype: Of floating values: float32 or float64.
        wd: Weight decay: wd/2 ‖x‖² is part of every worker's loss.
        proxy: The loss that the server owns: a worker's number, or a pair of samples.
        gap: Whether the gap to the least training loss is measured.
        sampler: Who draws which samples, in place of walks through permutations.

    Raises:
        InvalidInput: Data that are no tensors, empty, not finite or of unequal lengths, and modules that
            `WorkerGradients` refuses.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from byzopt import ModuleTask, simulate
        >>> data = [(torch.randn(16, 3), torch.randint(0, 2, (16,))) for _ in range(5)]
        >>> task = ModuleTask(nn.Linear(3, 2), nn.functional.cross_entropy, data, batch=4, byzantine=1)
        >>> outcome = simulate(task, "median", lr=0.1, rounds=3, f=1, attack="bit_flip")
        >>> sorted(outcome.metrics)[:2]
        ['accuracy', 'aggregate_norm']
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Loss,
        workers: Sequence[Pair] | Pool,
        *,
        batch: int | Literal["full"] = 64,
        test: Pair | None = None,
        validation: Pair | None = None,
        seed: int = 0,
        byzantine: int | Iterable[int] = 0,
        metrics: Mapping[str, Metric] | None = None,
        strategy: Strategy = "auto",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        wd: float = 0.0,
        proxy: int | Pair | None = None,
        gap: bool = False,
        sampler: Sampler | None = None,
    ) -> None:
        check_numbers(wd, dtype, seed)
        self.device, self.dtype = device_of(device), dtype
        pool = workers if isinstance(workers, Pool) else Pool.of(workers)
        self.pool = pool.to(self.device, dtype)
        check_batch_setting(batch, pool)
        self.cohort = Cohort.of(len(pool.shards), byzantine)
        self.seed, self.batch, self.wd = seed, batch, wd
        self.loss = adopted_loss(loss, self.device, dtype)
        self._sampler = sampler or Sampler(self.pool.shards, 1 if batch == "full" else batch, seed)
        self._sets = {
            prefix: self._placed(check_samples(pair, f"The {name} set"))
            for prefix, name, pair in (("", "test", test), ("validation_", "validation", validation))
            if pair is not None
        }
        placed = trainable_copy(module).to(self.device, dtype)
        with labels_told(placed, self.loss, self.pool):
            self._gradients = WorkerGradients(placed, self.loss, self._corner(), strategy, seed)
        example = self._gradients.corner.example
        check_labels(self.loss, example, self.pool, self._sets)
        known = default_metrics(example, self.pool.targets)
        self._metrics = known if metrics is None else dict(metrics)
        self._goals: dict[str, Pair] = {}
        self.layout = self._gradients.layout
        self._owned = self._proxy_data(proxy)
        self._softmax: Softmax | None = None
        self.lowest = Lowest(copy(self)) if gap else None

    def _sizes(self) -> dict[str, Any]:
        samples = sum(len(shard) for shard in self.pool.shards)
        return {"samples": samples, "batch": self.batch, "strategy": self.strategy}

    @property
    def strategy(self) -> str:
        """How gradients are taken: "grouped", "vmap" or "loop"."""
        return self._gradients.strategy

    @property
    def convexity(self) -> float:
        """`wd` for softmax regression, whose own Hessian is singular."""
        return self.wd if self._linear() else 0.0

    def start(self) -> Tensor:
        return self._gradients.start

    def draw(self, t: int) -> Batch | Everything:
        return self.full() if self.batch == "full" else Batch(*self._sample(t), t)

    def full(self) -> Everything:
        return Everything(self.pool.shards)

    @property
    def passes(self) -> float:
        return 1.0 if self.batch == "full" else self._sampler.passes(self.cohort.honest)

    def grads(self, x: Tensor, batch: Batch | Everything) -> Tensor:
        if isinstance(batch, Batch):
            rows = self._gradients(x, *batch)
        elif batch.shards is self.pool.shards and (softmax := self._linear()):
            rows = softmax.grads(x)
        else:
            rows = torch.cat([self._full_gradient(x, shard) for shard in batch.shards])
        return rows.add_(x, alpha=self.wd) if self.wd else rows

    def poisson(self, t: int) -> PoissonSample:
        what, remedy = "Poisson samples", "Set `batch` to how many samples they are on average."
        require(self.batch != "full", what, "be of a part of the data", 'batch = "full"', remedy)
        return self._sampler.poisson(t)

    def clipped_grads(
        self,
        x: Tensor,
        batch: Batch | Everything | PoissonSample,
        radius: float,
        workers: slice = slice(None),
    ) -> tuple[Tensor, Tensor]:
        self._gradients.enough(1)  # samples alone
        rows, counts = [], []
        for i in range(self.n)[workers]:
            over = None
            if isinstance(batch, Everything):
                inputs, targets = self.pool.at(batch.shards[i])
                take = partial(self._of_all, x)
            elif isinstance(batch, PoissonSample):
                inputs, targets = self.pool.at(batch.places[i])
                # No two workers' samples have one place, whoever draws how many.
                take = partial(self._of_samples, x, batch.t, sum(map(len, self.pool.shards[:i])))
                over = batch.batch
            else:
                inputs, targets = batch.inputs[i], batch.targets[i]
                take = partial(self._of_samples, x, batch.t, i * len(inputs))
            rows.append(mean_of_clipped(take, inputs, targets, radius, x, over))
            counts.append(over or len(inputs))
        means = torch.stack(rows)
        return (means.add_(x, alpha=self.wd) if self.wd else means), sizes(counts, means)

    def _of_samples(
        self, x: Tensor, t: int, place: int, inputs: Tensor, targets: Tensor, first: int
    ) -> Tensor:
        """Gradients `[k, d]` of single samples of a minibatch, each as if it were a worker's batch."""
        who = range(place + first, place + first + len(inputs))
        return self._gradients(x, inputs.unsqueeze(1), targets.unsqueeze(1), t, who)

    def _of_all(self, x: Tensor, inputs: Tensor, targets: Tensor, first: int) -> Tensor:
        """The same of samples of a full pass."""
        return self._gradients.still(x, inputs.unsqueeze(1), targets.unsqueeze(1))

    def uses(self, rounds: int) -> Uses:
        if self.batch == "full":
            return Uses(rounds, rounds, float(rounds))
        return self._sampler.uses(rounds, self.cohort.honest)

    def objective(self, x: Tensor) -> tuple[float, Tensor]:
        honest = self.cohort.honest
        return self.loss_of(x, honest), self.slope_of(x, honest)

    def loss_of(self, x: Tensor, workers: Sequence[int]) -> float:
        if softmax := self._linear():
            loss, _ = softmax.objective(x, workers)
        else:
            at = self._gradients.evaluation(x)
            values = [at.figures({"": self.loss}, *self.pool.at(self.pool.shards[i]))[""] for i in workers]
            loss = sum(values) / len(workers)
        return loss + self.wd / 2 * float(x @ x)

    def slope_of(self, x: Tensor, workers: Sequence[int]) -> Tensor:
        if softmax := self._linear():
            _, slope = softmax.objective(x, workers)
        else:
            slopes = [self._full_gradient(x, self.pool.shards[i]) for i in workers]
            slope = torch.cat(slopes).mean(dim=0)
        return slope + self.wd * x

    def stated(self) -> dict[str, Any]:
        known: dict[str, Any] = {"passes": self.passes}
        loss, labels = unwrap_loss(self.loss), self.pool.targets
        if loss in (functional.cross_entropy, sequence_cross_entropy):
            known["least"] = 0.0
        if self._linear():
            known |= {"convex": True} | ({"mu": self.wd} if self.wd else {})
        if self.batch == "full":
            return known | {"sampling": "exact", "sigma": 0.0, "bound": 0.0}
        if not self._gradients.probe.alike:
            return known | {"sampling": "biased"}  # dropout, or statistics of the batch
        if loss not in ELEMENTWISE or not bool(counted(labels).all()):
            return known  # where it is no plain mean, a batch's need not be the shard's on average
        return known | {"sampling": "fresh" if self._sampler.replacement else "walk"}

    def proxy(self) -> ProxyLoss | None:
        if self._owned is None:
            return None
        inputs, targets = self._owned
        self._gradients.enough(len(inputs))
        fast = self._softmax_on(Pool.of([self._owned]))

        def loss(x: Tensor) -> Tensor:
            if fast:
                return fast.loss(x) + self.wd / 2 * (x @ x)
            return self._gradients.evaluation(x).loss(inputs, targets) + self.wd / 2 * (x @ x)

        return loss

    def grads_of(self, x: Tensor, batch: Batch | Everything, workers: slice) -> Tensor:
        if isinstance(batch, Everything):
            return self.grads(x, Everything(batch.shards[workers]))
        who = range(self.n)[workers]
        rows = self._gradients(x, batch.inputs[workers], batch.targets[workers], batch.t, who)
        return rows.add_(x, alpha=self.wd) if self.wd else rows

    def rows_at(self, points: Tensor, batch: Batch | Everything, workers: slice) -> Tensor:
        if isinstance(batch, Everything):
            each = zip(points, batch.shards[workers], strict=True)
            rows = torch.cat([self._full_gradient(x, shard) for x, shard in each])
        else:
            mine = batch.inputs[workers], batch.targets[workers], batch.t, range(self.n)[workers]
            rows = self._gradients.at(points, *mine)
        return rows.add_(points, alpha=self.wd) if self.wd else rows

    @torch.no_grad()
    def measure(self, x: Tensor) -> dict[str, float]:
        figures: dict[str, float] = {}
        at = self._gradients.measured(x, self._honest_batches)
        for prefix, pair in self._evaluated().items():
            means = at.figures({"loss": self.loss, **self._metrics}, *pair)
            if self.loss is sequence_cross_entropy:
                means["perplexity"] = exp(means["loss"]) if means["loss"] < 700 else float("inf")
            figures |= {prefix + name: value for name, value in means.items()}
        for name, pair in self._goals.items():
            figures |= at.figures({name: accuracy}, *pair)
        return figures | self.lowest.figures(self, x) if self.lowest else figures

    @torch.no_grad()
    def measure_workers(self, x: Tensor) -> dict[str, list[float]]:
        """The figures of `measure` on each honest worker's samples, a pass over all of them."""
        measures = {"loss": self.loss, **self._metrics}
        at = self._gradients.measured(x, self._honest_batches)
        shards = [self.pool.shards[i] for i in self.cohort.honest]
        figures = [at.figures(measures, *self.pool.at(shard)) for shard in shards]
        return {name: [means[name] for means in figures] for name in measures}

    def relabelled(self, workers: Sequence[int], relabel: Relabel) -> ModuleTask:
        return self._with(self.pool.relabelled(workers, relabel, self._classes("Label flipping")))

    def poisoned(self, workers: Sequence[int], change: Change, figure: str, goal: Change) -> ModuleTask:
        classes = self._classes("A backdoor")
        task = self._with(self.pool.poisoned(workers, change, classes))
        task._goals = self._goals | {figure: self._placed(goal(*self._evaluated()[""], classes))}
        return task

    def _with(self, pool: Pool) -> ModuleTask:
        task = copy(self)
        task.pool, task._sampler = pool, self._sampler.over(pool.shards)
        task._softmax = None
        return task

    def _linear(self) -> Softmax | None:
        """The fast way of full gradients, where the module is one linear layer; samples are laid out once."""
        self._softmax = self._softmax or self._softmax_on(self.pool)
        return self._softmax

    def _softmax_on(self, pool: Pool) -> Softmax | None:
        labels = pool.targets
        if not (self._gradients.softmax and pool.inputs.ndim == 2 and Softmax.all_count(labels)):
            return None
        return Softmax(pool.inputs, pool.targets, pool.source, pool.shards, self.layout)

    def _proxy_data(self, proxy: int | Pair | None) -> Pair | None:
        """The samples of the server's loss. Errors: a worker that does not exist or lies."""
        if isinstance(proxy, int):
            return self.pool.at(self.pool.shards[WorkerProxy(proxy).owner(self.cohort)])
        return None if proxy is None else self._placed(check_samples(proxy, "The server's set"))

    def _classes(self, need: str) -> int:
        """How many classes the labels have. Errors: a task without labels, which `need` cannot do with."""
        return classes(self._gradients.corner.example, self.pool.targets, need)

    def _sample(self, t: int) -> Pair:
        return self.pool.at(self._sampler.draw(t))

    def _placed(self, pair: Pair) -> Pair:
        return cast(pair[0], self.device, self.dtype), cast(pair[1], self.device, self.dtype)

    def _evaluated(self) -> dict[str, Pair]:
        if "" in self._sets:
            return self._sets
        honest = torch.cat([self.pool.shards[i] for i in self.cohort.honest])
        return {"": self.pool.at(honest)} | self._sets

    def _full_gradient(self, x: Tensor, shard: Tensor) -> Tensor:
        """One worker's gradient `[1, d]` over all its samples."""
        return self._gradients.full(x, *self.pool.at(shard)).unsqueeze(0)

    def _corner(self) -> Pair:
        """Samples `[n, b, ...]` to look at the module with: the first batch, or a few of each worker's."""
        if self.batch != "full":
            return self._sample(1)
        few = min(FEW, *(len(shard) for shard in self.pool.shards), FEW)
        return self.pool.at(torch.stack([shard[:few] for shard in self.pool.shards]))

    def _honest_batches(self) -> list[Tensor]:
        """Honest workers' inputs, a batch each, of the first rounds or all they have."""
        honest = list(self.cohort.honest)
        if self.batch == "full":
            return [self.pool.at(self.pool.shards[i])[0] for i in honest]
        rounds = ceil(SETTLING / (len(honest) * self.batch))
        return [x for t in range(1, rounds + 1) for x in self._sample(t)[0][honest]]
