"""Steps of the compressed Byzantine-robust baselines, as in the released code of arXiv:2310.09804.

`cdelta` is c δ of (δ, c)-robustness, E‖Agg - x̄‖² <= c δ · (mean over pairs of honest i, l of E‖x_i - x_l‖²);
the release has c = 256/15. L, Lt, sample as in `byzopt.theory.byz_dm21`; J samples a worker, batch b.
"""

from __future__ import annotations

from math import sqrt

from byzopt.errors import require

RELEASED_C = 256 / 15


def pairwise(kappa: float, G: int) -> float:
    """c δ = κ₂ (G - 1)/(2 G): the pair average is 2 G/(G - 1) times the dispersion about the mean.

    Args:
        kappa: κ₂ of the rule.
        G: Number of honest workers.

    Examples:
        >>> from byzopt.theory.compressed import pairwise
        >>> pairwise(1.0, G=2)
        0.25
    """
    require(G >= 1, "The number of honest workers", "be at least 1", G)
    return kappa * (G - 1) / (2 * G)


def ef21_step(L: float, Lt: float, alpha: float, cdelta: float) -> float:
    """Byz-EF21: γ = 1/(L + (2/α)(1 + √(8 c δ)) Lt).

    Args:
        L: L of smoothness of the mean loss.
        Lt: Root mean square of the workers' L_i.
        alpha: Contraction constant α of the compressor.
        cdelta: c δ of a rule that is robust over pairs.

    Examples:
        >>> from byzopt.theory.compressed import ef21_step
        >>> ef21_step(L=1.0, Lt=1.0, alpha=1.0, cdelta=0.0)
        0.3333333333333333
    """
    return 1 / (L + 2 / alpha * (1 + sqrt(8 * cdelta)) * Lt)


def marina2_step(L: float, Lt: float, omega: float, cdelta: float, G: int) -> float:
    """Byz-VR-MARINA 2.0 with full differences and p = 1/(ω + 1): γ = 1/(L + ω Lt (1/√G + √(8 c δ))).

    Args:
        L: L of smoothness of the mean loss.
        Lt: Root mean square of the workers' L_i.
        omega: Variance constant ω of the compressor.
        cdelta: c δ of a rule that is robust over pairs.
        G: Number of honest workers.

    Examples:
        >>> from byzopt.theory.compressed import marina2_step
        >>> marina2_step(L=1.0, Lt=1.0, omega=0.0, cdelta=0.1, G=10)
        1.0
    """
    return 1 / (L + omega * Lt * (1 / sqrt(G) + sqrt(8 * cdelta)))


def marina_chance(J: float, b: float, d: int) -> float:
    """Byz-VR-MARINA: p = min(b/J, 1/d).

    Args:
        J: Samples of a worker.
        b: Samples of a minibatch.
        d: Number of parameters.

    Examples:
        >>> from byzopt.theory.compressed import marina_chance
        >>> marina_chance(J=100, b=10, d=20)
        0.05
    """
    return min(b / J, 1 / d)


def marina_step(
    L: float,
    Lt: float,
    sample: float,
    omega: float,
    cdelta: float,
    G: int,
    J: float,
    b: float,
    p: float,
) -> float:
    """Byz-VR-MARINA: γ = 1/(L + √R), M = max(ω, J/b),

    R = 12 M ((Lt² + ℓ²/b) ω + ℓ²/b)(1/G + 8 c δ/p) + 24 M · 4 c δ/p. The last term lacks an L² in the
    release: doubtful.

    Args:
        L: L of smoothness of the mean loss.
        Lt: Root mean square of the workers' L_i.
        sample: Mean-squared smoothness ℓ of a minibatch's loss.
        omega: Variance constant ω of the compressor.
        cdelta: c δ of a rule that is robust over pairs.
        G: Number of honest workers.
        J: Samples of a worker.
        b: Samples of a minibatch.
        p: Chance of a full round.
    """
    M, local = max(omega, J / b), sample**2 / b
    R = 12 * M * ((Lt**2 + local) * omega + local) * (1 / G + 8 * cdelta / p) + 24 * M * 4 * cdelta / p
    return 1 / (L + sqrt(R))


def dasha_step(
    L: float, Lt: float, sample: float, omega: float, cdelta: float, G: int, J: float, b: float
) -> float:
    """Byz-DASHA-PAGE with a = 1/(2 ω + 1), p = b/J: γ = 1/(L + √R),

    R = (12 ω (2 ω + 1)(Lt² + ℓ²/b) + 2 (J/b) ℓ²/b)(1/√G + √(8 c δ))².

    Args:
        L: L of smoothness of the mean loss.
        Lt: Root mean square of the workers' L_i.
        sample: Mean-squared smoothness ℓ of a minibatch's loss.
        omega: Variance constant ω of the compressor.
        cdelta: c δ of a rule that is robust over pairs.
        G: Number of honest workers.
        J: Samples of a worker.
        b: Samples of a minibatch.
    """
    local = sample**2 / b
    R = 12 * omega * (2 * omega + 1) * (Lt**2 + local) + 2 * J / b * local
    return 1 / (L + sqrt(R) * (1 / sqrt(G) + sqrt(8 * cdelta)))
