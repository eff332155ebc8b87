"""Steps that solve a subproblem with the server's own loss q: PIGS, and its acceleration AEG-prox."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

from torch import Tensor

from byzopt.errors import InvalidInput
from byzopt.servers.base import STEPS, ServerContext, Step
from byzopt.servers.descent import check_rate
from byzopt.servers.inner import LBFGS, Ending, Inner, Loss, Rule, Solved, Stop, Subproblem
from byzopt.servers.nesterov import ExtraState, Weights


class Tally(NamedTuple):
    """Inner work so far: `steps`, `evaluations` of q's gradient, `last` steps of the newest solve and its
    `ending`, and how often each ending came, by its number."""

    steps: int = 0
    evaluations: int = 0
    last: int = 0
    ending: int = 0
    endings: tuple[int, ...] = (0,) * len(Ending)

    def plus(self, solved: Solved) -> Tally:
        """The tally after one more solve."""
        counts = tuple(count + (i == solved.ending) for i, count in enumerate(self.endings))
        steps, evaluations = self.steps + solved.steps, self.evaluations + solved.evaluations
        return Tally(steps, evaluations, solved.steps, int(solved.ending), counts)

    def report(self) -> dict[str, float]:
        """`inner_steps`, `inner_evaluations` so far, `inner_last`, and `inner_unmet`: how many solves ended
        otherwise than by meeting the stop (or at a fixed point), with a figure for each such ending."""
        fine = (Ending.MET, Ending.FIXED_POINT)
        ended = {f"inner_{e.name.lower()}": float(self.endings[e]) for e in Ending if e != Ending.MET}
        unmet = sum(count for i, count in enumerate(self.endings) if i not in fine)
        counted = {"inner_steps": self.steps, "inner_evaluations": self.evaluations, "inner_last": self.last}
        return {key: float(value) for key, value in counted.items()} | {"inner_unmet": float(unmet)} | ended


class ProxState(NamedTuple):
    """The iterate `x` `[d]`, the server's loss `q`, the tally."""

    x: Tensor
    q: Loss
    tally: Tally


class ExtraProxState(NamedTuple):
    """The sequences of `Extragradient`, the server's loss `q`, the tally."""

    pair: ExtraState
    q: Loss
    tally: Tally


@STEPS.register("similarity_prox")
@dataclass(frozen=True)
class SimilarityProx(Step):
    """x <- argmin ⟨g - ∇q(x_k), x⟩ + q(x) + ‖x - x_k‖²/(2 lr), up to `stop`: PIGS; lr is η.

    With q = 0 this is descent. `inner` solves; `stop`, `sec`, `tol`: see `inner.Stop`.
    Errors: a site without a loss of the server's.

    Args:
        lr: Length η of the step.
        inner: Who solves the subproblem.
        stop: When a solve ends: "relative", "absolute" or "machine".
        sec: Divisor of the relative tolerance.
        tol: Absolute tolerance of the squared gradient norm of the subproblem.

    Raises:
        InvalidInput: A site without a loss of the server's.

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.servers import ServerContext, SimilarityProx
        >>> site = ServerContext(Layout.flat(1), proxy=lambda x: 0.5 * (x @ x))
        >>> step = SimilarityProx(lr=1e6, stop="machine")
        >>> state = step.init(torch.ones(1, dtype=torch.float64), site)
        >>> round(float(step.answer(step.tell(state, step.ask(state)))), 4)  # exact when q is the objective
        0.0
    """

    needs_proxy = True

    lr: float
    inner: Inner = LBFGS()
    stop: Rule = "relative"
    sec: float = 10.0
    tol: float = 1e-10

    def __post_init__(self) -> None:
        check_rate(self.lr)
        Stop(self.stop, self.sec, self.tol).check()

    def init(self, x0: Tensor, site: ServerContext) -> ProxState:
        return ProxState(x0, proxy_of(site, "PIGS"), Tally())

    def ask(self, state: ProxState) -> Tensor:
        return state.x

    def tell(self, state: ProxState, g: Tensor) -> ProxState:
        phi = Subproblem.of(state.q, state.x, g, self.lr)
        solved = self.inner.solve(phi, Stop(self.stop, self.sec, self.tol))
        return ProxState(solved.y, state.q, state.tally.plus(solved))

    def report(self, state: ProxState) -> dict[str, float]:
        return state.tally.report()


