"""The simulated engine: all workers in one process, their gradients in one vectorised call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from byzopt.aggregators.core.filters import RoundContext
from byzopt.attacks import Adversary
from byzopt.engines.absence import played, share_of, unmoved, zero_absent
from byzopt.engines.base import ENGINES, Engine, EngineRecipe, Exchange, MethodPart, check_rows
from byzopt.engines.searching import check_wire
from byzopt.engines.transmission import transmit
from byzopt.errors import require
from byzopt.methods import Method
from byzopt.rng import stream
from byzopt.tasks import Task
from byzopt.wire import Broadcast, Channel, Downlink, Link
from byzopt.workers import All, Estimator, Oracle, Participants


class SimulatedState(NamedTuple):
    """The workers' memories, the channel's, the attack's, the downlink's."""

    worker: Any
    wire: Any
    attack: Any
    down: Any = ()


@dataclass(frozen=True)
class Simulated(Engine):
    """Workers' side of a method over a task, under an adversary.

    Errors: `InvalidInput` for parts that do not fit one another or the task.

    Args:
        task: Losses and data, those of Byzantine workers as the attack wants them.
        worker: What workers compute.
        wire: What crosses to the server.
        adversary: Who forges the Byzantine workers' rows.
        seed: Of all that is drawn.
        down: How the server's point reaches the workers.
        participants: Who takes part in a round.

    Raises:
        InvalidInput: Parts that do not fit one another or the task.

    Examples:
        >>> from byzopt import Adversary, Cohort, Quartic, SignFlip
        >>> from byzopt.engines import Simulated
        >>> from byzopt.wire import Direct
        >>> from byzopt.workers import Plain
        >>> cohort = Cohort.of(4, byzantine=1)
        >>> task, adversary = Quartic().build(cohort, seed=0), Adversary(SignFlip(), cohort, f=1)
        >>> engine = Simulated(task, Plain(), Direct(), adversary, seed=0)
        >>> seen, state = engine.exchange(None, task.start(), 1, lambda rows: rows.mean(0))
        >>> seen.rows.shape, seen.bits
        (torch.Size([4, 10]), 320.0)
    """

    forges: ClassVar[bool] = True
    runs: ClassVar[frozenset[MethodPart]] = frozenset({"worker", "wire", "down", "participants"})

    task: Task
    worker: Estimator
    wire: Channel
    adversary: Adversary
    seed: int
    down: Downlink = Broadcast()
    participants: Participants = All()

    def __post_init__(self) -> None:
        self.participants.check(self.task.n)
        self.wire.check(self.task.layout, bool(self.adversary.cohort.byzantine))
        self.down.check(self.task.layout)
        check_needs(self.worker, self.task)
        check_wire(self.adversary.attack, self.adversary.placement, self.wire)

    @property
    def n(self) -> int:
        return self.task.n

    @property
    def everybody(self) -> bool:
        """Whether all workers take part in every round."""
        return self.participants == All()

    def present(self, t: int) -> Tensor | None:
        return self.participants.mask(self.seed, t, self.n)

    def context(self, t: int, x: Tensor) -> RoundContext:
        return RoundContext(t, x, self.present(t), self.seed)

    def exchange(
        self,
        state: SimulatedState | None,
        x: Tensor,
        t: int,
        defence: Callable[[Tensor], Tensor],
        last: Tensor | None = None,
    ) -> tuple[Exchange, SimulatedState]:
        present = self.present(t)
        link = Link(t, self.seed, self.task.layout, last, present=present)
        asked = state.down if state is not None else self.down.start(x)
        w, asked = self.down.send(asked, x, link._replace(way="down"))
        link = link._replace(x=w)
        vectors, worker, gradients = self.play(state, w, t)
        check_rows(f"The vectors of {type(self.worker).__name__}", vectors, self.n, x)
        if state is None:
            wire, attack = _RoundChannel(self.wire, self.wire.start(vectors), link), self.adversary.start(w)
        else:
            wire, attack = _RoundChannel(self.wire, state.wire, link), state.attack
        generator, losses = stream(self.seed, "attack", t, device=x.device), self.adversary.losses(self.task)

        def forge(rows: Tensor) -> Tensor:
            nonlocal attack
            seen = (attack, t, w, rows, generator, defence, present, losses)
            rows, attack = self.adversary.forge_rows(*seen)
            return rows

        byzantine = self.adversary.liars(x.device) if self.adversary.cohort.byzantine else None
        before = wire.state
        rows = zero_absent(transmit(wire, vectors, self.adversary, byzantine, forge), present)
        share, up, below = share_of(present), self.wire.cost(link), self.down.cost(link)
        bits_down = below.bits + self.worker.coined
        costs = (gradients, *up, bits_down, below.coordinates)
        seen = Exchange(rows, *(share * cost for cost in costs))
        wired = unmoved(wire.state, before, present)
        return seen, SimulatedState(worker, wired, attack, asked)

    def report(self, state: SimulatedState) -> dict[str, float]:
        sent = self.worker.report(state.worker) | self.wire.report(state.wire)
        return sent | self.adversary.attack.report(state.attack)

    def play(self, state: SimulatedState | None, w: Tensor, t: int) -> tuple[Tensor, Any, float]:
        """All workers' vectors at `w`, `[n, d]`, their state after it, and gradients per worker."""
        count, present = GradientCount(), self.present(t)
        oracle = count.oracle(self.task, t, self.seed, samples=self.worker.samples, present=present)
        memory = None if state is None else state.worker
        vectors, worker = played(self.worker, memory, state is None, w, oracle, present)
        return vectors, worker, count.gradients


