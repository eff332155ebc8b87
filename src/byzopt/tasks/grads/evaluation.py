"""Losses and figures over any number of samples, from parts of them where that changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from byzopt.errors import InvalidInput
from byzopt.rng import seed_of
from byzopt.tasks.grads.losses import counted, termwise
from byzopt.tasks.grads.outputs import joined, leaves
from byzopt.tasks.grads.pure import Pure, slots, swapped
from byzopt.tasks.grads.randomness import drawing, started
from byzopt.tasks.grads.state import fresh, reseed, unused

Metric = Callable[[Any, Tensor], Tensor]


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of samples whose largest logit is their label's: logits `[b, classes]`, labels `[b]`. Labels
    that do not count (-100) are left out."""
    right, counts = logits.argmax(dim=-1) == labels, counted(labels)
    return (right * counts).sum().double() / counts.sum()


def default_metrics(output: Any, targets: Tensor) -> dict[str, Metric]:
    """`accuracy`, for outputs `[b, classes]` like this one and labels; else none."""
    labels = not targets.is_floating_point() and targets.ndim == 1
    scores = isinstance(output, Tensor) and output.ndim == 2 and output.shape[1] > 1
    return {"accuracy": accuracy} if labels and scores else {}


def classes(output: Any, targets: Tensor, need: str) -> int:
    """How many classes targets have. Errors: a task without labels, which `need` cannot do with."""
    scores = isinstance(output, Tensor) and output.ndim == targets.ndim + 1
    if targets.is_floating_point() or not scores:
        shape = tuple(output.shape[1:]) if isinstance(output, Tensor) else f"in a {type(output).__name__}"
        raise InvalidInput(
            f"{need} needs integer labels and a score for each class. Found targets of "
            f"{targets.dtype} with outputs {shape} a sample. Use another attack."
        )
    return int(output.shape[-1])


class Evaluation(NamedTuple):
    """A module at the point `x` `[d]` in evaluation mode.

    `cuts`: samples may go through it `most` at a time, each `arranged` as it takes them fastest.
    """

    pure: Pure
    x: Tensor
    cuts: bool
    most: int
    arranged: Callable[[Tensor], Tensor]
    seed: int

    @torch.no_grad()
    def figures(self, measures: Mapping[str, Metric], inputs: Tensor, targets: Tensor) -> dict[str, float]:
        """Every measure over all the samples `[m, ...]`.

        Those known to be means of one term a sample are added up from parts, weighted by the targets that
        count; any other is taken once, of all outputs.
        """
        measures = {name: unused(measure) for name, measure in measures.items()}
        most = self.most if self.cuts else len(inputs)
        totals, weight = dict.fromkeys(measures, _zero(self.x)), 0
        kept: list[Any] = []
        whole: list[str] = []
        ignored = not targets.is_floating_point() and bool((counted(targets) == 0).any())
        for part, truth in zip(torch.split(inputs, most), torch.split(targets, most), strict=True):
            output = self.output(self.arranged(part))
            if len(part) < len(inputs) and not kept and not weight:
                whole = [name for name, m in measures.items() if not _a_mean(m, output, truth)]
            share = int(counted(truth).sum()) if ignored else len(part)
            for name in measures.keys() - whole if share else ():
                totals[name] = (
                    totals[name] + _number(name, measures[name](output, *self.pure.given(truth))) * share
                )
            weight += share
            kept += [output] if whole else []
        values = {name: totals[name] / weight if weight else totals[name] * torch.nan for name in measures}
        if whole:
            together = joined(kept)
            values |= {
                name: _number(name, measures[name](together, *self.pure.given(targets))) for name in whole
            }
        return dict(zip(values, torch.stack(list(values.values())).cpu().tolist(), strict=True))

    def output(self, inputs: Tensor) -> Any:
        """What the module puts out."""
        return self._called(lambda module, loss: module(*self.pure.given(inputs)))

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The loss on all the samples at once, which autograd can go through to `x`."""
        inputs, targets = self.pure.given(inputs, targets)
        value: Tensor = self._called(lambda module, loss: loss(module(inputs), targets))
        return value

    def gradient(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The gradient `[d]` of any loss whatever over all the samples, the module being asked for a part of
        them at a time: first for outputs, then, with the slopes of the loss by all of them, backwards."""
        layout = self.pure.layout
        parts = [self.arranged(part) for part in torch.split(inputs, self.most)]
        with torch.no_grad():
            output = joined([self.output(part) for part in parts])
        slopes = _slopes(unused(self.pure.loss), output, *self.pure.given(targets))
        parameters = {k: p.clone().requires_grad_() for k, p in layout.views(self.x.detach()).items()}
        total = torch.zeros_like(self.x)
        for part, slope in zip(
            parts, zip(*(torch.split(s, self.most) for s in slopes), strict=True), strict=True
        ):
            with torch.enable_grad(), self.pure.held(parameters) as (module, _):
                mine = _floating(module(*self.pure.given(part)))
                pairs = [(out, by) for out, by in zip(mine, slope, strict=True) if out.requires_grad]
                outs, bys = zip(*pairs, strict=True)
                gradients = torch.autograd.grad(outs, list(parameters.values()), bys, materialize_grads=True)
            total += layout.flatten(dict(zip(parameters, gradients, strict=True)))
        return total

    def _called(self, work: Callable[[nn.Module, Any], Any]) -> Any:
        self.pure.module.eval()
        seed = seed_of(self.seed, "evaluation", 0)
        parameters = self.pure.layout.views(self.x)
        if self.pure.writes:  # perhaps to parameters
            parameters = {name: view.clone() for name, view in parameters.items()}
        with self.pure.held(parameters, seed) as (module, loss):
            if not (self.pure.draws or self.pure.coins):
                return work(module, loss)
            with drawing([seed], self.x.device, False, self.pure.coins):
                return work(module, loss)


