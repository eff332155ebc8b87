"""R simulated runs in step: one round of all of them, each part called once for all runs that share it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from byzopt.aggregators.filters import At, Filter, Pure
from byzopt.engines import bunches
from byzopt.engines.bunches import Slot, slot
from byzopt.engines.loop import LoopState, Snapshot
from byzopt.engines.simulated import Simulated, SimulatedState
from byzopt.errors import TooManyFaults
from byzopt.methods import Method
from byzopt.rng import stream
from byzopt.tasks.crowd import Crowd, together
from byzopt.workers import Oracle


class Lane(NamedTuple):
    """One run: its method, its engine and where it stands, after round 1 at least."""

    method: Method
    engine: Simulated
    state: LoopState


class Slots(NamedTuple):
    """The parts of all runs, with their states. An attack that knows the defence goes with it."""

    worker: Slot
    wire: Slot
    attack: Slot
    filter: Slot
    step: Slot


class Many:
    """R runs after the same round t, equal in workers' side, n, d, dtype and device; `round` is the next.

    It is never changed. `x` `[R, d]` are the iterates that the methods would answer with.
    """

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self.lanes, self.t = tuple(lanes), lanes[0].state.t
        self.slots = _slots(self.lanes)
        self.crowd = together([lane.engine.task for lane in lanes])
        self.gradients = tuple(lane.state.gradients for lane in lanes)
        self.bits = tuple(lane.state.bits for lane in lanes)
        self.asked: Tensor | None = None
        self.aggregate: Tensor | None = None

    @cached_property
    def x(self) -> Tensor:
        """The iterates `[R, d]`."""
        return _read(self.slots.step, lambda step, state: step.answer(state))

    def state(self, r: int) -> LoopState:
        """Run r's state, as the run alone would have it."""
        worker, wire, attack, memory, step = (bunches.of(one, r) for one in self.slots)
        engine = SimulatedState(worker, wire, attack)
        return LoopState(self.t, step, memory, engine, self.gradients[r], self.bits[r])

    def snapshot(self, r: int) -> Snapshot | None:
        """Run r's finished round; None where no round has been played here yet."""
        if self.asked is None or self.aggregate is None:
            return None
        asked, aggregate, x = (part[r].clone() for part in (self.asked, self.aggregate, self.x))
        return Snapshot(self.state(r), asked, aggregate, x, self.lanes[r].method)

    def only(self, left: Sequence[int]) -> Many:
        """These runs alone, in this order."""
        few = Many([self.lanes[r]._replace(state=self.state(r)) for r in left])
        if self.asked is not None and self.aggregate is not None:
            few.asked, few.aggregate = self.asked[list(left)], self.aggregate[list(left)]
        return few

    def round(self) -> Many:
        """All runs after one ask and one tell more.

        Errors: `LostError` names the runs whose rows hold more faulty ones than their rule tolerates; then
        nothing has happened, and the round can be taken without them.
        """
        t, (worker, wire, attack, memory, step) = self.t + 1, self.slots
        x = _read(step, lambda part, state: part.ask(state))
        oracles = _Oracles(t, self)
        said, worker = bunches.call(worker, lambda p, s, who, at: p.step(s, at, oracles.of(who)), x)
        (heard, bits), wire = bunches.call(wire, _send, said)
        rows, attack = bunches.call(attack, partial(self._forged, t), x, heard)
        g, memory = bunches.call(memory, lambda p, s, who, r, at: p.step(s, r, At(t, at)), rows, x)
        _, step = bunches.call(step, lambda p, s, who, v: (0, p.tell(s, v)), g)
        return self._after(Slots(worker, wire, attack, memory, step), x, g, oracles.calls, bits)

    def _after(
        self, slots: Slots, asked: Tensor, g: Tensor, calls: Sequence[int], bits: Sequence[float]
    ) -> Many:
        after: Many = object.__new__(Many)
        after.lanes, after.crowd, after.t = self.lanes, self.crowd, self.t + 1
        after.slots, after.asked, after.aggregate = slots, asked, g
        after.gradients = tuple(a + b for a, b in zip(self.gradients, calls, strict=True))
        after.bits = tuple(a + b for a, b in zip(self.bits, bits, strict=True))
        return after

    def _forged(self, t: int, part: Any, state: Any, who: Any, x: Tensor, rows: Tensor) -> tuple[Any, Any]:
        first = who if isinstance(who, int) else who[0]
        # Attacks that draw are called for one run at a time: the stream is that run's own.
        generator = stream(self.lanes[first].engine.seed, "attack", t, device=x.device)
        out: tuple[Any, Any] = part[0].speak(state, t, x, rows, generator, partial(self._defend, first, t, x))
        return out

    def _defend(self, r: int, t: int, x: Tensor, rows: Tensor) -> Tensor:
        """Run r's rule as it stands, on its rows; or one without memory on those of several runs."""
        rule = self.lanes[r].method.filter
        if rows.ndim == 2:
            return rule.preview(bunches.of(self.slots.filter, r), rows, At(t, x))
        try:
            return rule.preview((), rows, At(t, x))
        except TooManyFaults:
            return torch.stack([_or_nan(rule, At(t, at), each) for at, each in zip(x, rows, strict=True)])


