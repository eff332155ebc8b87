"""Relocated orthogonal perturbation: a push across the path, hidden from defences that look along it."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, radians, sin
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from byzopt.attacks.base import ATTACKS, Knowledge, Remembering, View
from byzopt.attacks.moments import direction
from byzopt.cohort import Cohort
from byzopt.linalg import compute_dtype


class ROPState(NamedTuple):
    """The honest mean of the round before, `[d]`."""

    past: Tensor


@ATTACKS.register("rop")
@dataclass(frozen=True)
class ROP(Remembering):
    """c + z (sin θ q + cos θ r/‖r‖): a vector of length z at angle θ to the reference r, placed at c.

    c = place M + (1 - place) m and r = memory M + (1 - memory) m, where m is the mean of the honest rows and
    M that of the round before (m itself in round 1); q is the unit vector of (1, .., 1) made orthogonal to r.
    `angle` θ in degrees: 90 is across, 180 against. All Byzantine workers send the same row.

    Source: Özfatura, Özfatura, Küpçü, Gündüz, "Byzantines can also learn from history", 2022, released code.
    Its M is the server's momentum, which no attack may read here; the past honest mean stands in for it.

    Args:
        z: Length of the vector that is added.
        angle: θ to the reference, in degrees: 90 is across, 180 against.
        memory: Weight of the mean of the round before in the reference, in [0, 1].
        place: Weight of the mean of the round before in the centre, in [0, 1].

    Examples:
        >>> import torch
        >>> from byzopt import ROP
        >>> rows = torch.tensor([[1.0, 2.0], [3.0, 2.0], [0.0, 0.0]])
        >>> forged = ROP(angle=180.0)(rows, byzantine=1)[2]
        >>> bool(torch.isclose((forged - rows[:2].mean(0)).norm(), torch.tensor(1.0)))
        True
    """

    z: float = 1.0
    angle: float = 90.0
    memory: float = 0.9
    place: float = 1.0
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"honest"})

    def start(self, cohort: Cohort, x: Tensor) -> ROPState:
        return ROPState(torch.zeros_like(x, dtype=compute_dtype(x.dtype)))

    def step(self, state: ROPState, view: View, generator: torch.Generator) -> tuple[Tensor, ROPState]:
        mean = view.honest.mean(dim=0)
        past = mean if view.t == 1 else state.past
        along = direction(torch.lerp(mean, past, self.memory))
        ones = torch.ones_like(mean)
        across = direction(ones - (ones @ along) * along)
        theta = radians(self.angle)
        push = sin(theta) * across + cos(theta) * along
        return view.alike(torch.lerp(mean, past, self.place) + self.z * push), ROPState(mean)