def with_batch_statistics(
    pure: Pure, tracked: nn.Module, norms: Sequence[str], x: Tensor, batches: Sequence[Tensor], seed: int
) -> nn.Module:
    """A copy of `tracked` that has seen `batches` at `x` in training mode, one after the other.

    The `norms` average the statistics of the batches; whatever else the module writes in forward, it writes.
    """
    module, _ = fresh(tracked, None)
    module.train()
    layers: list[Any] = [module.get_submodule(name) for name in norms]
    for layer in layers:
        layer.reset_running_stats()
    reseed(module, seed_of(seed, "statistics"))
    where = slots(module, pure.layout)
    with torch.no_grad(), drawing([0], x.device, False, pure.coins):
        views = {name: view.clone() for name, view in pure.layout.views(x).items()}
        with swapped(module, where, views):
            for k, inputs in enumerate(batches):
                started(seed_of(seed, "statistics", k), x.device, pure.coins)
                for layer in layers:
                    layer.momentum = 1 / (k + 1)
                module(*pure.given(inputs))
    module.eval()
    return module


def _zero(x: Tensor) -> Tensor:
    """0 in float64 where `x` is."""
    return x.new_zeros((), dtype=torch.float64)


def _a_mean(measure: Metric, output: Any, targets: Tensor) -> bool:
    return measure is accuracy or termwise(measure, output, targets)


def _number(name: str, value: Any) -> Tensor:
    value = torch.as_tensor(value, device="cpu")
    if value.numel() != 1:
        raise InvalidInput(f"Metric {name!r} should give one number. Found a tensor {list(value.shape)}.")
    number: Tensor = value.reshape(()).double()
    return number


def _floating(output: Any) -> list[Tensor]:
    return [part for part in leaves(output) if part.is_floating_point()]


def _slopes(loss: Any, output: Any, targets: Tensor) -> list[Tensor]:
    """Slopes of the loss by the floating parts of an output."""
    parts = _floating(output)
    with torch.enable_grad():
        for part in parts:
            part.requires_grad_()
        return list(torch.autograd.grad(loss(output, targets), parts, materialize_grads=True))
