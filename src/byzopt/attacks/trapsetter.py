"""Trapsetter: a bad point near by, towards which the aggregate is pulled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from byzopt.attacks.base import ATTACKS, Attack, Knowledge, View
from byzopt.errors import require
from byzopt.layout import Layout


@ATTACKS.register("trapsetter")
@dataclass(frozen=True)
class Trapsetter(Attack):
    """(n/b) `pull` (x - w) - ((n - b)/b) u from all, w the trap and u the mean of the own honest messages.

    With u for the honest mean, the plain mean of all rows is `pull` (x - w): a step γ leads the share
    γ `pull` of the way into the trap. The trap is the point of largest own loss on a grid about x, spanned by
    two directions drawn each round: x + (i/k) r_1 + (j/k) r_2 with k = `steps` and i, j = -k .. k, the part
    of r_1 and r_2 in each tensor of the model being `radius` times as long as that tensor of x. A tensor that
    is 0 stays so, and at x = 0 the trap is x itself. A loss that is NaN counts as infinite. Ties: the first.

    Cost: (2k + 1)² losses of all of the liars' own data a round. It needs a task that tells them.

    Source: Yue, Jin, Wong, Dai, arXiv:2409.06474. Of the paper only the abstract was within reach: formula,
    grid and defaults are those of the authors' code (KAI-YUE/exp-byzan, the trap setter that is not
    omniscient, `config.yaml`). Where we differ: the code takes the point of least accuracy, on the test
    samples as `main.py` stands, here it is the one of largest loss on the liars' own data; rows are whole
    steps there and gradients here, so that the code's `scaling_factor` 0.01 is γ `pull`, as by default at
    γ = 0.1. The code draws from [0, 1), and such a direction leans to that of all ones: `draws` "uniform".

    With samples of the workers n and b count those who take part.

    Args:
        pull: Share of the way to the trap, per unit of the server's step, > 0.
        radius: Length of each direction in a tensor of the model, as a multiple of that tensor's, > 0.
        steps: Points of the grid on each side of x, at least 1.
        draws: Numbers that directions are drawn from: "uniform" in [0, 1), or "normal".

    Raises:
        InvalidInput: A task that does not tell its losses, and rows without a task.

    Examples:
        >>> import torch
        >>> from byzopt import Trapsetter
        >>> rows, x = torch.ones(5, 2), torch.tensor([1.0, 2.0])
        >>> attacked = Trapsetter(radius=0.5)(rows, byzantine=1, x=x, loss=lambda x: x @ x)
        >>> bool(attacked.mean(0) @ x < 0)  # the loss is larger further out, and that is where steps lead
        True
    """

    pull: float = 0.1
    radius: float = 0.03
    steps: int = 2
    draws: Literal["uniform", "normal"] = "uniform"
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"own", "loss"})

    def __post_init__(self) -> None:
        require(self.pull > 0, "Parameter `pull` of trapsetter", "be positive", self.pull)
        require(self.radius > 0, "Parameter `radius` of trapsetter", "be positive", self.radius)
        require(self.steps >= 1, "Parameter `steps` of trapsetter", "be at least 1", self.steps)

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        n, b, own = _here(view)
        x = view.x.to(own)
        points = self.grid(x, self._directions(view, x, generator))
        losses = view.loss(points).nan_to_num(nan=torch.inf, posinf=torch.inf)
        trap = points[losses.argmax()]
        return view.alike(n / b * self.pull * (x - trap) - (n - b) / b * own)

    def grid(self, x: Tensor, directions: Tensor) -> Tensor:
        """The (2k + 1)² points of the grid about `x` `[d]` along two `directions` `[2, d]`, row by row."""
        ticks = torch.arange(-self.steps, self.steps + 1, dtype=x.dtype, device=x.device) / self.steps
        places = torch.cartesian_prod(ticks, ticks)
        return x + places @ directions

    def _directions(self, view: View, x: Tensor, generator: torch.Generator) -> Tensor:
        drawn = x.new_empty(2, len(x))
        if self.draws == "uniform":
            drawn.uniform_(generator=generator)
        else:
            drawn.normal_(generator=generator)
        layout = view.loss.layout or Layout.flat(len(x))
        parts, sizes = layout.views(x), layout.views(drawn)
        scaled = {name: self._scaled(sizes[name], part) for name, part in parts.items()}
        return layout.flatten(scaled, lead=1)

    def _scaled(self, drawn: Tensor, part: Tensor) -> Tensor:
        """Directions `[2, ...]` in one tensor of the model, each `radius` times as long as that tensor."""
        lengths = torch.linalg.vector_norm(drawn.flatten(1), dim=1).clamp_min(torch.finfo(drawn.dtype).tiny)
        wanted = self.radius * torch.linalg.vector_norm(part) / lengths
        directions: Tensor = drawn * wanted.view(-1, *[1] * part.ndim)
        return directions


def _here(view: View) -> tuple[int, int, Tensor]:
    """How many workers take part, how many of them lie, and the mean of these liars' own messages."""
    if view.present is None:
        return view.cohort.n, view.b, view.own.mean(dim=0)
    mask = view.present[list(view.cohort.byzantine)]
    mine = mask.nonzero().flatten()
    return int(view.present.sum()), len(mine), view.own[mine.to(view.own.device)].mean(dim=0)
