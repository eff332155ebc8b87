"""Formulas of `byzopt.theory` filled in for the recipes of compressed methods."""

from __future__ import annotations

from collections.abc import Callable

from byzopt.theory import averaging, byz_dm21, compressed
from byzopt.theory.byz_dm21 import Setting
from byzopt.theory.promise import Constants, Promise
from byzopt.wire import Compressor

WHAT = "mean ‖∇f‖²"


def absent(known: Constants, *names: str) -> tuple[str, ...]:
    """Which of these constants are not known, as reasons."""
    lacks = [f"`{name}` is unknown" for name in names if getattr(known, name) is None]
    lacks += ["L is 0: no step is too long"] if "lipschitz" in names and known.lipschitz == 0 else []
    return tuple(lacks)


def uncontracted(compressor: Compressor, known: Constants) -> tuple[str, ...]:
    """The reason, where a compressor has no α in this dimension."""
    return () if compressor.alpha(known.d) else ("the compressor does not contract in this dimension",)


def biased(compressor: Compressor, known: Constants) -> tuple[str, ...]:
    """The reason, where a compressor has no ω."""
    return () if compressor.omega(known.d) is not None else ("the compressor is biased",)


def double_promise(weights: tuple[float, float], compressor: Compressor, known: Constants) -> Promise:
    """Byz-DM21."""
    names = ("lipschitz", "local", "kappa_squared", "sigma", "zeta")
    theorem = "Byz-DM21, own Lyapunov derivation (the theorems of arXiv:2603.15144 were not available)"
    if missing := absent(known, *names) + uncontracted(compressor, known):
        return Promise(theorem, WHAT, missing=missing)
    s, sigma, zeta = _setting(weights, compressor, known)
    limit = averaging.limit(*weights)
    remarks = (f"stable on a quadratic without compression for γ L < {limit:.4g} only",)
    gamma = byz_dm21.step(s)
    floor = byz_dm21.floor(s.kappa, zeta)
    steps = {"lr": gamma, "eta_v": weights[0], "eta_u": weights[1]}
    if missing := absent(known, "gap"):
        return Promise(theorem, WHAT, steps, None, floor, missing, remarks)
    gap, growth = known.gap or 0.0, (known.b or 0.0) ** 2
    if 8 * s.kappa * growth >= 1:
        return Promise(theorem, WHAT, steps, missing=("8 κ₂ B² >= 1: heterogeneity grows too fast",))
    bound = byz_dm21.bound(s, gamma, known.rounds, gap, sigma, zeta, growth)
    floor /= 1 - 8 * s.kappa * growth
    best = byz_dm21.weight(s, gap, sigma, known.rounds)
    return Promise(theorem, WHAT, steps | {"eta_suggested": best}, bound, floor, (), remarks)


def single_promise(eta: float, compressor: Compressor, known: Constants) -> Promise:
    """Byz-EF21-SGDM."""
    theorem = "Byz-EF21-SGDM, own derivation by the method of Byz-DM21"
    names = ("lipschitz", "local", "kappa_squared", "sigma", "zeta")
    if missing := absent(known, *names) + uncontracted(compressor, known):
        return Promise(theorem, WHAT, missing=missing)
    s, _, zeta = _setting((eta, eta), compressor, known)
    steps = {"lr": byz_dm21.single_step(s), "eta": eta}
    floor = byz_dm21.single_floor(s.kappa, zeta)
    return Promise(theorem, WHAT, steps, None, floor, ("the start's potential is not worked out",))


def reduced_promise(weights: tuple[float, float]) -> Promise:
    """Byz-VR-DM21: the rate is the paper's claim, not re-derived."""
    limit = averaging.limit(weights[1])
    return Promise(
        "Byz-VR-DM21, arXiv:2603.15144 (abstract: O(ε⁻³) rounds)",
        WHAT,
        missing=("the paper's conditions were not available, and equal weights gave us O(ε⁻⁴) only",),
        remarks=(f"with exact differences stable on a quadratic for γ L < {limit:.4g}", "try η_u = √η_v"),
    )


def step_promise(
    what: str,
    known: Constants,
    names: tuple[str, ...],
    step: Callable[[float, int], float],
    more: dict[str, float] | None = None,
    remarks: tuple[str, ...] = (),
    reasons: tuple[str, ...] = (),
) -> Promise:
    """A baseline's step from (c δ, G) where κ₂ and the constants `names` are known; `more` parameters."""
    theorem = f"{what}, released code of arXiv:2310.09804"
    if missing := absent(known, "kappa_squared", *names) + reasons:
        return Promise(theorem, WHAT, missing=missing)
    G = known.n - known.f
    gamma = step(compressed.pairwise(known.kappa_squared or 0.0, G), G)
    remarks = ("there the step that was run is 2^i times this one, tuned", *remarks)
    steps = {"lr": gamma} | (more or {})
    return Promise(theorem, WHAT, steps, missing=("no bound is worked out",), remarks=remarks)


def _setting(
    weights: tuple[float, float], compressor: Compressor, known: Constants
) -> tuple[Setting, float, float]:
    alpha = compressor.alpha(known.d) or 0.0
    L, Lt, kappa = known.lipschitz or 0.0, known.local or 0.0, known.kappa_squared or 0.0
    s = Setting(L, Lt, kappa, alpha, *weights, known.n - known.f)
    return s, known.sigma or 0.0, known.zeta or 0.0
