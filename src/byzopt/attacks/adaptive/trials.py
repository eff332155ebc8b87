"""Asking a defence about many sets of forged rows, in as few coordinates as tell the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from byzopt.attacks.adaptive.scene import COLUMNS, Scene
from byzopt.errors import ByzoptError

Space = Literal["span", "columns", "whole"]
SPACES: tuple[Space, ...] = ("span", "columns", "whole")
Ask = Callable[[Tensor, Tensor | None], Tensor]  # sets of rows `[K, n, k]`, and what is remembered `[m, k]`


class Guard(Protocol):
    """A defence that may expel workers, in the state of a round."""

    def foresee(self, rows: Tensor, vectors: Tensor | None, rounds: int) -> tuple[Tensor, Tensor]:
        """Its answers `[K, k]` to sets of rows `[K, n, k]`, and who would be expelled after so many rounds of
        each, `[K, n]`; `vectors` `[m, k]` are what it remembers, where that is known."""
        ...


MOST_NUMBERS = 1 << 26  # in the sets of rows of one call: half a gigabyte in float64
AHEAD = 2  # rounds of its rows that a liar wants to survive: who spends all that a guard bears is gone next
AGREE = 1e-3  # of the spread: how far answers in fewer coordinates may be from those to whole rows


class Trials:
    """A defence, the rows `[n, .]` around the forged ones, and a count of what was asked.

    `asks` are the defence with each draw of its own that the attacker makes: one for a rule that draws none.
    A `guard`, which may expel workers, is asked in the place of `asks`, and rows that would cost a faulty
    worker its place are refused. What `hides` something that it remembers is asked about whole rows only.
    """

    def __init__(
        self,
        asks: Sequence[Ask],
        honest: Sequence[int],
        byzantine: Sequence[int],
        guard: Guard | None = None,
        hides: bool = False,
    ) -> None:
        self.asks, self.honest, self.byzantine, self.count = asks, list(honest), list(byzantine), 0
        self.guard, self.hides = guard, hides

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
        if self.guard is not None:
            return self._unseen(self.guard, scene, coefficients).unsqueeze(0)
        rows = self.sets(scene, coefficients)
        self.count += len(self.asks) * len(rows)
        return torch.stack([_asked(ask, rows, _known(scene)) for ask in self.asks])

    def _unseen(self, guard: Guard, scene: Scene, coefficients: Tensor) -> Tensor:
        """A guard's answers `[K, k]`; NaN where a faulty worker would be expelled, if the same came again,
        who is not when all of them send the honest mean, for which the coefficients are 0."""
        rows = self.sets(scene, torch.cat([torch.zeros_like(coefficients[:1]), coefficients]))
        self.count += len(rows)
        answers, expelled = guard.foresee(rows, _known(scene), AHEAD)
        gone = expelled[:, self.byzantine]
        caught = (gone & ~gone[0]).any(dim=1)
        return torch.where(caught.unsqueeze(1), torch.nan, answers.to(rows))[1:]

    def space(self, whole: Scene, some: Tensor, generator: torch.Generator) -> Space:
        """In which space the defence answers `some` coefficients as it does in the whole one: probed."""
        if self.hides or (self.guard is not None and not len(whole.remembered)):
            return "whole"  # it does not say what it remembers
        if self.guard is not None:
            some = torch.cat([torch.zeros_like(some[:1]), some])  # it may refuse all others
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
            scale = float(expected.nan_to_num(0.0).abs().amax()) or 1.0
            if found.shape == expected.shape and _alike(found, expected, AGREE * scale):
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


def _alike(found: Tensor, expected: Tensor, most: float) -> bool:
    """Whether the same answers are refused (NaN) and no other is further away than `most`."""
    return bool(torch.isclose(found, expected, rtol=0.0, atol=most, equal_nan=True).all())


def _known(scene: Scene) -> Tensor | None:
    """What the defence says that it remembers, in the scene's coordinates."""
    return scene.remembered if len(scene.remembered) else None


def _asked(ask: Ask, rows: Tensor, known: Tensor | None) -> Tensor:
    try:
        return ask(rows, known).to(rows)  # a memory answers in its own dtype, where it is
    except ByzoptError:
        return torch.stack([_one(ask, each, known) for each in rows])


def _one(ask: Ask, rows: Tensor, known: Tensor | None) -> Tensor:
    try:
        return ask(rows.unsqueeze(0), known)[0].to(rows)
    except ByzoptError:
        return torch.full_like(rows[0], torch.nan)
