"""R simulated runs in step: one round of all of them, each part called once for all runs that share it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from byzopt.aggregators.core.certificate import Certificate
from byzopt.aggregators.core.filters import Defence, Filter, GuardLimits, RoundContext, StatelessFilter
from byzopt.engines import bunches
from byzopt.engines.bunches import PartGroups, group_parts
from byzopt.engines.certifying import certifying_step
from byzopt.engines.crossing import transmit
from byzopt.engines.loop import LoopState, Snapshot, added
from byzopt.engines.simulated import Simulated, SimulatedState
from byzopt.errors import TooManyFaults
from byzopt.methods import Method
from byzopt.rng import stream
from byzopt.tasks.crowd import Crowd, together
from byzopt.wire import Link
from byzopt.workers import Oracle


class Lane(NamedTuple):
    """One run: its method, its engine and where it stands, after round 1 at least."""

    method: Method
    engine: Simulated
    state: LoopState


class MethodParts(NamedTuple):
    """The parts of all runs, with their states. An attack that knows the defence goes with it."""

    worker: PartGroups
    wire: PartGroups
    attack: PartGroups
    filter: PartGroups
    step: PartGroups
    down: PartGroups


class BatchedRuns:
    """R runs after the same round t, equal in workers' side, n, d, dtype, device and the place where their
    adversary acts; `round` is the next.

    It is never changed. `x` `[R, d]` are the iterates that the methods would answer with.
    """

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self.lanes, self.t = tuple(lanes), lanes[0].state.t
        self.slots = _slots(self.lanes)
        self.crowd = together([lane.engine.task for lane in lanes])
        self.ledger = tuple(lane.state.ledger for lane in lanes)
        self.seeds = tuple(lane.engine.seed for lane in lanes)
        self.last = torch.stack([_last(lane.state) for lane in lanes])
        liars = [lane.engine.adversary.liars(self.last.device) for lane in lanes]
        lying = any(lane.engine.adversary.cohort.byzantine for lane in lanes)
        self.liars = torch.stack(liars) if lying else None
        self.asked: Tensor | None = None
        self.aggregate: Tensor | None = None
        self.certificates: dict[int, Certificate] = {}  # of the last round's aggregates, where asked for

    @cached_property
    def x(self) -> Tensor:
        """The iterates `[R, d]`."""
        return _read(self.slots.step, lambda step, state: step.answer(state))

    def state(self, r: int) -> LoopState:
        """Run r's state, as the run alone would have it."""
        worker, wire, attack, memory, step, down = (bunches.state_of(one, r) for one in self.slots)
        engine = SimulatedState(worker, wire, attack, down)
        cost, last = self.ledger[r], self.last[r].clone()
        return LoopState(self.t, step, memory, engine, cost[0], cost[1], cost[2], cost[3], cost[4], last)

    def snapshot(self, r: int) -> Snapshot | None:
        """Run r's finished round; None where no round has been played here yet."""
        if self.asked is None or self.aggregate is None:
            return None
        asked, aggregate, x = (part[r].clone() for part in (self.asked, self.aggregate, self.x))
        lane, certificate = self.lanes[r], self.certificates.get(r)
        return Snapshot(self.state(r), asked, aggregate, x, lane.method, lane.engine, certificate)

    def only(self, left: Sequence[int]) -> BatchedRuns:
        """These runs alone, in this order."""
        few = BatchedRuns([self.lanes[r]._replace(state=self.state(r)) for r in left])
        if self.asked is not None and self.aggregate is not None:
            few.asked, few.aggregate = self.asked[list(left)], self.aggregate[list(left)]
            told = self.certificates
            few.certificates = {k: told[r] for k, r in enumerate(left) if r in told}
        return few

    def round(self, faulty: Mapping[int, int] | None = None) -> BatchedRuns:
        """All runs after one ask and one tell more.

        `faulty`: the runs whose aggregates are to be certified, and for how many faulty rows.

        Errors: `LostError` names the runs whose rows hold more faulty ones than their rule tolerates; then
        nothing has happened, and the round can be taken without them.
        """
        t, (worker, wire, attack, memory, step, down) = self.t + 1, self.slots
        x = _read(step, lambda part, state: part.ask(state))
        (w, *below), down = bunches.call_parts(down, partial(self._broadcast, t), x)
        oracles = _Oracles(t, self)
        said, worker = bunches.call_parts(worker, lambda p, s, who, at: p.step(s, at, oracles.of(who)), w)
        crossing = _Wires(self, wire, attack, w)
        rows = transmit(crossing, said, self.lanes[0].engine.adversary, self.liars, crossing.speak)
        told: dict[int, Certificate] = {}
        g, memory = bunches.call_parts(memory, certifying_step(t, faulty or {}, told), rows, x)
        _, step = bunches.call_parts(step, lambda p, s, who, v: (0, p.tell(s, v)), g)
        slots = MethodParts(worker, crossing.wire, crossing.attack, memory, step, down)
        after = self._after(slots, x, g, (oracles.calls, *crossing.costs, *below))
        after.certificates = told
        return after

    def link(self, t: int, who: int | tuple[int, ...], last: Tensor, way: str = "up") -> Link:
        """What both ends of the wire know of round t, for the runs `who`."""
        seed = self.seeds[who] if isinstance(who, int) else tuple(self.seeds[r] for r in who)
        return Link(t, seed, self.lanes[0].engine.task.layout, last, way)

    def _broadcast(self, t: int, part: Any, state: Any, who: Any, x: Tensor) -> tuple[list[Any], Any]:
        link = self.link(t, who, x, "down")
        w, state = part.send(state, x, link)
        cost = part.cost(link)
        return [w, cost.bits + self.lanes[0].method.worker.coined, cost.coordinates], state

    def _after(
        self, slots: MethodParts, asked: Tensor, g: Tensor, costs: Sequence[Sequence[float]]
    ) -> BatchedRuns:
        after: BatchedRuns = object.__new__(BatchedRuns)
        after.lanes, after.crowd, after.t = self.lanes, self.crowd, self.t + 1
        after.seeds, after.liars = self.seeds, self.liars
        after.slots, after.asked, after.aggregate, after.last = slots, asked, g, g
        each = zip(self.ledger, zip(*costs, strict=True), strict=True)
        after.ledger = tuple(added(old, new) for old, new in each)
        return after

    def forged(self, t: int, part: Any, state: Any, who: Any, x: Tensor, rows: Tensor) -> tuple[Any, Any]:
        first = who if isinstance(who, int) else who[0]
        # Attacks that draw are called for one run at a time: the stream is that run's own.
        generator = stream(self.lanes[first].engine.seed, "attack", t, device=x.device)
        defence = _Defence(self, first, RoundContext(t, x))
        out: tuple[Any, Any] = part[0].speak(state, t, x, rows, generator, defence)
        return out


