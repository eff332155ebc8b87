"""From a problem's constants to the theorems of `theory.inexact`, for the methods that share them."""

from __future__ import annotations

from collections.abc import Callable

from byzopt.theory import inexact
from byzopt.theory.inexact import Guarantee, InexactOracle
from byzopt.theory.promise import Constants, Promise

SOURCE = "derived; setting of arXiv:2602.03329"


def oracle_of(known: Constants) -> InexactOracle | None:
    """(ζ², α) of the robust gradient; None where κ or the heterogeneity is unknown. ζ stands in for G."""
    g, b = (known.g, known.b or 0.0) if known.g is not None else (known.zeta, 0.0)
    if known.f == 0 and known.kappa_squared is None:
        return inexact.oracle(0.0, 0.0, 0.0, known.sigma or 0.0, known.n)
    if known.kappa_squared is None or g is None:
        return None
    return inexact.oracle(known.kappa_squared, g, b, known.sigma or 0.0, known.n - known.f)


def unknown(known: Constants, *names: str) -> tuple[str, ...]:
    """What a theorem needs of the problem and does not find."""
    lacks = [f"{name} is not known" for name in names if getattr(known, name) is None]
    lacks += [f"{name} is 0" for name in names if name == "mu" and known.mu == 0]
    if oracle_of(known) is None:
        lacks += ["κ₂ of the rule is not known"] if known.kappa_squared is None else ["G (or ζ) is not known"]
    return tuple(lacks)


def promise_of(
    known: Constants, theorem: str, needs: tuple[str, ...], make: Callable[[InexactOracle], Guarantee]
) -> Promise:
    """The theorem that `make` gives for the oracle, if the constants it needs are known and admit it."""
    oracle, missing = oracle_of(known), unknown(known, *needs)
    if missing or oracle is None:
        return Promise(f"{theorem} ({SOURCE})", "gap", missing=missing)
    found = make(oracle)
    remarks = [f"ζ² = {oracle.zeta_squared:.4g}, α = {oracle.alpha:.4g}"]
    remarks += [f"about {found.rounds:.4g} · log(1/ε) gradient rounds"]
    remarks += ["an iteration costs two rounds"] if found.rounds_each == 2 else []
    name = f"{found.theorem} ({SOURCE})"
    if not found.holds:
        reason = f"α = κ B² = {oracle.alpha:.4g} is above {found.alpha_limit:.4g}"
        return Promise(name, "gap", found.steps, missing=(reason,), remarks=tuple(remarks))
    bound = found.bound(known.gap, known.rounds) if known.gap is not None else None
    lacks = () if known.gap is not None else ("gap is not known",)
    bound = bound if bound is None or bound < float("inf") else None
    return Promise(name, "gap", found.steps, bound, found.floor, lacks, tuple(remarks))
