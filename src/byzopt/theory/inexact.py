"""Robust optimisation as inexact-gradient optimisation (arXiv:2602.03329): theorems in numbers.

Notation: a rule with squared coefficient κ gives g with ‖g - ∇L‖² <= ζ² + α ‖∇L‖², ζ² = κ G², α = κ B²
(G, B: heterogeneity). L is `lipschitz`-smooth and μ-strongly convex, s = √(μ/L); Δ is the smoothness of
L - q, q the server's proxy loss. gap(x) = L(x) - L(x*).

Theorems A (descent), B (Nesterov in three sequences), B2 (accelerated extragradient), C (PIGS) and D (its
acceleration) are derived from these definitions: they are true as stated here, and their constants are ours,
not the paper's. Each bounds a potential Ψ, gap <= `weight` Ψ, by Ψ_{k+1} <= `contraction` Ψ_k + `additive`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log, sqrt
from typing import NamedTuple

from byzopt.errors import require
from byzopt.theory.promise import EDGE


class InexactOracle(NamedTuple):
    """‖g - ∇L‖² <= `zeta_squared` + `alpha` ‖∇L‖².

    Args:
        zeta_squared: ζ².
        alpha: Relative error α.

    Examples:
        >>> from byzopt.theory.inexact import InexactOracle
        >>> InexactOracle(zeta_squared=0.1, alpha=0.0).alpha
        0.0
    """

    zeta_squared: float
    alpha: float


@dataclass(frozen=True)
class Guarantee:
    """One theorem with its numbers.

    `steps` parameters by name; `alpha_limit` the largest α that the theorem admits (for descent: excluded),
    `holds` whether this α is admitted (`floor` is infinite otherwise); per iteration, which costs
    `rounds_each` gradient rounds,
    Ψ <- `contraction` Ψ + `additive`; `start` bounds weight Ψ_0 by start · gap_0; `floor` bounds limsup gap;
    `rounds` to bring a gap down by a factor e, up to the floor.

    Args:
        theorem: Its name, with the source.
        steps: Parameters by name.
        alpha_limit: Largest α that is admitted.
        holds: Whether this α is.
        contraction: Factor of Ψ in an iteration.
        additive: What an iteration adds.
        weight: Factor of Ψ_0.
        start: Bounds weight Ψ_0 by start · gap_0.
        floor: What remains as rounds grow.
        rounds: To bring a gap down by a factor e.
        rounds_each: Gradient rounds of an iteration.
    """

    theorem: str
    steps: dict[str, float]
    alpha_limit: float
    holds: bool
    contraction: float
    additive: float
    weight: float
    start: float
    floor: float
    rounds: float
    rounds_each: int = 1

    def __post_init__(self) -> None:
        if not self.holds:  # what a theorem does not admit, it says nothing of
            object.__setattr__(self, "floor", inf)

    def bound(self, gap: float, rounds: int) -> float:
        """The gap after so many gradient rounds from a start with this gap; infinite unless it `holds`."""
        if not self.holds:
            return inf
        return self.start * self.contraction ** (rounds // self.rounds_each) * gap + self.floor

    def rounds_to(self, share: float) -> float:
        """Gradient rounds after which the first part of `bound` is `share` of the gap at the start."""
        require(0 < share < 1, "The share", "lie in (0, 1)", share)
        return self.rounds_each * log(self.start / share) / -log(self.contraction)


def oracle(kappa: float, g: float, b: float = 0.0, sigma: float = 0.0, honest: int = 1) -> InexactOracle:
    """ζ² = κ G² and α = κ B²; with noise σ in every message, in the mean over it,

    E‖g - ∇L‖² <= (√(κ (G² + B²‖∇L‖² + σ²)) + σ/√honest)²: the rule's error may point where the honest mean's
    own noise does. As ζ² + α‖∇L‖² that is ζ² = (√(κ (G² + σ²)) + σ/√honest)² and α = (1 + t) κ B² with
    t = σ/√(honest κ (G² + σ²)).

    `sigma` is the root mean square length of one message's noise: per sample over √batch.

    Args:
        kappa: κ of the oracle's error.
        g: G of mean‖∇f_i - ∇f‖² <= G² + B²‖∇f‖².
        b: B of mean‖∇f_i - ∇f‖² <= G² + B²‖∇f‖².
        sigma: Root mean square length σ of a message's noise.
        honest: Number of honest workers.

    Examples:
        >>> from byzopt.theory.inexact import oracle
        >>> oracle(kappa=0.5, g=2.0)
        InexactOracle(zeta_squared=2.0000000000000004, alpha=0.0)
    """
    for name, value in (("κ", kappa), ("G", g), ("B", b), ("σ", sigma)):
        require(value >= 0, f"Constant {name}", "be at least 0", value)
    bias, mean = sqrt(kappa * (g**2 + sigma**2)), sigma / sqrt(honest)
    if kappa * b == 0 or mean == 0:
        return InexactOracle((bias + mean) ** 2, kappa * b**2)
    return InexactOracle((bias + mean) ** 2, (1 + mean / bias) * kappa * b**2 if bias else inf)


def worsened(known: InexactOracle, square: float) -> InexactOracle:
    """The oracle whose error has one more part of squared length `square`, as an inner solve leaves it:

    (√(ζ² + α‖∇L‖²) + √square)² <= (1 + t)(ζ² + α‖∇L‖²) + (1 + 1/t) square, with t = √square/ζ, but at most
    1/100 so that α hardly grows.

    Args:
        known: ζ² and α of the oracle.
        square: Squared length of the added error.
    """
    zeta = sqrt(known.zeta_squared)
    if square == 0 or known.alpha == 0:
        return InexactOracle((zeta + sqrt(square)) ** 2, known.alpha)
    t = min(sqrt(square) / zeta, 0.01) if zeta else 0.01
    return InexactOracle((1 + t) * known.zeta_squared + (1 + 1 / t) * square, (1 + t) * known.alpha)


def common_floor(known: InexactOracle, mu: float) -> float:
    """ζ²/(2μ(1 - α)): the gap wherever g vanishes, and so wherever GD, D-NAG, NAG or PIGS settle.

    Args:
        known: ζ² and α of the oracle.
        mu: μ of strong convexity.
    """
    return known.zeta_squared / (2 * mu * (1 - known.alpha)) if known.alpha < 1 else inf


def breakdown(b: float) -> float:
    """No rule works for f/n >= 1/(2 + B²) (arXiv:2309.13591).

    Args:
        b: B of mean‖∇f_i - ∇f‖² <= G² + B²‖∇f‖².
    """
    return 1 / (2 + b**2)


def gd(known: InexactOracle, lipschitz: float, mu: float, lr: float | None = None) -> Guarantee:
    """Theorem A: x <- x - lr g with lr <= 1/L; μ-PL is enough. Ψ = gap.

    Args:
        known: ζ² and α of the oracle.
        lipschitz: L of smoothness.
        mu: μ of strong convexity.
        lr: Length of the steps; None: 1/L.
    """
    _check(lipschitz, mu)
    lr = 1 / lipschitz if lr is None else lr
    free = 1 - known.alpha
    holds = known.alpha < 1 and 0 < lr <= 1 / lipschitz * EDGE
    contraction, floor = 1 - lr * mu * free, common_floor(known, mu)
    rounds = 1 / (lr * mu * free) if free > 0 else inf
    additive = lr * known.zeta_squared / 2
    return Guarantee(
        "Theorem A", {"lr": lr}, 1.0, holds, contraction, additive, 1.0, 1.0, floor, max(rounds, 1.0)
    )


def gd_nonconvex(known: InexactOracle, lipschitz: float, gap: float, rounds: int) -> float:
    """Without convexity, lr = 1/L: min ‖∇L‖² <= 2 L gap/(T(1 - α)) + ζ²/(1 - α).

    Args:
        known: ζ² and α of the oracle.
        lipschitz: L of smoothness.
        gap: f(x^0) - f*.
        rounds: Number of rounds T.
    """
    free = 1 - known.alpha
    return 2 * lipschitz * gap / (rounds * free) + known.zeta_squared / free if free > 0 else inf


def nag(known: InexactOracle, lipschitz: float, mu: float, small_tau: bool = False) -> Guarantee:
    """Theorem B: three-sequence Nesterov. Ψ = ‖z - x*‖²/η + (2/τ) gap(x).

    τ = 0.22 s and α <= min(1/8, 0.99 s); `small_tau`: τ = min(0.22 s, μ/(5 α L)) and α <= 1/8. η = 2τ/μ.

    Args:
        known: ζ² and α of the oracle.
        lipschitz: L of smoothness.
        mu: μ of strong convexity.
        small_tau: Whether the small-τ variant is taken.
    """
    s = _check(lipschitz, mu)
    tau = nag_tau(lipschitz, mu, known.alpha if small_tau else 0.0)
    eta = 2 * tau / mu
    additive = known.zeta_squared * (1 / (tau * lipschitz) + 4 * eta + 2 / mu)
    limit, slack = min(1 / 8, 0.99 * s), 3.2 * s
    if small_tau:
        limit, slack = 1 / 8, 2.3 * s + 2.5 * known.alpha + 4 * tau
    steps = {"lr": 1 / lipschitz, "mu": mu, "tau": tau, "eta": eta}
    name = "Theorem B, small τ" if small_tau else "Theorem B"
    return _accelerated(name, steps, limit, known, mu, tau, additive, slack, 1 / tau)


def nag_tau(lipschitz: float, mu: float, alpha: float = 0.0) -> float:
    """τ = 0.22 s, or min(0.22 s, μ/(5 α L)) for a relative error α that is not small against s.

    Args:
        lipschitz: L of smoothness.
        mu: μ of strong convexity.
        alpha: Relative error α.
    """
    tau = 0.22 * sqrt(mu / lipschitz)
    return min(tau, mu / (5 * alpha * lipschitz)) if alpha > 0 else tau


def aeg(known: InexactOracle, lipschitz: float, mu: float) -> Guarantee:
    """Theorem B2: accelerated extragradient with θ = 1/(2L), τ = 0.2 s, η = 0.4 s/μ, b = 0.4 s.

    Args:
        known: ζ² and α of the oracle.
        lipschitz: L of smoothness.
        mu: μ of strong convexity.
    """
    s = _check(lipschitz, mu)
    tau, eta = 0.2 * s, 0.4 * s / mu
    steps = {"lr": 1 / (2 * lipschitz), "mu": mu, "tau": tau, "eta": eta, "b": mu * eta}
    return _accelerated("Theorem B2", steps, min(1 / 50, s / 3), known, mu, tau, None, 3.3 * s, 10 / s, 2)


def pigs(
    known: InexactOracle, delta: float, mu: float, longer: bool = False, lipschitz: float | None = None
) -> Guarantee:
    """Theorem C: PIGS with η = 1/(4 max(Δ, μ)), inner stop with sec >= 1, α <= 4/27.

    `longer`: η = 0.65/max(Δ, μ), sec >= 10, α <= 1/8. Ψ = (1 + ημ/2) gap + (η/4) ‖∇L‖². L only enters
    the start of the bound, through ‖∇L‖² <= 2 L gap; without it `start` is infinite.

    Args:
        known: ζ² and α of the oracle.
        delta: Similarity constant Δ.
        mu: μ of strong convexity.
        longer: Whether the longer step is taken.
        lipschitz: L of smoothness.
    """
    require(mu > 0 and delta >= 0, "The constants", "satisfy mu > 0 and delta >= 0", (mu, delta))
    eta = pigs_eta(delta, mu, longer)
    half = eta * mu / 2
    start = inf if lipschitz is None else 1 + eta * lipschitz / (2 * (1 + half))
    limit = 1 / 8 if longer else 4 / 27
    return Guarantee(
        theorem="Theorem C, longer step" if longer else "Theorem C",
        steps={"lr": eta, "sec": 10.0 if longer else 1.0},
        alpha_limit=limit,
        holds=known.alpha <= limit,
        contraction=1 / (1 + half),
        additive=1.5 * eta * known.zeta_squared,
        weight=1 / (1 + half),
        start=start,
        floor=3 * known.zeta_squared / mu,
        rounds=1 + 1 / half,
    )


def pigs_eta(delta: float, mu: float, longer: bool = False) -> float:
    """1/(4 max(Δ, μ)), or 0.65/max(Δ, μ).

    Args:
        delta: Similarity constant Δ.
        mu: μ of strong convexity.
        longer: Whether the longer step is taken.
    """
    return (0.65 if longer else 0.25) / max(delta, mu)


def pigs_nonconvex(
    known: InexactOracle, delta: float, gap: float, rounds: int, grad_norm: float = 0.0
) -> float:
    """Without convexity of L but q convex, η = 1/(8Δ), 3α < 1: a bound on the mean of ‖∇L‖² over rounds 1..T.

    `grad_norm` is ‖∇L(x_0)‖.

    Args:
        known: ζ² and α of the oracle.
        delta: Similarity constant Δ.
        gap: f(x^0) - f*.
        rounds: Number of rounds T.
        grad_norm: ‖∇f(x^0)‖.
    """
    free = 1 - 3 * known.alpha
    if free <= 0:
        return inf
    first = (16 * delta * gap + 3 * known.alpha * grad_norm**2) / rounds
    return (first + 3 * known.zeta_squared) / free


def aeg_prox(known: InexactOracle, lipschitz: float, delta: float, mu: float) -> Guarantee:
    """Theorem D: accelerated PIGS with Δ' of `delta_prime`, θ = 1/(4Δ').

    s' = √(μ/Δ'), τ = 0.15 s', η = 0.3 s'/μ, b = 0.3 s'; Ψ as in B with that η.

    Args:
        known: ζ² and α of the oracle.
        lipschitz: L of smoothness.
        delta: Similarity constant Δ.
        mu: μ of strong convexity.
    """
    _check(max(lipschitz, mu), mu)
    larger = delta_prime(delta, mu, known.alpha, lipschitz)
    s = sqrt(mu / larger)
    tau, eta = 0.15 * s, 0.3 * s / mu
    steps = {"delta_prime": larger, "lr": 1 / (4 * larger), "mu": mu, "tau": tau, "eta": eta, "b": mu * eta}
    limit = min(1 / 100, s / 6)
    return _accelerated("Theorem D", steps, limit, known, mu, tau, None, 3.1 * s, 13.4 / s, 2)


def delta_prime(delta: float, mu: float, alpha: float = 0.0, lipschitz: float = 0.0) -> float:
    """Δ' = max(Δ, μ, 1.55 √α L): the relative error at the extrapolated point scales with L, not with Δ.

    Args:
        delta: Similarity constant Δ.
        mu: μ of strong convexity.
        alpha: Relative error α.
        lipschitz: L of smoothness.
    """
    return max(delta, mu, 1.55 * sqrt(alpha) * lipschitz)


def true_delta_limit(delta: float, lipschitz: float) -> float:
    """The largest α for which `aeg_prox` may step by Δ itself: (5/12)(Δ/L)².

    Args:
        delta: Similarity constant Δ.
        lipschitz: L of smoothness.
    """
    return 5 / 12 * (delta / lipschitz) ** 2


def complexity(
    known: InexactOracle, lipschitz: float, mu: float, delta: float | None = None
) -> dict[str, Guarantee]:
    """Every method's theorem side by side: rounds (times log 1/ε), condition and proved floor.

    Args:
        known: ζ² and α of the oracle.
        lipschitz: L of smoothness.
        mu: μ of strong convexity.
        delta: Similarity constant Δ.
    """
    table = {
        "robust_gd": gd(known, lipschitz, mu),
        "nag": nag(known, lipschitz, mu),
        "nag, small tau": nag(known, lipschitz, mu, small_tau=True),
        "accelerated_extragradient": aeg(known, lipschitz, mu),
    }
    if delta is not None:
        table |= {
            "pigs": pigs(known, delta, mu, lipschitz=lipschitz),
            "pigs, longer step": pigs(known, delta, mu, longer=True, lipschitz=lipschitz),
            "aeg_prox": aeg_prox(known, lipschitz, delta, mu),
        }
    return table


def _accelerated(
    theorem: str,
    steps: dict[str, float],
    limit: float,
    known: InexactOracle,
    mu: float,
    tau: float,
    additive: float | None,
    slack: float,
    rounds: float,
    each: int = 1,
) -> Guarantee:
    """What B, B2 and D share: η = 2τ/μ, contraction 1 - τ, weight τ/2, and ‖z_0 - x*‖² <= 2 gap_0/μ."""
    floor = known.zeta_squared / mu * (1 + slack)
    holds = known.alpha <= limit
    additive = 2 * floor if additive is None else additive
    return Guarantee(theorem, steps, limit, holds, 1 - tau, additive, tau / 2, 1.5, floor, rounds, each)


def _check(lipschitz: float, mu: float) -> float:
    """s = √(μ/L), after looking at both."""
    require(0 < mu <= lipschitz < inf, "The constants", "satisfy 0 < mu <= lipschitz", (mu, lipschitz))
    return sqrt(mu / lipschitz)
