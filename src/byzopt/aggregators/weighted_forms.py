"""Weighted forms of rules: each worker's value counts with a mass, as if its row came that many times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from byzopt.aggregators.core.aggregator import Aggregator
from byzopt.aggregators.core.kinds import CoordinateRule
from byzopt.aggregators.core.weighing import WeighingRule, row_norms, shrink
from byzopt.aggregators.geometric_median import GeometricMedian
from byzopt.aggregators.meamed import MeaMed, Phocas
from byzopt.aggregators.mean import Mean
from byzopt.aggregators.median import Median
from byzopt.aggregators.medoid import Medoid
from byzopt.aggregators.norm_clipping import NormClipping
from byzopt.aggregators.numerics.geometry import TIE, Geometry
from byzopt.aggregators.numerics.geometry import majority_medoid as middle_row
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.aggregators.numerics.weiszfeld import certified_median, medoid_of
from byzopt.aggregators.rfa import RFA
from byzopt.aggregators.sign_majority import SignMajority
from byzopt.aggregators.trimmed_mean import TrimmedMean

Form: TypeAlias = "Callable[[Any, Tensor, float], Aggregator]"

_ROUNDING = 1e-12  # of the whole mass: less than this is a rounding error of a sum of masses


@dataclass(frozen=True)
class _Columns(CoordinateRule):
    act: Callable[[Tensor], Tensor]

    def columns(self, block: Tensor) -> Tensor:
        return self.act(block)


@dataclass(frozen=True)
class _Sum(WeighingRule):
    act: Callable[[Mixed], Tensor]

    def weigh(self, mixed: Mixed) -> Tensor:
        return self.act(mixed)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Votes(SignMajority):
    mass: Tensor

    def voices(self, block: Tensor) -> Tensor:
        return self.mass.to(block.device).unsqueeze(1) * block.sign()


def ranked(block: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    """Each column in order, and the mass held up to and with each value: `[m, b]` both."""
    values, order = block.sort(dim=0, stable=True)
    return values, mass.to(block.device)[order].cumsum(dim=0)


def middle(values: Tensor, held: Tensor) -> Tensor:
    """The weighted median: values at which half of the mass is reached, and passed; their midpoint."""
    half = held[-1] / 2
    low = (held < half * (1 - _ROUNDING)).sum(dim=0, keepdim=True)
    high = (held <= half * (1 + _ROUNDING)).sum(dim=0, keepdim=True).clamp_max(len(held) - 1)
    return (values.gather(0, low) + values.gather(0, high))[0] / 2


def window(values: Tensor, held: Tensor, start: float, end: float) -> Tensor:
    """The mean of the values whose mass lies in start .. end of what is held; a value may count in part."""
    before = torch.cat([torch.zeros_like(held[:1]), held[:-1]])
    kept = held.clamp_max(end) - before.clamp_min(start)
    kept = kept.where(kept > _ROUNDING * end, 0).to(values.dtype)  # rounding times 1e30 would be huge
    return (kept * values).sum(dim=0) / kept.sum(dim=0)


def trimmed(values: Tensor, held: Tensor, lost: float) -> Tensor:
    """The mean without the mass `lost` at either end."""
    return window(values, held, lost, float(held[-1, 0]) - lost)


def around(block: Tensor, mass: Tensor, lost: float, centre: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The mean of the mass, less `lost`, nearest to `centre`; ties go to the smaller value."""
    values, order = block.sort(dim=0, stable=True)
    sorted_mass = mass.to(block.device)[order]
    near = (values - centre(values, sorted_mass.cumsum(dim=0))).abs().argsort(dim=0, stable=True)
    held = sorted_mass.gather(0, near).cumsum(dim=0)
    return window(values.gather(0, near), held, 0.0, float(mass.sum()) - lost)


def _upper_middle(values: Tensor, mass: Tensor) -> Tensor:
    """For each row of `values` `[..., m]`, the value at which more than half of the mass is reached."""
    ordered, order = values.sort(dim=-1, stable=True)
    held = mass[order].cumsum(dim=-1)
    at = (held <= float(mass.sum()) / 2 * (1 + _ROUNDING)).sum(dim=-1, keepdim=True).clamp_max(len(mass) - 1)
    return ordered.gather(-1, at).squeeze(-1)


def bulk(geometry: Geometry, mass: Tensor) -> Tensor:
    """Weights `[m]` of the mean of a majority of the mass around the row that has the tightest one.

    Ties as in `Geometry.bulk`.
    """
    radii = _upper_middle(geometry.sq_dists, mass) * (1 + TIE)
    best = radii <= radii.min() * (1 + TIE)
    inside = torch.where(geometry.sq_dists[best] <= radii[best].unsqueeze(1), mass, 0)
    return (inside / inside.sum(dim=1, keepdim=True)).mean(dim=0)


def _geometric_median(rule: GeometricMedian, mixed: Mixed, mass: Tensor) -> Tensor:
    gram = mixed.geometry.about(middle_row(mixed.geometry.sq_dists)[0])
    return torch.from_numpy(certified_median(gram.numpy(), rule.tol, mass.numpy()).weights)


def _medoid(mixed: Mixed, mass: Tensor) -> Tensor:
    gram = mixed.geometry.about(middle_row(mixed.geometry.sq_dists)[0])
    weights = torch.zeros_like(mass)
    weights[medoid_of(gram.numpy(), mass.numpy())] = 1
    return weights


def _rfa(rule: RFA, mixed: Mixed, mass: Tensor) -> Tensor:
    start = bulk(mixed.geometry, mass)
    spread = float(_upper_middle(mixed.geometry.sq_dists_to(start), mass).sqrt())
    return rule.descend(mixed.geometry, mass.numpy(), start.numpy(), spread)


def _norm_clipping(rule: NormClipping, mixed: Mixed, mass: Tensor) -> Tensor:
    norms = row_norms(mixed)
    at_half = float(middle(*ranked(norms.unsqueeze(1), mass)))
    return shrink(norms, at_half if rule.bound is None else rule.bound / mixed.unit) * mass / mass.sum()


# Each form takes the rule, masses [m] and the mass of the f heaviest workers, and gives a rule for m rows.
FORMS: dict[type[Aggregator], Form] = {
    Mean: lambda rule, w, lost: _Sum(lambda mixed: w / w.sum()),
    Median: lambda rule, w, lost: _Columns(lambda block: middle(*ranked(block, w))),
    TrimmedMean: lambda rule, w, lost: _Columns(lambda block: trimmed(*ranked(block, w), lost)),
    MeaMed: lambda rule, w, lost: _Columns(lambda block: around(block, w, lost, middle)),
    Phocas: lambda rule, w, lost: _Columns(
        lambda block: around(block, w, lost, lambda values, held: trimmed(values, held, lost))
    ),
    GeometricMedian: lambda rule, w, lost: _Sum(lambda mixed: _geometric_median(rule, mixed, w)),
    RFA: lambda rule, w, lost: _Sum(lambda mixed: _rfa(rule, mixed, w)),
    Medoid: lambda rule, w, lost: _Sum(lambda mixed: _medoid(mixed, w)),
    NormClipping: lambda rule, w, lost: _Sum(lambda mixed: _norm_clipping(rule, mixed, w)),
    SignMajority: lambda rule, w, lost: _Votes(mass=w),
}
