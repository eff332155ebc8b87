"""Formulas of `byzopt.theory` filled in for the recipes of compressed methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf

from byzopt.schedules import Constant, Schedule
from byzopt.theory import averaging, byz_dm21, compressed
from byzopt.theory.byz_dm21 import DM21Setting
from byzopt.theory.premises import (
    at_most,
    checked_premise,
    constant_premise,
    constant_premises,
    heterogeneity,
    noise_premises,
    robust,
)
from byzopt.theory.promise import Constants, Premise, Promise, Standing, promise, strongest
from byzopt.wire import Compressor

WHAT = "mean ‖∇f‖²"


def contracts(compressor: Compressor, known: Constants) -> Premise:
    """Whether a compressor has an α in this dimension."""
    alpha = compressor.alpha(known.d)
    return checked_premise(
        "the compressor contracts, 0 < α <= 1",
        alpha is not None and 0 < alpha <= 1,
        f"α = {alpha} with d = {known.d}",
    )


def unbiased(compressor: Compressor, known: Constants) -> Premise:
    """Whether a compressor has an ω."""
    omega = compressor.omega(known.d)
    return checked_premise("the compressor is unbiased", omega is not None, f"ω = {omega} with d = {known.d}")


def steady(schedule: Schedule) -> Premise:
    """That the step is constant."""
    return checked_premise(
        "the step is constant", isinstance(schedule, Constant), f"schedule {schedule.name}"
    )


def double_promise(
    weights: tuple[float, float], compressor: Compressor, known: Constants, recipe_premises: Iterable[Premise]
) -> Promise:
    """The promise of Byz-DM21. `recipe_premises` are those on the recipe."""
    theorem = "Byz-DM21, own Lyapunov derivation (the theorems of arXiv:2603.15144 were not available)"
    all_premises = [*recipe_premises, contracts(compressor, known), *_common(known)]

    def promise_for(g: float, b: float) -> Promise:
        s, sigma = _setting(weights, compressor, known), known.sigma or 0.0
        most, growth, gap = byz_dm21.step(s), b**2, known.gap
        edge = at_most("the step is at most 1/(L + √(2S))", known.lr, most)
        share = 8 * s.kappa * growth
        grows = checked_premise("8 κ₂ B² < 1", share < 1, f"{share:.6g} with B = {b:.4g}")
        steps = {"lr": most, "eta_v": weights[0], "eta_u": weights[1]}
        limit = averaging.stability_limit(*weights)
        remarks = [f"with ζ = {g:.4g}, B = {b:.4g}"]
        remarks += [f"stable on a quadratic without compression for γ L < {limit:.4g} only"]
        if not grows.stands or not edge.stands:
            return Promise("", "", (edge, grows), steps if grows.stands else {}, remarks=tuple(remarks))
        floor = (2 * sigma**2 * byz_dm21.noise_gain(s) + byz_dm21.floor(s.kappa, g)) / (1 - share)
        if gap is None:
            lacks = ("gap is not known",)
            return Promise("", "", (edge, grows), steps, None, floor, _trivial(known), lacks, tuple(remarks))
        steps |= {"eta_suggested": byz_dm21.weight(s, gap, sigma, known.rounds)}
        bound = byz_dm21.gradient_bound(s, known.lr or most, known.rounds, gap, sigma, g, growth)
        premises = (edge, grows, constant_premise(known, "gap"))
        return Promise("", "", premises, steps, bound, floor, _trivial(known), (), tuple(remarks))

    return promise(
        theorem, WHAT, all_premises, lambda: strongest([promise_for(*pair) for pair in known.heterogeneity])
    )


def single_promise(
    eta: float, compressor: Compressor, known: Constants, recipe_premises: Iterable[Premise]
) -> Promise:
    """The promise of Byz-EF21-SGDM."""
    theorem = "Byz-EF21-SGDM, own derivation by the method of Byz-DM21"
    premises = [*recipe_premises, contracts(compressor, known), *_common(known)]

    def promise_for(g: float, b: float) -> Promise:
        s = _setting((eta, eta), compressor, known)
        most, share = byz_dm21.single_step(s), 6 * s.kappa * b**2
        edge = at_most("the step is at most 1/(L + √(2S'))", known.lr, most)
        grows = checked_premise("6 κ₂ B² < 1", share < 1, f"{share:.6g} with B = {b:.4g}")
        free = 1 - share
        stays = 2 * (known.sigma or 0.0) ** 2 * byz_dm21.single_noise_gain(s) + byz_dm21.single_floor(
            s.kappa, g
        )
        return Promise(
            "",
            "",
            (edge, grows),
            {"lr": most, "eta": eta} if grows.stands else {},
            None,
            stays / free if free > 0 else inf,
            _trivial(known),
            ("the start's potential is not worked out",),
            (f"with ζ = {g:.4g}, B = {b:.4g}",),
        )

    return promise(
        theorem, WHAT, premises, lambda: strongest([promise_for(*pair) for pair in known.heterogeneity])
    )


def reduced_promise(weights: tuple[float, float]) -> Promise:
    """Byz-VR-DM21: the rate is the paper's claim, not re-derived."""
    limit = averaging.stability_limit(weights[1])
    what = "the conditions of the paper's theorem"
    how = "they were not available to us, and equal weights gave us O(ε⁻⁴) only"
    return Promise(
        "Byz-VR-DM21, arXiv:2603.15144 (abstract: O(ε⁻³) rounds)",
        WHAT,
        (Premise(what, Standing.UNKNOWN, how),),
        remarks=(f"with exact differences stable on a quadratic for γ L < {limit:.4g}", "try η_u = √η_v"),
    )


