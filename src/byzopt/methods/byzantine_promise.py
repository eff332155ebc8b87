"""What the theorems of ByzantineSGD (arXiv:1803.08917) promise of a recipe, premise by premise."""

from __future__ import annotations

from math import exp

from byzopt.methods.byzantine_settings import ByzantineSettings
from byzopt.theory import byzantine_sgd as theory
from byzopt.theory.byzantine_sgd import GuardSetting
from byzopt.theory.premises import (
    at_most,
    checked_premise,
    constant_premise,
    convex,
    convexity,
    covers,
    fault_premises,
    noise_premises,
)
from byzopt.theory.promise import EDGE, Constants, Premise, Promise, Standing, promise


def byzantine_promise(recipe: ByzantineSettings, known: Constants) -> Promise:
    """Theorem 3.2, or 3.3 for `average = "nonsmooth"`; with epochs of theory 3.4 or 3.5, schedule derived."""
    smooth, shrinks = recipe.average == "smooth", recipe.epochs in ("theory", "practical")
    theorem = f"arXiv:1803.08917, Theorem {'3.2' if smooth else '3.3'}"
    if shrinks:
        theorem = f"arXiv:1803.08917, Theorem {'3.4' if smooth else '3.5'}, schedule derived"
    premises = [
        *fault_premises(known),
        *_recipe(recipe, known),
        convexity(known) if shrinks else convex(known),
    ]
    premises += [_alike(known), *noise_premises(known)[-1:], *_noise(recipe, known), _ball(recipe, known)]
    premises += [_steep(recipe, known)]
    if shrinks:
        premises += _declared(recipe, known)
    return promise(theorem, "gap", premises, lambda: (_epochs if shrinks else _plain)(recipe, known))


def _recipe(recipe: ByzantineSettings, known: Constants) -> list[Premise]:
    """What the theorems cover of the method's switches."""
    horizon = known.horizon or known.rounds
    cases: dict[str, tuple[bool, object]] = {
        "thresholds keep honest workers (default or proved)": (
            recipe.thresholds != "printed",
            recipe.thresholds,
        ),
        "thresholds are those of all rounds": (not recipe.anytime, f"anytime = {recipe.anytime}"),
        "the A test has a fixed threshold": (not recipe.adaptive_A, f"adaptive_A = {recipe.adaptive_A}"),
        "the step divides by n": (not recipe.mean_over_good, f"mean_over_good = {recipe.mean_over_good}"),
        "the sums B are kept whole": (recipe.sketch is None, f"sketch = {recipe.sketch}"),
        "the ball does not grow": (not recipe.grow, f"grow = {recipe.grow}"),
        "one epoch, or epochs as long as in theory": (recipe.epochs in ("none", "theory"), recipe.epochs),
        "the bound is that after all rounds": (known.rounds == horizon, f"{known.rounds} of {horizon}"),
        "the method knows this n and f": (
            recipe.n in (None, known.n) and recipe.f in (None, known.f),
            f"n = {recipe.n}, f = {recipe.f}",
        ),
    }
    what = "the mean of the kept gradients makes the step"
    if known.rule is None:
        return [*covers(cases), Premise(what, Standing.UNKNOWN, "the rule is not known")]
    return [*covers(cases), checked_premise(what, known.rule == "mean", f"rule {known.rule}")]


def _alike(known: Constants) -> Premise:
    what = "all honest workers sample one distribution (ζ = 0)"
    if known.zeta is None and "zeta" in known.exact:
        return Premise(what, Standing.FAILS, "the task states that gradients differ without bound")
    if known.zeta is None:
        return Premise(what, Standing.UNKNOWN, "zeta is not known")
    if known.zeta > (EDGE - 1) * (known.gradient or 1):
        return Premise(what, Standing.FAILS, f"ζ = {known.zeta:.4g}")
    sure = "zeta" in known.exact
    return Premise(
        what, Standing.HOLDS if sure else Standing.ESTIMATED, "ζ = 0" + ("" if sure else " was seen")
    )


