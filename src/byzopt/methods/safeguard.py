"""SafeguardSGD (arXiv:2012.14368, Algorithm 1), single and double, for non-convex problems.

    honest i : send g_i(x)
    server   : x <- x - γ (ξ + mean of g over good); expel for good who strays in a window's sum

Assumptions: honest workers sample one distribution, noise bounded by V, a fixed set of fewer than n/2 liars;
smooth with a Lipschitz Hessian. No tests of single gradients, no projection, no average of iterates.
Theory: `byzopt.theory.safeguard`.
"""

from __future__ import annotations

from dataclasses import dataclass

from byzopt.aggregators import Aggregator
from byzopt.aggregators.guards.guard import Finder
from byzopt.aggregators.guards.safeguard import Measured, Safeguard, Scale
from byzopt.errors import InvalidInput, require
from byzopt.methods.base import METHODS, Method, MethodRecipe
from byzopt.methods.expulsion import by_pairs, differing, likely
from byzopt.schedules import Constant, Schedule
from byzopt.servers.shaken import Shaken
from byzopt.theory import outlying
from byzopt.theory import safeguard as theory
from byzopt.theory.premises import bounded_heterogeneity, fault_premises
from byzopt.theory.promise import Constants, Promise
from byzopt.wire import Direct
from byzopt.workers import Plain


