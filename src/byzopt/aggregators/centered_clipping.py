"""Centred clipping: steps towards the rows, none of which may pull harder than τ."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from byzopt.aggregators.core.aggregator import RULES, Aggregator
from byzopt.aggregators.core.batching import batch_aggregate
from byzopt.aggregators.core.certificate import ChainInput, nearly_median
from byzopt.aggregators.core.chain import Chain
from byzopt.aggregators.core.filters import Filter, RoundContext, RoundRule
from byzopt.aggregators.core.inputs import as_sets
from byzopt.aggregators.core.kinds import GeometricRule
from byzopt.aggregators.numerics.distances import Array, Distances, even
from byzopt.aggregators.numerics.figures import Ask, cut, figures_of, measures, middle
from byzopt.aggregators.numerics.geometry import Geometry
from byzopt.aggregators.numerics.mixed import Mixed, geometry_beside
from byzopt.errors import require
from byzopt.kernels import Figures
from byzopt.theory.robustness import Coefficients


@RULES.register("centered_clipping")
@dataclass(frozen=True)
class CenteredClipping(GeometricRule):
    """`iterations` times z <- z + (1/n) Σ min(1, τ/‖v_i - z‖) (v_i - z).

    Whatever one row holds, it moves z by at most τ/n an iteration, and all rows together by at most τ. `tau`
    is in the rows' own units; None takes the median distance of the rows to z, anew each iteration, which
    makes the rule scale-equivariant.

    In a run it remembers (`as_filter`): z starts each round from the last aggregate; `stateful=False` starts
    every round afresh. Called as `rule(rows)` it has no past. `start` is where z stands without one: "bulk",
    the mean of n/2 + 1 rows that lie close together (bounded whatever the others hold), or "zero", as in the
    paper. It is never the mean of all rows, which one row can move anywhere. `f` only says how many rows may
    be dropped.

    Needs 2 f < n. Breakdown point 1/2 as to boundedness; κ unproved without a τ that fits the honest spread,
    but `certify` tries each answer as an approximate geometric median. Translation-equivariant from "bulk".
    Cost: one Gram product, iterations in n x n space; a single iteration from "zero" or from a past takes one
    pass for distances instead. Source: Karimireddy, He, Jaggi, arXiv:2012.10333, equation 3. Where we
    differ: the default start and τ, because a fixed τ fits one stage of training only.

    Args:
        f: How many rows may be dropped as not finite; None: as many as n allows.
        tau: τ, in the rows' own units; None: the median distance of the rows to z.
        iterations: Number of steps.
        start: Where z begins without a past: "bulk" or "zero".
        stateful: Whether, in a run, z begins at the last aggregate.

    Examples:
        >>> import torch
        >>> from byzopt import CenteredClipping
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, -90.0]])
        >>> CenteredClipping(f=1)(rows)
        tensor([1.5983, 1.3983])
    """

    validates = True

    f: int | None = None
    tau: float | None = None
    iterations: int = 1
    start: Literal["bulk", "zero"] = "bulk"
    stateful: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        tau = self.tau
        require(tau is None or tau > 0, "Parameter `tau` of CenteredClipping", "be positive", tau)
        what = "Parameter `iterations` of CenteredClipping"
        require(self.iterations >= 1, what, "be at least 1", self.iterations)

    @property
    def batched(self) -> bool:
        """From the bulk; the origin has to be put beside the rows first."""
        return self.start == "bulk"

    @property
    def translation_equivariant(self) -> bool:
        return self.start != "zero"

    @property
    def scale_equivariant(self) -> bool:
        return self.tau is None

    @property
    def convex(self) -> bool:
        return self.start != "zero"

    def as_filter(self) -> Filter:
        """A filter that starts from its last aggregate, or a pure one when `stateful` is false."""
        return Following(self) if self.stateful else super().as_filter()

    def reduce(self, mixed: Mixed) -> Tensor:
        if self.start == "zero" and not (self.asks and measures(mixed)):
            return _Continued(self, mixed.rows.new_zeros(mixed.d)).reduce(mixed)
        return super().reduce(mixed)

    @property
    def asks(self) -> Figures | None:
        """One iteration from the origin goes by lengths alone."""
        return "squares" if self.start == "zero" and self.iterations == 1 else None

    def shares(self, found: Array, unit: float, order: Ask | None = None) -> Array:
        """The pulls of the rows `[n]` by their squared distances to z."""
        dists = np.sqrt(found[-1])
        pulls: Array = cut(dists, middle(dists) if self.tau is None else self.tau / unit) / len(dists)
        return pulls

    @property
    def direct(self) -> bool:
        return self.start == "bulk" and self.tau is None

    def decide(self, apart: Distances) -> Array:
        return self.iterated(apart, apart.bulk()[0], apart.m)

    def weights(self, geometry: Geometry) -> Tensor:
        apart = geometry.apart
        return torch.from_numpy(self.iterated(apart, apart.bulk()[0], apart.m, geometry.unit))

    def answered(self, mixed: Mixed, f: int, source: ChainInput) -> Coefficients:
        if self.start == "zero":
            return _Continued(self, mixed.rows.new_zeros(mixed.d)).answered(mixed, f, source)
        return self.approached(mixed, f, source)

    def iterated(self, apart: Distances, z: Array, n: int, unit: float = 1.0) -> Array:
        """The weights `[..., m]` of z after all iterations from those of `z`; the last n rows pull."""
        for _ in range(self.iterations):
            dists = np.sqrt(apart.lengths_to(z)[..., -n:])
            reach = np.median(dists, axis=-1, keepdims=True) if self.tau is None else self.tau / unit
            pull = np.divide(reach, dists, out=np.ones_like(dists), where=dists > reach) / n
            z = (1 - pull.sum(axis=-1, keepdims=True)) * z
            z[..., -n:] += pull
        return z


class Last(NamedTuple):
    """The last aggregate `[d]` (zeros before round 1), and the number of rounds behind it."""

    centre: Tensor
    rounds: int


@dataclass(frozen=True)
class Following(RoundRule):
    """Centred clipping, or a chain that ends in it, from the last aggregate: no iteration moves z beyond τ.

    Round 1 has none and starts where the rule says. A round that raises leaves the state as it was.
    """

    rule: Aggregator

    def certifiable(self, n: int, f: int) -> bool:
        return self.rule.certifiable(n, f) and self.rule.coefficients(n, f).squared is None

    def init(self, x0: Tensor, n: int) -> Last:
        self.rule.check(n)
        return Last(torch.zeros_like(x0), 0)

    def now(self, state: Last, at: RoundContext) -> Aggregator:
        rule = self.rule.at(at.t)
        return _from(state.centre, rule) if state.rounds else rule

    def after(self, state: Last, out: Tensor) -> Last:
        return Last(out, state.rounds + 1)

    def vectors(self, state: Last, at: RoundContext) -> Tensor:
        return state.centre.double().unsqueeze(0)

    def with_vectors(
        self, state: Last, at: RoundContext, vectors: Tensor
    ) -> tuple[Following, Last, RoundContext]:
        return self, Last(vectors[0], state.rounds), at


@dataclass(frozen=True, eq=False)
class _Continued(GeometricRule):
    """`rule` with z at `centre` to begin with, which stands as row 0 beside the rows."""

    validates = True

    rule: CenteredClipping
    centre: Tensor

    def tolerance(self, n: int) -> int:
        return self.rule.tolerance(n)

    def lowered(self, k: int) -> _Continued:
        return _Continued(self.rule.lowered(k), self.centre)

    def reduce(self, mixed: Mixed) -> Tensor:
        centre = self._held(mixed)
        if self.rule.iterations == 1 and measures(mixed):
            pulls = torch.from_numpy(self.rule.shares(figures_of(mixed, "apart", centre)[:1], mixed.unit))
            rest = 1 - float(pulls.sum())
        else:
            weights = self.weights(self._beside(mixed))
            pulls, rest = weights[1:], float(weights[0])
        wide = torch.promote_types(centre.dtype, torch.float32)
        out = mixed.blend(pulls).to(wide).add(centre.to(wide), alpha=rest)
        return out.to(centre.dtype)

    def batch(self, rows: Tensor) -> Tensor:
        """The aggregates `[R, d]` of R sets of rows `[R, n, d]`, each from the same centre."""
        rows = as_sets(rows)
        self.check(rows.shape[1])
        d = len(self.centre)
        require(rows.shape[2] == d, "Rows beside a centre", f"have its {d} coordinates", rows.shape[2])
        centre = self.centre.to(rows).expand(len(rows), 1, -1)
        stacked = batch_aggregate((), _Beside(self.rule), torch.cat([centre, rows], dim=1))
        return torch.stack([self(each) for each in rows]) if stacked is None else stacked[0]

    def answered(self, mixed: Mixed, f: int, source: ChainInput) -> Coefficients:
        geometry = self._beside(mixed)
        weights = self.weights(geometry).numpy()
        return nearly_median(geometry, weights, mixed.m, f, source)

    def _beside(self, mixed: Mixed) -> Geometry:
        return geometry_beside(self._held(mixed), mixed)

    def _held(self, mixed: Mixed) -> Tensor:
        return mixed.held(self.centre).to(mixed.rows) / mixed.unit

    def weights(self, geometry: Geometry) -> Tensor:
        return _Beside(self.rule).weights(geometry)


@dataclass(frozen=True)
class _Beside(GeometricRule):
    """`rule` for rows of which row 0 is the centre."""

    batched = True

    rule: CenteredClipping

    def weights(self, geometry: Geometry) -> Tensor:
        first, m = even(np.array([0]), geometry.m), geometry.m
        return torch.from_numpy(self.rule.iterated(geometry.apart, first, m - 1, geometry.unit))


def _from(centre: Tensor, rule: Aggregator) -> Aggregator:
    """`rule` with its last stage, which is centred clipping, starting from `centre`."""
    if isinstance(rule, CenteredClipping):
        return _Continued(rule, centre)
    inner = _from(centre, cast(Any, rule).rule)
    return Chain(rule.stages, inner) if isinstance(rule, Chain) else replace(cast(Any, rule), rule=inner)
