"""What is known of a spec's clock and intake before a run: rates, delays, warnings, and the longest step."""

from __future__ import annotations

from math import inf
from typing import NamedTuple, cast

from byzopt.aggregators import Mean
from byzopt.engines import Asynchrony, OnClock, rounds_on_clock
from byzopt.engines.clock_loop import whole
from byzopt.errors import TooManyFaults, counted, require
from byzopt.experiments.running import prepare_spec
from byzopt.experiments.specs.remarks import clock_warnings, row_times
from byzopt.experiments.specs.spec import Spec
from byzopt.methods import RobustGD
from byzopt.schedules import Constant
from byzopt.tasks.quadratic import QuadraticTask
from byzopt.theory import asynchrony as theory
from byzopt.theory.premises import checked_premise
from byzopt.theory.promise import Promise

STEPS = 200  # of the server that are looked at, at most


class ClockFacts(NamedTuple):
    """Numbers of a clock and intake by name, warnings in sentences, and the promise."""

    numbers: dict[str, float]
    warnings: tuple[str, ...]
    promise: Promise


def clock_facts(spec: Spec) -> ClockFacts:
    """What is known of the asynchrony of a spec that has one; the first steps are played to see delays.

    Errors: `InvalidInput` for a spec that has none, and for parts that do not fit.
    """
    require(spec.asynchrony is not None, "A spec", "have a table `asynchrony`", "none")
    asynchrony = cast("Asynchrony", spec.asynchrony)
    run = cast("OnClock", prepare_spec(spec, {}).engine)
    liars, honest = row_times(spec, asynchrony)
    share = theory.share_of_rows(liars, honest)
    numbers = {"fastest": min(honest), "slowest": max(honest), "rows_of_liars": share}
    if liars and liars[0] < inf:
        numbers["time_of_liars"] = min(liars)
    delays, ended = _delays(run, spec)
    if delays:
        late = delays[len(delays) // 2 :]
        numbers |= {"delay": sum(late) / len(late), "delay_max": max(late)}
    warnings = (*clock_warnings({"": spec}), *((ended,) if ended else ()))
    return ClockFacts(numbers, warnings, _promise(spec, run, delays))


def _delays(run: OnClock, spec: Spec) -> tuple[list[float], str]:
    """τ of the rows, on average over those heard in each of the first steps, and why they ended early."""
    found, before = list[float](), (0.0, 0)
    try:
        for snapshot in rounds_on_clock(run, run.begin(), min(STEPS, spec.rounds)):
            server = whole(snapshot.state)
            heard = (server.lateness, sum(server.arrivals))
            found.append((heard[0] - before[0]) / (heard[1] - before[1]))
            before = heard
            if not snapshot.x.isfinite().all():
                return found, "The first steps leave every bound."
    except TooManyFaults as error:
        return found, str(error)
    return found, ""


def _promise(spec: Spec, run: OnClock, delays: list[float]) -> Promise:
    late = delays[len(delays) // 2 :]
    same = bool(late) and min(late) == max(late) == int(max(late))
    delay = int(max(late)) if late else 0
    task, method, intake = run.task, spec.method, run.asynchrony.intake
    quadratic = isinstance(task, QuadraticTask) and task.curvatures.ndim == 1
    plain = isinstance(method, RobustGD) and method.schedule == Constant()
    alike = getattr(intake, "exponent", 0.0) == 0 and intake.uses_rule and intake.name != "latest"
    premises = [
        checked_premise("honest losses are quadratics with one Hessian", quadratic, type(task).__name__),
        checked_premise(
            "nobody lies", not spec.cohort.byzantine, counted(len(spec.cohort.byzantine), "liar")
        ),
        checked_premise("the rule is the mean", isinstance(spec.rule, Mean), repr(spec.rule)),
        checked_premise("workers send gradients, and the server descends", plain, method.name),
        checked_premise("a step is the mean of rows, whatever their age", alike, intake.name),
        checked_premise("every row is equally old", same, _told(late)),
    ]
    lipschitz = float(task.curvatures.max()) if isinstance(task, QuadraticTask) else None
    return theory.delay_promise(premises, lipschitz, delay, spec.lr)


def _told(late: list[float]) -> str:
    if not late:
        return "no step was taken"
    return f"τ between {min(late):g} and {max(late):g} in the later of the steps that were played"
