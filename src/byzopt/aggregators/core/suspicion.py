"""Which rows look faulty: those far from the tightest majority, whatever the rule answered.

The centre is the row whose majority (h = n // 2 + 1 rows, itself counted) lies nearest, and ρ is that
majority's radius: both are bounded while fewer than half of the rows are faulty, also where the rule's own
answer is not. A row is suspect beyond

    3 (n C(n - 1, h - 1) / 0.01)^(1/(D (h - 1))) ρ,

or when it is not finite. Few rows in few dimensions are often close together by chance: the factor after
the 3 is the union bound, at level 0.01, over all majorities that might be. D <= d is the number of dimensions
in which the majority is seen to spread, since gradients may differ along few directions only. The factor is
near 1 for large D, 5 at n = 50 and D = 1, and so large for n <= 5 and D = 1 that little can be said there.

Of independent Gaussian rows fewer than one set in 1000 has any suspect row; of such as differ along one or
two of many directions, one in 80 at n = 5 and one in 300 from n = 11 on (measured). Rows from clusters far
apart are another matter: a minority cluster beyond the limit is suspect, honest or not, and so is every row
that differs when more than half of the rows are equal. Liars can bring this about: f copies of an honest row
are a majority with it where n = 2 f + 1. So this is for refusing and explaining, where a false alarm is on
the safe side; who accuses a worker asks `outlying` or `pairs`. Rows that differ by no more than rounding in
their dtype are never suspect. Rows that hide among the honest ones are not seen: this is an alarm, not a
proof that all is well.
"""

from __future__ import annotations

from math import comb, exp, log

import torch
from torch import Tensor

from byzopt.aggregators.numerics.geometry import Geometry
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.errors import TooManyFaults

_RADII = 3.0
_LEVEL = 0.01
_ROUNDINGS = 4  # of the centre's length: what sums in another order may differ by


def suspicion_radius(n: int, d: float) -> float:
    """How many majority radii from the centre a row of n in d dimensions begins to look faulty."""
    others = n // 2
    chance = (log(n * comb(n - 1, others)) - log(_LEVEL)) / (d * max(others, 1))
    return _RADII * exp(min(chance, 500.0))


def remoteness(mixed: Mixed, dtype: torch.dtype) -> Tensor:
    """Distances `[n]` of finite, unmixed rows from the centre, as shares of the limit: above 1 is suspect."""
    geometry, d = mixed.geometry, mixed.d
    centre, sq_radius = geometry.apart.middle()
    rounding = _ROUNDINGS * torch.finfo(dtype).eps * float(geometry.sq_norms[centre]) ** 0.5
    reach = suspicion_radius(geometry.m, dimensions(geometry, centre, d)) * sq_radius**0.5 + rounding
    away = geometry.sq_dists[centre].sqrt()
    return torch.where(away > 0, away / reach, 0.0)


def dimensions(geometry: Geometry, centre: int, d: int) -> float:
    """In how many directions the majority around row `centre` spreads, from 1 to d.

    k + 1 rows spread evenly over D dimensions have a Gram matrix about their mean with trace² / ‖·‖² near
    p = (k D + 2)/(k + D + 1), by the moments of a Wishart matrix. This is solved for D.
    """
    near = geometry.sq_dists[centre].argsort(stable=True)[: geometry.m // 2 + 1]
    gram = geometry.about(centre)[near][:, near]
    gram = gram / gram.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    gram = gram - gram.mean(dim=0) - gram.mean(dim=1, keepdim=True) + gram.mean()
    k, square = len(near) - 1, float(gram.square().sum())
    p = float(gram.trace()) ** 2 / square if square > 0 else 1.0
    return min(max((p * (k + 1) - 2) / (k - p), 1.0), d) if p < k else float(d)


def suspects(finite: Tensor, remote: Tensor) -> list[int]:
    """The rows that look faulty: not `finite` `[n]`, or remote among those that are."""
    return (~finite).masked_scatter(finite, remote > 1).nonzero().flatten().tolist()


def refuse_suspects(suspected: list[int], f: int, n: int) -> None:
    """Raise `TooManyFaults` when more than f rows look faulty."""
    if len(suspected) > f:
        raise TooManyFaults(
            f"Rows that look faulty should be at most f = {f} of {n}. "
            f"Found {len(suspected)}: workers {suspected}. "
            "Raise f, look into these workers, or do without fail_closed.",
            suspected,
        )
