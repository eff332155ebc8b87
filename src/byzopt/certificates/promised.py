"""What theory promises for a spec: its method's theorem with the constants of its task and its own step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import sqrt

from byzopt.certificates.asynchrony import clock_facts
from byzopt.certificates.audit import NONE
from byzopt.certificates.certified import summarise_certificates
from byzopt.certificates.estimates import estimate_constants
from byzopt.certificates.graphs import graph_facts
from byzopt.certificates.progress import OnProgress, no_progress
from byzopt.certificates.smoothness import fit_to_path
from byzopt.certificates.watching import (
    watch_run,
    with_certified_coefficients,
    with_unmet_solves,
    worst_certificates,
)
from byzopt.engines import Engine, rounds
from byzopt.errors import TooManyFaults
from byzopt.experiments.running import prepare_spec
from byzopt.experiments.specs.spec import Spec
from byzopt.experiments.trials.memory import build_task
from byzopt.theory.promise import Constants, Promise, Standing

FIRST = 5  # rounds in which inner solves are looked at

Change = Callable[[float], float]
# What a promise measures: the records' figure that it bounds, how, and whether only its least value so far.
KEYS: dict[str, tuple[str, Change, bool]] = {
    "gap": ("gap", float, False),
    "min ‖grad f‖": ("grad_norm", float, True),
    "min ‖grad f‖²": ("grad_norm", sqrt, True),
    "mean ‖∇f‖²": ("grad_norm", sqrt, True),  # the least square is at most the mean
}


@dataclass(frozen=True)
class BoundCurve:
    """A bound round by round: the records' figure `key` that it bounds (`least`: only its least value so
    far), `values` by round, and the promise for the whole run. Empty where the promise gives no bound, or one
    that is vacuous."""

    promise: Promise
    key: str = ""
    least: bool = False
    values: Mapping[float, float] = field(default_factory=dict)


def spec_constants(spec: Spec, on_progress: OnProgress = no_progress) -> Constants:
    """The constants of the spec's task for its rule and rounds, whatever its attack, method and step."""
    task = build_task(spec)
    return estimate_constants(task, spec.rule, spec.f, spec.rounds, seed=spec.seed, on_progress=on_progress)


def spec_promise(spec: Spec, on_progress: OnProgress = no_progress) -> tuple[Constants, Promise]:
    """The constants of the spec's task, and what its method's theorem says with them and the spec's step."""
    known = complete_constants(spec, spec_constants(spec, on_progress), on_progress)
    return known, spec.method.promise(known) or NONE


def complete_constants(
    spec: Spec,
    known: Constants,
    on_progress: OnProgress = no_progress,
    records: Sequence[Mapping[str, float]] = (),
) -> Constants:
    """The constants with what the spec's own method, step and run add to them.

    Where nothing but the rule's coefficient is missing, and its single answers may be certified, those count
    that the `records` of the run hold; without any the run is played for the coefficients that all of its
    answers have, and estimates then have to fit its path.
    """
    sampled = spec.participants.name
    known = _solved(spec, replace(known, lr=spec.lr, horizon=spec.rounds, participants=sampled))
    otherwise = promise_if_certified(spec, known)
    if otherwise is None:
        return known
    if otherwise.broken:  # then no certificate would help, and what else is wrong should be told too
        reasons = "; ".join(map(str, otherwise.broken))
        return replace(known, unproved=f"{known.unproved}. Whatever it is, this does not hold: {reasons}")
    if (summary := summarise_certificates(records)) is not None:
        worst = (summary.worst.squared or 0.0, summary.worst.linear or 0.0)
        return with_certified_coefficients(
            known, worst, "certified" if summary.rounds == spec.rounds else "recorded"
        )
    run = watch_run(spec, spec.rounds, on_progress)
    if run.message:
        return replace(known, unproved=f"{known.unproved}, and the run ended early: {run.message}")
    return fit_to_path(run.task, with_certified_coefficients(known, worst_certificates(run.seen)), run.asked)


def promise_if_certified(spec: Spec, known: Constants) -> Promise | None:
    """What the theorem says if the rule's coefficient, which is not known, were 0; None where something else
    is missing before it, or where answers of the rule cannot be certified."""
    promise = spec.method.promise(known)
    if promise is None or known.attackers is None or None not in (known.kappa_linear, known.kappa_squared):
        return None
    if not promise.broken or any(premise.verdict is Standing.FAILS for premise in promise.broken):
        return None
    if not spec.rule.certifiable(spec.n, known.attackers):
        return None
    return spec.method.promise(replace(known, kappa_linear=0.0, kappa_squared=0.0))


def bound_curve(
    spec: Spec,
    known: Constants,
    on_progress: OnProgress = no_progress,
    records: Sequence[Mapping[str, float]] = (),
) -> BoundCurve:
    """The bound after each round at which the spec is measured, where every premise stands. `known`: see
    `constants`; `records`: see `filled`."""
    if spec.graph is not None:
        return BoundCurve(graph_facts(spec).promise)
    if spec.asynchrony is not None:
        return BoundCurve(clock_facts(spec).promise)
    known = complete_constants(spec, known, on_progress, records)
    promise = spec.method.promise(known) or NONE
    if promise.measures not in KEYS or promise.bound is None or promise.vacuous:
        return BoundCurve(promise)
    key, change, least = KEYS[promise.measures]
    values: dict[float, float] = {}
    for t in [*range(spec.interval, spec.rounds, spec.interval), spec.rounds]:
        here = spec.method.promise(replace(known, rounds=t))
        if here is not None and here.bound is not None and not here.vacuous:
            values[float(t)] = change(here.bound)
    return BoundCurve(promise, key, least, values)


def _solved(spec: Spec, known: Constants) -> Constants:
    """Whether the inner solves of a method that has some meet their stop in the first rounds."""
    method = spec.built()
    if not hasattr(method.step, "inner"):
        return known
    ready = prepare_spec(spec, {})
    assert isinstance(ready.engine, Engine)  # steps with inner solves have a server
    try:
        for snapshot in rounds(ready.method, ready.engine, ready.start, min(FIRST, spec.rounds)):
            known = with_unmet_solves(known, snapshot.report(), snapshot.state.t)
    except TooManyFaults:
        return replace(known, unmet=None)
    return known
