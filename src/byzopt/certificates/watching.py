"""A run that is watched from outside: what its rule does to the honest rows, round by round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from byzopt import linalg
from byzopt.aggregators.core.base import BaseAggregator
from byzopt.aggregators.core.expulsion import Expulsion
from byzopt.aggregators.core.filters import Filter, GuardLimits, RoundContext
from byzopt.aggregators.core.foreseeing import Foreseen
from byzopt.certificates.progress import OnProgress, no_progress
from byzopt.engines import Engine, rounds
from byzopt.errors import TooManyFaults, require
from byzopt.experiments.specs.spec import Spec
from byzopt.experiments.trials.memory import build_task
from byzopt.experiments.trials.prepared import RunSettings, prepare, threads_for
from byzopt.experiments.trials.trial import FAR
from byzopt.methods import Method
from byzopt.tasks import Task
from byzopt.theory.promise import Constants

POINTS = 3  # of the iterates at which constants are measured too


class AuditedRound(NamedTuple):
    """One round: `variance` of the honest rows, `grad_norm` of their mean m, `error` ‖g - m‖, κ̂ =
    error²/variance in the squared form, and `linear_hat` = error/mean‖v_i - m‖ in the linear one. An error
    without any spread makes both infinite; no error makes both 0. `certified` and `certified_linear` are the
    coefficients that this answer is certified to have (infinite: not certified)."""

    t: int
    kappa_hat: float
    variance: float
    grad_norm: float
    error: float
    linear_hat: float = 0.0
    certified: float = inf
    certified_linear: float = inf


@dataclass(frozen=True)
class RecordingFilter(Filter):
    """A filter whose rows and answers are noted as they pass."""

    inner: Filter
    honest: tuple[int, ...]
    seen: list[AuditedRound] = field(default_factory=list)

    @property
    def assumes_one_distribution(self) -> bool:
        return self.inner.assumes_one_distribution

    @property
    def needs_proxy(self) -> bool:
        return self.inner.needs_proxy

    def init(self, x0: Tensor, n: int) -> Any:
        return self.inner.init(x0, n)

    def begin(self, x0: Tensor, n: int, proxy: Callable[[Tensor], Tensor] | None) -> Any:
        return self.inner.begin(x0, n, proxy)

    def step(self, state: Any, rows: Tensor, at: RoundContext) -> tuple[Tensor, Any]:
        g, after, certificates = self.inner.certified_step(state, rows, at, len(rows) - len(self.honest))
        here = [i for i in self.honest if at.present is None or at.present[i]]
        seen = round_figures(at.t, rows[here].double(), g.double())
        for one in certificates:
            figures = one.figures()
            squared, linear = figures["certified_squared"], figures["certified_linear"]
            seen = seen._replace(certified=squared, certified_linear=linear)
        self.seen.append(seen)
        return g, after

    def preview(self, state: Any, rows: Tensor, at: RoundContext) -> Tensor:
        return self.inner.preview(state, rows, at)

    def rule_of(self, state: Any, at: RoundContext) -> BaseAggregator | None:
        return self.inner.rule_of(state, at)

    def limits(self, state: Any, at: RoundContext) -> GuardLimits | None:
        return self.inner.limits(state, at)

    def report(self, state: Any) -> dict[str, float]:
        return self.inner.report(state)

    def expelled(self, state: Any) -> tuple[Expulsion, ...]:
        return self.inner.expelled(state)

    @property
    def expels(self) -> bool:
        return self.inner.expels

    def foresee(self, state: Any, rows: Tensor, at: RoundContext, rounds: int = 1) -> Foreseen:
        return self.inner.foresee(state, rows, at, rounds)

    def vectors(self, state: Any, at: RoundContext) -> Tensor | None:
        return self.inner.vectors(state, at)

    def with_vectors(self, state: Any, at: RoundContext, vectors: Tensor) -> tuple[Filter, Any, RoundContext]:
        return self.inner.with_vectors(state, at, vectors)


def round_figures(t: int, honest: Tensor, g: Tensor) -> AuditedRound:
    """The figures of a round from its honest rows `[h, d]` and the aggregate `[d]`; where no honest row came,
    all of the aggregate is an error."""
    if not len(honest):
        return AuditedRound(t, inf, 0.0, 0.0, float(torch.linalg.vector_norm(g)), inf)
    mean = honest.mean(dim=0)
    lengths = torch.linalg.vector_norm(honest - mean, dim=1)
    variance, spread = float(lengths.square().mean()), float(lengths.mean())
    size, error = float(torch.linalg.vector_norm(mean)), float(torch.linalg.vector_norm(g - mean))
    # Rounding of the mean itself is neither an error of the rule nor a spread of the rows.
    noise = 1e-12 * size
    if error <= noise:
        return AuditedRound(t, 0.0, variance, size, error, 0.0)
    if spread <= noise or variance == 0:
        return AuditedRound(t, inf, variance, size, error, inf)
    return AuditedRound(t, error**2 / variance, variance, size, error, error / spread)


def worst_certificates(rounds: Sequence[AuditedRound]) -> tuple[float, float]:
    """The largest certified coefficients of the rounds, squared and linear."""
    squared = max((r.certified for r in rounds), default=inf)
    return squared, max((r.certified_linear for r in rounds), default=inf)


class WatchedRun(NamedTuple):
    """A run that was watched: its task and method, its rounds, points where it asked (in twos: one, and the
    next), what its step reported last, and why it ended early."""

    task: Task
    method: Method
    seen: list[AuditedRound]
    asked: list[Tensor]
    report: Mapping[str, float]
    message: str


def watch_run(spec: Spec, last: int, on_progress: OnProgress = no_progress) -> WatchedRun:
    """Play `last` rounds of a spec, and look at each. `on_progress` hears how far it is."""
    remedy = "Take a spec without `graph`; `byzopt explain` tells what is known of one with it."
    require(spec.graph is None, "A run that is watched", "have a server", "a graph", remedy)
    remedy = remedy.replace("`graph`", "`asynchrony`")
    together = spec.asynchrony is None
    require(together, "A run that is watched", "hear all workers in every round", "a clock", remedy)
    task = build_task(spec)
    method = spec.built()
    watched = RecordingFilter(method.filter, spec.cohort.honest)
    settings = RunSettings(
        spec.attack, spec.f, spec.seed, last, last, placement=spec.placement, base=spec.base
    )
    ready = prepare(task, replace(method, filter=watched), settings)
    assert isinstance(ready.engine, Engine)  # there is a server
    watched.seen.clear()  # round 1 is played again
    asked: list[Tensor] = []
    message = ""
    report: Mapping[str, float] = {}
    bound, every = FAR * (1 + float(linalg.norm(task.start()))), max(1, last // POINTS)
    with threads_for(task):
        try:
            for snapshot in rounds(ready.method, ready.engine, ready.start, last):
                on_progress("round", snapshot.state.t, last)
                if not float(linalg.norm(snapshot.x)) <= bound:
                    watched.seen.pop()
                    message = f"the iterate left every reasonable range in round {snapshot.state.t}"
                    break
                report = snapshot.report()
                if snapshot.state.t % every == 0 or len(asked) % 2:
                    asked.append(snapshot.asked)
        except TooManyFaults as error:
            message = str(error)
    return WatchedRun(task, method, watched.seen, asked, report, message)


def with_unmet_solves(known: Constants, report: Mapping[str, float], t: int) -> Constants:
    """The constants with how many inner solves did not meet their stop in the first t rounds, from what a
    step with inner solves reports."""
    unmet = report.get("inner_unmet")
    return known if unmet is None else replace(known, unmet=int(unmet), watched=t)


def with_certified_coefficients(
    known: Constants,
    coefficients: tuple[float, float],
    origin: Literal["certified", "recorded"] = "certified",
) -> Constants:
    """The constants with the coefficients (squared, linear) that a run's answers are certified to have, where
    these are less than what is proved for every input."""
    squared, linear = (value if value < inf else None for value in coefficients)
    proved = known.kappa_squared, known.kappa_linear
    if None not in proved and squared is not None and linear is not None and (squared, linear) >= proved:
        return known
    return replace(known, kappa_squared=squared, kappa_linear=linear, origin=origin)
