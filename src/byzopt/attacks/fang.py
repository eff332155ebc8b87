"""Fang's attacks with full knowledge, on Krum and on the trimmed mean (or median)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from byzopt import linalg
from byzopt.attacks.base import ATTACKS, Attack, Knowledge, View

HALVINGS = 20


@ATTACKS.register("fang_trimmed_mean")
@dataclass(frozen=True)
class FangTrimmedMean(Attack):
    """Just outside the honest range, coordinate by coordinate, on the side opposite to the honest mean m.

    Where m > 0, values drawn uniformly between the smallest honest value v and 2 v (v/2 if v > 0); where
    m <= 0, between the largest v and 2 v (v/2 if v <= 0). Drawn anew for each Byzantine worker.
    Source: Fang, Cao, Jia, Gong, USENIX Security 2020, section 4.3, with their b = 2.

    Examples:
        >>> import torch
        >>> from byzopt import FangTrimmedMean
        >>> rows = torch.tensor([[1.0], [2.0], [3.0], [0.0]])
        >>> forged = FangTrimmedMean()(rows, byzantine=1)[3]  # the mean is positive: below the smallest
        >>> bool(0.5 <= forged <= 1.0)
        True
    """

    knows: ClassVar[frozenset[Knowledge]] = frozenset({"honest"})

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        honest = view.honest
        rising = honest.mean(dim=0) > 0
        edge = torch.where(rising, honest.amin(dim=0), honest.amax(dim=0))
        share = view.like.uniform_(generator=generator)
        return edge * torch.where(rising != (edge > 0), 1 + share, 1 - share / 2)


@ATTACKS.register("fang_krum")
@dataclass(frozen=True)
class FangKrum(Attack):
    """-λ sign(m) from all Byzantine workers, with a large λ at which Krum still selects one of them.

    λ starts at sqrt(min_i Σ ‖v_i - v_l‖² / ((n - 2 b - 1) d)) + max_i ‖v_i‖ / √d, the sum over the h - 2
    nearest honest rows of v_i, and is halved until Krum with n - f - 2 neighbours and squared distances, f
    being the server's, selects a forged row, at most 20 times. n - 2 b - 1 is taken as 1 where smaller.

    Source: Fang, Cao, Jia, Gong, USENIX Security 2020, section 4.2, with the zero vector in place of the
    previous model, since rows are gradients; they stop at λ < 1e-5, which depends on the rows' scale.

    Examples:
        >>> import torch
        >>> from byzopt import FangKrum, Krum
        >>> rows = torch.randn(9, 100, generator=torch.Generator().manual_seed(0))
        >>> Krum(f=2).explain(FangKrum()(rows, byzantine=2)).selected  # Krum takes a forged row
        (7,)
    """

    knows: ClassVar[frozenset[Knowledge]] = frozenset({"honest"})

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        honest, n = view.honest, view.cohort.n
        sign = honest.mean(dim=0).sign()
        apart = linalg.sq_dists_of(linalg.gram(honest, pivot=honest.mean(dim=0)))
        sq_norms = honest.double().square().sum(dim=1)
        near = apart.sort(dim=1).values[:, 1 : max(len(honest) - 1, 2)].sum(dim=1).min()
        d = honest.shape[1]
        largest = (near / (max(n - 2 * view.b - 1, 1) * d)).sqrt() + (sq_norms.max() / d).sqrt()
        sizes = largest * 0.5 ** torch.arange(HALVINGS + 1, dtype=torch.float64, device=honest.device)
        inner = torch.outer(sizes, (honest @ sign).double())
        to_forged = sq_norms + 2 * inner + (sizes.square() * (sign @ sign)).unsqueeze(1)
        wins = _forged_wins(apart, to_forged.clamp_min(0), view.b, min(max(n - view.f - 2, 1), n - 1))
        size = torch.where(wins, sizes, sizes[-1]).max()
        return view.alike(-size * sign)


def _forged_wins(apart: Tensor, to_forged: Tensor, b: int, neighbours: int) -> Tensor:
    """Whether Krum prefers one of b equal forged rows, for each of s of their places: `[s]`.

    `apart` `[h, h]` squared distances among honest rows, `to_forged` `[s, h]` from them to the forged row.
    """
    s, h = to_forged.shape
    to_copies = to_forged.unsqueeze(2).expand(s, h, b)
    of_honest = torch.cat([apart.expand(s, h, h), to_copies], dim=2).sort(dim=2).values
    of_forged = torch.cat([to_forged.new_zeros(s, b), to_forged], dim=1).sort(dim=1).values
    scores = of_honest[..., 1 : 1 + neighbours].sum(dim=2)  # the first is the row itself
    return of_forged[:, 1 : 1 + neighbours].sum(dim=1) < scores.amin(dim=1)