@ENGINES.register("simulated")
@dataclass(frozen=True)
class InProcess(EngineRecipe):
    """All workers in this process, their gradients in one vectorised call. Every attack can act on it.

    Examples:
        >>> from byzopt import Adversary, Cohort, Quartic, RobustGD, SignFlip, rule_from
        >>> from byzopt.engines import InProcess, begin, rounds
        >>> from byzopt.servers import ServerContext
        >>> cohort = Cohort.of(10, byzantine=2)
        >>> task = Quartic().build(cohort, seed=0)
        >>> method = RobustGD().build(rule_from("median", f=2), lr=0.01)
        >>> engine = InProcess().build(task, method, Adversary(SignFlip(), cohort, f=2), seed=0)
        >>> state = begin(method, task.start(), ServerContext(task.layout), task.n)
        >>> *_, last = rounds(method, engine, state, last=5)
        >>> last.x.shape
        torch.Size([10])
    """

    def build(self, task: Task, method: Method, adversary: Adversary, seed: int) -> Simulated:
        parts = (task, method.worker, method.wire, adversary, seed, method.down)
        return Simulated(*parts, method.participants)


def check_needs(worker: Estimator, task: Task) -> None:
    """Raise `InvalidInput` where the task cannot give what the estimator needs."""
    name = getattr(worker, "name", type(worker).__name__)  # who is not registered has none
    who, what = f"Estimator {name!r}", type(task).__name__
    replays = "replay" not in worker.needs or task.replays
    remedy = "Use a method without variance reduction."
    require(replays, f"{who} on {what}", "have gradients at two points on one sample", "none", remedy)
    if "full" in worker.needs:
        task.full()


class GradientCount:
    """Counts the gradients that each worker takes in a round.

    Examples:
        >>> from byzopt import Cohort, Quartic
        >>> from byzopt.engines import GradientCount
        >>> task, count = Quartic().build(Cohort.of(4), seed=0), GradientCount()
        >>> oracle = count.oracle(task, t=1, seed=0)
        >>> oracle(task.start()).shape, count.gradients
        (torch.Size([4, 10]), 1.0)
    """

    def __init__(self) -> None:
        self.gradients = 0.0

    def oracle(
        self,
        task: Task,
        t: int,
        seed: int,
        workers: slice = slice(None),
        samples: int = 1,
        present: Tensor | None = None,
    ) -> Oracle:
        """The task's gradients of round t on its samples, counted; of all workers or of some. Those of
        workers who are not `present` `[n]` are 0."""
        present = None if present is None else present[workers]
        n = len(range(task.n)[workers])
        everybody, what = n == task.n, f"The gradients of {type(task).__name__}"

        def taken(point: Tensor, batch: Any) -> Tensor:
            rows = task.grads(point, batch) if everybody else task.grads_of(point, batch, workers)
            check_rows(what, rows, n, point)
            return zero_absent(rows, present)

        def full(point: Tensor) -> Tensor:
            self.gradients += task.passes
            return taken(point, task.full())

        def on(k: int) -> Oracle:
            require(0 <= k < samples, "A sample of a round", f"be one of its {samples}, from 0", f"k = {k}")
            number = (t - 1) * samples + 1 + k
            sample = task.draw(number)

            def grads(point: Tensor) -> Tensor:
                self.gradients += 1
                return taken(point, sample)

            def grads_at(points: Tensor) -> Tensor:
                self.gradients += 1
                rows = task.grads_at(points, sample, workers)
                check_rows(what, rows, n, points[0])
                return zero_absent(rows, present)

            def clip(point: Tensor, radius: float, poisson: bool) -> tuple[Tensor, Tensor]:
                self.gradients += 1
                own = task.poisson(number) if poisson else sample
                rows, counts = task.clipped_grads(point, own, radius, workers)
                check_rows(what, rows, n, point)
                return zero_absent(rows, present), counts

            return Oracle(t, grads, full, seed, grads_at, on, present, clip, (workers, task.n))

        return on(0)


class _RoundChannel:
    """One run's channel in one round."""

    def __init__(self, channel: Channel, state: Any, link: Link) -> None:
        self.channel, self.state, self.link = channel, state, link

    def send(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        messages, targets, self.state = self.channel.send(self.state, vectors, self.link)
        return messages, targets

    def receive(self, messages: Tensor) -> Tensor:
        rows, self.state = self.channel.receive(self.state, messages, self.link)
        return rows

    def compress(self, rows: Tensor) -> Tensor:
        return self.channel.compress(rows, self.link)

    def base(self, like: Tensor) -> Tensor:
        return self.channel.base(self.state, like, self.link)

    def overwrite_memory(self, rows: Tensor) -> None:
        self.state = self.channel.overwrite_memory(self.state, rows, self.link)
