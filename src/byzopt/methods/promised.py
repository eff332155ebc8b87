"""From a problem's constants to the theorems of `theory.inexact`, for the methods that share them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from byzopt.theory import inexact
from byzopt.theory.inexact import Guarantee, InexactOracle
from byzopt.theory.premises import (
    below,
    checked_premise,
    constant_premise,
    heterogeneity,
    noise_premises,
    robust,
)
from byzopt.theory.promise import Constants, Premise, Promise, promise, strongest

SOURCE = "derived; setting of arXiv:2602.03329"


def over_pairs(
    known: Constants,
    theorem: str,
    measures: str,
    premises: Iterable[Premise],
    make: Callable[[InexactOracle], Promise],
) -> Promise:
    """A theorem on an inexact gradient, whose oracle (ζ², α) is that of the robust gradient.

    `make` gives the promise for one oracle; of all admissible (G, B) the pair counts with which it says most.
    """
    all_premises = [*robust(known, "squared"), heterogeneity(known), *noise_premises(known), *premises]

    def promise_for(g: float, b: float) -> Promise:
        kappa, sigma = known.kappa_squared or 0.0, known.sigma or 0.0
        oracle = inexact.oracle(kappa, g, b, sigma, known.honest)
        result = make(oracle)
        with_it = f"with G = {g:.4g}, B = {b:.4g}: ζ² = {oracle.zeta_squared:.4g}, α = {oracle.alpha:.4g}"
        return replace(result, remarks=(with_it, *result.remarks))

    return promise(
        f"{theorem} ({SOURCE})",
        measures,
        all_premises,
        lambda: strongest([promise_for(*pair) for pair in known.heterogeneity]),
    )


def guaranteed(
    known: Constants, oracle: InexactOracle, guarantee: Guarantee, recipe_premises: Iterable[Premise] = ()
) -> Promise:
    """What a guarantee says of this problem. `recipe_premises` are those on the recipe and its step."""
    limit = checked_premise(
        f"α = κ₂ B² is at most {below(guarantee.alpha_limit)}",
        oracle.alpha <= guarantee.alpha_limit if guarantee.alpha_limit < 1 else oracle.alpha < 1,
        f"{oracle.alpha:.6g}",
    )
    remarks = [f"about {guarantee.rounds:.4g} · log(1/ε) gradient rounds"] if guarantee.holds else []
    remarks += ["an iteration costs two rounds"] if guarantee.rounds_each == 2 else []
    premises, bound = [limit, *recipe_premises], None
    lacks: tuple[str, ...] = ()
    if known.gap is None:
        lacks = ("gap is not known",)
    else:
        premises.append(constant_premise(known, "gap"))
        bound = guarantee.bound(known.gap, known.rounds)
    return Promise(
        f"{guarantee.theorem} ({SOURCE})",
        "gap",
        tuple(premises),
        guarantee.steps if limit.stands else {},
        bound,
        guarantee.floor,
        known.gap,
        lacks,
        tuple(remarks),
    )
