"""How the gradients of a module are taken: grouped, else `vmap`, else a loop, each checked before use."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from byzopt.errors import InvalidInput, require, said
from byzopt.layout import Layout
from byzopt.rng import seed_of
from byzopt.tasks.grads.adopt import by_batch, copied, refuse_single_samples, trainable_copy, untracked
from byzopt.tasks.grads.corner import SAMPLES, Corner
from byzopt.tasks.grads.dense import Dense
from byzopt.tasks.grads.evaluation import Evaluation, with_batch_statistics
from byzopt.tasks.grads.grouped import Grouped, GroupedPixels
from byzopt.tasks.grads.losses import Loss, adopted_loss, counted
from byzopt.tasks.grads.own_points import way_at_own_points
from byzopt.tasks.grads.plain import Looped, Vmapped
from byzopt.tasks.grads.probe import Probe
from byzopt.tasks.grads.pure import Pure
from byzopt.tasks.grads.randomness import CannotGroupError, drawing, drawn
from byzopt.tasks.grads.softmax import Softmax

Strategy = Literal["auto", "grouped", "vmap", "loop"]
# Fastest first. A written-out chain of linear layers is grouping at its simplest, and goes by that name.
FASTER: tuple[tuple[str, type], ...] = (
    ("grouped", Dense),
    ("grouped", GroupedPixels),
    ("grouped", Grouped),
    ("vmap", Vmapped),
)
STATISTICS = (
    "Layer {!r} has running statistics, which no worker reports and no rule combines: each worker normalises "
    "by its own batch, full gradients by all of a worker's samples, and figures are measured with averages "
    "over batches of honest workers, taken at the point that is measured."
)
DRAWS_ALWAYS = (
    "{} draws random numbers in evaluation mode too, so that full gradients and figures are taken with one "
    "draw of them. Call dropout with `training=self.training` if that is not meant."
)
PASS_FLOATS = 1 << 24  # layer outputs of one pass: more of them at a time only miss a CPU's caches
DEVICE_PASS_FLOATS = 1 << 28  # the same on a device, where passes cost launches: a gigabyte in float32


class WorkerGradients:
    """Gradients `[n, d]` of n workers' losses of one module; worker i's equals autograd's on its batch.

    `module` and `loss` are copied, not changed; the module's parameters that require gradients are the
    coordinates, in order. `loss(output, targets)` is one number for a batch, as a rule the mean over it.
    `sample` is a batch `[n, b, ...]` of inputs and targets. On a corner of it, near the module's own point,
    in training and in evaluation mode, each way has to agree with a plain loop before it is used, to give the
    same bits again, and to give a worker the same bits when another worker's samples are others.
    `strategy="auto"` takes the first that does: "grouped" (one pass for all workers, parameter gradients
    split by layer), "vmap", "loop" (with a `UserWarning`).

    What is drawn in a pass hangs on `(seed, t, worker)` alone, whoever else is asked and at whichever point.
    Batch norms take the statistics of each worker's own batch and keep none; frozen ones stay as they are.
    What a forward pass writes into the module or the loss is dropped after it, so that every worker, point
    and round starts from the module as it was given.

    Errors: `InvalidInput` for a module that `trainable_copy` refuses, no trainable parameter or several
    dtypes, a module or a loss that does not work on the sample or gives other gradients when asked again,
    batch norm on single samples, a strategy that does not fit. Cost: as n backward passes; memory is bounded
    by taking workers in groups.

    Args:
        module: The model; copied.
        loss: `loss(output, targets)` of a batch, one number; copied.
        sample: A batch of inputs and targets, `[n, b, ...]` each.
        strategy: How gradients are taken: "auto", "grouped", "vmap" or "loop".
        seed: Of what the module draws.

    Raises:
        InvalidInput: A module that cannot be adopted, has no trainable parameter or several dtypes; a
            module or a loss that does not work on the sample or gives other gradients when asked again;
            batch norm on single samples; a strategy that does not fit.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from byzopt import WorkerGradients
        >>> sample = (torch.randn(4, 8, 3), torch.randint(0, 2, (4, 8)))  # 4 workers, 8 samples each
        >>> gradients = WorkerGradients(nn.Linear(3, 2), nn.functional.cross_entropy, sample)
        >>> gradients.strategy
        'grouped'
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Loss,
        sample: tuple[Tensor, Tensor],
        strategy: Strategy = "auto",
        seed: int = 0,
    ) -> None:
        known = ("auto", "grouped", "vmap", "loop")
        require(strategy in known, "Parameter `strategy`", f"be one of {', '.join(known)}", said(strategy))
        self.module, self.loss, self.seed = trainable_copy(module), adopted_loss(loss), seed
        self._by_batch = by_batch(self.module)
        self.enough(sample[0].shape[1])
        self._tracked = copied(self.module)
        self.statistics = untracked(self.module)
        trained = {k: p for k, p in self.module.named_parameters() if p.requires_grad}
        self.layout = Layout.of(trained)
        self._on_cpu = all(p.device.type == "cpu" for p in trained.values())
        require(self.layout.d > 0, "The module", "have a parameter that requires gradients", "none")
        kinds = sorted({str(p.dtype) for p in trained.values()})
        remedy = "Convert the module by `.to(dtype)`."
        require(len(kinds) == 1, "The parameters that require gradients", "have one dtype", kinds, remedy)
        self.pure = Pure(self.module, self.loss, self.layout)
        self.corner, self.probe = self._looked_at(sample)
        self._warn()
        self.module, self.loss = self.pure.module, self.pure.loss
        self.strategy, self._way = self._chosen(strategy)
        self._settled_cuts: bool | None = None
        self.softmax = Softmax.fits(self.module, self.loss, self.layout) and self.probe.agrees(self._softmax)
        self.probe.forget()

    @property
    def start(self) -> Tensor:
        """The module's own parameters as one vector `[d]`."""
        parameters = dict(self.module.named_parameters())
        return self.layout.flatten({name: parameters[name].detach() for name in self.layout.names})

    @property
    def most(self) -> int:
        """How many samples go through the module at a time."""
        floats = PASS_FLOATS if self._on_cpu else DEVICE_PASS_FLOATS
        return max(1, floats // max(1, self.corner.sample_floats))

    def enough(self, samples: int) -> None:
        """Raise `InvalidInput` where so few samples of a worker are too few for a batch norm."""
        refuse_single_samples(self._by_batch, samples)

    def arranged(self, samples: Tensor) -> Tensor:
        """Samples `[b, ...]` as the module takes them fastest: equal numbers, perhaps otherwise in memory."""
        arranged: Tensor = self._way.arranged(samples) if isinstance(self._way, Grouped) else samples
        return arranged

    def __call__(
        self, x: Tensor, inputs: Tensor, targets: Tensor, t: int, workers: Sequence[int] | None = None
    ) -> Tensor:
        """Gradients `[n, d]` at `x` `[d]` on round t's `inputs` and `targets` `[n, b, ...]`, of all workers
        or of those whose samples they are."""
        who = range(len(inputs)) if workers is None else workers
        return self._taken(x, inputs, targets, [seed_of(self.seed, "dropout", t, i) for i in who], True)

    def at(self, points: Tensor, inputs: Tensor, targets: Tensor, t: int, workers: Sequence[int]) -> Tensor:
        """The same at points of these workers' own `[n, d]`: row i is worker i's at `points[i]`."""
        seeds = [seed_of(self.seed, "dropout", t, i) for i in workers]
        return self._taken(points, inputs, targets, seeds, True, own=True)

    def still(self, x: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """The same in evaluation mode: gradients of the loss without dropout."""
        seeds = [seed_of(self.seed, "evaluation", i) for i in range(len(inputs))]
        return self._taken(x, inputs, targets, seeds, False)

    def full(self, x: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """One worker's gradient `[d]` in evaluation mode over all its samples `[m, ...]`: from parts of them
        where module and loss allow it, else from all at once."""
        self.enough(len(inputs))
        mode, most = self.corner.evaluation, self.most
        if len(inputs) <= most or not mode.cuts:
            return self.still(x, inputs.unsqueeze(0), targets.unsqueeze(0))[0]
        if not mode.termwise:
            return self.evaluation(x).gradient(inputs, targets)
        total, weights = (
            torch.zeros_like(x),
            [int(counted(part).sum()) for part in torch.split(targets, most)],
        )
        parts = zip(torch.split(inputs, most), torch.split(targets, most), weights, strict=True)
        for seen, true, weight in parts:
            if weight:
                total += self.still(x, seen.unsqueeze(0), true.unsqueeze(0))[0] * (weight / sum(weights))
        return total

    def evaluation(self, x: Tensor) -> Evaluation:
        """The function that `still` gives gradients of, at `x` `[d]`."""
        return Evaluation(self.pure, x, self.corner.evaluation.cuts, self.most, self.arranged, self.seed)

    def measured(self, x: Tensor, batches: Callable[[], Sequence[Tensor]]) -> Evaluation:
        """The module as it is measured at `x` `[d]`. What its forward pass writes in training mode, running
        statistics above all, comes from `batches`, seen at `x`; others are measured as they are."""
        if not (self.statistics or self.corner.training.writes):
            return self.evaluation(x)
        module = with_batch_statistics(self.pure, self._tracked, self.statistics, x, batches(), self.seed)
        pure = Pure(module, self.loss, self.layout)
        mode = self.corner.evaluation
        pure.draws, pure.coins, pure.writes = mode.draws, mode.coins, mode.writes
        pure.spoils = self.pure.spoils
        view = Evaluation(pure, x, False, self.most, self.arranged, self.seed)
        if self._settled_cuts is None:
            clean = not (mode.draws or mode.coins)
            with torch.no_grad():
                self._settled_cuts = clean and self.corner.apart(view.output)
        return view._replace(cuts=self._settled_cuts)

    @cached_property
    def _way_at_own_points(self) -> Any:
        alone = "it is asked to be looped over" if self.strategy == "loop" else self._alone()
        return way_at_own_points(self.corner, self.start, alone)

    def _taken(
        self,
        x: Tensor,
        inputs: Tensor,
        targets: Tensor,
        seeds: Sequence[int],
        training: bool,
        own: bool = False,
    ) -> Tensor:
        """Gradients at `x` `[d]`, or with `own` at each worker's `x[i]`."""
        way, (n, b) = self._way_at_own_points if own else self._way, inputs.shape[:2]
        fill = way.fill_at if own else way.fill
        way.module.train(training)
        rows = x.new_empty(n, x.shape[-1])
        if isinstance(way, Dense) and n * b <= self.most:  # which draws nothing
            fill(rows, x, inputs, targets, self.most, seeds)
            return rows
        mode = self.corner.training if training else self.corner.evaluation
        most = self.most if mode.cuts and mode.termwise else b
        shared = not isinstance(way, Looped)
        group = max(1, self.most // b)
        for i in range(0, n, group):
            part = slice(i, i + group)
            together = shared and self.pure.draws
            with drawing(seeds[part], x.device, together, self.pure.coins), torch.enable_grad():
                here = x[part] if own else x
                fill(rows[part], here.detach(), inputs[part], targets[part], most, seeds[part])
                if shared and not self.pure.draws and drawn(seeds[i], x.device):
                    raise self._late()
        return rows

    def _looked_at(self, sample: tuple[Tensor, Tensor]) -> tuple[Corner, Probe]:
        """The module on a few samples; on whole batches where it cannot be asked for a few."""
        try:
            corner = Corner(self.pure, self.start, sample)
            return corner, Probe(corner, self.start)
        except InvalidInput:
            if sample[0].shape[1] <= SAMPLES:
                raise
        corner = Corner(self.pure, self.start, sample, sample[0].shape[1])
        return corner, Probe(corner, self.start)

    def _warn(self) -> None:
        """Say what a user would not expect of figures."""
        if self.statistics:
            warnings.warn(STATISTICS.format(self.statistics[0]), UserWarning, stacklevel=4)
        if self.corner.evaluation.draws or self.corner.evaluation.coins:
            warnings.warn(DRAWS_ALWAYS.format(type(self.module).__name__), UserWarning, stacklevel=4)

    def _late(self) -> InvalidInput:
        return InvalidInput(
            "A module whose workers share a pass should draw on all samples as on the first. Found "
            f'{type(self.module).__name__}, which drew nothing there. Use strategy="loop".'
        )

    def _softmax(self, x: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        """Gradients as one linear layer under cross-entropy would have them."""
        places = torch.arange(labels.numel(), device="cpu")
        shards = torch.split(places, labels.shape[1])
        return Softmax(inputs.flatten(0, 1), labels.flatten(), places, shards, self.layout).grads(x)

    def _chosen(self, strategy: Strategy) -> tuple[str, Any]:
        reasons: dict[str, str] = {}
        alone = self._alone()
        for name, kind in FASTER if strategy != "loop" else ():
            if strategy not in ("auto", name):
                continue
            reason = alone
            if not alone:
                try:
                    way = kind(self.pure)
                    reason = self.probe.objection(way)
                except CannotGroupError as error:
                    reason = str(error)
                if not reason:
                    return name, way
            reasons[name] = f"{name}: {reason}"
        what = type(self.module).__name__
        why = alone or "; ".join(reasons.values())
        if strategy == "auto" or (strategy == "loop" and self.pure.writes):
            warnings.warn(
                f"{what} cannot be vectorised, so its workers are looped over ({why}).",
                UserWarning,
                stacklevel=4,
            )
        elif strategy != "loop":
            raise InvalidInput(
                f'{what} does not fit strategy "{strategy}". Found {reasons[strategy]}. Use strategy="auto".'
            )
        return "loop", Looped(self.pure)

    def _alone(self) -> str:
        """Why workers cannot share a pass, whatever the layers; empty where they may."""
        if self.pure.coins:
            return "it draws from the generators of Python or NumPy, a number for all samples of a pass"
        if self.pure.writes:
            few = ", ".join(self.pure.writes[:3]) + (", ..." if len(self.pure.writes) > 3 else "")
            return (
                f"its forward pass writes {few}; each worker starts from the module as it was given, and "
                "what is written is dropped"
            )
        return ""
