"""ByzantineSGD on strongly convex problems: epochs on balls that halve, after Hazan and Kale.

arXiv:1803.08917 states the totals (Theorems 3.4 and 3.5); the schedule is our derivation. Epoch s starts
within D_s of x* and ends with f - f* <= μD_s²/8, so that D_{s+1} = D_s/2 holds of its answer. At a boundary
sums and counters start anew and x_1 is the answer so far; the good set stays.
"""

from __future__ import annotations

from math import ceil, isfinite, log2, sqrt
from typing import Literal, NamedTuple, TypeAlias

from byzopt.errors import require
from byzopt.theory.byzantine_sgd import (
    WEIGHTS,
    Error2,
    GuardSetting,
    log_factor,
    nonsmooth_step,
    smooth_step,
)

Lengths: TypeAlias = Literal["theory", "practical"]
MOST = 64  # epochs: beyond it the radius has left the range of float64
ENDLESS = 40  # epochs of doubling length: beyond any run, and only a logarithm in thresholds
PRACTICAL = 128.0  # c; with 32 and less the ball shrinks faster than the error, and x* leaves it


class Epoch(NamedTuple):
    """`rounds` T_s with step γ_s on the ball of `radius` D_s around the epoch's start.

    Args:
        rounds: T_s.
        radius: D_s.
        step: γ_s.

    Examples:
        >>> from byzopt.theory.byzantine_epochs import Epoch
        >>> Epoch(rounds=100, radius=1.0, step=0.1).rounds
        100
    """

    rounds: int
    radius: float
    step: float


class Curved(NamedTuple):
    """A strongly convex problem: `mu`, and `smoothness` L or, where it is not smooth, `gradient` M.

    `start` D_1 >= ‖x_1 - x*‖, `noise` V, n workers of which f lie.

    Args:
        n: Number of workers.
        f: Number of faulty ones, 2 f < n.
        noise: Bound V on the length of honest noise.
        start: D_1 >= ‖x_1 - x*‖.
        mu: μ of strong convexity.
        smoothness: L of smoothness.
        gradient: M >= ‖∇f‖.
        p_fail: Probability of failure, in (0, 1).
    """

    n: int
    f: int
    noise: float
    start: float
    mu: float
    smoothness: float | None = None
    gradient: float | None = None
    p_fail: float = 0.05

    def check(self) -> None:
        """Errors: `InvalidInput` unless 2 f < n, μ, D_1 > 0 and exactly one of L, M is known."""
        numbers = f"f = {self.f} with n = {self.n}"
        require(0 <= 2 * self.f < self.n, "The count `f`", "satisfy 0 <= 2 f < n", numbers, "Lower f.")
        for name, value in (("mu", self.mu), ("start", self.start)):
            require(isfinite(value) and value > 0, f"Constant `{name}`", "be finite and positive", value)
        known = [c for c in (self.smoothness, self.gradient) if c is not None]
        numbers = f"L = {self.smoothness}, M = {self.gradient}"
        require(
            len(known) == 1 and known[0] > 0, "Epochs", "know one of L and M, and it be positive", numbers
        )


def epochs_to(problem: Curved, eps: float) -> int:
    """S = max(1, ⌈log₂(D_1 sqrt(μ/(8ε)))⌉ + 1) epochs reach f - f* <= ε.

    Args:
        problem: Constants of the problem.
        eps: Accuracy ε.
    """
    problem.check()
    require(eps > 0, "The accuracy ε", "be positive", eps)
    return max(1, ceil(log2(problem.start * sqrt(problem.mu / (8 * eps)))) + 1)