@STEPS.register("extragradient_prox")
@dataclass(frozen=True)
class ExtragradientProx(Step):
    """The accelerated extragradient whose slow step is PIGS's subproblem around y; two rounds an iteration.

        y = τ z + (1 - τ) x,  x <- argmin ⟨g(y) - ∇q(y), x⟩ + q(x) + ‖x - y‖²/(2 lr);
        z <- z + b (x - z) - η g(x) at the new x

    lr is θ; see `Weights` for τ, η, b. Factors (0.3 √2, 0.36) with θ = 1/(4Δ') are Theorem D's. With q = 0
    this is `Extragradient`. `inner` solves; `stop`, `sec`, `tol`: see `inner.Stop`.
    Errors: a site without a loss of the server's.

    Args:
        lr: θ, 1/(4Δ') in theory.
        mu: μ of strong convexity.
        tau_factor: Factor of τ, the weight of the fast sequence.
        fast_factor: Factor of η, the step of the fast sequence.
        inner: Who solves the subproblem.
        stop: When a solve ends: "relative", "absolute" or "machine".
        sec: Divisor of the relative tolerance.
        tol: Absolute tolerance of the squared gradient norm of the subproblem.

    Raises:
        InvalidInput: A site without a loss of the server's.

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.servers import ExtragradientProx, ServerContext
        >>> site = ServerContext(Layout.flat(1), proxy=lambda x: 0.5 * (x @ x))
        >>> step = ExtragradientProx(lr=1.0, mu=0.1)
        >>> state = step.init(torch.ones(1, dtype=torch.float64), site)
        >>> for _ in range(2):
        ...     state = step.tell(state, step.ask(state))
        >>> 0 < float(step.answer(state)) < 1
        True
    """

    needs_proxy = True

    lr: float
    mu: float = 0.01
    tau_factor: float = 0.3 * sqrt(2)
    fast_factor: float = 0.36
    inner: Inner = LBFGS()
    stop: Rule = "relative"
    sec: float = 10.0
    tol: float = 1e-10

    def __post_init__(self) -> None:
        _ = self.weights
        Stop(self.stop, self.sec, self.tol).check()

    @property
    def weights(self) -> Weights:
        """τ, η, b."""
        return Weights.of(self.lr, self.mu, self.tau_factor, self.fast_factor)

    def init(self, x0: Tensor, site: ServerContext) -> ExtraProxState:
        return ExtraProxState(ExtraState(x0, x0, 0), proxy_of(site, "AEG-prox"), Tally())

    def ask(self, state: ExtraProxState) -> Tensor:
        return state.pair.x if state.pair.half else self.weights.between(state.pair)

    def tell(self, state: ExtraProxState, g: Tensor) -> ExtraProxState:
        if state.pair.half:
            return state._replace(pair=self.weights.fast(state.pair, g))
        phi = Subproblem.of(state.q, self.ask(state), g, self.lr)
        solved = self.inner.solve(phi, Stop(self.stop, self.sec, self.tol))
        return ExtraProxState(ExtraState(solved.y, state.pair.z, 1), state.q, state.tally.plus(solved))

    def answer(self, state: ExtraProxState) -> Tensor:
        return state.pair.x

    def report(self, state: ExtraProxState) -> dict[str, float]:
        return state.tally.report()


def proxy_of(site: ServerContext, what: str) -> Loss:
    """The loss that the server owns. Errors: a site without one."""
    if site.proxy is None:
        raise InvalidInput(
            f"{what} should have a loss that the server owns. Found a task without a proxy. "
            'Give the task one (task.proxy = "worker"), or use another method, such as nag.'
        )
    return site.proxy
