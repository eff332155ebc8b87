"""The settings of ByzantineSGD, checked, and the epochs that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite
from typing import Literal

from byzopt.aggregators.guards.guard import Finder
from byzopt.errors import require
from byzopt.theory.byzantine_epochs import Curved, Epoch, Lengths, doubling, within
from byzopt.theory.byzantine_sgd import Error2, ThresholdRule


@dataclass(frozen=True)
class ByzantineSettings:
    """The fields of `ByzantineSGD`.

    `noise` V and `diameter` D. Without V there are no thresholds, for rows of which f lie cannot teach it: a
    worker goes who is at odds with more than `f` others, by `byzopt.theory.accusing` (no worst-case rate
    then; a spec fills in f). Without D nothing is projected and the A test adapts to the path (no worst-case
    rate either). `thresholds`: `default`, `proved`, or `printed`, which
    restores the paper's B test and is broken by the straddle attack. `anytime`: thresholds by rounds so far
    in place of all rounds; `adaptive_A`: τ_A by the path walked. `vmed`, the vector median: `medoid`, or
    `random` as in the paper (and by default with `printed`), drawn with `seed`. `mean_over_good` divides by
    |good|, not n. `average`: `smooth` answers with the mean of x_2 .. x_{T+1}, `nonsmooth` of x_1 .. x_T.

    `sketch` keeps the sums B as a secret random projection to so many numbers a worker, for their test alone:
    256 to 1024 in place of d where memory is short. `seed` draws it.

    `lr` is the step γ. With `epochs` (`theory` or `practical` lengths, the latter with `c`) it multiplies the
    schedule's γ_s, and `mu`, V, D, `L` (smooth) or `M` (non-smooth), n and f must be known; a spec fills in
    the last two.

    Where T is not known, `epochs = "doubling"` restarts at the answer so far after `first` rounds, then after
    2 `first` more, and so on, with steps `lr`, `lr`/√2, `lr`/2 ...: nothing hangs on the number of rounds.
    Where D is not known either, `grow` takes `diameter` as a guess: at each restart the ball's radius becomes
    twice the largest distance seen from the centre if that is more, and the A test adapts to the path.

    Data that differ between workers get honest ones expelled in the end, so that such a run is refused;
    `differing` says that it is wanted all the same.

    `error2` is the constant of the last term in the theorems.
    """

    noise: float | None = None
    diameter: float | None = None
    thresholds: ThresholdRule = "default"
    p_fail: float = 0.05
    anytime: bool = False
    adaptive_A: bool = False  # noqa: N815 (the paper's letter)
    vmed: Finder | None = None
    mean_over_good: bool = False
    average: Literal["smooth", "nonsmooth"] = "smooth"
    epochs: Literal["none", "theory", "practical", "doubling"] = "none"
    first: int = 100
    grow: bool = False
    c: float = 128.0
    mu: float | None = None
    L: float | None = None
    M: float | None = None
    error2: Error2 = "triangle"
    sketch: int | None = None
    seed: int = 0
    n: int | None = None
    f: int | None = None
    differing: bool = False

    def __post_init__(self) -> None:
        ball = self.diameter is None or (isfinite(self.diameter) and self.diameter > 0)
        require(ball, "Parameter `diameter` of byzantine_sgd", "be finite and positive", self.diameter)
        noise = self.noise is None or (isfinite(self.noise) and self.noise >= 0)
        require(noise, "Parameter `noise` of byzantine_sgd", "be finite and at least 0", self.noise)
        counts = {"sketch": self.sketch, "first": self.first}
        for name, count in counts.items():
            good = count is None or count >= 1
            require(good, f"Parameter `{name}` of byzantine_sgd", "be at least 1", count)
        needs = not self.grow or (self.epochs == "doubling" and self.diameter is not None)
        rule = 'have epochs = "doubling" and a first `diameter`'
        require(needs, "A ball that grows (`grow`)", rule, f"{self.epochs}, {self.diameter}")
        for name in ("mu", "L", "M"):
            constant = getattr(self, name)
            good = constant is None or constant > 0
            require(good, f"Parameter `{name}` of byzantine_sgd", "be above 0", constant)
        require(self.f is None or self.f >= 0, "Parameter `f` of byzantine_sgd", "be at least 0", self.f)
        require(0 < self.p_fail < 1, "Parameter `p_fail`", "lie in (0, 1)", self.p_fail)
        require(isfinite(self.c) and self.c > 0, "Parameter `c`", "be finite and positive", self.c)

    def plan(self, lr: float, rounds: int) -> tuple[Epoch, ...]:
        """The epochs: one of all rounds with step `lr`, as many as they hold, or ever longer ones."""
        radius = inf if self.diameter is None else self.diameter
        if self.epochs == "none":
            return (Epoch(rounds, radius, lr),)
        if self.epochs == "doubling":
            return doubling(self.first, radius, lr)
        lengths: Lengths = self.epochs
        epochs = within(self._curved(), rounds, lengths, self.error2, self.c)
        return tuple(epoch._replace(step=lr * epoch.step) for epoch in epochs)

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
