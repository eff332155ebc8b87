"""All workers' gradients from one forward and one backward pass over their samples together."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn

from byzopt.tasks.grads.layers import Rule, Sheet, Split
from byzopt.tasks.grads.losses import sum_of_means, unwrap_loss
from byzopt.tasks.grads.pure import Pure, slots, swapped
from byzopt.tasks.grads.randomness import CannotGroupError
from byzopt.tasks.grads.rules import RULES, BatchNormRule


class Grouped:
    """Gradients of a module made of known layers. Errors: `CannotGroupError`."""

    def __init__(self, pure: Pure) -> None:
        self.module, self.loss, self.layout = deepcopy(pure.module), unwrap_loss(pure.loss), pure.layout
        self._slots, self._given = slots(self.module, self.layout), pure.given
        # Layers for which a sample's place in its worker's batch matters are told how many a worker has.
        self._placed = [layer for layer in self.module.modules() if hasattr(layer, "per_worker")]
        self._sheet: Sheet
        self._samples = 0
        names = {id(p): name for name, p in self.module.named_parameters() if p.requires_grad}
        for layer in self.module.modules():
            self._instrument(layer, names)

    def fill(
        self, rows: Tensor, x: Tensor, inputs: Tensor, targets: Tensor, most: int, seeds: Sequence[int]
    ) -> None:
        """Write into `rows` `[n, d]` the gradients at `x` `[d]` on `inputs`, `targets` `[n, b, ...]`.

        At most `most` samples of a worker go through at a time. What is drawn is seen to by `Apart`.
        """
        self._sheet = Sheet(self.layout, rows)
        b = inputs.shape[1]
        most = min(b, most)
        for i in range(0, b, most):
            self._pass(x, inputs[:, i : i + most], targets[:, i : i + most], targets)
        self._sheet.close()

    def arranged(self, samples: Tensor) -> Tensor:
        """Samples `[b, ...]` as the module is to be given them: the same, perhaps otherwise in memory."""
        return samples

    def _pass(self, x: Tensor, inputs: Tensor, targets: Tensor, whole: Tensor) -> None:
        self._samples = samples = inputs.shape[0] * inputs.shape[1]
        inputs, targets = self._given(inputs, targets)
        given = self.arranged(inputs.flatten(0, 1))
        for layer in self._placed:
            layer.per_worker = inputs.shape[1]  # type: ignore[assignment]
        with swapped(self.module, self._slots, self.layout.views(x)):
            output = self.module(given)
            if not isinstance(output, Tensor) or output.ndim == 0 or len(output) != samples:
                raise CannotGroupError("its output is not one tensor with a row for each sample")
            total = sum_of_means(self.loss, output, targets, whole)
            torch.autograd.grad(total, self._sheet.anchor, allow_unused=True)

    def _instrument(self, layer: nn.Module, names: dict[int, str]) -> None:
        trainable = {key: p for key, p in layer.named_parameters(recurse=False) if p.requires_grad}
        kind = RULES.get(type(layer))
        if not trainable:
            if kind is BatchNormRule:  # without parameters of its own to train it still mixes samples
                plainly = kind(layer, None, None)
                layer.forward = lambda x: plainly.forward(plainly.prepare(x, self._sheet.n))
            return
        if kind is None or not kind.fits(layer) or not trainable.keys() <= {"weight", "bias"}:
            raise CannotGroupError(f"{type(layer).__name__} is not a layer whose gradient is known to split")
        trained = {key: names[id(p)] for key, p in trainable.items()}
        rule = kind(layer, trained.get("weight"), trained.get("bias"))
        layer.forward = partial(self._forward, rule)

    def _forward(self, rule: Rule, x: Tensor) -> Tensor:
        sheet = self._sheet
        if len(x) != self._samples:
            raise CannotGroupError(f"its {type(rule.layer).__name__} is fed something other than the samples")
        output: Tensor = Split.apply(rule.prepare(x, sheet.n), sheet.anchor, rule, sheet)  # type: ignore[no-untyped-call]
        return output


class GroupedPixels(Grouped):
    """The same, images held pixel by pixel (`channels_last`) on a CPU: pooling then takes a tenth of the
    time. Errors: `CannotGroupError` for samples that are no float32 `[channels, h, w]`, and for modules that
    need them otherwise."""

    def __init__(self, pure: Pure) -> None:
        super().__init__(pure)
        for layer in self.module.modules():
            if isinstance(layer, nn.MaxPool2d):  # its backward is slow where the two formats meet
                layer.register_forward_hook(lambda layer, given, output: _by_pixel_backwards(output))

    def arranged(self, samples: Tensor) -> Tensor:
        if samples.ndim != 4 or samples.dtype != torch.float32 or samples.device.type != "cpu":
            raise CannotGroupError("its samples are not images in float32 on a CPU")
        return _by_pixel(samples)


def _by_pixel(images: Tensor) -> Tensor:
    return images.to(memory_format=torch.channels_last)


def _by_pixel_backwards(output: Tensor) -> None:
    if output.requires_grad and output.ndim == 4:
        output.register_hook(_by_pixel)  # type: ignore[no-untyped-call]