class _Oracles:
    """Round t's gradients for all runs at once, or for one of them; counts the calls of each run."""

    def __init__(self, t: int, many: Many) -> None:
        self.t, self.crowd = t, many.crowd
        self.calls = [0] * len(many.lanes)

    def of(self, who: int | tuple[int, ...]) -> Oracle:
        crowd: Crowd | _Single = _Single(self.crowd, who) if isinstance(who, int) else self.crowd
        sample = crowd.draw(self.t)

        def grads(x: Tensor) -> Tensor:
            for r in (who,) if isinstance(who, int) else who:
                self.calls[r] += 1
            return crowd.grads(x, sample)

        return Oracle(self.t, grads, lambda x: crowd.grads(x, crowd.full()))


class _Single:
    """One task of a crowd."""

    def __init__(self, crowd: Crowd, r: int) -> None:
        task = crowd.tasks[r]
        self.draw, self.full, self.grads = task.draw, task.full, task.grads


def _slots(lanes: Sequence[Lane]) -> Slots:
    methods, states = [lane.method for lane in lanes], [lane.state for lane in lanes]
    engines: list[Any] = [state.engine for state in states]
    liars = [(lane.engine.adversary, _known(lane)) for lane in lanes]
    return Slots(
        slot([m.worker for m in methods], [e.worker for e in engines], lambda part: part.batched),
        slot([m.wire for m in methods], [e.wire for e in engines], lambda part: part.batched),
        slot(liars, [e.attack for e in engines], _can_forge_for_many),
        slot([m.filter for m in methods], [s.filter for s in states], lambda part: part.batched),
        slot([m.step for m in methods], [s.step for s in states], lambda part: part.batched),
    )


def _known(lane: Lane) -> Any:
    """The defence, if the attack may look at it."""
    return lane.method.filter if "defence" in lane.engine.adversary.attack.knows else None


def _can_forge_for_many(part: Any) -> bool:
    adversary, rule = part
    able: bool = adversary.attack.batched and (rule is None or isinstance(rule, Pure))
    return able


def _send(part: Any, state: Any, who: Any, rows: Tensor) -> tuple[list[Any], Any]:
    heard, state, bits = part.send(state, rows)
    return [heard, bits], state


def _read(slot: Slot, look: Callable[[Any, Any], Tensor]) -> Tensor:
    found: Tensor = bunches.call(slot, lambda part, state, who: (look(part, state), state))[0]
    return found


def _or_nan(rule: Filter, at: At, rows: Tensor) -> Tensor:
    """The answer of a rule without memory, NaN where it refuses the rows."""
    try:
        return rule.preview((), rows, at)
    except TooManyFaults:
        return torch.full_like(rows[0], torch.nan)
