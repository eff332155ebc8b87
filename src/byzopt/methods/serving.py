"""A server that hears one worker at a time: the same arithmetic in a simulation and over processes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from byzopt.aggregators.core.filters import RoundContext, RoundRule
from byzopt.aggregators.core.present import fitted
from byzopt.errors import require
from byzopt.intakes import Arrival, AtServer, Intake, Taken
from byzopt.intakes.base import put
from byzopt.methods.base import Method, check_everybody, check_quiet_jobs
from byzopt.servers import ServerContext
from byzopt.wire import Broadcast, Direct, Identity


class ServerState(NamedTuple):
    """What the server remembers: its step, rule and intake, what each worker is at, and counts.

    `points`, `versions` and `samples` are those of the workers' present jobs: where, after how many server
    steps, and on which of the task's samples. `drawn` samples have been asked for. `arrivals` counts rows by
    worker, `lateness` their τ, `since` rows since the last step by worker, `unsound` those that were not
    finite.
    """

    t: int
    step: Any
    filter: Any
    intake: Any
    points: tuple[Tensor, ...]
    versions: tuple[int, ...]
    samples: tuple[int, ...]
    drawn: int
    arrivals: tuple[int, ...]
    lateness: float
    latest: int
    since: tuple[int, ...]
    unsound: int


@dataclass(frozen=True)
class Serving:
    """The server's side of a method behind an intake, f of n workers being faulty.

    **Samples.** A job is on the sample after all that were drawn when it began, and the first row on it to
    arrive draws it. So all that is in flight is on one sample, and nobody takes a sample twice; where
    everybody answers in every step it is the round's. Both ends know it without a word.

    Errors: `InvalidInput` for a method that cannot hear one worker at a time.
    """

    method: Method
    intake: Intake
    n: int
    f: int
    seed: int = 0

    def __post_init__(self) -> None:
        method, remedy = self.method, "Take another method, robust_gd or robust_sgdm for instance."
        plain = type(method.wire) is Direct and type(method.wire.compressor) is Identity
        plain = plain and type(method.down) is Broadcast
        what = "A method that hears one worker at a time"
        check_quiet_jobs(method, what)
        require(plain, what, "send rows as they are", f"{method.wire}, {method.down}", remedy)
        check_everybody(method, what)
        worker, needs = method.worker, set(method.worker.needs) - {"points"}
        alone = not needs and not worker.coined and not worker.counts_absence
        require(alone, what, "ask for gradients at one point a job", type(worker).__name__, remedy)
        known = isinstance(method.filter, RoundRule)
        what = "The rule of a server that hears one worker at a time"
        require(known, what, "work on any rows", type(method.filter).__name__, remedy)

    def begin(self, x0: Tensor, site: ServerContext) -> ServerState:
        """The state before the first row; nobody has been sent a point yet. Errors: `InvalidInput` for a site
        without the loss that the intake needs."""
        owns, remedy = site.proxy is not None, 'Set the task\'s `proxy`, "worker" for instance.'
        what = f"The server of intake {self.intake.name!r}"
        require(owns or not self.intake.needs_proxy, what, "own a loss", "none", remedy)
        step, memory = self.method.step.init(x0, site), self.method.filter.begin(x0, self.n, site.proxy)
        nobody = (0,) * self.n
        parts = (step, memory, self.intake.start(x0, self.n, self.f), (x0,) * self.n, nobody, nobody)
        return ServerState(0, *parts, 0, nobody, 0.0, 0, nobody, 0)

    def x(self, state: ServerState) -> Tensor:
        """Where workers are asked now, `[d]`."""
        return self.method.step.ask(state.step)

    def send(self, state: ServerState, workers: Iterable[int]) -> ServerState:
        """The state after these workers were sent the server's point."""
        x = self.x(state)
        points, versions, samples = list(state.points), list(state.versions), list(state.samples)
        for i in workers:
            points[i], versions[i], samples[i] = x, state.t, state.drawn + 1
        return state._replace(points=tuple(points), versions=tuple(versions), samples=tuple(samples))

    def context(self, state: ServerState, present: Tensor | None = None) -> RoundContext:
        """What the rule knows of the step that comes next."""
        return RoundContext(state.t + 1, self.x(state), present, self.seed)

    def hear(
        self, state: ServerState, worker: int, row: Tensor, proxy: Any = None
    ) -> tuple[ServerState, Tensor | None, bool]:
        """What comes of a worker's row: the state, the aggregate `[d]` where the server took a step, and
        whether all workers are to begin anew.

        Errors: `TooManyFaults` where the rows of a step hold more faulty ones than the rule tolerates.
        """
        late = state.t - state.versions[worker]
        arrival = Arrival(row, worker, late, state.points[worker])
        at = AtServer(state.t, self.x(state), self.n, self.f, proxy)
        taken, intake = self.intake.take(state.intake, arrival, at)
        state = state._replace(
            intake=intake,
            drawn=max(state.drawn, state.samples[worker]),
            arrivals=put(state.arrivals, worker, state.arrivals[worker] + 1),
            lateness=state.lateness + late,
            latest=max(state.latest, late),
            since=put(state.since, worker, state.since[worker] + 1),
            unsound=state.unsound + (not arrival.sound),
        )
        if taken.rows is None:
            return state, None, taken.restart
        g, memory = self._combined(state, taken)
        step = self.method.step.tell(state.step, g)
        return state._replace(t=state.t + 1, step=step, filter=memory, since=(0,) * self.n), g, taken.restart

    def held_up(self, state: ServerState, patience: int, gone: int) -> bool:
        """Whether n - f workers, or all but those who are `gone` where these are fewer, have each sent
        `patience` rows since the last step: f of them alone, however fast, never say so."""
        spent = sum(count >= patience for count in state.since)
        return spent >= max(1, min(self.n - self.f, self.n - gone))

    def report(self, state: ServerState) -> dict[str, float]:
        """`arrivals` rows so far; `staleness` their mean τ, `staleness_max` the largest; `unsound_rows` how
        many were not finite; what step, rule and intake report."""
        count = sum(state.arrivals)
        parts = self.method.step.report(state.step) | self.method.filter.report(state.filter)
        return (parts | self.intake.report(state.intake)) | {
            "arrivals": float(count),
            "staleness": state.lateness / max(count, 1),
            "staleness_max": float(state.latest),
            "unsound_rows": float(state.unsound),
        }

    def _combined(self, state: ServerState, taken: Taken) -> tuple[Tensor, Any]:
        assert taken.rows is not None
        if not self.intake.uses_rule:
            return taken.rows[0], state.filter
        filter, at = self.method.filter, self.context(state, taken.present)
        assert isinstance(filter, RoundRule)
        if taken.present is None:
            g, memory = filter.step(state.filter, taken.rows, at)
        else:
            rule = fitted(filter.now(state.filter, at), taken.present, None)
            g = torch.as_tensor(rule(taken.rows[taken.present.to(taken.rows.device)]))
            memory = filter.after(state.filter, g)
        return g if taken.scale == 1 else taken.scale * g, memory
