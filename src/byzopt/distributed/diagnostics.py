"""What a round made of every rank's row: its weight in the answer, its remoteness, whether it was dropped."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from byzopt.aggregators.core.base import BaseAggregator
from byzopt.aggregators.core.inputs import admit
from byzopt.aggregators.guards.outlying import assumed_faults, outlying
from byzopt.aggregators.numerics.mixed import Mixed


class RoundDiagnostics(NamedTuple):
    """Round `t` of n ranks, as a `watch` gets it.

    `weights` `[n]` (float64) are the rows' weights in the answer, as in `rule.explain`; `remote` `[n]` their
    distances from crowds of rows as shares of what an honest row may have although f others lie (above 1 is
    suspect: see `aggregators.outlying`), ∞ for rows that are not finite. `dropped` are those ranks. Where the
    filter is no pure rule, weights are even among the finite. `absent` are those that had no part in the
    round, of whom it says nothing. `apart` `[n, n]` are the rows' distances, ∞ from rows that are not finite,
    NaN from absent ones. `f` is how many of the finite ranks were taken for possible liars (None: not told).

    Args:
        t: The round.
        weights: Of the ranks' rows in the answer, `[n]` float64.
        remote: How far rows are from crowds of rows, as shares of what an honest row may have, `[n]`.
        dropped: Ranks whose rows are not finite.
        absent: Ranks that had no part in the round.
        apart: Distances between rows, `[n, n]`.
        f: How many of the finite ranks were taken for possible liars; None: not told.

    Examples:
        >>> import torch
        >>> from byzopt.distributed import RoundDiagnostics
        >>> RoundDiagnostics(1, torch.ones(4) / 4, torch.zeros(4), dropped=()).absent
        ()
    """

    t: int
    weights: Tensor
    remote: Tensor
    dropped: tuple[int, ...]
    absent: tuple[int, ...] = ()
    apart: Tensor | None = None
    f: int | None = None


def diagnose(
    t: int, rule: BaseAggregator | None, mixed: Mixed, finite: Tensor, dtype: torch.dtype
) -> RoundDiagnostics:
    """The diagnostics of `mixed`, the finite ones of n rows in `dtype`, for which `rule` has been made
    ready."""
    n, f = int(finite.sum()), assumed_faults(rule, int(finite.sum()))
    weights = (
        torch.full((n,), 1 / n, dtype=torch.float64, device="cpu") if rule is None else rule.influence(mixed)
    )
    dropped = tuple((~finite).nonzero().flatten().tolist())
    remote = _scattered(outlying(mixed, dtype, f), finite, torch.inf)
    apart = torch.full((len(finite), len(finite)), torch.inf, dtype=torch.float64, device="cpu")
    apart[finite.unsqueeze(0) & finite.unsqueeze(1)] = mixed.geometry.sq_dists.sqrt().cpu().double().flatten()
    return RoundDiagnostics(t, _scattered(weights, finite, 0.0), remote, dropped, (), apart, f)


def diagnose_rows(t: int, rule: BaseAggregator | None, rows: Tensor) -> RoundDiagnostics:
    """The diagnostics of all rows `[n, d]`, of which `rule` can lose those that are not finite."""
    finite = torch.isfinite(rows).all(dim=1)
    if rule is None:
        return diagnose(t, None, Mixed(rows[finite]), finite.cpu(), rows.dtype)
    ready, kept, unit = admit(rule, rows)
    return diagnose(t, ready, Mixed(kept, unit, ordered=ready.by_value), finite.cpu(), rows.dtype)


def scattered(part: RoundDiagnostics, absent: frozenset[int], n: int) -> RoundDiagnostics:
    """Diagnostics of the ranks that are not `absent` as diagnostics of all n ranks."""
    present = torch.tensor([rank for rank in range(n) if rank not in absent], device="cpu")
    here = torch.zeros(n, dtype=torch.bool, device="cpu").index_fill(0, present, True)
    apart = torch.full((n, n), torch.nan, dtype=torch.float64, device="cpu")
    if part.apart is not None:
        apart[here.unsqueeze(0) & here.unsqueeze(1)] = part.apart.flatten()
    dropped = tuple(present[list(part.dropped)].tolist())
    remote = _scattered(part.remote, here, 0.0)
    weights = _scattered(part.weights, here, 0.0)
    return RoundDiagnostics(part.t, weights, remote, dropped, tuple(sorted(absent)), apart, part.f)


def _scattered(values: Tensor, finite: Tensor, other: float) -> Tensor:
    full = torch.full(finite.shape, other, dtype=torch.float64, device="cpu")
    return full.masked_scatter(finite, values.detach().to("cpu", torch.float64))
