"""The hard instances behind the lower bounds of arXiv:1803.08917: one parameter, a secret sign.

Rebuilt from the statements of Theorems 4.3 and 4.4. The answer is right when it has the right sign, and the
gap tells: below ε it is if and only if the answer lies in the correct half.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any, ClassVar

import torch
from torch import Tensor

from byzopt.cohort import Cohort
from byzopt.errors import require
from byzopt.layout import Layout
from byzopt.rng import stream
from byzopt.tasks.base import TASKS, DataTaskRecipe, Task
from byzopt.tasks.crowd import Crowd, Stacked


class HardTask(Task):
    """g_i = μ x + lean + ξ in float64, d = 1, x^0 = 0; `clip` bounds |ξ| in units of `noise`."""

    def __init__(
        self, cohort: Cohort, curvature: float, lean: float, noise: float, clip: float | None, seed: int
    ) -> None:
        self.cohort, self.layout, self.seed = cohort, Layout.flat(1), seed
        self.curvature, self.noise, self.clip = curvature, noise, clip
        self.lean = torch.tensor(lean, dtype=torch.float64, device="cpu")
        self.forged: tuple[tuple[int, ...], Tensor] | None = None

    def start(self) -> Tensor:
        return torch.zeros(1, dtype=torch.float64, device="cpu")

    def draw(self, t: int) -> Tensor:
        drawn = torch.randn(
            self.n, 1, dtype=torch.float64, generator=stream(self.seed, "hard", "noise", t), device="cpu"
        )
        drawn = self.noise * (drawn if self.clip is None else drawn.clamp(-self.clip, self.clip))
        if self.forged is not None:
            workers, said = self.forged
            drawn[list(workers), 0] = said[(t - 1) % len(said)] - self.lean
        return drawn

    def full(self) -> Tensor:
        return torch.zeros(self.n, 1, dtype=torch.float64, device="cpu")

    def grads(self, x: Tensor, batch: Tensor) -> Tensor:
        return (self.curvature * x + self.lean).unsqueeze(-2) + batch

    def rows_at(self, points: Tensor, batch: Tensor, workers: slice) -> Tensor:
        lean = self.lean.unsqueeze(-1) if self.lean.ndim else self.lean
        return self.curvature * points + lean + batch[..., workers, :]

    def crowd(self, tasks: Sequence[Any]) -> Crowd:
        joint = copy(self)
        joint.lean = torch.stack([task.lean for task in tasks]).unsqueeze(-1)
        return Stacked(tasks, joint)

    def mirrored(self, workers: Sequence[int], rounds: int) -> HardTask:
        """This task with workers whose messages, over `rounds`, could be those of the other sign.

        Each has a mean z ~ Q ∝ (p_other - p_own)₊ of its messages, p_± = N(±θ, V²/rounds): z ~ p_other, kept
        if it leans to the other side, accepted with probability 1 - exp(-2 |θ z| rounds/V²). Around it, the
        messages scatter as honest ones do.
        """
        require(rounds >= 1, "The number of rounds", "be at least 1", rounds)
        generator, theta = stream(self.seed, "hard", "mirror"), abs(float(self.lean))
        side = -1.0 if self.lean > 0 else 1.0
        means = _other(theta, self.noise, rounds, len(workers), generator)
        said = self.noise * torch.randn(
            rounds, len(workers), dtype=torch.float64, generator=generator, device="cpu"
        )
        said = said - said.mean(dim=0) + side * means
        other = copy(self)
        other.forged = (tuple(workers), said)
        return other

    def stated(self) -> dict[str, Any]:
        constants: dict[str, Any] = {"lipschitz": self.curvature, "local": self.curvature, "convex": True}
        constants |= {"l0": self.curvature, "l1": 0.0, "sample": self.curvature, "passes": 1.0}
        constants |= {"zeta": 0.0, "pairs": ((0.0, 0.0),), "sigma": self.noise}  # clipping only lessens σ
        constants |= {"spread": self.noise} if self.clip is None else {"bound": self.clip * self.noise}
        return constants | {"sampling": "fresh" if self.noise else "exact"}

    def measure(self, x: Tensor) -> dict[str, float]:
        return self._figures(float(x[0]), float(self.lean))

    def measure_workers(self, x: Tensor) -> dict[str, list[float]]:
        """All honest workers have one loss."""
        return {"loss": [self.measure(x)["loss"]] * len(self.cohort.honest)}

    def _figures(self, x: float, lean: float) -> dict[str, float]:
        raise NotImplementedError


def _other(theta: float, noise: float, rounds: int, count: int, generator: torch.Generator) -> Tensor:
    """|z| `[count]` of draws from Q. With no noise or no slope there is nothing to draw: z = θ."""
    magnitudes = torch.full((count,), theta, dtype=torch.float64, device="cpu")
    left = torch.arange(count, device="cpu") if noise and theta else torch.arange(0, device="cpu")
    while len(left):
        drawn = torch.randn(len(left), dtype=torch.float64, generator=generator, device="cpu")
        level = torch.rand(len(left), dtype=torch.float64, generator=generator, device="cpu")
        z = theta + noise / sqrt(rounds) * drawn
        taken = (z > 0) & (level < -torch.expm1(-2 * theta * z * rounds / noise**2))
        magnitudes[left[taken]] = z[taken]
        left = left[~taken]
    return magnitudes


class HardLinTask(HardTask):
    """f = ±θ x on [-D, D]."""

    diameter: float = 1.0

    def stated(self) -> dict[str, Any]:
        # On the line f has no minimum, and so no gap; on the ball it has, `diameter` away.
        theta = abs(float(self.lean))
        return super().stated() | {"mu": None, "diameter": self.diameter, "gradient": theta}

    def _figures(self, x: float, lean: float) -> dict[str, float]:
        gap = abs(lean) * self.diameter + lean * x
        share = gap / (abs(lean) * self.diameter)
        return {"loss": gap, "grad_norm": abs(lean), "gap_share": share, "correct": float(lean * x < 0)}


class HardQuadTask(HardTask):
    """f = μ/2 (x ∓ ε̂)²."""

    def stated(self) -> dict[str, Any]:
        away = abs(float(self.lean)) / self.curvature
        constants = {"mu": self.curvature, "diameter": away, "gap": self.curvature * away**2 / 2}
        return super().stated() | constants | {"star_gap": 0.0}

    def _figures(self, x: float, lean: float) -> dict[str, float]:
        away = x + lean / self.curvature
        loss, slope = self.curvature * away**2 / 2, abs(self.curvature * away)
        return {"loss": loss, "grad_norm": slope, "distance": abs(away), "correct": float(lean * x < 0)}


class _Hard(DataTaskRecipe):
    noise: float
    clip: float | None

    @property
    def dimension(self) -> int:
        return 1

    def check(self, **scales: float) -> None:
        for name, value in scales.items():
            require(0 < value < inf, f"Parameter `{name}`", "be finite and positive", value)
        require(0 <= self.noise < inf, "Parameter `noise`", "be finite and at least 0", self.noise)
        require(self.clip is None or self.clip > 0, "Parameter `clip`", "be positive", self.clip)


@TASKS.register("hard_lin")
@dataclass(frozen=True)
class HardLin(_Hard):
    """f = ±θ x on [-D, D] with a sign drawn from the seed; g ~ N(±θ, noise²); x^0 = 0 (Theorem 4.3).

    θ = ε/D for a gap ε. `clip` bounds the noise at so many times `noise`: sqrt(2 log(n T)) touches hardly any
    of n T draws. The ball is the method's: give it the same `diameter`. Measured: `loss` θ(D ± x), the gap;
    `gap_share` of it in θD; `correct` 1 when the answer lies in the correct half, that is gap < θD.

    Args:
        theta: Slope θ.
        noise: Standard deviation of a gradient.
        diameter: D of the interval.
        clip: Bound on the noise, in multiples of `noise`; None: none.

    Examples:
        >>> from byzopt import Cohort, HardLin
        >>> task = HardLin().build(Cohort.of(20, byzantine=3), seed=0)
        >>> x = task.start()
        >>> rows = task.grads(x, task.draw(1))  # one gradient from each worker, in round 1
        >>> rows.shape == (20, len(x))
        True
        >>> sorted(task.measure(x))
        ['correct', 'gap_share', 'grad_norm', 'loss']
    """

    tested: ClassVar[bool] = False

    theta: float = 0.1
    noise: float = 1.0
    diameter: float = 1.0
    clip: float | None = None

    def __post_init__(self) -> None:
        self.check(theta=self.theta, diameter=self.diameter)

    def build_on(self, cohort: Cohort, seed: int, data_seed: int) -> HardLinTask:
        task = HardLinTask(cohort, 0.0, sign(data_seed) * self.theta, self.noise, self.clip, seed)
        task.diameter = self.diameter
        return task


@TASKS.register("hard_quad")
@dataclass(frozen=True)
class HardQuad(_Hard):
    """f = μ/2 (x ∓ ε̂)² with a sign drawn from the seed; g = μ(x ∓ ε̂) + N(0, noise²); x^0 = 0 (Theorem 4.4).

    `distance` ε̂. `clip` as in hard_lin. Measured: `loss` f - f*, `grad_norm`, `distance` |x - x*|,
    `correct`.

    Args:
        mu: Curvature μ.
        distance: ε̂, from the start to the optimum.
        noise: Standard deviation of a gradient.
        clip: Bound on the noise, in multiples of `noise`; None: none.

    Examples:
        >>> from byzopt import Cohort, HardQuad
        >>> task = HardQuad().build(Cohort.of(20, byzantine=3), seed=0)
        >>> x = task.start()
        >>> rows = task.grads(x, task.draw(1))  # one gradient from each worker, in round 1
        >>> rows.shape == (20, len(x))
        True
        >>> sorted(task.measure(x))
        ['correct', 'distance', 'grad_norm', 'loss']
    """

    tested: ClassVar[bool] = False

    mu: float = 1.0
    distance: float = 0.1
    noise: float = 1.0
    clip: float | None = None

    def __post_init__(self) -> None:
        self.check(mu=self.mu, distance=self.distance)

    def build_on(self, cohort: Cohort, seed: int, data_seed: int) -> HardQuadTask:
        lean = -sign(data_seed) * self.mu * self.distance
        return HardQuadTask(cohort, self.mu, lean, self.noise, self.clip, seed)


def sign(seed: int) -> float:
    """The secret sign of a seed."""
    return (
        1.0
        if float(torch.rand((), dtype=torch.float32, generator=stream(seed, "hard", "sign"), device="cpu"))
        < 0.5
        else -1.0
    )
