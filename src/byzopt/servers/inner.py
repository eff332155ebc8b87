"""The server's own subproblem of methods with a proxy loss, its solvers, and when they may stop.

    φ(y) = ⟨g - ∇q(x), y⟩ + q(y) + ‖y - x‖²/(2η),     ∇φ(x) = g

Only L - q is linearised; q, the server's loss, stays as it is. No step here costs a round.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from math import isfinite
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from byzopt import lbfgs
from byzopt.errors import require
from byzopt.registry import Registry

Loss = Callable[[Tensor], Tensor]
Rule = Literal["relative", "absolute", "machine"]
MACHINE = 1e-13  # length of a gradient that counts as zero


class Ending(IntEnum):
    """How an inner solve ended."""

    MET = 0  # the stop was met
    FIXED_POINT = 1  # the aggregate is zero to the tolerance: no step was taken
    BUDGET = 2  # the budget of steps was spent; its last point is kept
    STALLED = 3  # no step lowers φ in floating point; the last point is kept
    ASCENT = 4  # the last point lies above φ(x): a short step along -g was taken instead
    NONFINITE = 5  # φ was not finite: a short step along -g was taken instead


class Stop(NamedTuple):
    """When an inner solve may stop: ‖∇φ(y)‖² below a limit.

    "relative": max(‖y - x‖²/(4 η² `sec`), `tol`); "absolute": `tol`; "machine": that of `MACHINE`. Theorems
    need "relative" with sec >= 1 (10 for the longer step).
    """

    rule: Rule = "relative"
    sec: float = 10.0
    tol: float = 1e-10

    def check(self) -> None:
        """Raise `InvalidInput` for parameters out of range."""
        rules = ("relative", "absolute", "machine")
        require(self.rule in rules, "Parameter `stop`", f"be one of {', '.join(rules)}", self.rule)
        require(isfinite(self.sec) and self.sec > 0, "Parameter `sec`", "be finite and positive", self.sec)
        require(isfinite(self.tol) and self.tol >= 0, "Parameter `tol`", "be finite, at least 0", self.tol)

    def limit(self, moved: float, eta: float) -> float:
        """The largest ‖∇φ‖² at which to stop, after a move of this length."""
        if self.rule == "machine":
            return MACHINE**2
        return max((moved / (2 * eta)) ** 2 / self.sec, self.tol) if self.rule == "relative" else self.tol


@dataclass(frozen=True)
class Subproblem:
    """φ around `x` `[d]` with aggregate `g`; values are φ(y) - φ(x), so that little is lost to rounding."""

    q: Loss
    x: Tensor
    g: Tensor
    eta: float
    at_x: tuple[float, Tensor]

    @classmethod
    def of(cls, q: Loss, x: Tensor, g: Tensor, eta: float) -> Subproblem:
        """The subproblem; takes q and its gradient at x once."""
        return cls(q, x, g, eta, value_and_grad(q, x))

    def __call__(self, y: Tensor) -> tuple[float, Tensor]:
        """φ(y) - φ(x) and ∇φ(y)."""
        value, slope = value_and_grad(self.q, y)
        base, base_slope = self.at_x
        u, c = y - self.x, self.g - base_slope
        rise = float(c @ u) + (value - base) + float(u @ u) / (2 * self.eta)
        return rise, c + slope + u / self.eta

    def met(self, stop: Stop) -> Callable[[Tensor, Tensor], bool]:
        """Whether the solver may stop at (y, ∇φ(y))."""

        def reached(y: Tensor, grad: Tensor) -> bool:
            limit = stop.limit(float(torch.linalg.vector_norm(y - self.x)), self.eta)
            return float(grad @ grad) <= limit

        return reached


class Solved(NamedTuple):
    """Where an inner solve ended, how, after how many inner steps and evaluations of q's gradient."""

    y: Tensor
    ending: Ending
    steps: int
    evaluations: int


class Inner(ABC):
    """A solver of the subproblem, as a recipe. It takes at least one step and at most `budget`.

    Examples:
        >>> from byzopt.servers import LBFGS, Inner
        >>> isinstance(LBFGS(budget=50), Inner)
        True
    """

    name: ClassVar[str]
    budget: int

    @abstractmethod
    def search(self, phi: Subproblem, met: Callable[[Tensor, Tensor], bool]) -> lbfgs.Ended:
        """Steps from x until `met(y, ∇φ(y))`."""

    def solve(self, phi: Subproblem, stop: Stop) -> Solved:
        """A point y with φ(y) <= φ(x), whatever happens on the way."""
        if float(phi.g @ phi.g) <= (MACHINE**2 if stop.rule == "machine" else stop.tol):
            return Solved(phi.x, Ending.FIXED_POINT, 0, 1)
        end = self.search(phi, phi.met(stop))
        spent = end.evaluations + 1
        finite = isfinite(end.value) and bool(end.x.isfinite().all())
        if finite and end.value <= 0:
            return Solved(end.x, _ENDINGS[end.reason], end.steps, spent)
        y, more = _safe(phi)
        return Solved(y, Ending.ASCENT if finite else Ending.NONFINITE, end.steps, spent + more)


INNERS: Registry[Inner] = Registry("inner solver", Inner)
_ENDINGS = {
    "met": Ending.MET,
    "budget": Ending.BUDGET,
    "stalled": Ending.STALLED,
    "nonfinite": Ending.NONFINITE,
}