def _noise(recipe: ByzantineSettings, known: Constants) -> list[Premise]:
    """V: given to the method, and no less than honest noise is."""
    what, given = "honest noise is no longer than V", recipe.noise
    known_noise = checked_premise("the method is given V", given is not None, f"noise = {given}")
    if given is None:
        return [known_noise]
    if known.bound is not None and "bound" in known.exact:
        return [
            known_noise,
            checked_premise(what, known.bound <= given * EDGE, f"{known.bound:.6g} with V = {given:.6g}"),
        ]
    if known.spread is not None:
        chance = _escape(recipe, known)
        reason = (
            f"Gaussian noise: some message is longer than V = {given:.6g} with probability up to {chance:.3g}"
        )
        return [known_noise, checked_premise(what, chance + recipe.p_fail < 1, reason)]
    if known.bound is None:
        return [known_noise, Premise(what, Standing.UNKNOWN, "how long noise is is not known")]
    good = known.bound <= given * EDGE
    reason = f"{known.bound:.6g} was seen, with V = {given:.6g}"
    return [known_noise, Premise(what, Standing.ESTIMATED if good else Standing.FAILS, reason)]


def _escape(recipe: ByzantineSettings, known: Constants) -> float:
    """The chance that Gaussian noise, cut off at V by nobody, exceeds it once in the run. What is left of it
    otherwise is symmetric, and so still unbiased."""
    if known.spread is None or recipe.noise is None or "bound" in known.exact:
        return 0.0
    horizon = known.horizon or known.rounds
    return theory.tail(recipe.noise, known.spread, known.d, known.n * horizon)


def _ball(recipe: ByzantineSettings, known: Constants) -> Premise:
    what, given = "x* lies in the method's ball, ‖x^0 - x*‖ <= D", recipe.diameter
    if given is None:
        return Premise(what, Standing.FAILS, "the method has no diameter, and nothing is projected")
    if known.diameter is None:
        return Premise(what, Standing.UNKNOWN, f"D = {given:.6g}, but where x* lies is not known")
    if known.diameter > given * EDGE:
        return Premise(what, Standing.FAILS, f"D = {given:.6g} with ‖x^0 - x*‖ = {known.diameter:.6g}")
    sure = "diameter" in known.exact
    reason = f"D = {given:.6g} with ‖x^0 - x*‖ = {known.diameter:.6g}"
    return Premise(what, Standing.HOLDS if sure else Standing.ESTIMATED, reason)


def _steep(recipe: ByzantineSettings, known: Constants) -> Premise:
    """L, or M on the method's ball."""
    if recipe.average == "smooth":
        return constant_premise(known, "lipschitz")
    what, gradient = "‖∇f‖ <= M on the ball", _gradient(recipe, known)
    if gradient is None:
        return Premise(what, Standing.UNKNOWN, "neither M nor L is known")
    value, sure = gradient
    return Premise(what, Standing.HOLDS if sure else Standing.ESTIMATED, f"M = {value:.6g}")


def _gradient(recipe: ByzantineSettings, known: Constants) -> tuple[float, bool] | None:
    """M and whether it is certain: stated, or ‖∇f(x^0)‖ + L D, or seen at a few points."""
    if known.gradient is not None and "gradient" in known.exact:
        return known.gradient, True
    if None not in (known.start_gradient, known.lipschitz, recipe.diameter):
        bound = (known.start_gradient or 0.0) + (known.lipschitz or 0.0) * (recipe.diameter or 0.0)
        return bound, "lipschitz" in known.exact
    return None if known.gradient is None else (known.gradient, False)


def _declared(recipe: ByzantineSettings, known: Constants) -> list[Premise]:
    """What the schedule of epochs was made with."""
    smooth = recipe.average == "smooth"
    declared, name = (recipe.L, "L") if smooth else (recipe.M, "M")
    gradient = _gradient(recipe, known)
    true = known.lipschitz if smooth else (gradient[0] if gradient else None)
    lr = known.lr
    return [
        checked_premise(
            "the method's `mu` is at most μ",
            recipe.mu is not None and recipe.mu <= (known.mu or 0) * EDGE,
            f"mu = {recipe.mu}",
        ),
        checked_premise(
            f"the method's `{name}` is at least {name}",
            declared is not None and declared * EDGE >= (true or 0),
            f"{name} = {declared}",
        ),
        checked_premise(
            "steps are the schedule's own (lr = 1)", lr is None or abs(lr - 1) <= EDGE - 1, f"lr = {lr}"
        ),
    ]


