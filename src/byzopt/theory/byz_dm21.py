"""Theory of Byz-DM21 and its family: steps, noise, floors, stability (arXiv:2603.15144 and its line).

The theorems of arXiv:2603.15144 were not available to us. What is here for Byz-DM21 and Byz-EF21-SGDM is our
own derivation by one Lyapunov function; baselines' steps are those of released code, arXiv:2310.09804.

L smoothness of f, Lt root mean square of the L_i, sample the largest smoothness of one sample's loss; α, ω of
the compressor; κ₂ of the rule; G honest workers; η weights of the new.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, sqrt

from byzopt.errors import require
from byzopt.theory.premises import below
from byzopt.theory.promise import EDGE


@dataclass(frozen=True)
class DM21Setting:
    """What the bounds of both momentum methods depend on. Errors: a constant out of range.

    Args:
        L: L of smoothness of the mean loss.
        Lt: Root mean square of the workers' L_i.
        kappa: κ₂ of the rule.
        alpha: Contraction constant α of the compressor.
        eta_v: Weight of the new in the first average, in (0, 1].
        eta_u: Weight of the new in the second average, in (0, 1].
        G: Number of honest workers.
    """

    L: float
    Lt: float
    kappa: float
    alpha: float
    eta_v: float
    eta_u: float
    G: int

    def __post_init__(self) -> None:
        require(0 <= self.L < inf and 0 <= self.Lt < inf, "L and Lt", "be at least 0", (self.L, self.Lt))
        require(0 <= self.kappa < inf, "κ₂", "be finite and at least 0", self.kappa)
        for name in ("alpha", "eta_v", "eta_u"):
            value = getattr(self, name)
            require(0 < value <= 1, f"`{name}`", "lie in (0, 1]", value)
        require(self.G >= 1, "The number of honest workers", "be at least 1", self.G)


def step_of(L: float, S: float) -> float:
    """γ = 1/(L + √(2 S)); infinite where both vanish.

    Args:
        L: L of smoothness of the mean loss.
        S: S of the step's formula.

    Examples:
        >>> from byzopt.theory.byz_dm21 import step_of
        >>> step_of(L=1.0, S=2.0)
        0.3333333333333333
    """
    return inf if L == S == 0 else 1 / (L + sqrt(2 * S))


# Byz-DM21.


def curvature(s: DM21Setting) -> float:
    """S = Lt²(32 A/α² + 4 κ₂/η_v² + 16 κ₂/η_u²) + L²(3/η_v² + 12/η_u²) with A = 8 κ₂ + 6.

    Args:
        s: Constants of the problem and weights of the method.
    """
    A, v2, u2 = 8 * s.kappa + 6, s.eta_v**2, s.eta_u**2
    rows = 32 * A / s.alpha**2 + 4 * s.kappa / v2 + 16 * s.kappa / u2
    return s.Lt**2 * rows + s.L**2 * (3 / v2 + 12 / u2)


def step(s: DM21Setting) -> float:
    """The largest γ for which the bound holds: γ <= 1/(L + √(2 S)).

    Args:
        s: Constants of the problem and weights of the method.
    """
    return step_of(s.L, curvature(s))


def noise_gain(s: DM21Setting) -> float:
    """N: the bound holds 2 σ² N. It vanishes with η, also without large batches.

    Args:
        s: Constants of the problem and weights of the method.
    """
    A, a, k, v, u = 8 * s.kappa + 6, s.alpha, s.kappa, s.eta_v, s.eta_u
    wire = A * u**2 * v**2 / a + 4 * A * u * v**2 / a**2 + 16 * A * v**3 / a**2
    spread = 4 * k * (v**2 / u + v + 2 * v**3 / u**2)
    return wire + spread + (3 * v**2 / u + 3 * v + 6 * v**3 / u**2) / s.G


def floor(kappa: float, zeta: float) -> float:
    """8 κ₂ ζ²: what no step, weight or batch removes.

    Args:
        kappa: κ₂ of the rule.
        zeta: Heterogeneity ζ: the root of mean‖∇f_i - ∇f‖².

    Examples:
        >>> from byzopt.theory.byz_dm21 import floor
        >>> floor(kappa=0.5, zeta=2.0)
        16.0
    """
    return 8 * kappa * zeta**2


def potential(
    s: DM21Setting, gamma: float, gap: float, sigma: float, zeta: float, growth: float = 0.0
) -> float:
    """Ψ of round 0 for `init="first"`: v = u = s, g = C(u), and ‖∇f(x^0)‖² <= 2 L gap.

    `growth` B of mean‖∇f_i - ∇f‖² <= B‖∇f‖² + ζ².

    Args:
        s: Constants of the problem and weights of the method.
        gamma: Length γ of the steps.
        gap: f(x^0) - f*.
        sigma: Root mean square length σ of a message's noise.
        zeta: Heterogeneity ζ: the root of mean‖∇f_i - ∇f‖².
        growth: B of mean‖∇f_i - ∇f‖² <= B‖∇f‖² + ζ².
    """
    A, v, u = 8 * s.kappa + 6, s.eta_v, s.eta_u
    c = 4 * s.kappa / v + 8 * s.kappa * v / u**2 + 16 * A * v / s.alpha**2
    mean = 3 / v + 6 * v / u**2
    left = (1 - s.alpha) * ((1 + growth) * 2 * s.L * gap + zeta**2 + sigma**2)  # mean‖g_i - u_i‖²
    return gap + gamma * (A / s.alpha * left + c * sigma**2 + mean * sigma**2 / s.G)


def gradient_bound(
    s: DM21Setting, gamma: float, T: int, gap: float, sigma: float, zeta: float, growth: float = 0.0
) -> float:
    """E‖∇f(x̂)‖² <= 2 Ψ/(γ T) + 2 σ² N + 8 κ₂ ζ², x̂ uniform over the T points asked at.

    `growth` B of mean‖∇f_i - ∇f‖² <= B‖∇f‖² + ζ²: the bound is divided by 1 - 8 κ₂ B. Errors: a γ above
    `step`, and 8 κ₂ B >= 1.

    Args:
        s: Constants of the problem and weights of the method.
        gamma: Length γ of the steps.
        T: Number of rounds.
        gap: f(x^0) - f*.
        sigma: Root mean square length σ of a message's noise.
        zeta: Heterogeneity ζ: the root of mean‖∇f_i - ∇f‖².
        growth: B of mean‖∇f_i - ∇f‖² <= B‖∇f‖² + ζ².
    """
    share = 1 - 8 * s.kappa * growth
    require(share > 0, "8 κ₂ B", "be below 1", 8 * s.kappa * growth, "Use a rule with a smaller κ₂.")
    most = step(s)
    require(0 < gamma <= most * EDGE, "The step γ", f"lie in (0, {below(most)}]", gamma)
    opened = 2 * potential(s, gamma, gap, sigma, zeta, growth) / (gamma * T)
    return (opened + 2 * sigma**2 * noise_gain(s) + floor(s.kappa, zeta)) / share


def weight(s: DM21Setting, gap: float, sigma: float, T: int) -> float:
    """Equal weights η up to a constant: min{1, (L_κ gap/((κ₂ + 1/G) σ² T))^½, (L_κ gap α²/(A σ² T))^¼},

    L_κ = max(L, √κ₂ Lt); the weights in `s` have no say. Rounds to ε: O((κ₂ + 1/G) L_κ gap σ²/ε⁴).

    Args:
        s: Constants of the problem and weights of the method.
        gap: f(x^0) - f*.
        sigma: Root mean square length σ of a message's noise.
        T: Number of rounds.
    """
    if sigma == 0:
        return 1.0
    A, scale = 8 * s.kappa + 6, max(s.L, sqrt(s.kappa) * s.Lt) * gap / (sigma**2 * T)
    return min(1.0, sqrt(scale / (s.kappa + 1 / s.G)), sqrt(sqrt(scale * s.alpha**2 / A)))


def pl_step(s: DM21Setting, mu: float) -> float:
    """As `step`, with γ μ <= min(α/4, η/2) for a linear phase under PŁ; the constants are not worked out.

    Args:
        s: Constants of the problem and weights of the method.
        mu: μ of strong convexity.
    """
    limit = min(s.alpha / 4, s.eta_v / 2, s.eta_u / 2)
    return min(step(s), limit / mu) if mu > 0 else step(s)


# Byz-EF21-SGDM, by the same method; its weight is `eta_v`.


def single_curvature(s: DM21Setting) -> float:
    """S' = Lt²(8 A'/α² + 3 κ₂/η²) + 2 L²/η² with A' = 6 κ₂ + 4.

    Args:
        s: Constants of the problem and weights of the method.
    """
    A, eta2 = 6 * s.kappa + 4, s.eta_v**2
    return s.Lt**2 * (8 * A / s.alpha**2 + 3 * s.kappa / eta2) + 2 * s.L**2 / eta2


def single_step(s: DM21Setting) -> float:
    """γ' = 1/(L + √(2 S')).

    Args:
        s: Constants of the problem and weights of the method.
    """
    return step_of(s.L, single_curvature(s))


def single_noise_gain(s: DM21Setting) -> float:
    """N' = A' η²/α + 4 A' η³/α² + 3 κ₂ η + 2 η/G. The first term is what a second average removes.

    Args:
        s: Constants of the problem and weights of the method.
    """
    A, a, eta = 6 * s.kappa + 4, s.alpha, s.eta_v
    return A * eta**2 / a + 4 * A * eta**3 / a**2 + 3 * s.kappa * eta + 2 * eta / s.G


def single_floor(kappa: float, zeta: float) -> float:
    """6 κ₂ ζ².

    Args:
        kappa: κ₂ of the rule.
        zeta: Heterogeneity ζ: the root of mean‖∇f_i - ∇f‖².

    Examples:
        >>> from byzopt.theory.byz_dm21 import single_floor
        >>> single_floor(kappa=0.5, zeta=2.0)
        12.0
    """
    return 6 * kappa * zeta**2