class _Defence(NamedTuple):
    """Run r's rule as it stands, on its rows; or one without memory on those of several runs."""

    many: BatchedRuns
    r: int
    at: RoundContext

    def __call__(self, rows: Tensor) -> Tensor:
        rule, (t, x) = self.many.lanes[self.r].method.filter, self.at
        if rows.ndim == 2:
            return rule.preview(self._memory, rows, self.at)
        try:
            return rule.preview((), rows, self.at)
        except TooManyFaults:
            return torch.stack(
                [_or_nan(rule, RoundContext(t, at), each) for at, each in zip(x, rows, strict=True)]
            )

    @property
    def single(self) -> Defence:
        """Run r's rule alone, whose `x` is that of one run."""
        x = self.at.x if self.at.x.ndim == 1 else self.at.x[0]
        return Defence(self.many.lanes[self.r].method.filter, self._memory, RoundContext(self.at.t, x))

    def limits(self) -> GuardLimits | None:
        """What workers may do this round unseen."""
        return self.many.lanes[self.r].method.filter.limits(self._memory, self.at)

    @property
    def _memory(self) -> Any:
        return bunches.state_of(self.many.slots.filter, self.r)


class _Wires:
    """All runs' channels in one round, and their attacks."""

    def __init__(self, many: BatchedRuns, wire: PartGroups, attack: PartGroups, x: Tensor) -> None:
        self.many, self.t, self.wire, self.attack, self.x = many, many.t + 1, wire, attack, x
        self.costs: tuple[Sequence[float], ...] = ()

    def send(self, said: Tensor) -> tuple[Tensor, Tensor]:
        (sent, meant, *costs), self.wire = bunches.call_parts(self.wire, self._send, said, self.many.last)
        self.costs = tuple(costs)
        return sent, meant

    def receive(self, sent: Tensor) -> Tensor:
        rows: Tensor
        rows, self.wire = bunches.call_parts(self.wire, self._receive, sent, self.many.last)
        return rows

    def squeeze(self, rows: Tensor) -> Tensor:
        sent: Tensor = bunches.call_parts(self.wire, self._squeeze, rows, self.many.last)[0]
        return sent

    def base(self, like: Tensor) -> Tensor:
        base: Tensor = bunches.call_parts(self.wire, self._base, like, self.many.last)[0]
        return base

    def adopt(self, rows: Tensor) -> None:
        _, self.wire = bunches.call_parts(self.wire, self._adopt, rows, self.many.last)

    def speak(self, rows: Tensor) -> Tensor:
        """Rows with the attacks' in their places."""
        spoken: Tensor
        spoken, self.attack = bunches.call_parts(self.attack, partial(self.many.forged, self.t), self.x, rows)
        return spoken

    def _send(self, part: Any, state: Any, who: Any, said: Tensor, last: Tensor) -> tuple[list[Any], Any]:
        link = self.many.link(self.t, who, last)
        sent, meant, state = part.send(state, said, link)
        return [sent, meant, *part.cost(link)], state

    def _receive(self, part: Any, state: Any, who: Any, sent: Tensor, last: Tensor) -> Any:
        return part.receive(state, sent, self.many.link(self.t, who, last))

    def _squeeze(self, part: Any, state: Any, who: Any, rows: Tensor, last: Tensor) -> Any:
        return part.squeeze(rows, self.many.link(self.t, who, last)), state

    def _base(self, part: Any, state: Any, who: Any, like: Tensor, last: Tensor) -> Any:
        return part.base(state, like, self.many.link(self.t, who, last)), state

    def _adopt(self, part: Any, state: Any, who: Any, rows: Tensor, last: Tensor) -> Any:
        return 0, part.adopt(state, rows, self.many.link(self.t, who, last))


