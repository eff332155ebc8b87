"""How the gradients of a module are taken: grouped, else `vmap`, else a loop, each checked before use."""

from __future__ import annotations

import warnings
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from byzopt.errors import InvalidInput, require
from byzopt.layout import Layout
from byzopt.rng import seed_of
from byzopt.tasks.grads.dense import Dense
from byzopt.tasks.grads.grouped import CannotGroupError, Grouped, GroupedPixels
from byzopt.tasks.grads.losses import Loss
from byzopt.tasks.grads.plain import Looped, Vmapped
from byzopt.tasks.grads.probe import Probe
from byzopt.tasks.grads.randomness import lent_rng

Strategy = Literal["auto", "grouped", "vmap", "loop"]
# Fastest first. A written-out chain of linear layers is grouping at its simplest, and goes by that name.
FASTER: tuple[tuple[str, type], ...] = (
    ("grouped", Dense),
    ("grouped", GroupedPixels),
    ("grouped", Grouped),
    ("vmap", Vmapped),
)
PASS_FLOATS = 1 << 24  # layer outputs of one pass: more of them at a time only miss the caches


class WorkerGradients:
    """Gradients `[n, d]` of n workers' mean losses of one module; worker i's equals autograd's on its batch.

    `module` is copied, not changed; its parameters that require gradients are the coordinates, in order.
    `loss(output, targets)` is the mean over a batch. `sample` is a batch `[n, b, ...]` of inputs and targets
    on which each way is compared with a plain loop before it is used, at a point near the module's own.
    `strategy="auto"` takes the first that agrees: "grouped" (one pass for all workers, parameter gradients
    split by layer), "vmap", "loop" (with a `UserWarning`). Random layers draw from `(seed, t)`, for each
    worker its own, so the same round has the same masks at every point.

    Errors: `InvalidInput` for batch statistics, no trainable parameter, a module or a loss that does not work
    on the sample, a strategy that does not fit. Cost: as n backward passes; memory is bounded by taking
    workers in groups.
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
        require(strategy in known, "Parameter `strategy`", f"be one of {', '.join(known)}", strategy)
        _refuse_batch_statistics(module)
        self.module, self.loss, self.seed = deepcopy(module), loss, seed
        self.layout = Layout.of((k, p) for k, p in module.named_parameters() if p.requires_grad)
        require(self.layout.d > 0, "The module", "have a parameter that requires gradients", "none")
        self._probe = Probe(Looped(self.module, loss, self.layout), self.start, sample)
        self.strategy, self._way = self._chosen(strategy)

    @property
    def start(self) -> Tensor:
        """The module's own parameters as one vector `[d]`."""
        parameters = dict(self.module.named_parameters())
        return self.layout.flatten({name: parameters[name].detach() for name in self.layout.names})

    @property
    def most(self) -> int:
        """How many samples go through the module at a time."""
        return max(1, PASS_FLOATS // max(1, self._probe.sample_floats))

    def arranged(self, samples: Tensor) -> Tensor:
        """Samples `[b, ...]` as the module takes them fastest: equal numbers, perhaps otherwise in memory."""
        arranged: Tensor = self._way.arranged(samples) if isinstance(self._way, Grouped) else samples
        return arranged

    def __call__(self, x: Tensor, inputs: Tensor, targets: Tensor, t: int) -> Tensor:
        """Gradients `[n, d]` at `x` `[d]` on round t's `inputs` and `targets` `[n, b, ...]`."""
        self._way.module.train()
        return self._taken(x, inputs, targets, t)

    def still(self, x: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """The same in evaluation mode: gradients of the loss without dropout."""
        self._way.module.eval()
        return self._taken(x, inputs, targets, 0)

    def _taken(self, x: Tensor, inputs: Tensor, targets: Tensor, t: int) -> Tensor:
        n, b = inputs.shape[:2]
        rows = x.new_empty(n, len(x))
        if isinstance(self._way, Dense) and n * b <= self.most:  # which draws nothing
            self._way.fill(rows, x, inputs, targets, self.most)
            return rows
        group = max(1, self.most // b)
        with lent_rng(seed_of(self.seed, "dropout", t), x.device), torch.enable_grad():
            for i in range(0, n, group):
                part = slice(i, i + group)
                self._way.fill(rows[part], x.detach(), inputs[part], targets[part], self.most)
        return rows

    def _chosen(self, strategy: Strategy) -> tuple[str, Any]:
        reasons = {}
        for name, kind in FASTER:
            if strategy not in ("auto", name):
                continue
            try:
                way = kind(self.module, self.loss, self.layout)
                reason = self._probe.objection(way)
            except CannotGroupError as error:
                reason = str(error)
            if not reason:
                return name, way
            reasons[name] = f"{name}: {reason}"
        what = type(self.module).__name__
        why = "; ".join(reasons.values())
        if strategy == "auto":
            warnings.warn(
                f"{what} cannot be vectorised, so its workers are looped over ({why}).",
                UserWarning,
                stacklevel=4,
            )
        elif strategy != "loop":
            raise InvalidInput(
                f'{what} does not fit strategy "{strategy}". Found {reasons[strategy]}. Use strategy="auto".'
            )
        return "loop", Looped(self.module, self.loss, self.layout)


def _refuse_batch_statistics(module: nn.Module) -> None:
    for layer in module.modules():
        # Instance norm that tracks statistics is of the same family, and only that one.
        tracks = getattr(layer, "track_running_stats", False)
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) or tracks:
            raise InvalidInput(
                f"The module should keep no batch statistics. Found {type(layer).__name__}: "
                "running statistics are not a gradient. Use GroupNorm or LayerNorm."
            )