@INNERS.register("lbfgs")
@dataclass(frozen=True)
class LBFGS(Inner):
    """L-BFGS with a Wolfe line search: at most `budget` steps that remember `history` pairs.

    The first step tries the length min(η, 1) in gradients. The released code takes PyTorch's with history 500
    and 2000 steps to machine precision (`stop = "machine"`).

    Args:
        budget: Most steps of a solve.
        history: Pairs remembered.

    Examples:
        >>> import torch
        >>> from byzopt.servers import LBFGS
        >>> from byzopt.servers.inner import Stop, Subproblem
        >>> x, g = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        >>> phi = Subproblem.of(lambda y: 0.5 * (y @ y), x, g, eta=1.0)  # least at -1/2
        >>> round(float(LBFGS().solve(phi, Stop("machine")).y), 6)
        -0.5
    """

    budget: int = 1000
    history: int = 100

    def __post_init__(self) -> None:
        _check_budget(self.budget)
        require(self.history >= 1, "Parameter `history`", "be at least 1", self.history)

    def search(self, phi: Subproblem, met: Callable[[Tensor, Tensor], bool]) -> lbfgs.Ended:
        return lbfgs.minimise(phi, phi.x, met, self.budget, self.history, min(phi.eta, 1.0))


@INNERS.register("gradient_descent")
@dataclass(frozen=True)
class GradientDescent(Inner):
    """y <- y - lr (1 - k/budget)^`power` ∇φ(y), k = 0, 1, ...: that of the paper's later code.

    Args:
        lr: Length of the first step.
        power: Exponent with which steps fall to zero.
        budget: Most steps of a solve.

    Examples:
        >>> import torch
        >>> from byzopt.servers import GradientDescent
        >>> from byzopt.servers.inner import Stop, Subproblem
        >>> x, g = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        >>> phi = Subproblem.of(lambda y: 0.5 * (y @ y), x, g, eta=1.0)  # least at -1/2
        >>> round(float(GradientDescent(lr=0.2).solve(phi, Stop("machine")).y), 3)
        -0.5
    """

    lr: float = 0.05
    power: float = 0.5
    budget: int = 1000

    def __post_init__(self) -> None:
        _check_budget(self.budget)
        good = isfinite(self.lr) and self.lr > 0 and isfinite(self.power) and self.power >= 0
        require(good, "`lr` and `power`", "be finite, lr > 0 and power >= 0", (self.lr, self.power))

    def search(self, phi: Subproblem, met: Callable[[Tensor, Tensor], bool]) -> lbfgs.Ended:
        y, grad = phi.x, phi.g
        for k in range(self.budget):
            before = y
            y = torch.add(y, grad, alpha=-self.lr * (1 - k / self.budget) ** self.power)
            value, grad = phi(y)
            if not isfinite(value):
                return lbfgs.Ended(y, value, grad, k + 1, k + 1, "nonfinite")
            if met(y, grad) or torch.equal(y, before):
                reason = "stalled" if torch.equal(y, before) else "met"
                return lbfgs.Ended(y, value, grad, k + 1, k + 1, reason)
        return lbfgs.Ended(y, value, grad, self.budget, self.budget, "budget")


@INNERS.register("exact")
@dataclass(frozen=True)
class Exact(Inner):
    """Newton steps y <- y - (∇²q(y) + I/η)⁻¹ ∇φ(y): the first is the answer where q is quadratic.

    Forms the Hessian: d² numbers and d³ work a step, for d up to `largest`.

    Args:
        budget: Most Newton steps of a solve.
        largest: d up to which the Hessian is formed.

    Raises:
        InvalidInput: A larger d.

    Examples:
        >>> import torch
        >>> from byzopt.servers import Exact
        >>> from byzopt.servers.inner import Stop, Subproblem
        >>> x, g = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        >>> phi = Subproblem.of(lambda y: 0.5 * (y @ y), x, g, eta=1.0)  # least at -1/2
        >>> round(float(Exact().solve(phi, Stop("machine")).y), 6)
        -0.5
    """

    budget: int = 20
    largest: int = 2000

    def __post_init__(self) -> None:
        _check_budget(self.budget)

    def search(self, phi: Subproblem, met: Callable[[Tensor, Tensor], bool]) -> lbfgs.Ended:
        d = len(phi.x)
        require(d <= self.largest, "The exact inner solver", f"have d <= {self.largest}", d, "Use lbfgs.")
        y, value, grad = phi.x, 0.0, phi.g
        for k in range(1, self.budget + 1):
            hessian: Tensor = torch.func.hessian(phi.q)(y)
            step, failed = torch.linalg.solve_ex(
                hessian + torch.eye(d, dtype=y.dtype, device=y.device) / phi.eta, grad
            )
            if int(failed) or not bool(step.isfinite().all()):
                return lbfgs.Ended(y, value, grad, k - 1, k, "nonfinite" if k == 1 else "stalled")
            before, y = y, y - step
            old, (value, grad) = value, phi(y)
            if met(y, grad):
                return lbfgs.Ended(y, value, grad, k, k, "met")
            if k > 1 and not value < old:  # rounding: the step before was as good
                return lbfgs.Ended(before, old, phi(before)[1], k, k + 1, "stalled")
        return lbfgs.Ended(y, value, grad, self.budget, self.budget, "budget")


def value_and_grad(loss: Loss, x: Tensor) -> tuple[float, Tensor]:
    """A loss and its gradient at `x` `[d]`."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        value = loss(leaf)
        (grad,) = torch.autograd.grad(value, leaf)
    return float(value.detach()), grad


def _safe(phi: Subproblem) -> tuple[Tensor, int]:
    """The longest of the steps η g, η g/2, η g/4 ... that lowers φ; x itself if none does."""
    length = phi.eta
    for trial in range(1, 61):
        y = torch.add(phi.x, phi.g, alpha=-length)
        value, _ = phi(y)
        if isfinite(value) and value < 0:
            return y, trial
        length /= 2
    return phi.x, trial


def _check_budget(budget: int) -> None:
    require(budget >= 1, "Parameter `budget` of an inner solver", "be at least 1", budget)