def _chance(recipe: ByzantineSettings, known: Constants, at: GuardSetting, epochs: int) -> float:
    """With what probability the theorem may fail: p_fail, noise beyond V, and for `default` thresholds the
    chance 2 n exp(-Λ/2) (Pinelis), in each of the epochs, that an honest sum strays by more than V √(TΛ)."""
    strays = 2 * at.n * exp(-at.log / 2) if recipe.thresholds == "default" else 0.0
    return recipe.p_fail + _escape(recipe, known) + epochs * strays


def _plain(recipe: ByzantineSettings, known: Constants) -> Promise:
    at = GuardSetting(
        known.n, known.f, known.rounds, recipe.noise or 0.0, recipe.diameter or 0.0, recipe.p_fail
    )
    smooth, lipschitz = recipe.average == "smooth", known.lipschitz or 0.0
    steep = lipschitz if smooth else (_gradient(recipe, known) or (0.0, False))[0]
    if steep == at.noise == 0:
        what = "the objective is curved, or has noise"
        return Promise("", "", (checked_premise(what, False, "neither: no step is too long"),))
    best = _best(recipe, at, steep)
    most = 1 / (2 * lipschitz) if smooth and lipschitz else float("inf")
    step = at_most("γ is at most 1/(2L)", known.lr, most, "the best one") if smooth else None
    limits = theory.thresholds(at, recipe.thresholds)
    steps = {"lr": best, "tau_A": limits.a, "tau_B": limits.b, "r_B": limits.select}
    gamma = known.lr if known.lr and (step is None or step.stands) else best
    return _told(recipe, known, at, steep, gamma, steps, [step] if step else [])


def _epochs(recipe: ByzantineSettings, known: Constants) -> Promise:
    """The promise for the last epoch of the run, whose start lies within its D_s of x*."""
    plan = recipe.plan(1.0, known.rounds)
    last = plan[-1]
    at = GuardSetting(
        known.n, known.f, last.rounds, recipe.noise or 0.0, last.radius, recipe.p_fail / len(plan)
    )
    steep = (recipe.L if recipe.average == "smooth" else recipe.M) or 0.0
    steps = {"lr": 1.0, "epochs": float(len(plan)), "last_radius": last.radius, "last_step": last.step}
    return _told(recipe, known, at, steep, last.step, steps, [], len(plan))


def _told(
    recipe: ByzantineSettings,
    known: Constants,
    at: GuardSetting,
    steep: float,
    gamma: float,
    steps: dict[str, float],
    step_premises: list[Premise],
    epochs: int = 1,
) -> Promise:
    lost = _chance(recipe, known, at, epochs)
    reason = f"it may fail with probability {lost:.4g}"
    likely = checked_premise("the theorem's probability is positive", lost < 1, reason)
    formula = theory.smooth_bound if recipe.average == "smooth" else theory.nonsmooth_bound
    premises = (*step_premises, likely)
    if not all(premise.stands for premise in premises):
        return Promise("", "", premises, steps)
    bound = formula(at, steep, gamma, recipe.error2).total
    if known.gap is not None:
        trivial: float | None = known.gap
    else:  # convex: f(x^0) - f* <= ‖∇f(x^0)‖ ‖x^0 - x*‖
        there = None not in (known.start_gradient, known.diameter)
        trivial = (known.start_gradient or 0.0) * (known.diameter or 0.0) if there else None
    remarks = (f"with probability {1 - lost:.4g}", f"f(x̄) - f* of the mean iterate; {recipe.error2}")
    return Promise("", "", premises, steps, bound, 0.0, trivial, (), remarks)


def _best(recipe: ByzantineSettings, at: GuardSetting, steep: float) -> float:
    if recipe.average == "smooth":
        return theory.smooth_step(at, steep, recipe.error2)
    return theory.nonsmooth_step(at, steep, recipe.error2)
