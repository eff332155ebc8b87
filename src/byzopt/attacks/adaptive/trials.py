"""Asking a defence about many sets of forged rows, in as few coordinates as tell the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from byzopt.attacks.adaptive.scene import COLUMNS, Scene
from byzopt.errors import ByzoptError

Space = Literal["span", "columns", "whole"]
SPACES: tuple[Space, ...] = ("span", "columns", "whole")
Ask = Callable[[Tensor], Tensor]
MOST_NUMBERS = 1 << 26  # in the sets of rows of one call: half a gigabyte in float64
AGREE = 1e-3  # of the spread: how far answers in fewer coordinates may be from those to whole rows


class Trials:
    """A defence, the rows `[n, .]` around the forged ones, and a count of what was asked.

    `asks` are the defence with each draw of its own that the attacker makes: one for a rule that draws none.
    `expels` tells of a guard whether rows `[n, k]` would cost a faulty worker its place: those are refused.
    """

    def __init__(
        self,
        asks: Sequence[Ask],
        honest: Sequence[int],
        byzantine: Sequence[int],
        expels: Callable[[Tensor], bool] | None = None,
    ) -> None:
        self.asks, self.honest, self.byzantine, self.count = asks, list(honest), list(byzantine), 0
        self.expels = expels

    def sets(self, scene: Scene, coefficients: Tensor) -> Tensor:
        """Whole sets of rows `[K, n, k]` for coefficients `[K, b, h + 6]`."""
        forged = scene.rows(coefficients)
        n = len(self.honest) + len(self.byzantine)
        out = forged.new_empty(len(forged), n, forged.shape[-1])
        out[:, self.honest] = scene.honest
        out[:, self.byzantine] = forged
        return out

    def answers(self, scene: Scene, coefficients: Tensor) -> Tensor:
        """Answers `[draws, K, k]`; NaN where the defence refuses the rows."""
        width = (len(self.honest) + len(self.byzantine)) * scene.honest.shape[1]
        pieces = torch.split(coefficients, max(1, MOST_NUMBERS // width))
        return torch.cat([self._answers(scene, piece) for piece in pieces], dim=1)

    def _answers(self, scene: Scene, coefficients: Tensor) -> Tensor:
        rows = self.sets(scene, coefficients)
        self.count += len(self.asks) * len(rows)
        answers = torch.stack([_asked(ask, rows) for ask in self.asks])
        if self.expels is not None:
            caught = torch.tensor([self.expels(each) for each in rows], device="cpu")
            answers[:, caught] = torch.nan
        return answers

    def space(self, whole: Scene, some: Tensor, generator: torch.Generator) -> Space:
        """In which space the defence answers `some` coefficients as it does in the whole one: probed."""
        answers = self.answers(whole, some)
        for space in ("span", "columns"):
            small = seen(whole, space, generator)
            try:
                found = self.answers(small, some)
            except (ByzoptError, RuntimeError, ValueError, IndexError):
                continue  # a memory of whole rows does not fit fewer coordinates
            if space == "span":
                expected, found = _inner(whole, answers), _inner(small, found)
            else:
                expected, found = answers[..., _chosen(whole, generator)[0]], found[..., : len(small.aim)]
            scale = float(expected.abs().amax().nan_to_num(0.0)) or 1.0
            if found.shape == expected.shape and bool(((found - expected).abs() <= AGREE * scale).all()):
                return space
        return "whole"


def seen(whole: Scene, space: Space, generator: torch.Generator) -> Scene:
    """The scene in this space."""
    if space == "span":
        return whole.rotated()
    return whole.columns(*_chosen(whole, generator)) if space == "columns" else whole


def _chosen(whole: Scene, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Columns by lot, with chances as the square sums of the honest rows in them, and for how many each of
    them stands: one over its chance.

    The lot is drawn from the generator's seed: the same whenever it is asked for in one round.
    """
    energy = whole.honest.square().sum(dim=0)
    chances = _chances(energy / energy.sum().clamp_min(1e-300) + 1e-3 / len(energy))
    drawn = torch.Generator("cpu").manual_seed(generator.initial_seed() % (1 << 63))
    order = torch.randperm(len(energy), generator=drawn, device="cpu")
    start = torch.rand((), dtype=energy.dtype, generator=drawn, device="cpu")
    steps = (chances[order].cumsum(0) + start).floor()  # systematic: in each unit of chance one column
    chosen = order[steps.diff(prepend=torch.zeros_like(steps[:1])) > 0]
    return chosen, 1 / chances[chosen]


def _chances(shares: Tensor) -> Tensor:
    """Chances `[d]` of at most 1, as the shares where that allows, which add to `COLUMNS` or d."""
    chances = shares * COLUMNS / shares.sum()
    for _ in range(8):
        certain = chances >= 1
        left = COLUMNS - int(certain.sum())
        some = shares.masked_fill(certain, 0.0)
        if left <= 0 or not bool(some.any()):
            break
        chances = torch.where(certain, 1.0, some * left / some.sum())
    return chances.clamp_max(1.0)


def _inner(scene: Scene, answers: Tensor) -> Tensor:
    """Inner products of answers with the honest rows and the aim: the same in every orthonormal basis."""
    return answers @ torch.cat([scene.honest, scene.aim.unsqueeze(0)]).T


def _asked(ask: Ask, rows: Tensor) -> Tensor:
    try:
        return ask(rows).to(rows)  # a memory answers in its own dtype, where it is
    except ByzoptError:
        return torch.stack([_one(ask, each) for each in rows])


def _one(ask: Ask, rows: Tensor) -> Tensor:
    try:
        return ask(rows.unsqueeze(0))[0].to(rows)
    except ByzoptError:
        return torch.full_like(rows[0], torch.nan)
