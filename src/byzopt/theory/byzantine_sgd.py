"""ByzantineSGD (arXiv:1803.08917): thresholds, step sizes and bounds, as numbers in and numbers out.

Notation: n workers, δ = f/n, T rounds, V the largest length of an honest message's noise, D radius of the
ball around x_1 that holds x*, L smoothness, M >= ‖∇f‖, γ step, Λ = log(16 n T/p_fail) >= 1 in all thresholds.

Where we differ from the print: the B median is selected with a radius that is half the one of its test
(`RADII`), the last term of Theorem 3.2 follows from the proof (`WEIGHTS`), and Theorem 3.3 has 2 γ M².
"""

from __future__ import annotations

from dataclasses import dataclass
from math import erfc, exp, isfinite, log, sqrt
from typing import Literal, NamedTuple, TypeAlias

from byzopt.errors import require
from byzopt.theory.promise import EDGE

ThresholdRule: TypeAlias = Literal["default", "proved", "printed"]
Error2: TypeAlias = Literal["lemma", "triangle", "printed"]

# Selection radius and test radius of the sums B, in units of V sqrt(T Λ).
RADII: dict[str, tuple[float, float]] = {
    "default": (2.0, 4.0),
    "proved": (2 * sqrt(2), 4 * sqrt(2)),
    "printed": (4.0, 4.0),
}
# How far an honest sum B may stray and every honest worker still be kept, in units of V sqrt(T Λ): a quarter
# of the test's radius where the median is within twice that of an honest sum. `printed` selects too widely.
STRAYS: dict[str, float] = {"default": 1.0, "proved": sqrt(2), "printed": 0.0}
SELECT, TEST = 2.0, 4.0  # the same radii for the gradients of one round, in units of V
# w in W = 8 V² Λ/n + w δ² V²: from Lemma 3.1 as stated, from the triangle inequality (7 V), as printed.
WEIGHTS: dict[str, float] = {"lemma": 64.0, "triangle": 196.0, "printed": 32.0}


class Thresholds(NamedTuple):
    """τ_A of the scalar sums, τ_B of the vector sums, and the radius r_B that selects the median of these.

    Args:
        a: τ_A.
        b: τ_B.
        select: Radius that selects the median.
    """

    a: float
    b: float
    select: float


class BoundTerms(NamedTuple):
    """The four terms of Theorems 3.2 and 3.3: distance D²/(γT), honest noise, Byzantine drift, step size.

    Args:
        distance: D²/(γT).
        honest: Of the honest noise.
        byzantine: The liars' drift.
        step: Term of the step size.
    """

    distance: float
    honest: float
    byzantine: float
    step: float

    @property
    def total(self) -> float:
        """The bound of f(x̄) - f*."""
        return sum(self)


@dataclass(frozen=True)
class GuardSetting:
    """What the theorems are about: n workers of which f lie, T `rounds`, V `noise`, D `diameter`, p_fail.

    Errors: `InvalidInput` unless 2 f < n, T >= 1, V and D are finite and at least 0, and 0 < p_fail < 1.

    Args:
        n: Number of workers.
        f: Number of faulty ones, 2 f < n.
        rounds: Number of rounds T.
        noise: Bound V on the length of honest noise.
        diameter: D >= ‖x_1 - x*‖.
        p_fail: Probability of failure, in (0, 1).

    Examples:
        >>> from byzopt.theory.byzantine_sgd import GuardSetting
        >>> GuardSetting(n=20, f=3, rounds=1000, noise=1.0, diameter=2.0).rounds
        1000
    """

    n: int
    f: int
    rounds: int
    noise: float
    diameter: float
    p_fail: float = 0.05

    def __post_init__(self) -> None:
        numbers = f"f = {self.f} with n = {self.n}"
        require(0 <= 2 * self.f < self.n, "The count `f`", "satisfy 0 <= 2 f < n", numbers, "Lower f.")
        for name, value in (("noise bound V", self.noise), ("radius D", self.diameter)):
            good = isfinite(value) and value >= 0
            require(good, f"The {name}", "be finite and at least 0", value)
        log_factor(self.n, self.rounds, self.p_fail)

    @property
    def delta(self) -> float:
        """The Byzantine fraction δ = f/n."""
        return self.f / self.n

    @property
    def log(self) -> float:
        """Λ."""
        return log_factor(self.n, self.rounds, self.p_fail)


