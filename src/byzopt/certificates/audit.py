"""An audit of a run: the error of its rule, round by round, beside what is proved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from statistics import median

from byzopt.certificates.estimates import (
    DissimilarityPair,
    best_pair,
    dissimilarity_pairs,
    estimate_constants,
)
from byzopt.certificates.progress import OnProgress, no_progress
from byzopt.certificates.watching import (
    AuditedRound,
    WatchedRun,
    watch_run,
    with_certified_coefficients,
    with_unmet_solves,
    worst_certificates,
)
from byzopt.experiments.specs.spec import Spec
from byzopt.experiments.trials.prepared import threads_for
from byzopt.methods import METHODS, MethodRecipe
from byzopt.theory.promise import Constants, Promise
from byzopt.wire import Direct
from byzopt.workers import Plain


@dataclass(frozen=True)
class Audit:
    """What was measured, and what theory says with it.

    `kappa_hat` and `linear_hat` are the largest measured, `kappa` and `linear` the rule's proved coefficients
    (squared and linear), `worst` and `middle` the largest and the median (squared, linear) that are certified
    for the rounds' answers; `pair` (G, B) has the least common floor with κ̂, ζ² = κ̂ G² and α = κ̂ B². `known`
    holds the measured constants with the proved coefficients. `proved` and `measured` are the promises of
    methods, with the coefficients proved for every input and with those measured in this run; the spec's own
    method is looked at with its own step and with the (G, B) that fit this run.
    """

    rounds: tuple[AuditedRound, ...]
    kappa_hat: float
    linear_hat: float
    kappa: float | None
    linear: float | None
    pair: DissimilarityPair
    known: Constants
    proved: Mapping[str, Promise]
    measured: Mapping[str, Promise]
    method: str = ""
    message: str = ""
    certified: Promise | None = None

    @property
    def worst(self) -> tuple[float, float]:
        """The largest certified coefficients, squared and linear; infinite where a round has none."""
        return worst_certificates(self.rounds)

    @property
    def middle(self) -> tuple[float, float]:
        """The median ones."""
        pairs = [(r.certified, r.certified_linear) for r in self.rounds] or [(inf, inf)]
        return median(a for a, _ in pairs), median(b for _, b in pairs)

    @property
    def zeta_squared(self) -> float:
        """ζ² = κ̂ G²."""
        return kappa_times(self.kappa_hat, self.pair.g**2)

    @property
    def alpha(self) -> float:
        """α = κ̂ B²."""
        return kappa_times(self.kappa_hat, self.pair.b**2)


def kappa_times(kappa: float, square: float) -> float:
    """κ times a square. An infinite κ: rows without any spread, and yet an error, so that no G is enough."""
    return kappa if kappa == inf else kappa * square


def audit(spec: Spec, last: int | None = None, on_progress: OnProgress = no_progress) -> Audit:
    """Run a spec (its variants left out) for `last` rounds (default: its own) and look at every round.

    `on_progress` hears how far it is: first through the rounds, then through the task's constants.

    Errors: `InvalidInput` as for a run. A run without a majority, or one that diverges, is audited up to
    there, and `message` says so.
    """
    last = last or spec.rounds
    run = watch_run(spec, last, on_progress)
    with threads_for(run.task):
        known = estimate_constants(
            run.task, spec.rule, spec.f, last, run.asked[::2], spec.seed, on_progress, run.asked
        )
        known = replace(known, lr=spec.lr, horizon=spec.rounds)
        return _audited(spec, run, with_unmet_solves(known, run.report, len(run.seen)))


def _audited(spec: Spec, run: WatchedRun, known: Constants) -> Audit:
    seen, method = run.seen, run.method
    kappa_hat = max((r.kappa_hat for r in seen), default=0.0)
    linear_hat = max((r.linear_hat for r in seen), default=0.0)
    fits = (
        dissimilarity_pairs([r.variance for r in seen], [r.grad_norm**2 for r in seen])
        if seen
        else [DissimilarityPair(0.0, 0.0)]
    )
    pair = best_pair(fits, kappa_hat if kappa_hat < inf else None)
    # Rows are the gradients themselves: then (G, B) may be those of the points where this run asked.
    plain = isinstance(method.worker, Plain) and isinstance(method.wire, Direct) and known.sigma == 0
    constants = replace(known, pairs=tuple(fits), g=pair.g, b=pair.b) if plain and seen else known
    constants = replace(constants, exact=constants.exact | {"pairs"}) if plain and seen else constants
    other = replace(known, lr=None, horizon=None, unmet=None, watched=None)
    recipes: dict[str, MethodRecipe] = {name: METHODS.build(name) for name in METHODS}
    recipes[spec.method.name] = spec.method

    def told(here: Constants, there: Constants) -> dict[str, Promise]:
        return {
            name: recipe.promise(here if name == spec.method.name else there) or NONE
            for name, recipe in recipes.items()
        }

    hat, line = (value if value < inf else None for value in (kappa_hat, linear_hat))
    seen_own = replace(constants, kappa_squared=hat, kappa_linear=line, origin="measured")
    seen_other = replace(other, kappa_squared=hat, kappa_linear=line, origin="borrowed")
    return Audit(
        tuple(seen),
        kappa_hat,
        linear_hat,
        known.kappa_squared,
        known.kappa_linear,
        pair,
        replace(constants, g=pair.g, b=pair.b),
        told(constants, other),
        told(seen_own, seen_other),
        spec.method.name,
        run.message,
        spec.method.promise(with_certified_coefficients(constants, worst_certificates(seen))),
    )


NONE = Promise("none", "", lacks=("no theorem is known",))
