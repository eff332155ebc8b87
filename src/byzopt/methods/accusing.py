"""What expulsions rest on, method by method, in sentences with a run's numbers: for people and `explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from byzopt.aggregators.guards.pairs import THREES
from byzopt.theory import byzantine_sgd, outlying, safeguard
from byzopt.theory.byzantine_sgd import Setting
from byzopt.theory.promise import Constants

if TYPE_CHECKING:
    from byzopt.methods.byzantine_sgd import ByzantineSGD
    from byzopt.methods.safeguard import SafeguardSGD

ALIKE = "all honest workers sample one distribution"


def by_pairs(known: Constants, p_fail: float, differing: bool) -> tuple[str, ...]:
    """Of guards that test workers against each other."""
    n, f = known.n, known.f
    told = [
        f"no honest worker is expelled with probability {1 - p_fail:g}, whatever {f} liars of {n} do and "
        f"whatever the noise is, while {ALIKE} (byzopt.theory.accusing; needs n > 2 f)"
    ]
    if n > THREES:
        told.append(f"beyond {THREES} workers only drift is seen, not noise that is too large")
    elif n == 2 * f + 1:
        told.append("with n = 2 f + 1, f liars who stand together and do not drift are not seen")
    return (*told, *_differing(known, 0.0, differing))


def byzantine(recipe: ByzantineSGD, known: Constants) -> tuple[str, ...]:
    """ByzantineSGD, with V or without."""
    if recipe.noise is None:
        return by_pairs(known, recipe.p_fail, recipe.differing)
    ends = _epochs(recipe, known, recipe.noise)
    chance = sum(byzantine_sgd.expels_honest(at, recipe.thresholds, recipe.anytime) for at in ends)
    told = [_likely(known, recipe.noise, chance)]
    if chance >= 1:
        found = f"thresholds = {recipe.thresholds!r}, anytime = {recipe.anytime}"
        told = [
            f"nothing is proved with {found} over {known.rounds} rounds: liars may get honest workers "
            "expelled (`proved` thresholds have a proof)"
        ]
    if recipe.adaptive_A or recipe.diameter is None:
        told.append("the A test goes by the path walked, for which nothing is proved")
    borne = 0.0 if recipe.anytime else min(byzantine_sgd.slack(at, recipe.thresholds) for at in ends)
    return (*told, *_differing(known, borne, recipe.differing))


def guarded(recipe: SafeguardSGD, known: Constants) -> tuple[str, ...]:
    """SafeguardSGD, by its thresholds."""
    n, rounds, windows, borne = known.n, known.rounds, recipe.windows, 0.0
    if recipe.limits is not None:
        half = ", ".join(f"{limit / 2:g}" for limit in recipe.limits)
        told = f"no honest worker is expelled while honest sums stay within {half} of their mean (n > 2 f)"
    elif recipe.noise is not None:
        chance = safeguard.expels_honest(windows, rounds, n, recipe.p_fail)
        borne = min(safeguard.slack(w, rounds, n, recipe.noise, recipe.p_fail) for w in windows)
        told = _likely(known, recipe.noise, chance)
    elif recipe.thresholds == "pairs":
        return by_pairs(known, recipe.p_fail, recipe.differing)
    else:
        told = _empirical(recipe, n, known.f)
    return (told, *_differing(known, borne, recipe.differing))


def _epochs(recipe: ByzantineSGD, known: Constants, noise: float) -> list[Setting]:
    """The stretches over which the guard sums, each with its share of p_fail."""
    plan = recipe.plan(1.0, known.rounds)
    p = recipe.p_fail / len(plan)
    # Chances and slack are in units of the radius.
    return [Setting(known.n, known.f, epoch.rounds, noise, 1.0, p) for epoch in plan]


def _likely(known: Constants, noise: float, chance: float) -> str:
    return (
        f"any honest worker is expelled with probability at most {chance:.2g}, whatever {known.f} liars of "
        f"{known.n} do (n > 2 f), while {ALIKE} with noise up to V = {noise:g}"
    )


def _empirical(recipe: SafeguardSGD, n: int, f: int) -> str:
    first = f"thresholds = {recipe.thresholds!r} are empirical: liars may get honest workers expelled"
    if recipe.thresholds != "medoid":
        return f"{first}, and even without liars honest ones farther out than about half of the others go"
    crowd = n // 2 + 1
    reach = dict(outlying.limits(n, f, recipe.p_fail)).get(crowd)
    if reach is None:
        return f"{first}: of {crowd} sums near the median {f} may be copies of one honest sum"
    return f"{first} unless `c` is at least {reach:.3g} (Gaussian sums of any covariance, in one round)"


def _differing(known: Constants, borne: float, asked: bool) -> tuple[str, ...]:
    """What differences between workers' data do to it."""
    bears = f"differences ‖∇f_i - ∇f‖ up to ζ = {borne:.2g}" if borne else "no differences between data"
    if not known.zeta:
        return (f"it bears {bears}",)
    told = f"it bears {bears}; here ζ = {known.zeta:.2g}"
    if known.zeta > borne:
        told += ", so that honest workers drift apart and may be expelled"
    return (told if asked else f"{told}; the run is refused unless `method.differing` is set",)
