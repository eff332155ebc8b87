"""How gradients at points of workers' own are taken: written out, by `vmap`, or one after another."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.conv import _ConvNd

from byzopt.tasks.grads.corner import Corner
from byzopt.tasks.grads.dense import Dense
from byzopt.tasks.grads.plain import Looped, Vmapped
from byzopt.tasks.grads.probe import MOVES, Probe
from byzopt.tasks.grads.randomness import CannotGroupError

FASTER: tuple[type, ...] = (Dense, Vmapped)


class OwnPointsProbe(Probe):
    """A plain loop's gradients on a corner, each worker at a point of its own."""

    def objection(self, way: Any) -> str:
        return super().objection(way) or self._reached_by_a_wild_point(way)

    def _fill(self, way: Any, rows: Tensor, inputs: Tensor, targets: Tensor, seeds: Sequence[int]) -> None:
        way.fill_at(rows, self._points(len(rows)), inputs, targets, inputs.shape[1], seeds)

    def _points(self, n: int) -> Tensor:
        steps = torch.arange(n, device=self.point.device, dtype=self.point.dtype)
        return self.point * (1 + steps.unsqueeze(1) / 4)

    def _reached_by_a_wild_point(self, way: Any) -> str:
        """Why the first worker's row is not safe from a point of another that is not finite."""
        rows, inputs = self._rows(way, True), self.corner.inputs
        points = self._points(len(rows))
        points[1:] = torch.nan
        wild = _Fixed(way, points)
        try:
            moved = self._rows(wild, True, (inputs, self.corner.targets))
        except Exception:  # a module may refuse such parameters, alone or together
            return ""
        return "" if self._same(moved[0], rows[0]) else MOVES.replace("samples", "point")


class _Fixed:
    """A way that is asked at these points, whatever points it is given."""

    def __init__(self, way: Any, points: Tensor) -> None:
        self.way, self.points, self.module = way, points, way.module

    def fill_at(self, rows: Tensor, points: Tensor, *rest: Any) -> None:
        self.way.fill_at(rows, self.points, *rest)


def way_at_own_points(corner: Corner, start: Tensor, alone: str) -> Any:
    """The first of the ways that agrees with a plain loop, which it else is, with a `UserWarning`.

    `alone` says why workers cannot share a pass, whatever the way; empty where they may. Convolutions on a
    CPU are looped over in any case: kernels of one's own make them grouped ones, which take longer.
    """
    convolves = any(isinstance(layer, _ConvNd) for layer in corner.pure.module.modules())
    if alone or (convolves and start.device.type == "cpu"):
        return Looped(corner.pure)
    probe, reasons = OwnPointsProbe(corner, start), []
    for kind in FASTER:
        try:
            way = kind(corner.pure)
            reason = probe.objection(way)
        except CannotGroupError as error:
            reason = str(error)
        if not reason:
            return way
        reasons.append(f"{kind.__name__.lower()}: {reason}")
    warnings.warn(
        "At points of their own the workers are looped over, as the module cannot be vectorised there "
        f"({'; '.join(reasons)}).",
        UserWarning,
        stacklevel=5,
    )
    return Looped(corner.pure)
