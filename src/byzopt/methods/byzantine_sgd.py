"""ByzantineSGD (arXiv:1803.08917, Algorithm 1) and its epochs for strongly convex problems.

    honest i : send g_i(x)
    server   : A_i += <g_i, x - x_1>, B_i += g_i; expel for good who strays from a median of A, B or g
               x <- projection of x - γ Σ_good g_i/n on the ball of radius D around x_1; answer: the mean x

Assumptions: f convex, all honest workers sample one distribution, honest noise ‖g_i - ∇f‖ <= V, a fixed set
of fewer than n/2 liars, ‖x_1 - x*‖ <= D. Data that differ between workers get honest workers expelled.
Theory: `byzopt.theory.byzantine_sgd`, `byzantine_epochs`, `byzantine_limits`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite
from typing import Literal

from byzopt.aggregators import Aggregator
from byzopt.aggregators.guard import Finder, Guard
from byzopt.errors import InvalidInput, require
from byzopt.methods.base import METHODS, Method, MethodRecipe
from byzopt.servers import ProjectedStep
from byzopt.theory import byzantine_sgd as theory
from byzopt.theory.byzantine_epochs import Curved, Epoch, Lengths, within
from byzopt.theory.byzantine_sgd import Error2, Rule, Setting
from byzopt.theory.promise import Constants, Promise
from byzopt.wire import Direct
from byzopt.workers import Plain


@METHODS.register("byzantine_sgd")
@dataclass(frozen=True)
class ByzantineSGD(MethodRecipe):
    """Projected, averaged SGD behind a guard that expels workers by the history of their gradients.

    `noise` V and `diameter` D; without V it is learnt on the way, without D nothing is projected and the A
    test adapts to the path (no worst-case rate then). `thresholds`: `default`, `proved`, or `printed`, which
    restores the paper's B test and is broken by the straddle attack. `anytime`: thresholds by rounds so far
    in place of all rounds; `adaptive_A`: τ_A by the path walked. `vmed`, the vector median: `medoid`, or
    `random` as in the paper (and by default with `printed`), drawn with `seed`. `mean_over_good` divides by
    |good|, not n. `average`: `smooth` answers with the mean of x_2 .. x_{T+1}, `nonsmooth` of x_1 .. x_T.

    `lr` is the step γ. With `epochs` (`theory` or `practical` lengths, the latter with `c`) it multiplies the
    schedule's γ_s, and `mu`, V, D, `L` (smooth) or `M` (non-smooth), n and f must be known; a spec fills in
    the last two. `error2` is the constant of the last term in the theorems.

    The guard is the defence, and a spec's `rule` is `mean`. Another rule combines the rows of those who pass
    in place of their mean (not in the paper): for it the expelled are missing, which counts against its f.

    Errors: `InvalidInput` for epochs that lack a constant, and without a number of rounds.
    """

    noise: float | None = None
    diameter: float | None = None
    thresholds: Rule = "default"
    p_fail: float = 0.05
    anytime: bool = False
    adaptive_A: bool = False  # noqa: N815 (the paper's letter)
    vmed: Finder | None = None
    mean_over_good: bool = False
    average: Literal["smooth", "nonsmooth"] = "smooth"
    epochs: Literal["none", "theory", "practical"] = "none"
    c: float = 128.0
    mu: float | None = None
    L: float | None = None
    M: float | None = None
    error2: Error2 = "triangle"
    seed: int = 0
    n: int | None = None
    f: int | None = None

    def __post_init__(self) -> None:
        ball = self.diameter is None or (isfinite(self.diameter) and self.diameter > 0)
        require(ball, "Parameter `diameter` of byzantine_sgd", "be finite and positive", self.diameter)
        noise = self.noise is None or (isfinite(self.noise) and self.noise >= 0)
        require(noise, "Parameter `noise` of byzantine_sgd", "be finite and at least 0", self.noise)
        require(0 < self.p_fail < 1, "Parameter `p_fail`", "lie in (0, 1)", self.p_fail)
        require(isfinite(self.c) and self.c > 0, "Parameter `c`", "be finite and positive", self.c)

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        if rounds is None:
            raise InvalidInput("The number of rounds of byzantine_sgd should be given. Found none.")
        plan = self.plan(lr, rounds)
        guard = Guard(
            plan,
            self.noise,
            self.thresholds,
            self.p_fail,
            self.anytime,
            self.adaptive_A,
            self.vmed,
            self.mean_over_good,
            self.seed,
            self.n,
            rule,
        )
        return Method(Plain(), Direct(), guard, ProjectedStep(plan, self.average == "smooth"))

    def plan(self, lr: float, rounds: int) -> tuple[Epoch, ...]:
        """The run's epochs: one of all rounds with step `lr`, or as many as they hold."""
        if self.epochs == "none":
            return (Epoch(rounds, inf if self.diameter is None else self.diameter, lr),)
        lengths: Lengths = self.epochs
        found = within(self._curved(), rounds, lengths, self.error2, self.c)
        return tuple(epoch._replace(step=lr * epoch.step) for epoch in found)

    def _curved(self) -> Curved:
        curvature = "L" if self.average == "smooth" else "M"
        needed = {k: getattr(self, k) for k in ("n", "f", "noise", "diameter", "mu", curvature)}
        missing = [name for name, value in needed.items() if value is None]
        require(not missing, "Epochs of byzantine_sgd", "know their constants", f"no {', '.join(missing)}")
        n, f, noise, start, mu, steep = needed.values()
        smooth = self.average == "smooth"
        return Curved(
            n, f, noise, start, mu, steep if smooth else None, None if smooth else steep, self.p_fail
        )

    def promise(self, known: Constants) -> Promise | None:
        """Theorem 3.2 (smooth) or 3.3 with the step that minimises its bound; the floor is 0 in T.

        `bound` needs V, D and L (or M); lies on f(x̄) - f*, with probability 1 - p_fail.
        """
        smooth = self.average == "smooth"
        theorem = f"arXiv:1803.08917, Theorem {'3.2' if smooth else '3.3'}"
        steep = known.lipschitz if smooth else known.gradient
        noise = known.bound if known.bound is not None else self.noise
        radius = known.diameter if known.diameter is not None else self.diameter
        needed = {"bound (V)": noise, "diameter (D)": radius}
        needed |= {"lipschitz (L)" if smooth else "gradient (M)": steep}
        missing = [name for name, value in needed.items() if not value and (name[0] != "b" or value is None)]
        if 2 * known.f >= known.n:
            missing.append("2 f < n")
        if known.zeta:
            missing.append("zeta = 0: all honest workers sample one distribution")
        if missing or noise is None or radius is None or steep is None:
            return Promise(theorem, "gap", missing=tuple(missing))
        at = Setting(known.n, known.f, known.rounds, noise, radius, self.p_fail)
        if smooth:
            step = theory.smooth_step(at, steep, self.error2)
            bound = theory.smooth_bound(at, steep, step, self.error2)
        else:
            step = theory.nonsmooth_step(at, steep, self.error2)
            bound = theory.nonsmooth_bound(at, steep, step, self.error2)
        limits = theory.thresholds(at, self.thresholds)
        steps = {"lr": step, "tau_A": limits.a, "tau_B": limits.b, "r_B": limits.select}
        remarks = (f"with probability {1 - self.p_fail:g}", f"f(x̄) - f* of the mean iterate; {self.error2}")
        return Promise(theorem, "gap", steps, bound.total, 0.0, remarks=remarks)