def log_factor(n: int, rounds: int, p_fail: float = 0.05) -> float:
    """Λ = log(16 n T/p_fail). Errors: `InvalidInput` outside n, T >= 1 and 0 < p_fail < 1.

    Args:
        n: Number of workers.
        rounds: Number of rounds T.
        p_fail: Probability of failure, in (0, 1).

    Examples:
        >>> from byzopt.theory.byzantine_sgd import log_factor
        >>> round(log_factor(n=20, rounds=1000), 3)
        15.672
    """
    require(n >= 1, "The number of workers `n`", "be at least 1", n)
    require(rounds >= 1, "The number of rounds", "be at least 1", rounds)
    require(0 < p_fail < 1, "The failure probability `p_fail`", "lie in (0, 1)", p_fail)
    return log(16 * n * rounds / p_fail)


def thresholds(at: GuardSetting, rule: ThresholdRule = "default") -> Thresholds:
    """τ_A = 4 D V sqrt(TΛ) and, by `rule`, τ_B and r_B in units of V sqrt(TΛ): see `RADII`.

    `printed` selects and tests B with one radius, 4: a median chosen among the attackers then expels honest
    workers. `default` keeps all honest workers while they deviate by V sqrt(TΛ), `proved` by V sqrt(2TΛ).

    Args:
        at: What the theorems are about.
        rule: Which thresholds: default, proved or printed.
    """
    unit = at.noise * sqrt(at.rounds * at.log)
    select, test = RADII[rule]
    return Thresholds(4 * at.diameter * unit, test * unit, select * unit)


def expels_honest(at: GuardSetting, rule: ThresholdRule = "default", anytime: bool = False) -> float:
    """With what probability at most the guard expels any honest worker, whatever f < n/2 liars do, where all
    sample one distribution and V bounds their noise: 2n exp(-c²Λ/2) + 2n exp(-2Λ), c as in `STRAYS`.

    Sums of B stray by r with probability 2 exp(-r²/(2TV²)) in any round (Pinelis), those of A, whose
    test takes twice DV sqrt(TΛ) each, as scalars do (Azuma). `anytime` thresholds are a union over T rounds.

    Args:
        at: What the theorems are about.
        rule: Which thresholds: default, proved or printed.
        anytime: Whether thresholds follow the rounds so far.
    """
    rounds = at.rounds if anytime else 1
    strays = exp(-(STRAYS[rule] ** 2) * at.log / 2) + exp(-2 * at.log)
    return min(1.0, 2 * at.n * rounds * strays)


def slack(at: GuardSetting, rule: ThresholdRule = "default") -> float:
    """The largest ζ >= ‖∇f_i - ∇f‖ of honest workers, at all points, with which they are still kept with
    probability 1 - p_fail, if V bounds ζ and noise together: their sums then drift by up to Tζ.

    ζ = V (c sqrt(Λ) - sqrt(2 log(4n/p)))/sqrt(T), c as in `STRAYS`; 0 where nothing is left.

    Args:
        at: What the theorems are about.
        rule: Which thresholds: default, proved or printed.
    """
    left = STRAYS[rule] * sqrt(at.log) - sqrt(2 * log(4 * at.n / at.p_fail))
    return max(0.0, at.noise * left / sqrt(at.rounds))


def variance_term(at: GuardSetting, error2: Error2 = "triangle") -> float:
    """W = 8 V² Λ/n + w δ² V², the factor of γ in the bounds.

    Args:
        at: What the theorems are about.
        error2: Which bound on Error₂.
    """
    return at.noise**2 * (8 * at.log / at.n + WEIGHTS[error2] * at.delta**2)


def smooth_step(at: GuardSetting, smoothness: float, error2: Error2 = "triangle") -> float:
    """γ* = min{1/(2L), D/sqrt(TW)}, which minimises `smooth_bound`. L = 0, a linear f, leaves the second.

    Errors: `InvalidInput` for L < 0, and for L = 0 without noise, where no step is too long.

    Args:
        at: What the theorems are about.
        smoothness: L of smoothness.
        error2: Which bound on Error₂.
    """
    good = isfinite(smoothness) and smoothness >= 0
    require(good, "The smoothness L", "be finite and at least 0", smoothness)
    w = variance_term(at, error2)
    steps = [at.diameter / sqrt(at.rounds * w)] if w else []
    steps += [1 / (2 * smoothness)] if smoothness else []
    require(len(steps) > 0, "A linear objective", "have noise", "none", "Any step will do.")
    return min(steps)


