"""Premises that theorems share, checked against the constants of a problem."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from byzopt.errors import counted
from byzopt.theory.promise import EDGE, Constants, Premise, Standing

NAMES = {
    "lipschitz": "f is L-smooth",
    "local": "the honest f_i are L_i-smooth, with root mean square",
    "sample": "minibatch losses are smooth in the mean square",
    "passes": "the number of minibatches in a full pass is known",
    "mu": "f is μ-strongly convex (or μ-PŁ)",
    "sigma": "honest noise has root mean square at most σ",
    "delta": "∇(f - q) is Δ-Lipschitz, q the server's loss",
    "diameter": "x* lies within D of x^0",
    "gradient": "‖∇f‖ <= M on the ball",
    "start_gradient": "‖∇f(x^0)‖ is known",
    "start_rows": "mean‖∇f_i(x^0)‖ is known",
    "gap": "f(x^0) - f* is known",
    "star_gap": "mean of f* - f_i* is known",
}
SYMBOLS = {"lipschitz": "L", "local": "L~", "sample": "ℓ", "mu": "μ", "sigma": "σ", "delta": "Δ"}
SYMBOLS |= {"diameter": "D", "gradient": "M"}


def checked_premise(what: str, good: bool, value: object) -> Premise:
    """A condition on the recipe or the run that can be checked for certain.

    Args:
        what: What is asked.
        good: Whether it is so.
        value: What was found.
    """
    return Premise(what, Standing.HOLDS if good else Standing.FAILS, f"found {value}")


def covers(cases: Mapping[str, tuple[bool, object]]) -> list[Premise]:
    """Conditions by name: whether each holds, and the value found.

    Args:
        cases: By name, whether it is so and what the recipe has.
    """
    return [checked_premise(what, good, value) for what, (good, value) in cases.items()]


def constant_premise(known: Constants, name: str) -> Premise:
    """A constant of the problem: stated by the task, estimated, or unknown.

    Args:
        known: What is known of the problem.
        name: Of the constant.
    """
    value, what, symbol = getattr(known, name), NAMES[name], SYMBOLS.get(name, "value")
    if value is None and name in known.exact:
        return Premise(what, Standing.FAILS, "the task states that there is none")
    if value is None:
        return Premise(what, Standing.UNKNOWN, f"{name} is not known")
    if name in known.exact:
        return Premise(what, Standing.HOLDS, f"{symbol} = {value:.6g}, certain on this task")
    return Premise(what, Standing.ESTIMATED, f"{symbol} = {value:.6g}, seen at a few points")


def constant_premises(known: Constants, *names: str) -> list[Premise]:
    """The premises that these constants are known.

    Args:
        known: What is known of the problem.
        names: Of the constants.
    """
    return [constant_premise(known, name) for name in names]


def convexity(known: Constants) -> Premise:
    """μ > 0, which some theorems divide by.

    Args:
        known: What is known of the problem.
    """
    if known.mu == 0:
        return Premise(NAMES["mu"], Standing.FAILS, "mu is 0")
    return constant_premise(known, "mu")


def convex(known: Constants) -> Premise:
    """Convexity alone.

    Args:
        known: What is known of the problem.
    """
    what = "f is convex"
    if known.convex is None:
        if known.mu and "mu" in known.exact:
            return Premise(what, Standing.HOLDS, "it is strongly convex")
        return Premise(what, Standing.UNKNOWN, "the task does not say so")
    return checked_premise(
        what, known.convex, "a convex task" if known.convex else "a task that is not convex"
    )


def fault_premises(known: Constants) -> list[Premise]:
    """An honest majority, and no more liars than are tolerated.

    Args:
        known: What is known of the problem.
    """
    majority = "honest workers are the majority, 2 f < n"
    premises = [checked_premise(majority, 2 * known.f < known.n, f"f = {known.f} with n = {known.n}")]
    what = "no more workers lie than the server tolerates"
    if known.attackers is None:
        return [*premises, Premise(what, Standing.UNKNOWN, "the number of liars is not known")]
    return [
        *premises,
        checked_premise(
            what, known.attackers <= known.f, f"{counted(known.attackers, 'liar')} with f = {known.f}"
        ),
    ]


def robust(known: Constants, form: str) -> list[Premise]:
    """The rule's coefficient in the form that a theorem takes ("linear" or "squared"), for this many liars.

    A proved one is for as many liars as the rule tolerates. One that was certified or measured in the rounds
    of a run holds there, whoever lied.

    Args:
        known: What is known of the problem.
        form: Which coefficient: linear or squared.
    """
    kappa = getattr(known, f"kappa_{form}")
    symbol = "κ" if form == "linear" else "κ₂"
    what = f"the rule has a coefficient {symbol} ({form} form)"
    if known.origin != "proved":
        if kappa is None:
            none = "an error without any spread of the honest rows makes it infinite"
            uncertified = "not every answer of this run could be certified"
            reason = uncertified if known.origin in ("certified", "recorded") else none
            return [Premise(what, Standing.FAILS, reason)]
        # With noise a theorem speaks of the mean over runs, and this is one of them.
        sure = known.origin in ("certified", "measured") and known.sigma == 0
        where = {
            "borrowed": "measured in a run of another method",
            "recorded": "certified in the rounds of this run that were recorded",
        }
        reason = where.get(known.origin, f"{known.origin} in every round of this run")
        how = f"{symbol} = {kappa:.6g}, {reason}"
        return [Premise(what, Standing.HOLDS if sure else Standing.ESTIMATED, how)]
    tolerates = "the rule tolerates f liars"
    if known.tolerated is None:
        tolerated = Premise(tolerates, Standing.UNKNOWN, "the rule's tolerance is not known")
    else:
        reason = f"a rule that tolerates {known.tolerated} with f = {known.f}"
        tolerated = checked_premise(tolerates, known.tolerated >= known.f, reason)
    if kappa is None:
        coefficient = Premise(what, Standing.UNKNOWN, known.unproved or "none is known")
    else:
        coefficient = Premise(what, Standing.HOLDS, f"{symbol} = {kappa:.6g}, proved")
    trusted = []
    if known.trusts:
        trust = f"it trusts {list(known.trusts)}, of whom {list(known.betrayed) or 'none'} lie"
        trusted = [checked_premise("the workers that the rule trusts are honest", not known.betrayed, trust)]
    return [*fault_premises(known), tolerated, *trusted, coefficient]


def heterogeneity(known: Constants) -> Premise:
    """That a pair (G, B) of the heterogeneity is known.

    Args:
        known: What is known of the problem.
    """
    what = "mean‖∇f_i - ∇f‖² <= G² + B²‖∇f‖² over the honest workers"
    if not known.heterogeneity:
        return Premise(what, Standing.UNKNOWN, "no (G, B) is known, nor ζ")
    if {"zeta", "pairs"} & known.exact:
        return Premise(what, Standing.HOLDS, "certain on this task")
    return Premise(what, Standing.ESTIMATED, "pairs that fit the points looked at")


def bounded_heterogeneity(known: Constants) -> Premise:
    """That a bound ζ on the heterogeneity is known, with B = 0.

    Args:
        known: What is known of the problem.
    """
    what = "mean‖∇f_i - ∇f‖² <= ζ² over the honest workers"
    if known.zeta is None and "zeta" in known.exact:
        return Premise(what, Standing.FAILS, "the task states that there is no such ζ")
    if known.zeta is None:
        return Premise(what, Standing.UNKNOWN, "zeta is not known")
    if "zeta" in known.exact:
        return Premise(what, Standing.HOLDS, f"ζ = {known.zeta:.6g}, certain on this task")
    return Premise(what, Standing.ESTIMATED, f"ζ = {known.zeta:.6g}, seen at a few points")


def noise_premises(known: Constants) -> list[Premise]:
    """σ, and that noise is unbiased and independent of the rounds before.

    Args:
        known: What is known of the problem.
    """
    premises, what = (
        [constant_premise(known, "sigma")],
        "honest noise is unbiased and independent between rounds",
    )
    if known.sigma == 0 and ("sigma" in known.exact or known.sampling == "exact"):
        return [Premise(NAMES["sigma"], Standing.HOLDS, "there is no noise")]
    by_sampling = {
        "exact": (Standing.HOLDS, "there is no noise"),
        "fresh": (Standing.HOLDS, "each round draws anew"),
        "walk": (
            Standing.ESTIMATED,
            "samples come from walks through permutations, taken for independent ones",
        ),
        "biased": (Standing.FAILS, "minibatch gradients are not those of the loss (dropout)"),
        None: (Standing.UNKNOWN, "the task does not say how it draws"),
    }
    return [*premises, Premise(what, *by_sampling[known.sampling])]


def at_most(what: str, value: float | None, edge: float, default: str = "the edge itself") -> Premise:
    """A parameter of the run against the edge of its range; None takes the theorem's own value.

    Args:
        what: What is asked.
        value: The run's; None: the theorem's own.
        edge: End of the range.
        default: What None stands for, in words.
    """
    if value is None:
        return Premise(what, Standing.HOLDS, f"taken as {default}")
    if edge == inf:
        return checked_premise(what, True, f"{value:.6g}, and there is no upper edge")
    good = value <= edge * EDGE
    return checked_premise(what, good, f"{value:.6g} {'within' if good else 'above'} {below(edge)}")


def below(value: float, digits: int = 6) -> str:
    """A number in so many digits that is no larger than `value`, so that an upper edge may be typed back.

    Args:
        value: The number.
        digits: Number of digits.
    """
    text = f"{value:.{digits}g}"
    if float(text) <= value:
        return text
    mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
    step = 10.0 ** (int(power) - digits + 1)
    return f"{float(mantissa + 'e' + power) - step:.{digits}g}"
