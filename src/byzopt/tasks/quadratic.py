"""Strongly convex quadratics with known optimum, noise and heterogeneity."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any, ClassVar

import torch
from torch import Tensor

from byzopt import linalg
from byzopt.cohort import Cohort
from byzopt.errors import require
from byzopt.layout import Layout
from byzopt.rng import stream
from byzopt.tasks.base import TASKS, DataTaskRecipe, Task
from byzopt.tasks.crowd import Crowd, Stacked
from byzopt.tasks.proxies import Proxy, ProxyLoss


class QuadraticTask(Task):
    """f_i(x) = 1/2 (x - b_i)' A_i (x - b_i) with A_i = diag(`curvatures[i]` `[d]`) and b_i = `centres[i]`.

    `curvatures` `[d]` are all workers', `[n, d]` each one's own. `server` is the curvature and centre of the
    loss that the server owns. `gap` adds the figure of that name, which is `loss`.
    """

    def __init__(
        self,
        cohort: Cohort,
        curvatures: Tensor,
        centres: Tensor,
        noise: float,
        seed: int,
        server: tuple[Tensor, Tensor] | None = None,
        gap: bool = False,
    ) -> None:
        self.cohort, self.layout = cohort, Layout.flat(curvatures.shape[-1])
        self.curvatures, self.centres, self.noise, self.seed = curvatures, centres, noise, seed
        self.server, self.gap = server, gap
        honest = list(cohort.honest)
        self.spectrum, self.optimum = curvatures, centres[honest].mean(dim=0)
        if curvatures.ndim == 2:
            self.spectrum = curvatures[honest].mean(dim=0)
            self.optimum = (curvatures * centres)[honest].mean(dim=0) / self.spectrum

    @property
    def convexity(self) -> float:
        return float(self.spectrum.min())

    def start(self) -> Tensor:
        return torch.ones(self.layout.d, dtype=torch.float64, device="cpu")

    def draw(self, t: int) -> Tensor:
        generator = stream(self.seed, "quadratic", "noise", t)
        drawn = torch.randn(self.n, self.layout.d, dtype=torch.float64, generator=generator, device="cpu")
        return self.noise / sqrt(self.layout.d) * drawn

    def grads(self, x: Tensor, batch: Tensor) -> Tensor:
        return self.curvatures * (x.unsqueeze(-2) - self.centres) + batch

    def rows_at(self, points: Tensor, batch: Tensor, workers: slice) -> Tensor:
        alike = self.curvatures.ndim == 1
        curvatures = self.curvatures if alike else self.curvatures[..., workers, :]
        return curvatures * (points - self.centres[..., workers, :]) + batch[..., workers, :]

    def crowd(self, tasks: Sequence[Any]) -> Crowd:
        joint = copy(self)
        joint.curvatures = torch.stack([task.curvatures.expand_as(task.centres) for task in tasks])
        joint.centres = torch.stack([task.centres for task in tasks])
        return Stacked(tasks, joint)

    def full(self) -> Tensor:
        return torch.zeros(self.n, self.layout.d, dtype=torch.float64, device="cpu")

    def measure(self, x: Tensor) -> dict[str, float]:
        away = x - self.optimum
        slope = self.spectrum * away
        gap, length, distance = away @ slope / 2, linalg.norm(slope), linalg.norm(away)
        figures = {"loss": float(gap), "grad_norm": float(length), "distance": float(distance)}
        return figures | {"gap": float(gap)} if self.gap else figures

    def measure_workers(self, x: Tensor) -> dict[str, list[float]]:
        """f_i(x), the least value of which is 0; their mean is `loss` + f*."""
        return {"loss": self._losses(x)[list(self.cohort.honest)].tolist()}

    def loss_of(self, x: Tensor, workers: Sequence[int]) -> float:
        return float(self._losses(x)[list(workers)].mean())

    def _losses(self, x: Tensor) -> Tensor:
        return (self.curvatures * (x - self.centres).square()).sum(dim=1) / 2

    def objective(self, x: Tensor) -> tuple[float, Tensor]:
        away = x - self.optimum
        slope = self.spectrum * away
        return float(away @ slope) / 2, slope

    def stated(self) -> dict[str, Any]:
        honest, d = list(self.cohort.honest), self.layout.d
        curvatures = self.curvatures.expand_as(self.centres)[honest]
        slopes = curvatures * (self.optimum - self.centres[honest])  # ∇f_i(x*)
        steepest = curvatures.amax(dim=1)
        away = self.start() - self.optimum
        constants: dict[str, Any] = {"lipschitz": float(self.spectrum.max()), "mu": self.convexity}
        constants |= {"local": float(steepest.square().mean().sqrt()), "l0": float(steepest.max()), "l1": 0.0}
        constants |= {"sample": constants["local"], "passes": 1.0, "convex": True}
        constants |= {"sigma": self.noise, "spread": self.noise / sqrt(d)}
        constants |= {"sampling": "fresh" if self.noise else "exact"} | ({} if self.noise else {"bound": 0.0})
        constants |= {"gap": float(away @ (self.spectrum * away)) / 2, "diameter": float(away.norm())}
        constants["star_gap"] = float((slopes.square() / curvatures).sum(dim=1).mean()) / 2
        if self.server is not None:
            constants["delta"] = float((self.spectrum - self.server[0]).abs().max())
        return constants | spread_of(curvatures / self.spectrum - 1, slopes)

    def proxy(self) -> ProxyLoss | None:
        if self.server is None:
            return None
        curvature, centre = self.server
        return lambda x: ((x - centre).square() * curvature).sum() / 2


def spread_of(tilts: Tensor, slopes: Tensor) -> dict[str, Any]:
    """The pairs (G, B) of a quadratic, and ζ where Hessians are alike: exact.

    With y = ∇f(x) worker i's row lies `tilts[i]` y + `slopes[i]` from the mean, so that a coordinate adds
    a y² + 2 c y + s to the variance, a the mean square of its tilts, c their mean product with its slopes, s
    those' mean square: at most B² y² + s + c²/(B² - a) for every B² > a.
    """
    a, c = tilts.square().mean(dim=0), (tilts * slopes).mean(dim=0)
    s, most = float(slopes.square().mean(dim=0).sum()), float(a.max())
    if most == 0:
        return {"zeta": sqrt(s), "pairs": ((sqrt(s), 0.0),)}
    grid = [most * (1 + 10 ** (k / 4)) for k in range(-12, 13)]
    return {"zeta": None} | {
        "pairs": tuple((sqrt(s + float((c.square() / (b2 - a)).sum())), sqrt(b2)) for b2 in grid)
    }


@TASKS.register("quadratic")
@dataclass(frozen=True)
class Quadratic(DataTaskRecipe):
    """f_i(x) = 1/2 (x - b_i)' A (x - b_i) in float64; worker i answers A (x - b_i) + ξ; x^0 = (1 .. 1).

    A is diagonal with `d` eigenvalues geometric from `mu` to `L` (d = 1: `L`). ξ ~ N(0, noise²/d I) anew for
    each worker and round: E ‖ξ‖² = `noise`², the σ² of the theorems. b_i ~ N(0, heterogeneity²/d I) once for
    each worker, Byzantine ones too: E ‖b_i‖² = `heterogeneity`². The honest objective's optimum is the mean
    of the honest b_i, in closed form. Measured: `loss` f(x) - f*, `grad_norm` ‖∇f(x)‖, `distance` ‖x - x*‖,
    and with `gap` also `gap`, which is `loss`.

    `spread` s > 0 gives workers Hessians of their own, A_i = A (1 + s (u_i - ū)) with u_i uniform in [-1, 1]
    by coordinate and ū its mean over the honest, whose mean Hessian stays A: then B > 0, the optimum is
    (Σ A_i)⁻¹ Σ A_i b_i, and the `proxy` loss ("worker", or "server" for one more draw) has Δ > 0.

    Args:
        d: Dimension.
        mu: Least eigenvalue μ of A.
        L: Largest eigenvalue of A.
        noise: σ, the root of the expected squared length of a gradient's noise.
        heterogeneity: Root of the expected squared length of b_i.
        spread: How far the workers' Hessians differ, in [0, 0.5).
        proxy: The loss that the server owns, if any.
        gap: Whether `gap` is measured under that name too.

    Examples:
        >>> from byzopt import Cohort, Quadratic
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> x = task.start()
        >>> rows = task.grads(x, task.draw(1))  # one gradient from each worker, in round 1
        >>> rows.shape == (20, len(x))
        True
        >>> sorted(task.measure(x))
        ['distance', 'grad_norm', 'loss']
    """

    tested: ClassVar[bool] = False

    d: int = 20
    mu: float = 0.1
    L: float = 1.0
    noise: float = 0.1
    heterogeneity: float = 0.1
    spread: float = 0.0
    proxy: Proxy | None = None
    gap: bool = False

    def __post_init__(self) -> None:
        require(self.d >= 1, "Parameter `d` of quadratic", "be at least 1", self.d)
        spectrum = f"mu = {self.mu}, L = {self.L}"
        require(0 < self.mu <= self.L < inf, "The spectrum of quadratic", "satisfy 0 < mu <= L", spectrum)
        spreads = (self.noise, self.heterogeneity)
        valid = all(0 <= spread < inf for spread in spreads)
        require(valid, "`noise` and `heterogeneity` of quadratic", "be finite and at least 0", spreads)
        require(0 <= self.spread < 0.5, "Parameter `spread` of quadratic", "lie in [0, 0.5)", self.spread)

    @property
    def dimension(self) -> int:
        return self.d

    def build_on(self, cohort: Cohort, seed: int, data_seed: int) -> QuadraticTask:
        share = (
            torch.linspace(0, 1, self.d, dtype=torch.float64, device="cpu")
            if self.d > 1
            else torch.ones(1, dtype=torch.float64, device="cpu")
        )
        spectrum = self.mu * (self.L / self.mu) ** share
        generator = stream(data_seed, "quadratic", "centres")
        drawn = torch.randn(cohort.n, self.d, dtype=torch.float64, generator=generator, device="cpu")
        centres = self.heterogeneity / sqrt(self.d) * drawn
        if self.spread == 0 and self.proxy is None:
            return QuadraticTask(cohort, spectrum, centres, self.noise, seed, gap=self.gap)
        # One more draw, the last, is the server's.
        offsets = torch.randn(
            1, self.d, dtype=torch.float64, generator=stream(data_seed, "quadratic", "server"), device="cpu"
        )
        centres = torch.cat([centres, self.heterogeneity / sqrt(self.d) * offsets])
        curvatures = spectrum.expand(cohort.n + 1, -1)
        if self.spread:
            drawn = torch.rand(
                cohort.n + 1,
                self.d,
                dtype=torch.float64,
                generator=stream(data_seed, "quadratic", "spread"),
                device="cpu",
            )
            tilt = 2 * drawn - 1
            curvatures = spectrum * (1 + self.spread * (tilt - tilt[list(cohort.honest)].mean(dim=0)))
        owner = self.proxy.owner(cohort) if self.proxy else None
        server = (curvatures[owner], centres[owner]) if owner is not None else None
        workers = curvatures[:-1] if self.spread else spectrum
        return QuadraticTask(cohort, workers, centres[:-1], self.noise, seed, server, self.gap)