def nonsmooth_step(at: GuardSetting, gradient: float, error2: Error2 = "triangle") -> float:
    """γ* = D/sqrt(T(2M² + W)), which minimises `nonsmooth_bound`.

    Args:
        at: What the theorems are about.
        gradient: M >= ‖∇f‖.
        error2: Which bound on Error₂.
    """
    _positive("The gradient bound M", gradient)
    return at.diameter / sqrt(at.rounds * (2 * gradient**2 + variance_term(at, error2)))


def smooth_bound(at: GuardSetting, smoothness: float, step: float, error2: Error2 = "triangle") -> BoundTerms:
    """Theorem 3.2: D²/(γT) + 8DV sqrt(Λ/(Tn)) + 32 δDV sqrt(Λ/T) + γW for γ <= 1/(2L).

    Args:
        at: What the theorems are about.
        smoothness: L of smoothness.
        step: Length γ of the steps.
        error2: Which bound on Error₂.
    """
    _positive("The step γ", step)
    fits = step * 2 * smoothness <= EDGE
    require(fits, "The step γ of Theorem 3.2", "be at most 1/(2L)", f"γ = {step}, L = {smoothness}")
    return _bound(at, step, variance_term(at, error2))


def nonsmooth_bound(
    at: GuardSetting, gradient: float, step: float, error2: Error2 = "triangle"
) -> BoundTerms:
    """Theorem 3.3: as Theorem 3.2 with 2γM² more, for every γ > 0. (Printed: 2γM²/T, a slip.)

    Args:
        at: What the theorems are about.
        gradient: M >= ‖∇f‖.
        step: Length γ of the steps.
        error2: Which bound on Error₂.
    """
    _positive("The step γ", step)
    return _bound(at, step, variance_term(at, error2) + 2 * gradient**2)


def error1(at: GuardSetting) -> float:
    """Lemma 3.1: |Error₁| <= 4DV sqrt(TnΛ) + 16 δnDV sqrt(TΛ), with probability 1 - p_fail.

    Args:
        at: What the theorems are about.
    """
    unit = at.diameter * at.noise * sqrt(at.rounds * at.log)
    return unit * (4 * sqrt(at.n) + 16 * at.f)


def error2(at: GuardSetting, rule: Error2 = "triangle") -> float:
    """Lemma 3.1: Error₂ <= 4V²Λ/n + (w/2) δ²V²: what W is twice of.

    Args:
        at: What the theorems are about.
        rule: Which bound on Error₂.
    """
    return variance_term(at, rule) / 2


def tail(length: float, spread: float, d: int, messages: int) -> float:
    """At most this is the probability that any of so many Gaussian noises N(0, spread² I) in d dimensions is
    longer than `length` (a union bound; for d > 1 by the concentration of the norm about spread √d).

    Args:
        length: Length that is asked about.
        spread: Standard deviation of a coordinate.
        d: Number of parameters.
        messages: Number of messages.

    Examples:
        >>> from byzopt.theory.byzantine_sgd import tail
        >>> tail(length=10.0, spread=1.0, d=1, messages=100) < 1e-9
        True
    """
    if spread == 0:
        return 0.0
    if d == 1:
        return min(1.0, messages * erfc(length / (spread * sqrt(2))))
    beyond = length / spread - sqrt(d)
    return min(1.0, messages * exp(-(beyond**2) / 2)) if beyond > 0 else 1.0


def caught_by(bias: float, noise: float, log: float) -> float:
    """16 Λ V²/b²: by about this round anytime thresholds expel a worker with constant bias b.

    Args:
        bias: Length b of the constant bias.
        noise: Bound V on the length of honest noise.
        log: Logarithmic factor Λ.

    Examples:
        >>> from byzopt.theory.byzantine_sgd import caught_by
        >>> caught_by(bias=1.0, noise=1.0, log=2.0)
        32.0
    """
    _positive("The bias", bias)
    return 16 * log * (noise / bias) ** 2


def _bound(at: GuardSetting, step: float, factor: float) -> BoundTerms:
    unit = at.diameter * at.noise * sqrt(at.log / at.rounds)
    return BoundTerms(
        at.diameter**2 / (step * at.rounds), 8 * unit / sqrt(at.n), 32 * at.delta * unit, step * factor
    )


def _positive(what: str, value: float) -> None:
    require(isfinite(value) and value > 0, what, "be finite and positive", value)
