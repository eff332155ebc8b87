"""What theory promises of a run: a theorem is a list of checked premises and a formula over constants."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import inf, isfinite
from typing import Literal, TypeAlias

from byzopt.errors import require

Origin: TypeAlias = Literal["proved", "certified", "recorded", "measured", "borrowed"]
Sampling: TypeAlias = Literal["exact", "fresh", "walk", "biased"]
Pairs: TypeAlias = tuple[tuple[float, float], ...]
EDGE = 1 + 1e-9  # a value that was computed, printed in full and typed back is the same up to rounding


@dataclass(frozen=True)
class Constants:
    """What is known of a problem; None where it is not known. f stands for the honest workers' mean loss.

    `n` workers of which the server tolerates `f`; `attackers` truly lie, and the rule, `rule`, itself
    tolerates `tolerated`; it takes the workers `trusts` for honest, of whom those in `betrayed` lie. `d`
    parameters. `rounds` T after which a bound is asked for, in a run of `horizon`
    rounds (None: the same) at step scale `lr` (None: the step that the theorem gives).

    `lipschitz` L of ∇f, `local` the root mean square of the L_i, `sample` mean-squared smoothness of a
    minibatch's loss, `passes` minibatches in a full pass, `l0` and `l1` of (L0, L1)-smoothness (`curves`:
    further such pairs, any of which holds), `mu` of strong convexity (or of the PŁ inequality), `convex`
    whether f is convex. `sigma` noise of one message (root mean square of its length), `bound` V its largest
    length, `spread` the standard deviation of a coordinate where noise is Gaussian, `sampling` how rounds
    draw: no noise, independently, by a walk through permutations, or with a bias.

    `zeta` heterogeneity; `g`, `b` of mean‖∇f_i - ∇f‖² <= G² + B² ‖∇f‖², a pair that holds together, and
    `pairs` all such pairs that are known. `delta` Δ, similarity of the server's proxy loss. `diameter` D of a
    ball around x^0 that holds x*, `gradient` M >= ‖∇f‖ on it, `start_gradient` ‖∇f(x^0)‖, `start_rows`
    mean‖∇f_i(x^0)‖, `gap` f(x^0) - f*, `star_gap` mean of f* - f_i* over the honest. `kappa_linear` and
    `kappa_squared` are the rule's for so many liars (`unproved` says why there are none), of this `origin`:
    proved for every input, certified in all of a run's rounds or in those that were recorded, or measured in
    them ("borrowed": in a run of another method). `unmet` inner solves of its first `watched` rounds did
    not meet their stop. `participants` names who takes part in a round, where a run has a method sampled from
    outside.

    `exact` names the constants that hold everywhere for certain; the others are estimates. `notes` say which
    estimates were corrected, and by what.

    Errors: `InvalidInput` for a constant that is negative or not finite.
    """

    n: int
    f: int
    d: int
    rounds: int
    attackers: int | None = None
    tolerated: int | None = None
    rule: str | None = None
    trusts: tuple[int, ...] = ()
    betrayed: tuple[int, ...] = ()
    horizon: int | None = None
    lr: float | None = None
    lipschitz: float | None = None
    local: float | None = None
    sample: float | None = None
    passes: float | None = None
    l0: float | None = None
    l1: float | None = None
    curves: Pairs = ()
    mu: float | None = None
    convex: bool | None = None
    sigma: float | None = None
    bound: float | None = None
    spread: float | None = None
    sampling: Sampling | None = None
    zeta: float | None = None
    g: float | None = None
    b: float | None = None
    pairs: Pairs = ()
    delta: float | None = None
    diameter: float | None = None
    gradient: float | None = None
    start_gradient: float | None = None
    start_rows: float | None = None
    gap: float | None = None
    star_gap: float | None = None
    kappa_linear: float | None = None
    kappa_squared: float | None = None
    unproved: str = ""
    origin: Origin = "proved"
    unmet: int | None = None
    watched: int | None = None
    participants: str = "all"
    exact: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, int | float):
                good = isfinite(value) and value >= 0
                require(good, f"Constant `{name}`", "be finite and at least 0", value)

    @property
    def honest(self) -> int:
        """How many workers are honest at least: n - f, or less where more lie."""
        return self.n - max(self.f, self.attackers or 0)

    @property
    def heterogeneity(self) -> Pairs:
        """All admissible (G, B)."""
        pairs = [(self.g, self.b or 0.0)] if self.g is not None else []
        pairs += [(self.zeta, 0.0)] if self.zeta is not None else []
        return tuple(dict.fromkeys((*self.pairs, *pairs)))

    @property
    def smoothness(self) -> Pairs:
        """All admissible (L0, L1)."""
        pairs = [(self.l0, self.l1)] if self.l0 is not None and self.l1 is not None else []
        return tuple(dict.fromkeys((*self.curves, *pairs)))


class Standing(StrEnum):
    """Whether a premise holds."""

    HOLDS = "holds"
    ESTIMATED = "estimated"
    UNKNOWN = "unknown"
    FAILS = "fails"


@dataclass(frozen=True)
class Premise:
    """One condition of a theorem: `what` it asks, whether it is so, and `how` that was seen.

    Args:
        what: What is asked.
        verdict: Whether it is so.
        how: How that was seen.
    """

    what: str
    verdict: Standing
    how: str = ""

    @property
    def stands(self) -> bool:
        """Whether the theorem may be used, as far as this premise goes."""
        return self.verdict in (Standing.HOLDS, Standing.ESTIMATED)

    def __str__(self) -> str:
        return f"{self.what}: {self.how}" if self.how else self.what


@dataclass(frozen=True)
class Promise:
    """What a theorem says with the constants filled in.

    `theorem` names it with its source; `measures` says which figure `bound` and `floor` bound (for instance
    "min ‖grad f‖", "gap", "mean ‖grad f‖²"). `steps` are admissible parameters by name. `bound` holds after
    all rounds with the run's own parameters, `floor` is what remains as rounds grow: neither is given unless
    every premise stands. `lacks` says what else keeps a bound from being given. `trivial` is what the figure
    is at the start, without any theorem; a bound that is no less is `vacuous`. `remarks` for people.

    Args:
        theorem: Its name, with the source.
        measures: Which figure is bounded.
        premises: Conditions, each with its verdict.
        steps: Admissible parameters by name.
        bound: What holds after all rounds.
        floor: What remains as rounds grow.
        trivial: The figure at the start.
        lacks: What else keeps a bound from being given.
        remarks: For people.
    """

    theorem: str
    measures: str
    premises: tuple[Premise, ...] = ()
    steps: dict[str, float] = field(default_factory=dict)
    bound: float | None = None
    floor: float | None = None
    trivial: float | None = None
    lacks: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.broken:
            object.__setattr__(self, "bound", None)
            object.__setattr__(self, "floor", None)
        for name in ("bound", "floor"):
            value = getattr(self, name)
            if value is not None and not isfinite(value):
                object.__setattr__(self, name, None)
                object.__setattr__(self, "lacks", (*self.lacks, f"the {name} is infinite"))

    @property
    def broken(self) -> tuple[Premise, ...]:
        """The premises that fail or are unknown."""
        return tuple(premise for premise in self.premises if not premise.stands)

    @property
    def missing(self) -> tuple[str, ...]:
        """Why there is no bound, or no floor."""
        return (*(f"{premise.verdict}: {premise}" for premise in self.broken), *self.lacks)

    @property
    def estimated(self) -> tuple[str, ...]:
        """The premises that rest on estimates."""
        return tuple(str(p) for p in self.premises if p.verdict is Standing.ESTIMATED)

    @property
    def vacuous(self) -> bool:
        """Whether the bound says no more than is true at the start without it."""
        return self.bound is not None and self.trivial is not None and self.bound >= self.trivial

    @property
    def vacuous_floor(self) -> bool:
        """The same of the floor."""
        return self.floor is not None and self.trivial is not None and self.floor >= self.trivial


def promise(
    theorem: str, measures: str, premises: Iterable[Premise], formula: Callable[[], Promise]
) -> Promise:
    """The promise of a theorem: `formula` is asked only where all `premises` stand, and may add its own.

    What it returns needs no name; theorem and figure are filled in where it leaves them empty.

    Args:
        theorem: Its name, with the source.
        measures: Which figure is bounded.
        premises: Conditions, each with its verdict.
        formula: Gives the promise where all premises stand.
    """
    checked = tuple(premises)
    if not all(premise.stands for premise in checked):
        return Promise(theorem, measures, checked)
    result = formula()
    return replace(
        result,
        theorem=result.theorem or theorem,
        measures=result.measures or measures,
        premises=(*checked, *result.premises),
    )


def strongest(promises: Sequence[Promise]) -> Promise:
    """The promise that says most, of several that hold alike: by bound, then by floor, then the first.

    Args:
        promises: Those to choose from.
    """

    def worth(promise: Promise) -> tuple[float, float, int]:
        bound = inf if promise.bound is None else promise.bound
        return bound, inf if promise.floor is None else promise.floor, len(promise.broken)

    return min(promises, key=worth)