@METHODS.register("safeguard")
@dataclass(frozen=True)
class SafeguardSGD(MethodRecipe):
    """SGD over the workers whose gradients, summed over windows, stay near a median of the trusted ones.

    `windows` in rounds: one (single safeguard) or two (double; short, then long). Thresholds: `limits` Th of
    raw sums, one for each window (the paper calibrates them in a run before); else those of the theory from
    `noise` V; else measured on the way, by `thresholds`:

    - `pairs` (ours): no threshold. A worker goes who is at odds with more than `f` others over a window, by
      tests of two and of three workers that no liar can turn against honest ones: see
      `byzopt.theory.accusing`. No honest worker goes, with probability 1 - `p_fail` over the whole run, for
      any n > 2 f and any noise, while all honest workers sample one distribution.
    - `medoid` (ours, empirical), in each round: `c` times the majority radius of the medoid (default 2 from
      100 parameters on, below 3), at least `floor`. Nothing is proved: near n = 2 f + 1 liars who copy one
      honest worker get the others expelled.
    - `window_end`, as third parties release it: how far the (⌊n/2⌋+1)-th nearest sum was from the median when
      the last window ended (`limits` until then). Half of the honest lie beyond such a radius: without
      `reset` hardly anybody is left in the end.
    - `capped`, as third parties release it: twice `c` (default 1) times the least median distance, at most
      `limits`; nobody is expelled for good.

    `sums`: `raw`, `normalised`, or `printed`, whose thresholds hardly ever trigger. `reset` trusts all again
    at each start of the longest window. `sketch` keeps sums as a secret random projection to so many numbers
    a worker. `nu` deviation of the noise that the server adds (0: first-order points), drawn with `seed`, as
    are the sketch and a `random` `vmed`.

    Where workers' data differ honest ones drift apart, and are expelled in the end. Such a run is refused;
    `differing` says that it is wanted all the same.

    A spec's `rule` is `mean`. Another one combines the rows of the trusted in place of their mean (not in the
    paper): for it the others are missing, which counts against its f.

    Args:
        windows: Rounds of the windows: one, or a short and a long one.
        noise: Bound V on the length of honest noise, in the units of gradients; None: they are measured.
        limits: Thresholds of raw sums, one for each window.
        thresholds: How they are measured: "pairs", "medoid", "window_end" or "capped".
        sums: What is summed: "raw", "normalised", or as "printed".
        c: Factor of measured thresholds; None: that of the way they are measured.
        floor: Least threshold.
        reset: Whether all are trusted again when the longest window starts.
        vmed: The vector median: "medoid" or "random".
        sketch: Numbers that a worker's sums are kept as; None: all d.
        p_fail: Probability that an honest worker is expelled, in (0, 1).
        nu: Standard deviation of the noise that the server adds to each coordinate.
        schedule: Factors of `lr` by round.
        seed: Of that noise, the random median and the sketch.
        f: Number of liars tolerated; a spec fills it in.
        differing: Whether to run although workers' data differ.

    Examples:
        >>> from byzopt import Cohort, Quadratic, SafeguardSGD, simulate
        >>> task = Quadratic(heterogeneity=0.0).build(Cohort.of(20, byzantine=3), seed=0)
        >>> method = SafeguardSGD()
        >>> outcome = simulate(task, "mean", lr=0.02, rounds=20, f=3, method=method, attack="ipm")
        >>> outcome.metrics["loss"] < outcome.records[0]["loss"]
        True
    """

    windows: tuple[int, ...] = (100, 600)
    noise: float | None = None
    limits: tuple[float, ...] | None = None
    thresholds: Measured = "pairs"
    sums: Scale = "raw"
    c: float | None = None
    floor: float = 0.0
    reset: bool = False
    vmed: Finder = "medoid"
    sketch: int | None = None
    p_fail: float = 0.05
    nu: float = 0.0
    schedule: Schedule = Constant()
    seed: int = 0
    f: int | None = None
    differing: bool = False

    def __post_init__(self) -> None:
        require(self.nu >= 0, "Parameter `nu` of safeguard", "be at least 0", self.nu)
        require(self.floor >= 0, "Parameter `floor` of safeguard", "be at least 0", self.floor)
        require(0 < self.p_fail < 1, "Parameter `p_fail`", "lie in (0, 1)", self.p_fail)
        require(list(self.windows) == sorted(self.windows), "The `windows`", "be ascending", self.windows)
        Safeguard(
            self.windows,
            1,
            self.noise,
            self.limits,
            c=self.c,
            measured=self.thresholds,
            sketch=self.sketch,
            f=self.f or 0,
        )

    def build(self, rule: Aggregator, lr: float, rounds: int | None = None) -> Method:
        if rounds is None:
            raise InvalidInput("The number of rounds of safeguard should be given. Found none.")
        guard = Safeguard(
            self.windows,
            rounds,
            self.noise,
            self.limits,
            self.sums,
            self.c,
            self.floor,
            self.reset,
            self.vmed,
            self.p_fail,
            self.seed,
            rule,
            self.thresholds,
            self.sketch,
            self.f,
            self.differing,
        )
        return Method(Plain(), Direct(), guard, Shaken(lr, self.nu, self.schedule.over(rounds), self.seed))

    def expulsion(self, known: Constants) -> tuple[str, ...]:
        n, rounds, slack = known.n, known.rounds, 0.0
        if self.limits is not None:
            half = ", ".join(f"{limit / 2:g}" for limit in self.limits)
            rests_on = f"no honest worker is expelled while honest sums stay within {half} of their mean"
            rests_on += " (n > 2 f)"
        elif self.noise is not None:
            chance = theory.windows_expel_honest(self.windows, rounds, n, self.p_fail)
            slack = min(theory.window_slack(w, rounds, n, self.noise, self.p_fail) for w in self.windows)
            rests_on = likely(known, self.noise, chance)
        elif self.thresholds == "pairs":
            return by_pairs(known, self.p_fail, self.differing)
        else:
            rests_on = self._empirical(n, known.f)
        return (rests_on, *differing(known, slack, self.differing))

    def _empirical(self, n: int, f: int) -> str:
        """What thresholds that are measured on the way rest on."""
        first = f"thresholds = {self.thresholds!r} are empirical: liars may get honest workers expelled"
        if self.thresholds != "medoid":
            return f"{first}, and even without liars honest ones farther out than about half of the others go"
        crowd = n // 2 + 1
        reach = dict(outlying.crowd_radii(n, f, self.p_fail)).get(crowd)
        if reach is None:
            return f"{first}: of {crowd} sums near the median {f} may be copies of one honest sum"
        return f"{first} unless `c` is at least {reach:.3g} (Gaussian sums of any covariance, in one round)"

    def promise(self, known: Constants) -> Promise | None:
        """The theorem gives orders only: a point with ‖∇f‖ <= ε and Hessian >= -sqrt(ε) after
        T = Õ((f_0 - f*) d (δ² + 1/n)/ε⁴) rounds. No bound with constants is known."""
        steps = {}
        noise = known.bound if known.bound is not None else self.noise
        premises = [*fault_premises(known), bounded_heterogeneity(known)]
        if noise is not None:
            for place, length in enumerate(self.windows):
                threshold = theory.threshold(length, known.rounds, known.n, noise, self.p_fail)
                steps[f"threshold_{place}"] = threshold
        c3 = theory.crowd_factor(known.n, known.f) if 2 * known.f < known.n else None
        remarks = (f"C3 = {c3:.4g}; orders: byzopt.theory.safeguard.scales",) if c3 is not None else ()
        lacks = ("constants and logarithms of the theorem",)
        theorem = "arXiv:2012.14368, main theorem"
        return Promise(theorem, "gradient norm", tuple(premises), steps, lacks=lacks, remarks=remarks)
