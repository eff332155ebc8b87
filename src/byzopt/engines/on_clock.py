"""The parts of a run on a clock: its workers, the server that hears them one at a time, and who lies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from byzopt.aggregators.core.defence import Defence
from byzopt.attacks import Adversary, ClockAttack
from byzopt.engines.absence import played
from byzopt.engines.asynchrony import Asynchrony, check_intake
from byzopt.engines.base import check_rows
from byzopt.engines.loop import LoopState
from byzopt.engines.searching import check_heard
from byzopt.engines.simulated import GradientCount, check_needs
from byzopt.errors import require
from byzopt.methods import Method
from byzopt.methods.serving import ServerState, Serving
from byzopt.rng import stream
from byzopt.servers import ServerContext
from byzopt.tasks import Task
from byzopt.workers import Oracle


@dataclass(frozen=True)
class OnClock:
    """The workers of a task on a clock, the server's side of a method behind an intake, and who lies.

    Args:
        task: Losses and data, those of Byzantine workers as the attack wants them.
        method: What workers compute and how the server steps; it sends rows as they are.
        asynchrony: How long workers take, and the intake.
        adversary: Who lies, and how.
        f: How many faulty workers the server tolerates.
        seed: Of all that is drawn.

    Raises:
        InvalidInput: Parts that do not fit one another or the task.

    Examples:
        >>> from byzopt import Adversary, Cohort, NoAttack, Quadratic, RobustGD, rule_from
        >>> from byzopt.clocks import Spread
        >>> from byzopt.engines import Asynchrony, OnClock, rounds_on_clock
        >>> from byzopt.intakes import Unique
        >>> cohort = Cohort.of(6)
        >>> task = Quadratic().build(cohort, seed=0)
        >>> method = RobustGD().build(rule_from("median", f=1), lr=0.1)
        >>> parts = (Asynchrony(Spread(1.0, 3.0), Unique(size=4)), Adversary(NoAttack(), cohort, 1))
        >>> run = OnClock(task, method, *parts, f=1, seed=0)
        >>> *_, last = rounds_on_clock(run, run.begin(), last=3)
        >>> last.state.engine.now
        4.4
    """

    task: Task
    method: Method
    asynchrony: Asynchrony
    adversary: Adversary
    f: int
    seed: int

    def __post_init__(self) -> None:
        _ = self.serving
        rule = getattr(self.method.filter, "rule", None)
        if rule is not None:
            check_intake(self.asynchrony, rule, self.task.n, self.f)
        place, what = self.adversary.placement, "The placement of an attack on a clock"
        require(place == "free", what, "be 'free': workers send rows as they are", repr(place))
        check_needs(self.method.worker, self.task)
        check_heard(self.adversary.attack, self.asynchrony.intake)

    @cached_property
    def serving(self) -> Serving:
        """The server's side."""
        return Serving(self.method, self.asynchrony.intake, self.task.n, self.f, self.seed)

    @cached_property
    def site(self) -> ServerContext:
        """Where the server's step works."""
        return ServerContext(self.task.layout, self.task.proxy())

    @cached_property
    def liars(self) -> frozenset[int]:
        """The Byzantine workers' numbers."""
        return frozenset(self.task.cohort.byzantine)

    @cached_property
    def blind(self) -> bool:
        """Whether the attack looks at no rows, so that none need be computed for it."""
        attack = self.adversary.attack
        knows = attack.rows.knows if isinstance(attack, ClockAttack) else attack.knows
        return not knows & {"own", "honest"}

    @cached_property
    def pace(self) -> float | None:
        """How long liars take, where the attack chooses that."""
        attack, clock = self.adversary.attack, self.asynchrony.clock
        if not isinstance(attack, ClockAttack):
            return None
        means = [clock.mean(i, self.task.n) for i in self.task.cohort.honest]
        return attack.pace(min(means), max(means))

    def service(self, worker: int, count: int) -> float:
        """How long a worker takes for its job number `count`."""
        if worker in self.liars and self.pace is not None:
            return self.pace
        return self.asynchrony.clock.service(self.seed, worker, count, self.task.n)

    def begin(self) -> LoopState:
        """The state before round 1."""
        state = self.serving.begin(self.task.start(), self.site)
        return LoopState(0, state.step, state.filter, None, 0.0, 0.0)

    def answer(self, state: LoopState) -> Tensor:
        """The iterate `[d]`."""
        return self.method.step.answer(state.step)

    def computed(
        self, memory: Any, server: ServerState, rows: tuple[Tensor, ...], jobs: list[int]
    ) -> tuple[tuple[Tensor, ...], Any, float]:
        """Everybody's latest row after the `jobs` of these workers, all on one sample; what workers remember;
        and gradients, of the average worker.

        Where all stand at one point, that is asked for as in a synchronous round.
        """
        n, worker, count, first = self.task.n, self.method.worker, GradientCount(), memory is None
        t, everybody = server.samples[jobs[0]], len(jobs) == n
        samples = worker.samples
        if everybody and len({server.versions[i] for i in jobs}) == 1:
            oracle = count.oracle(self.task, t, self.seed, samples=samples)
            vectors, after = played(worker, memory, first, server.points[jobs[0]], oracle, None)
        else:
            present = torch.zeros(n, dtype=torch.bool, device="cpu")
            present[jobs] = True
            oracle = _at_points(self.task, t, self.seed, samples, jobs, count)
            vectors, after = played(worker, memory, first, torch.stack(server.points), oracle, present)
        check_rows(f"The vectors of {type(worker).__name__}", vectors, n, self.task.start())
        due = frozenset(jobs)
        latest = tuple(vectors[i] if i in due else rows[i] for i in range(n))
        return latest, after, count.gradients * len(jobs) / n

    def lies(
        self, attack: Any, server: ServerState, rows: tuple[Tensor, ...], times: int
    ) -> tuple[tuple[Tensor, ...], Any]:
        """What all would say now, the liars as the attack wants it; asked for the `times`-th time (from 0)
        since the last step. Attackers that search against the rule see it on everybody's latest rows."""
        x, t = self.serving.x(server), server.t + 1
        names = ("attack", t, times) if times else ("attack", t)
        generator = stream(self.seed, *names, device=x.device)
        defence = Defence(self.method.filter, server.filter, self.serving.context(server))
        losses = self.adversary.losses(self.task)
        seen = (attack, t, x, torch.stack(rows), generator, defence, None, losses)
        said, attack = self.adversary.forge_rows(*seen)
        return tuple(said), attack


def _at_points(task: Task, t: int, seed: int, samples: int, jobs: list[int], count: GradientCount) -> Oracle:
    """The oracle of some workers, each at a point of its own; gradients of the others are 0 and not taken."""
    stretches = [slice(a, b) for a, b in _stretches(jobs)]

    def on(k: int) -> Oracle:
        sample = task.draw((t - 1) * samples + 1 + k)

        def at(points: Tensor) -> Tensor:
            count.gradients += 1
            rows = torch.zeros_like(points)
            for who in stretches:
                rows[who] = task.grads_at(points[who], sample, who)
            return rows

        return Oracle(t, at, _no_full, seed, at, on)

    return on(0)


def _no_full(points: Tensor) -> Tensor:
    raise AssertionError("estimators that need full gradients are refused")


def _stretches(jobs: list[int]) -> list[tuple[int, int]]:
    """Numbers in ascending order as ranges."""
    found: list[tuple[int, int]] = []
    for i in jobs:
        if found and found[-1][1] == i:
            found[-1] = (found[-1][0], i + 1)
        else:
            found.append((i, i + 1))
    return found
