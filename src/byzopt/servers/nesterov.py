"""Accelerated steps: Nesterov's momentum, its three-sequence scheme, the accelerated extragradient."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from byzopt.errors import require
from byzopt.servers.base import STEPS, ServerContext, Step
from byzopt.servers.descent import check_rate
from byzopt.theory.inexact import nag_tau


class NesterovState(NamedTuple):
    """The point `x` and the heavy ball `v`, `[d]`."""

    x: Tensor
    v: Tensor


class ThreeState(NamedTuple):
    """The slow sequence `x` and the fast one `z`, `[d]`."""

    x: Tensor
    z: Tensor


class ExtraState(NamedTuple):
    """Slow `x`, fast `z`, `[d]`, and the half that comes next: 0 asks at y, 1 at the new x."""

    x: Tensor
    z: Tensor
    half: int


def check_convexity(mu: float) -> None:
    """Raise `InvalidInput` unless mu is a finite positive number."""
    require(isfinite(mu) and mu > 0, "Parameter `mu`", "be finite and positive", mu)


@STEPS.register("nesterov_momentum")
@dataclass(frozen=True)
class NesterovMomentum(Step):
    """v <- β v + g, x <- x - lr (g + β v), v_0 = 0: PyTorch's SGD with Nesterov momentum.

    The iterate is the extrapolated point: with w_{k+1} = x_k - lr g_k, x_{k+1} = w_{k+1} + β (w_{k+1} - w_k).
    β = 0 is descent.

    Args:
        lr: Length of the steps, > 0.
        beta: β of the extrapolation, in [0, 1).

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.servers import NesterovMomentum, ServerContext
        >>> step = NesterovMomentum(lr=1.0, beta=0.5)
        >>> state = step.init(torch.zeros(1), ServerContext(Layout.flat(1)))
        >>> step.ask(step.tell(state, torch.ones(1)))  # -(g + β g)
        tensor([-1.5000])
    """

    lr: float = 0.1
    beta: float = 0.9
    batched = True
    scales = True

    def __post_init__(self) -> None:
        check_rate(self.lr)
        require(0 <= self.beta < 1, "Parameter `beta`", "lie in [0, 1)", self.beta)

    def init(self, x0: Tensor, site: ServerContext) -> NesterovState:
        return NesterovState(x0, torch.zeros_like(x0))

    def ask(self, state: NesterovState) -> Tensor:
        return state.x

    def tell(self, state: NesterovState, g: Tensor) -> NesterovState:
        v = torch.add(g, state.v, alpha=self.beta)
        ahead = torch.add(g, v, alpha=self.beta)
        return NesterovState(torch.add(state.x, ahead, alpha=-self.lr), v)


@STEPS.register("three_sequences")
@dataclass(frozen=True)
class ThreeSequences(Step):
    """Nesterov's scheme of Theorem B (`theory.inexact`); answers x.

        y = τ z + (1 - τ) x,  g at y,  x <- y - lr g,  z <- z + 2τ (y - z) - η g,  η = 2τ/μ

    lr = 1/L; τ = 0.22 √(μ lr), or min(that, μ lr/(5 α)) where a relative error `alpha` is given (small τ), or
    `tau`.

    Args:
        lr: Length of the steps, 1/L in theory.
        mu: μ of strong convexity, at most the true one.
        alpha: Relative error α of the aggregate.
        tau: τ set by hand, in (0, 1]; None: that of the theory.

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.servers import ServerContext, ThreeSequences
        >>> step = ThreeSequences(lr=0.5, mu=0.1)
        >>> state = step.init(torch.ones(1), ServerContext(Layout.flat(1)))
        >>> step.answer(step.tell(state, step.ask(state)))  # one round on ½‖x‖²
        tensor([0.5000])
    """

    lr: float
    mu: float = 0.01
    alpha: float = 0.0
    tau: float | None = None

    def __post_init__(self) -> None:
        check_rate(self.lr)
        check_convexity(self.mu)
        require(0 <= self.alpha < 1, "Parameter `alpha`", "lie in [0, 1)", self.alpha)
        weights = f"tau = {self.weight} with lr * mu = {self.lr * self.mu}"
        require(0 < self.weight < 1, "The weight τ", "lie in (0, 1)", weights, "Lower lr or mu.")

    @property
    def weight(self) -> float:
        """τ."""
        return nag_tau(1 / self.lr, self.mu, self.alpha) if self.tau is None else self.tau

    def init(self, x0: Tensor, site: ServerContext) -> ThreeState:
        return ThreeState(x0, x0)

    def ask(self, state: ThreeState) -> Tensor:
        return torch.lerp(state.x, state.z, self.weight)

    def tell(self, state: ThreeState, g: Tensor) -> ThreeState:
        tau, y = self.weight, self.ask(state)
        z = state.z + 2 * tau * (y - state.z) - 2 * tau / self.mu * g
        return ThreeState(torch.add(y, g, alpha=-self.lr), z)

    def answer(self, state: ThreeState) -> Tensor:
        return state.x


@dataclass(frozen=True)
class Weights:
    """τ, η and b of an accelerated extragradient with slow step θ and convexity μ.

    τ = min(1, √(θμ/2) tau_factor), η = min(1/(2μ), θ/(2τ) fast_factor), b = μη.
    """

    tau: float
    eta: float
    b: float

    @classmethod
    def of(cls, theta: float, mu: float, tau_factor: float, fast_factor: float) -> Weights:
        check_rate(theta)
        check_convexity(mu)
        factors = (tau_factor, fast_factor)
        good = all(isfinite(factor) and factor > 0 for factor in factors)
        require(good, "`tau_factor` and `fast_factor`", "be finite and positive", factors)
        tau = min(1.0, sqrt(theta * mu / 2) * tau_factor)
        eta = min(1 / (2 * mu), theta / (2 * tau) * fast_factor)
        return cls(tau, eta, mu * eta)

    def between(self, state: ExtraState) -> Tensor:
        """y = τ z + (1 - τ) x."""
        return torch.lerp(state.x, state.z, self.tau)

    def fast(self, state: ExtraState, g: Tensor) -> ExtraState:
        """z <- z + b (x - z) - η g, g at the new x: the second half of an iteration."""
        z = state.z + self.b * (state.x - state.z) - self.eta * g
        return ExtraState(state.x, z, 0)


@STEPS.register("extragradient")
@dataclass(frozen=True)
class Extragradient(Step):
    """The accelerated extragradient with q = 0; two rounds an iteration; answers x.

        y = τ z + (1 - τ) x,  x <- y - lr g(y);   z <- z + b (x - z) - η g(x) at the new x

    lr is θ, 1/(2L) in theory; see `Weights` for τ, η, b. Factors (0.4, 0.32) are Theorem B2's, (1, 1)
    Kovalev's (arXiv:2205.15136), which leave no room for an error.

    Args:
        lr: θ, 1/(2L) in theory.
        mu: μ of strong convexity, at most the true one.
        tau_factor: Factor of τ, the weight of the fast sequence.
        fast_factor: Factor of η, the step of the fast sequence.

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.servers import Extragradient, ServerContext
        >>> step = Extragradient(lr=0.5, mu=0.1)
        >>> state = step.init(torch.ones(1), ServerContext(Layout.flat(1)))
        >>> for _ in range(2):  # one iteration on ½‖x‖²
        ...     state = step.tell(state, step.ask(state))
        >>> step.answer(state)
        tensor([0.5000])
    """

    lr: float
    mu: float = 0.01
    tau_factor: float = 0.4
    fast_factor: float = 0.32

    def __post_init__(self) -> None:
        _ = self.weights

    @property
    def weights(self) -> Weights:
        """τ, η, b."""
        return Weights.of(self.lr, self.mu, self.tau_factor, self.fast_factor)

    def init(self, x0: Tensor, site: ServerContext) -> ExtraState:
        return ExtraState(x0, x0, 0)

    def ask(self, state: ExtraState) -> Tensor:
        return state.x if state.half else self.weights.between(state)

    def tell(self, state: ExtraState, g: Tensor) -> ExtraState:
        if state.half:
            return self.weights.fast(state, g)
        return ExtraState(torch.add(self.ask(state), g, alpha=-self.lr), state.z, 1)

    def answer(self, state: ExtraState) -> Tensor:
        return state.x
