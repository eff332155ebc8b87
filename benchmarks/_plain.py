"""Rules written out in torch, the fastest way found to the same answer: without a look or a proof."""

from __future__ import annotations

from collections.abc import Callable

import torch

from byzopt import aggregators as ag
from byzopt.aggregators import Aggregator


def plain_krum(rows: torch.Tensor, f: int) -> torch.Tensor:
    """Krum by one product and `topk`, torch's fastest way: about the origin, looking at nothing."""
    product = rows @ rows.T
    squares = product.diagonal()
    dists = squares[:, None] + squares - 2 * product
    scores = dists.topk(len(rows) - f - 1, dim=1, largest=False).values.sum(dim=1)
    return rows[scores.argmin()]


def plain_geometric_median(rows: torch.Tensor) -> torch.Tensor:
    """Weiszfeld's steps from the median of columns, until the sum of distances falls by less than 1e-10."""
    rows = rows.double()
    place, last = rows.median(dim=0).values, float("inf")
    while True:
        lengths = (rows - place).norm(dim=1).clamp_min(1e-10)
        total = lengths.sum().item()
        if last - total <= 1e-10 * total:
            return place.float()
        place, last = (1 / lengths) @ rows / (1 / lengths).sum(), total


def plain_bulk(rows: torch.Tensor) -> torch.Tensor:
    """The mean of the majority nearest to the row that has the tightest one."""
    apart = torch.cdist(rows, rows)
    radii = apart.kthvalue(len(rows) // 2 + 1, dim=1).values
    best = radii.argmin()
    return rows[apart[best] <= radii[best]].mean(dim=0)


def plain_rfa(rows: torch.Tensor) -> torch.Tensor:
    place = plain_bulk(rows)
    for _ in range(8):
        weights = 1 / (rows - place).norm(dim=1).clamp_min(1e-6)
        place = weights @ rows / weights.sum()
    return place


def plain_clipping(rows: torch.Tensor) -> torch.Tensor:
    place = plain_bulk(rows)
    ways = rows - place
    lengths = ways.norm(dim=1)
    return place + (lengths.median() / lengths).clamp_max(1) @ ways / len(rows)


PLAIN: dict[str, tuple[Callable[[int], Aggregator], Callable[[torch.Tensor, int], torch.Tensor]]] = {
    "median": (lambda f: ag.Median(f=f), lambda rows, f: rows.median(dim=0).values),
    "trimmed_mean": (
        lambda f: ag.TrimmedMean(f=f),
        lambda rows, f: rows.sort(dim=0).values[f : len(rows) - f].mean(dim=0),
    ),
    "geometric_median": (lambda f: ag.GeometricMedian(f=f), lambda rows, f: plain_geometric_median(rows)),
    "medoid": (lambda f: ag.Medoid(f=f), lambda rows, f: rows[torch.cdist(rows, rows).sum(dim=1).argmin()]),
    "rfa": (lambda f: ag.RFA(f=f), lambda rows, f: plain_rfa(rows)),
    "centered_clipping": (
        lambda f: ag.CenteredClipping(f=f, stateful=False),
        lambda rows, f: plain_clipping(rows),
    ),
}
