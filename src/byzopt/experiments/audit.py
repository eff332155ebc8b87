"""A run watched from outside: what the rule did to honest rows, round by round, against what is proved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from byzopt import linalg
from byzopt.aggregators.expulsion import Expulsion
from byzopt.aggregators.filters import At, Filter, Limits
from byzopt.engines import rounds
from byzopt.errors import TooManyFaults
from byzopt.experiments.estimates import Pair, Tell, best_pair, estimate, pairs, silent
from byzopt.experiments.ready import Plan, prepare, threads_for
from byzopt.experiments.spec import Spec
from byzopt.experiments.trial import FAR
from byzopt.methods import METHODS, MethodRecipe
from byzopt.tasks import Task
from byzopt.theory.promise import Constants, Promise

POINTS = 3  # of the iterates at which constants are measured too


class Round(NamedTuple):
    """One round: `variance` of the honest rows, `grad_norm` of their mean m, `error` ‖g - m‖, and
    κ̂ = error²/variance (0 where both are)."""

    t: int
    kappa_hat: float
    variance: float
    grad_norm: float
    error: float


@dataclass(frozen=True)
class Audit:
    """What was measured, and what theory says with it.

    `kappa_hat` is the largest measured, `kappa` the rule's proved squared coefficient; `pair` (G, B) has the
    least floor with κ̂, ζ² = κ̂ G² and α = κ̂ B². `known` holds the measured constants with the proved κ.
    `proved` and `measured` are the promises of methods, with κ and with κ̂ in its place; each takes, of the
    (G, B) that fit this run, those with which its theorem holds at the lowest floor.
    """

    rounds: tuple[Round, ...]
    kappa_hat: float
    kappa: float | None
    pair: Pair
    known: Constants
    proved: Mapping[str, Promise]
    measured: Mapping[str, Promise]
    message: str = ""

    @property
    def zeta_squared(self) -> float:
        """ζ² = κ̂ G²."""
        return self.kappa_hat * self.pair.g**2

    @property
    def alpha(self) -> float:
        """α = κ̂ B²."""
        return self.kappa_hat * self.pair.b**2


@dataclass(frozen=True)
class Watched(Filter):
    """A filter whose rows and answers are noted as they pass."""

    inner: Filter
    honest: tuple[int, ...]
    seen: list[Round] = field(default_factory=list)

    @property
    def alike(self) -> bool:
        return self.inner.alike

    def init(self, x0: Tensor, n: int) -> Any:
        return self.inner.init(x0, n)

    def step(self, state: Any, rows: Tensor, at: At) -> tuple[Tensor, Any]:
        g, after = self.inner.step(state, rows, at)
        self.seen.append(noted(at.t, rows[list(self.honest)].double(), g.double()))
        return g, after

    def preview(self, state: Any, rows: Tensor, at: At) -> Tensor:
        return self.inner.preview(state, rows, at)

    def limits(self, state: Any, at: At) -> Limits | None:
        return self.inner.limits(state, at)

    def report(self, state: Any) -> dict[str, float]:
        return self.inner.report(state)

    def expelled(self, state: Any) -> tuple[Expulsion, ...]:
        return self.inner.expelled(state)


def noted(t: int, honest: Tensor, g: Tensor) -> Round:
    """The figures of a round from its honest rows `[h, d]` and the aggregate `[d]`."""
    mean = honest.mean(dim=0)
    variance = float((honest - mean).square().sum(dim=1).mean())
    error = float(torch.linalg.vector_norm(g - mean))
    # Rounding of the mean itself is no error of the rule.
    noise = 1e-12 * float(torch.linalg.vector_norm(mean))
    kappa = error**2 / variance if variance > noise**2 and error > noise else 0.0
    return Round(t, kappa, variance, float(torch.linalg.vector_norm(mean)), error)


def audit(spec: Spec, last: int | None = None, tell: Tell = silent) -> Audit:
    """Run a spec (its variants left out) for `last` rounds (default: its own) and look at every round.

    `tell` hears how far it is: first through the rounds, then through the task's constants.

    Errors: `InvalidInput` as for a run. A run without a majority, or one that diverges, is audited up to
    there, and `message` says so.
    """
    task = spec.task.build(spec.cohort, spec.seed)
    method = spec.method.build(spec.rule, spec.lr, spec.rounds)
    watched = Watched(method.filter, spec.cohort.honest)
    last = last or spec.rounds
    ready = prepare(
        task, replace(method, filter=watched), spec.attack, spec.f, spec.seed, Plan(last, last, {})
    )
    watched.seen.clear()  # round 1 is played again
    visited, message = [], ""
    bound = FAR * (1 + float(linalg.norm(task.start())))
    with threads_for(task):
        try:
            for snapshot in rounds(ready.method, ready.engine, ready.start, last):
                tell("round", snapshot.state.t, last)
                if not float(linalg.norm(snapshot.x)) <= bound:
                    watched.seen.pop()
                    message = f"the iterate left every reasonable range in round {snapshot.state.t}"
                    break
                if snapshot.state.t % max(1, last // POINTS) == 0:
                    visited.append(snapshot.asked)
        except TooManyFaults as error:
            message = str(error)
        return _audited(spec, task, watched.seen, visited, message, last, tell)


def _audited(
    spec: Spec,
    task: Task,
    seen: Sequence[Round],
    visited: list[Tensor],
    message: str,
    last: int,
    tell: Tell,
) -> Audit:
    known = estimate(task, spec.rule, spec.f, last, visited, spec.seed, tell)
    kappa_hat = max((r.kappa_hat for r in seen), default=0.0)
    fits = pairs([r.variance for r in seen], [r.grad_norm**2 for r in seen]) if seen else [Pair(0.0, 0.0)]
    # The theorems ask for (G, B) at the points where gradients were asked for, and nowhere else.
    pair = best_pair(fits, kappa_hat)
    recipes: dict[str, MethodRecipe] = {name: METHODS.build(name) for name in METHODS}
    recipes[spec.method.name] = spec.method
    attained = replace(known, kappa_squared=kappa_hat)
    return Audit(
        tuple(seen),
        kappa_hat,
        known.kappa_squared,
        pair,
        replace(known, g=pair.g, b=pair.b),
        {name: _best(recipe, known, fits) for name, recipe in recipes.items()},
        {name: _best(recipe, attained, fits) for name, recipe in recipes.items()},
        message,
    )


def _best(recipe: MethodRecipe, known: Constants, fits: Sequence[Pair]) -> Promise:
    """The promise with the lowest floor over the pairs; if its theorem never holds, that of B = 0."""
    found = [recipe.promise(replace(known, g=pair.g, b=pair.b)) for pair in fits]
    told = [promise for promise in found if promise is not None]
    if not told:
        return Promise("none", "", missing=("no theorem is known",))
    held = [promise for promise in told if promise.floor is not None]
    return min(held, key=lambda promise: promise.floor or 0.0) if held else told[0]
