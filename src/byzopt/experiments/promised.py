"""What theory promises of a spec: constants estimated on its task, and the method's theorem with them."""

from __future__ import annotations

from dataclasses import replace

from byzopt.experiments.estimates import Tell, estimate, silent
from byzopt.experiments.spec import Spec
from byzopt.theory.promise import Constants, Promise

KEYS = {"gap": "gap", "min ‖grad f‖": "grad_norm"}  # what a promise measures to what records call it


def promised(spec: Spec, tell: Tell = silent) -> tuple[Constants, Promise | None]:
    """The constants of the spec's task, and what its method's theorem says with them."""
    task = spec.task.build(spec.cohort, spec.seed)
    known = estimate(task, spec.rule, spec.f, spec.rounds, seed=spec.seed, tell=tell)
    return known, spec.method.promise(known)


def curve(spec: Spec, tell: Tell = silent) -> tuple[str, dict[float, float], Promise | None]:
    """The bound after each round at which the spec is measured: the records' key that it bounds, the bound by
    round (empty where theory gives none), and the promise for the whole run.

    The step sizes are the theorem's, which need not be the spec's.
    """
    known, promise = promised(spec, tell)
    if promise is None:
        return "gap", {}, None
    values: dict[float, float] = {}
    for t in [*range(spec.interval, spec.rounds, spec.interval), spec.rounds]:
        here = spec.method.promise(replace(known, rounds=t))
        if here is not None and here.bound is not None:
            values[float(t)] = here.bound
    return KEYS.get(promise.measures, promise.measures), values, promise
