"""How each way of taking gradients is judged: by a plain loop on a corner of the first batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from byzopt.errors import InvalidInput
from byzopt.linalg import norm
from byzopt.tasks.grads.corner import SEEDS, Batch, Corner, does_not_work, line
from byzopt.tasks.grads.grouped import Grouped
from byzopt.tasks.grads.plain import Looped
from byzopt.tasks.grads.randomness import drawing

WILD = (1e6, torch.nan)  # factors of another worker's samples, which may hold anything
MOVES = "a worker's gradient moves when another worker's samples change"


class Probe:
    """A plain loop's gradients on a corner, in both modes.

    Errors: `InvalidInput` where they cannot be taken, are not finite at the module's own point either, or are
    others when asked for again.
    """

    def __init__(self, corner: Corner, start: Tensor, again: bool = True) -> None:
        self.corner, self.pure, self.point = corner, corner.pure, corner.point
        if not self._truths(again):
            self.point = start
            if not self._truths(again):
                raise InvalidInput(
                    "The gradients should be finite where training starts. Found NaN or Inf on the first "
                    "samples of the first batch. Look at the loss on them."
                )

    def forget(self) -> None:
        """Let go of the gradients, once the way is chosen; `alike` stays, whether they were the same to the
        bit in training and in evaluation mode: not so with dropout or batch norm."""
        self.alike = torch.equal(self.truth[True], self.truth[False])
        self.truth.clear()

    def objection(self, way: Any) -> str:
        """Why `way` may not be used. Empty when it may."""
        try:
            rows = {training: self._rows(way, training) for training in (True, False)}
            if not self._agrees(rows) and not self._only_rounds(way):
                return "its gradients differ from a plain loop's"
            if not self._same(self._rows(way, True), rows[True]):
                return "its gradients are others when asked for again"
            if not self._same(self._rows(way, True, self.corner.others)[0], rows[True][0]):
                return MOVES
        except Exception as error:  # torch raises many kinds for what vmap does not cover
            return str(error).strip().partition("\n")[0] or type(error).__name__
        return self._reached_by_wild_samples(way, rows[True][0])

    def _agrees(self, rows: dict[bool, Tensor]) -> bool:
        return all(self._close(rows[training], self.truth[training]) for training in rows)

    def _only_rounds(self, way: Any) -> bool:
        """Whether a difference in float32, which deep modules make of rounding, is gone in float64."""
        if self.point.dtype != torch.float32:
            return False
        precise = type(self)(self.corner.doubled(), self.point.double(), again=False)
        twin = (Grouped if isinstance(way, Grouped) else type(way))(precise.pure)
        return precise._agrees({training: precise._rows(twin, training) for training in (True, False)})

    def agrees(self, gradients: Callable[[Tensor, Tensor, Tensor], Tensor]) -> bool:
        """Whether `gradients(x, inputs, targets)` are those of a loop in evaluation mode."""
        try:
            rows = gradients(self.point, self.corner.inputs, self.corner.targets)
            return self._close(rows, self.truth[False])
        except Exception:  # whatever a shortcut does not cover
            return False

    def _reached_by_wild_samples(self, way: Any, row: Tensor) -> str:
        """Why the first worker's row is not safe from whatever another may hold. Empty where it is."""
        inputs, targets = self.corner.inputs, self.corner.targets
        for factor in WILD if inputs.is_floating_point() else ():
            wild = torch.cat([inputs[:-1], factor * inputs[-1:]])
            try:
                moved = self._rows(way, True, (wild, targets))
            except Exception:  # a module may refuse such samples, alone or together
                continue
            if not self._same(moved[0], row):
                return MOVES
        return ""

    def _truths(self, again: bool) -> bool:
        """Take the loop's gradients; False where they are not finite."""
        loop = Looped(self.pure)
        try:
            self.truth = {training: self._rows(loop, training) for training in (True, False)}
        except Exception as error:
            reason = f"{type(error).__name__} in the backward pass: {line(error)}"
            raise does_not_work(reason) from error
        if again and not self._same(self._rows(loop, True), self.truth[True]):
            raise InvalidInput(
                "The gradients should depend on parameters, samples and round alone. Found others when they "
                "were asked for again: the module or the loss keeps something outside of itself, or draws "
                "from a generator that cannot be seeded. Keep it in an attribute of the module."
            )
        return all(bool(rows.isfinite().all()) for rows in self.truth.values())

    def _rows(self, way: Any, training: bool, batch: Batch | None = None) -> Tensor:
        inputs, targets = batch or (self.corner.inputs, self.corner.targets)
        rows = self.point.new_empty(len(inputs), len(self.point))
        way.module.train(training)
        seeds = SEEDS[: len(inputs)]
        together = self.pure.draws and not isinstance(way, Looped)
        with drawing(seeds, rows.device, together, self.pure.coins), torch.enable_grad():
            self._fill(way, rows, inputs, targets, seeds)
        return rows

    def _fill(self, way: Any, rows: Tensor, inputs: Tensor, targets: Tensor, seeds: Sequence[int]) -> None:
        way.fill(rows, self.point.clone(), inputs, targets, inputs.shape[1], seeds)

    def _close(self, rows: Tensor, truth: Tensor) -> bool:
        limits = torch.finfo(rows.dtype)
        scale = norm(truth).max().clamp_min(limits.tiny)
        return bool(norm(rows - truth).max() <= limits.eps**0.5 * scale)

    def _same(self, a: Tensor, b: Tensor) -> bool:
        if self.corner.exact:
            return bool(((a == b) | (a.isnan() & b.isnan())).all())
        return torch.allclose(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()), equal_nan=True)
