"""Gossip with liars: how fast honest nodes come together, how far their mean may drift, and where all ends.

A robust summand F of N differences z_j, b of which liars chose, satisfies for every set S of at least N - b
of them

    ‖F(z) - Σ_S z_j‖² <= ρ b Σ_S ‖z_j‖².

With x_i <- x_i + α F(y_ij - x_i) on a graph whose honest part has Laplacian eigenvalues
0 < μ₂ <= ... <= μ_max, all edges of weight 1, and α <= 1/μ_max, the honest nodes with mean x̄ before the step
have after it

    Σ ‖x_i⁺ - x̄‖² <= (1 - α (μ₂ - 2 ρ b)) Σ ‖x_i - x̄‖²,    ‖x̄⁺ - x̄‖² <= 2 ρ α b · mean ‖x_i - x̄‖²

(derived here; docs/graphs.md has the argument. The breakdown at b = μ₂/2, which no rule survives in general,
is of arXiv:2410.10418).
"""

from __future__ import annotations

from math import ceil, inf

from byzopt.theory.premises import below, checked_premise
from byzopt.theory.promise import EDGE, Promise, promise

THEOREM = "contraction of robust gossip (derived; setting of arXiv:2410.10418)"
MEASURES = "disagreement over that at the start, where nodes only average"


def contraction(alpha: float, mu2: float, rho: float, b: float) -> float:
    """Factor of Σ‖x_i - x̄‖² in a step: 1 - α (μ₂ - 2 ρ b). Above 1 nothing is promised.

    Args:
        alpha: α, at most 1/μ_max.
        mu2: μ₂ of the honest nodes' Laplacian.
        rho: ρ of the robust summand.
        b: Byzantine neighbours of a node.
    """
    return 1 - alpha * (mu2 - 2 * rho * b)


def drift(alpha: float, rho: float, b: float) -> float:
    """Factor of mean‖x_i - x̄‖² that bounds the squared move of the honest mean in a step: 2 ρ α b.

    Args:
        alpha: α, at most 1/μ_max.
        rho: ρ of the robust summand.
        b: Byzantine neighbours of a node.
    """
    return 2 * rho * alpha * b


def tolerated(mu2: float, rho: float) -> int:
    """The largest b with μ₂ > 2 ρ b: so many Byzantine neighbours of every node leave a contraction.

    Args:
        mu2: μ₂ of the honest nodes' Laplacian.
        rho: ρ of the robust summand.
    """
    return max(0, ceil(mu2 / (2 * rho) * (1 - 1e-12)) - 1)


def breakdown(mu2: float) -> float:
    """μ₂/2: from so many Byzantine neighbours on there are graphs on which no rule works.

    Args:
        mu2: μ₂ of the honest nodes' Laplacian.
    """
    return mu2 / 2


def clipped_limit(delta_max: float, gap: float) -> float:
    """δ_max/gap² of ClippedGossip, which its theorem wants to be below a constant (arXiv:2202.01545).

    Args:
        delta_max: δ_max, the largest weight of Byzantine neighbours at an honest node.
        gap: Spectral gap of the honest matrix, Byzantine weight moved to its diagonal.
    """
    return delta_max / gap**2 if gap > 0 else inf


def gossip_promise(
    rho: float | None,
    b: int,
    alpha: float,
    mu2: float,
    largest: float,
    liars: int,
    unit: bool,
    rounds: int,
) -> Promise:
    """What the theorem says of `rounds` rounds: the factor, round by round, that disagreement keeps at most.

    Args:
        rho: ρ of the mixer's summand; None: none is known.
        b: How many Byzantine neighbours each node tolerates.
        alpha: α of the mixer.
        mu2: μ₂ of the honest nodes' Laplacian.
        largest: μ_max of it.
        liars: How many Byzantine neighbours an honest node truly has at most.
        unit: Whether all edges weigh 1.
        rounds: After which the bound holds.
    """
    known = rho is not None
    premises = [
        checked_premise(
            "the mixer is a robust summand with a known ρ", known, f"ρ = {rho}" if known else "none"
        ),
        checked_premise("every edge weighs 1", unit, "unit weights" if unit else "Metropolis weights"),
        checked_premise(f"no honest node has more than b = {b} Byzantine neighbours", liars <= b, str(liars)),
        checked_premise(
            f"α is at most 1/μ_max = {below(1 / largest)}", alpha * largest <= EDGE, f"{alpha:.6g}"
        ),
    ]
    if rho is not None:
        room = checked_premise(f"μ₂ is above 2 ρ b = {2 * rho * b:.6g}", mu2 > 2 * rho * b, f"{mu2:.6g}")
        premises.append(room)

    def formula() -> Promise:
        assert rho is not None  # a premise
        factor = max(0.0, contraction(alpha, mu2, rho, b))
        words = f"each round leaves at most {factor:.6g} of it; the mean moves by at most "
        words += f"{drift(alpha, rho, b):.4g} of the variance (squared)"
        return Promise("", "", (), {"α": 1 / largest}, factor**rounds, None, 1.0, (), (words,))

    return promise(THEOREM, MEASURES, premises, formula)
