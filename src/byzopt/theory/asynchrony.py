"""Asynchrony: how long a step may be where gradients are late, and who fills a buffer.

On f = L x²/2 the recursion x⁺ = x - γ L x^{-τ}, in which every gradient is τ steps old, has the
characteristic polynomial z^{τ+1} - z^τ + γ L. Its roots lie inside the unit circle exactly where

    γ L < 2 sin(π / (2 (2 τ + 1))),

which is 2, 1, 0.618034, 0.284630, 0.149460 for τ = 0, 1, 2, 5, 10: at the edge the root e^{iω} has
ω = π/(2 τ + 1). On quadratics with one Hessian the largest eigenvalue decides. Delays that vary are another
matter: nothing is promised of them here.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import pi, sin

from byzopt.errors import require
from byzopt.theory.premises import below, checked_premise
from byzopt.theory.promise import Premise, Promise, promise

THEOREM = "stability of descent at a constant delay (derived)"
MEASURES = "whether the distance to the optimum shrinks"


def longest_step(lipschitz: float, delay: int) -> float:
    """γ below which descent on quadratics contracts where every gradient is `delay` steps old.

    Args:
        lipschitz: L, the largest eigenvalue of the Hessian, > 0.
        delay: τ >= 0.

    Raises:
        InvalidInput: An L that is not positive, and a negative delay.
    """
    require(lipschitz > 0, "L of a quadratic", "be positive", lipschitz)
    require(delay >= 0, "A delay", "be at least 0", delay)
    return 2 * sin(pi / (2 * (2 * delay + 1))) / lipschitz


def share_of_rows(times: Sequence[float], others: Sequence[float]) -> float:
    """Share of all rows that come from workers who take `times`, beside `others` with theirs.

    Where a worker may have several rows in a buffer of K, that is the share of K that they fill on average.

    Args:
        times: Mean times of the workers in question, > 0; infinite: they send nothing.
        others: Mean times of the others.
    """
    rates, rest = sum(1 / time for time in times), sum(1 / time for time in others)
    return rates / (rates + rest)


def repeats_of_throttle(q: float, bound: float, liars: int) -> float:
    """How far repeated rows of f liars move a round of THROTTLE at most, in units of γ: f G/(q - 1).

    Args:
        q: Factor by which each further row of a worker in a round counts less, > 1.
        bound: G, to which such a row is cut.
        liars: f.

    Raises:
        InvalidInput: A q of at most 1.
    """
    require(q > 1, "q of THROTTLE", "be above 1", q)
    return liars * bound / (q - 1)


def delay_promise(premises: Sequence[Premise], lipschitz: float | None, delay: int, lr: float) -> Promise:
    """What is known of a run whose every gradient is `delay` steps old: the longest step.

    Args:
        premises: What else has to hold, with verdicts.
        lipschitz: L; None: not known.
        delay: τ.
        lr: γ of the run.
    """

    def formula() -> Promise:
        assert lipschitz is not None  # a premise
        most = longest_step(lipschitz, delay)
        rule = f"γ is below 2 sin(π/(2 (2 τ + 1)))/L = {below(most)}"
        held = checked_premise(rule, lr < most, f"γ = {lr:g}, τ = {delay}, L = {lipschitz:g}")
        return Promise("", "", (held,), {"lr": most}, lacks=("the rate at which it shrinks is not given",))

    return promise(THEOREM, MEASURES, premises, formula)
