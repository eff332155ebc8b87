"""x_i + s u_i to each receiver i: a direction for each node, and how far, searched on that node's rule."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from byzopt.attacks.edges.base import EdgeAttack, EdgeView
from byzopt.errors import require
from byzopt.linalg import norm

LENGTHS = 12  # how many lengths are tried at most, beside one beyond all
INSIDE = 1 - 1e-9  # a lie this share of an honest difference counts as the shorter of the two


@dataclass(frozen=True)
class SearchedAttack(EdgeAttack):
    """All liars tell receiver i the row x_i + s_i u_i. A subclass writes `directions`, the u_i.

    With `scale` None s_i is searched: of lengths just within the distances of i's honest neighbours (at most
    twelve of them, evenly by rank) and one ten times the longest, that which moves i farthest along u_i.

    Args:
        scale: s, the same for all receivers; None: searched for each.
    """

    scale: float | None = None

    def __post_init__(self) -> None:
        good = self.scale is None or self.scale >= 0
        require(good, f"Parameter `scale` of {self.name}", "be at least 0", self.scale)

    @abstractmethod
    def directions(self, view: EdgeView) -> Tensor:
        """u `[H, d]`; a row of zeros leaves that receiver alone."""

    def forge_edges(self, view: EdgeView, generator: torch.Generator) -> Tensor:
        rows, u = view.honest, self.directions(view)
        if self.scale is not None:
            return view.towards(rows + self.scale * u)
        lengths = lengths_to_try(view, rows)
        return view.towards(farthest(rows, u, lengths, lambda lies: view.defence(view.towards(lies))))


def farthest(rows: Tensor, u: Tensor, lengths: Tensor, answer: Callable[[Tensor], Tensor]) -> Tensor:
    """The lies `[..., H, d]` among x_i + s u_i/‖u_i‖, s in `lengths` `[K, ..., H, 1]`, that move each node
    farthest along u_i: `answer(lies)` is where nodes then stand. There may be leading dimensions of runs."""
    sizes = norm(u).unsqueeze(-1)
    unit = torch.where(sizes > 0, u / sizes, 0.0)
    best = rows.new_full((*rows.shape[:-1], 1), -torch.inf)
    chosen = rows
    for each in lengths:
        lies = rows + each * unit
        gain = ((answer(lies) - rows) * unit).sum(dim=-1, keepdim=True)
        gain = gain.nan_to_num(nan=-torch.inf)
        chosen = torch.where(gain > best, lies, chosen)
        best = torch.maximum(gain, best)
    return chosen


def lengths_to_try(view: EdgeView, rows: Tensor) -> Tensor:
    """Lengths `[K, H, 1]`, by rank among each node's honest neighbours."""
    honest = torch.tensor(view.cohort.honest, device="cpu")
    edges = view.network.adjacency[honest][:, honest].to(rows.device)
    lengths = torch.where(edges, torch.cdist(rows, rows), torch.nan)
    count = min(LENGTHS, int(edges.sum(dim=1).max()))
    shares = torch.linspace(0, 1, max(2, count), dtype=rows.dtype, device=rows.device)
    ranked = torch.nanquantile(lengths, shares, dim=1, interpolation="nearest").nan_to_num()
    return torch.cat([INSIDE * ranked, 10 * ranked[-1:]]).unsqueeze(-1)
