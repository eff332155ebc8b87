"""UBAR, also called Mozi: of the nearest neighbours those whose model does no worse on one's own data."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import ClassVar

import torch
from torch import Tensor

from byzopt.aggregators.core.base import BaseAggregator
from byzopt.errors import require
from byzopt.graphs import Network
from byzopt.mixers.base import MIXERS, Hearing, Mixer
from byzopt.mixers.distances import measure


@MIXERS.register("ubar")
@dataclass(frozen=True)
class UBAR(Mixer):
    """x_i <- (1 - α) x_i + α mean of those near neighbours whose loss on i's data is no larger than x_i's.

    Near are the ⌊share N_i⌋ nearest, at least one; where none of them does as well, the best of them counts
    alone. Losses are those of a node's whole data and not of a minibatch: as many evaluations a round as
    there are messages, which the ledger does not count. No theorem with constants is known to this library.
    Source: Guo et al., IEEE TCSVT 2021 (arXiv:2002.08569); Mozi is an earlier name of it.

    Args:
        alpha: Weight of the neighbours, in (0, 1].
        share: Share of the neighbours that are near, in (0, 1]: one less that of liars.

    Examples:
        >>> import torch
        >>> from byzopt import Cohort
        >>> from byzopt.graphs import Complete, Network
        >>> from byzopt.mixers import UBAR, Hearing
        >>> rows = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
        >>> network, target = Network.of(Complete(), Cohort.of(3)), [2.0] * 3
        >>> losses = lambda x: [(x.item() - centre) ** 2 for centre in target]
        >>> hearing = Hearing(network, 0, rows, rows.new_zeros(0, 1), losses=losses)
        >>> UBAR(share=1.0).mix(hearing).flatten().tolist()
        [0.75, 1.5, 1.5]
    """

    judges: ClassVar[bool] = True

    alpha: float = 0.5
    share: float = 0.5

    def __post_init__(self) -> None:
        require(0 < self.alpha <= 1, "Parameter `alpha` of ubar", "lie in (0, 1]", self.alpha)
        require(0 < self.share <= 1, "Parameter `share` of ubar", "lie in (0, 1]", self.share)

    def check(self, network: Network, b: int, rule: BaseAggregator) -> None:
        return

    def mix(self, hearing: Hearing) -> Tensor:
        _ = hearing.missing
        assert hearing.losses is not None  # the loop fills it in, run by run
        distances, heard = measure(hearing).distances, hearing.heard
        rows = hearing.rows
        losses = _losses(hearing)
        out = rows.clone()
        for i in range(len(rows)):
            senders = heard[i].nonzero().flatten()
            count = max(1, floor(self.share * int((hearing.edges[i] > 0).sum()) + 1e-9))
            near = senders[distances[i, senders].argsort(stable=True)][:count]
            if not len(near):
                continue
            good = near[losses[i, near] <= losses[i, i]]
            chosen = good if len(good) else near[losses[i, near].argmin()].unsqueeze(0)
            out[i] = rows[i] + self.alpha * (_told(hearing, i, chosen).mean(dim=0) - rows[i])
        return out


def _losses(hearing: Hearing) -> Tensor:
    """Each honest node's loss at every message, `[H, H + B]`; infinite where nothing is heard or it is no
    number."""
    assert hearing.losses is not None
    h, b = hearing.sizes
    found = torch.full((h, h + b), torch.inf, dtype=torch.float64, device="cpu")
    for j in range(h):
        found[:, j] = torch.tensor(hearing.losses(hearing.rows[j]), dtype=torch.float64, device="cpu")
    for k in range(b):
        told = hearing.lies[k] if hearing.per_receiver else hearing.lies[k].unsqueeze(0)
        for i, lie in enumerate(told):
            if lie.isfinite().all():
                values = torch.tensor(hearing.losses(lie), dtype=torch.float64, device="cpu")
                if hearing.per_receiver:
                    found[i, h + k] = values[i]
                else:
                    found[:, h + k] = values
    return found.nan_to_num(nan=torch.inf).to(hearing.rows.device)


def _told(hearing: Hearing, i: int, senders: Tensor) -> Tensor:
    """What these senders say to node i, `[m, d]`."""
    lies = hearing.lies[:, i] if hearing.per_receiver else hearing.lies
    return torch.cat([hearing.rows, lies])[senders]