def schedule(
    problem: Curved,
    count: int,
    lengths: Lengths = "theory",
    error2: Error2 = "triangle",
    c: float = PRACTICAL,
) -> tuple[Epoch, ...]:
    """The first `count` epochs, each with failure probability p_fail/count.

    T_s = max{48L/μ, 328²V²Λ_s/(nμ²D_s²), (24(32 sqrt(Λ_s) + 2 sqrt(w)))² δ²V²/(μ²D_s²)}; where f is not
    smooth 68²M²/(μ²D_s²) for 48L/μ. Practical: max{8L/μ, c(1/n + δ²)V²Λ_s/(μ²D_s²)} (68² becomes 28²: as
    48 becomes 8).

    Args:
        problem: Constants of the problem.
        count: Number of epochs.
        lengths: Lengths of epochs: theory or practical.
        error2: Which bound on Error₂.
        c: Constant c of practical lengths.
    """
    problem.check()
    require(count >= 1, "The number of epochs", "be at least 1", count)
    p = problem.p_fail / count
    epochs = []
    for s in range(count):
        radius = problem.start / 2**s
        epochs.append(_epoch(problem, radius, _length(problem, radius, p, lengths, error2, c), p, error2))
    return tuple(epochs)


def within(
    problem: Curved,
    rounds: int,
    lengths: Lengths = "theory",
    error2: Error2 = "triangle",
    c: float = PRACTICAL,
) -> tuple[Epoch, ...]:
    """As many epochs as `rounds` hold, the last one with what is left over; one epoch if none fits.

    Args:
        problem: Constants of the problem.
        rounds: Rounds of the run.
        lengths: Lengths of epochs: theory or practical.
        error2: Which bound on Error₂.
        c: Constant c of practical lengths.
    """
    best = schedule(problem, 1, lengths, error2, c)
    for count in range(2, MOST + 1):
        longer = schedule(problem, count, lengths, error2, c)
        if sum(epoch.rounds for epoch in longer) > rounds:
            break
        best = longer
    *early, last = best
    left = rounds - sum(e.rounds for e in early)
    return (*early, _epoch(problem, last.radius, left, problem.p_fail / len(best), error2))


def doubling(first: int, radius: float, step: float) -> tuple[Epoch, ...]:
    """Epochs of `first`, 2 `first`, 4 `first` ... rounds on balls of one radius, with steps that fall as
    1/sqrt(T_s): for a run whose length is not known. `ENDLESS` of them, so that a longer run begins as
    a shorter one does.

    Args:
        first: Rounds of the first epoch.
        radius: Radius of the ball.
        step: Length of the first epoch's steps.

    Examples:
        >>> from byzopt.theory.byzantine_epochs import doubling
        >>> [epoch.rounds for epoch in doubling(first=100, radius=1.0, step=0.1)[:3]]
        [100, 200, 400]
    """
    require(first >= 1, "The first epoch", "have at least 1 round", first)
    return tuple(Epoch(first * 2**s, radius, step / sqrt(2**s)) for s in range(ENDLESS))


def _length(problem: Curved, radius: float, p: float, lengths: Lengths, error2: Error2, c: float) -> int:
    delta, unit = problem.f / problem.n, (problem.noise / (problem.mu * radius)) ** 2
    theory = lengths == "theory"
    if problem.smoothness is not None:
        base = (48 if theory else 8) * problem.smoothness / problem.mu
    else:
        base = ((68 if theory else 28) * (problem.gradient or 0) / (problem.mu * radius)) ** 2
    rounds = max(1, ceil(base))
    for _ in range(4):  # Λ_s holds T_s, but only as a logarithm
        lam = log_factor(problem.n, rounds, p)
        if theory:
            drift = (24 * (32 * sqrt(lam) + 2 * sqrt(WEIGHTS[error2])) * delta) ** 2
            noise = max(328**2 * lam / problem.n, drift)
        else:
            noise = c * (1 / problem.n + delta**2) * lam
        rounds = max(1, ceil(max(base, noise * unit)))
    return rounds


def _epoch(problem: Curved, radius: float, rounds: int, p: float, error2: Error2) -> Epoch:
    at = GuardSetting(problem.n, problem.f, rounds, problem.noise, radius, p)
    if problem.smoothness is not None:
        return Epoch(rounds, radius, smooth_step(at, problem.smoothness, error2))
    return Epoch(rounds, radius, nonsmooth_step(at, problem.gradient or 0, error2))