class _Oracles:
    """Round t's gradients for all runs at once, or for one of them; counts the calls of each run."""

    def __init__(self, t: int, many: BatchedRuns) -> None:
        self.t, self.crowd = t, many.crowd
        self.calls, self.seeds = [0.0] * len(many.lanes), many.seeds

    def of(self, who: int | tuple[int, ...]) -> Oracle:
        crowd: Crowd | _Single = _Single(self.crowd, who) if isinstance(who, int) else self.crowd
        runs = (who,) if isinstance(who, int) else who
        sample = crowd.draw(self.t)

        def grads(x: Tensor) -> Tensor:
            for r in runs:
                self.calls[r] += 1
            return crowd.grads(x, sample)

        def full(x: Tensor) -> Tensor:
            for r in runs:
                self.calls[r] += self.crowd.tasks[r].passes
            return crowd.grads(x, crowd.full())

        # Parts that toss coins are called for one run at a time: the coin is that run's own.
        return Oracle(self.t, grads, full, self.seeds[runs[0]])


class _Single:
    """One task of a crowd."""

    def __init__(self, crowd: Crowd, r: int) -> None:
        task = crowd.tasks[r]
        self.draw, self.full, self.grads = task.draw, task.full, task.grads


def _slots(lanes: Sequence[Lane]) -> MethodParts:
    methods, states = [lane.method for lane in lanes], [lane.state for lane in lanes]
    engines: list[Any] = [state.engine for state in states]
    liars = [(lane.engine.adversary, _known(lane)) for lane in lanes]
    return MethodParts(
        group_parts([m.worker for m in methods], [e.worker for e in engines], lambda part: part.batched),
        group_parts([m.wire for m in methods], [e.wire for e in engines], lambda part: part.batched),
        group_parts(liars, [e.attack for e in engines], _can_forge_for_many),
        group_parts([m.filter for m in methods], [s.filter for s in states], lambda part: part.batched),
        group_parts([m.step for m in methods], [s.step for s in states], lambda part: part.batched),
        group_parts([m.down for m in methods], [e.down for e in engines], lambda part: part.batched),
    )


def _known(lane: Lane) -> Any:
    """The defence, if the attack may look at it."""
    return lane.method.filter if "defence" in lane.engine.adversary.attack.knows else None


def _can_forge_for_many(part: Any) -> bool:
    adversary, rule = part
    able: bool = adversary.attack.batched and (rule is None or isinstance(rule, StatelessFilter))
    return able


def _last(state: LoopState) -> Tensor:
    assert state.aggregate is not None  # there has been a round
    return state.aggregate


def _read(slot: PartGroups, look: Callable[[Any, Any], Tensor]) -> Tensor:
    found: Tensor = bunches.call_parts(slot, lambda part, state, who: (look(part, state), state))[0]
    return found


def _or_nan(rule: Filter, at: RoundContext, rows: Tensor) -> Tensor:
    """The answer of a rule without memory, NaN where it refuses the rows."""
    try:
        return rule.preview((), rows, at)
    except TooManyFaults:
        return torch.full_like(rows[0], torch.nan)