def step_promise(
    what: str,
    known: Constants,
    names: tuple[str, ...],
    step: Callable[[float, int], float],
    more: dict[str, float] | None = None,
    remarks: tuple[str, ...] = (),
    recipe_premises: Iterable[Premise] = (),
) -> Promise:
    """A baseline's step from (c δ, G) where κ₂ and the constants `names` are known; `more` parameters."""
    theorem = f"{what}, released code of arXiv:2310.09804"
    premises = [
        *recipe_premises,
        *robust(known, "squared"),
        *constant_premises(known, *names),
        *_curved(known),
    ]

    def largest_step() -> Promise:
        gamma = step(compressed.pairwise(known.kappa_squared or 0.0, known.honest), known.honest)
        all_remarks = ("there the step that was run is 2^i times this one, tuned", *remarks)
        return Promise(
            "", "", (), {"lr": gamma} | (more or {}), lacks=("no bound is worked out",), remarks=all_remarks
        )

    return promise(theorem, WHAT, premises, largest_step)


def _common(known: Constants) -> list[Premise]:
    names = [*constant_premises(known, "lipschitz", "local"), *_curved(known)]
    return [*robust(known, "squared"), *names, heterogeneity(known), *noise_premises(known)]


def _curved(known: Constants) -> list[Premise]:
    what = "L is positive: else no step is too long"
    return [checked_premise(what, False, "L = 0")] if known.lipschitz == 0 else []


def _trivial(known: Constants) -> float | None:
    """‖∇f(x^0)‖², or 2 L (f(x^0) - f*), which is no less."""
    if known.start_gradient is not None:
        return known.start_gradient**2
    gap, lipschitz = known.gap, known.lipschitz
    return 2 * lipschitz * gap if gap is not None and lipschitz is not None else None


def _setting(weights: tuple[float, float], compressor: Compressor, known: Constants) -> DM21Setting:
    alpha = compressor.alpha(known.d) or 0.0
    L, Lt, kappa = known.lipschitz or 0.0, known.local or 0.0, known.kappa_squared or 0.0
    return DM21Setting(L, Lt, kappa, alpha, *weights, known.honest)
