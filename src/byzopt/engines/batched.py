"""R simulated runs in step: one round of all of them, in which equal parts are called once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from byzopt import linalg
from byzopt.aggregators.core.certificate import Certificate
from byzopt.aggregators.core.filters import StatelessFilter
from byzopt.engines.absence import played, share_of, zero_absent
from byzopt.engines.batched_round import BatchedChannel, BatchedOracles, BatchedRound, Lane
from byzopt.engines.certifying import certifying_step
from byzopt.engines.honest_rows import honest_figures
from byzopt.engines.loop import LoopState, Snapshot, added
from byzopt.engines.simulated import SimulatedState
from byzopt.engines.stacking import PartGroups, call_parts, group_parts, state_of
from byzopt.engines.transmission import transmit
from byzopt.tasks.crowd import together


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
        self.parts = _parts(self.lanes)
        self.crowd = together([lane.engine.task for lane in lanes])
        self.ledger = tuple(lane.state.ledger for lane in lanes)
        self.seeds = tuple(lane.engine.seed for lane in lanes)
        self.last = torch.stack([_last(lane.state) for lane in lanes])
        masks = [lane.engine.adversary.liars(self.last.device) for lane in lanes]
        some = any(lane.engine.adversary.cohort.byzantine for lane in lanes)
        self.byzantine = torch.stack(masks) if some else None
        self.asked: Tensor | None = None
        self.aggregate: Tensor | None = None
        self.certificates: dict[int, Certificate] = {}  # of the last round's aggregates, where asked for
        self.honest: dict[int, dict[str, float]] = {}  # figures of the last round's honest rows, likewise

    @cached_property
    def x(self) -> Tensor:
        """The iterates `[R, d]`."""
        return _read(self.parts.step, lambda step, state: step.answer(state))

    @property
    def reaches(self) -> list[float]:
        """The lengths of the iterates."""
        lengths: list[float] = linalg.norm(self.x).cpu().tolist()
        return lengths

    def state(self, r: int) -> LoopState:
        """Run r's state, as the run alone would have it."""
        worker, wire, attack, memory, step, down = (state_of(one, r) for one in self.parts)
        engine = SimulatedState(worker, wire, attack, down)
        cost, last = self.ledger[r], self.last[r].clone()
        return LoopState(self.t, step, memory, engine, cost[0], cost[1], cost[2], cost[3], cost[4], last)

    def snapshot(self, r: int) -> Snapshot | None:
        """Run r's finished round; None where no round has been played here yet."""
        if self.asked is None or self.aggregate is None:
            return None
        asked, aggregate, x = (part[r].clone() for part in (self.asked, self.aggregate, self.x))
        lane, certificate = self.lanes[r], self.certificates.get(r)
        figures = self.honest.get(r, {})
        return Snapshot(self.state(r), asked, aggregate, x, lane.method, lane.engine, certificate, figures)

    def only(self, left: Sequence[int]) -> BatchedRuns:
        """These runs alone, in this order."""
        few = BatchedRuns([self.lanes[r]._replace(state=self.state(r)) for r in left])
        if self.asked is not None and self.aggregate is not None:
            few.asked, few.aggregate = self.asked[list(left)], self.aggregate[list(left)]
            known = self.certificates
            few.certificates = {k: known[r] for k, r in enumerate(left) if r in known}
            few.honest = {k: self.honest[r] for k, r in enumerate(left) if r in self.honest}
        return few

    def round(self, faulty: Mapping[int, int] | None = None, summarised: Collection[int] = ()) -> BatchedRuns:
        """All runs after one ask and one tell more.

        `faulty`: the runs whose aggregates are to be certified, and for how many faulty rows. `summarised`:
        those of whose honest rows figures are to be taken.

        Errors: `RoundLostError` names the runs whose rows hold more faulty ones than their rule tolerates.
        Nothing has happened then, and the round can be taken without them.
        """
        t, (worker, wire, attack, memory, step, down) = self.t + 1, self.parts
        masks = [lane.engine.present(t) for lane in self.lanes]
        present = _stacked(masks, self.lanes[0].engine.n)
        here = BatchedRound(t, self.lanes, self.seeds, self.last, memory, present)
        x = _read(step, lambda part, state: part.ask(state))
        (points, *costs_down), down = call_parts(down, here.broadcast, x)
        samples = self.lanes[0].engine.worker.samples
        oracles = BatchedOracles(t, self.crowd, self.seeds, samples, present)

        def step_workers(part: Any, state: Any, who: Any, point: Tensor) -> tuple[Tensor, Any]:
            oracle = oracles.of(who)
            return played(part, state, False, point, oracle, oracle.present)

        vectors, worker = call_parts(worker, step_workers, points)
        channel = BatchedChannel(here, wire, attack, points)
        rows = transmit(channel, vectors, self.lanes[0].engine.adversary, self.byzantine, channel.forge)
        rows = zero_absent(rows, present)
        certificates: dict[int, Certificate] = {}
        g, memory = call_parts(memory, certifying_step(here.at, faulty or {}, certificates), rows, x)
        _, step = call_parts(step, lambda p, s, who, v: (0, p.tell(s, v)), g)
        parts = MethodParts(worker, channel.wire, channel.attack, memory, step, down)
        costs = (oracles.calls, *channel.costs, *costs_down)
        if present is not None:
            shares = [share_of(mask) for mask in present]
            costs = tuple([s * c for s, c in zip(shares, cost, strict=True)] for cost in costs)
        after = self._after(parts, x, g, costs)
        after.certificates = certificates
        after.honest = {
            r: honest_figures(rows[r], self.lanes[r].engine.adversary.cohort.honest, masks[r])
            for r in summarised
        }
        return after

    def _after(
        self, parts: MethodParts, asked: Tensor, g: Tensor, costs: Sequence[Sequence[float]]
    ) -> BatchedRuns:
        after: BatchedRuns = object.__new__(BatchedRuns)
        after.lanes, after.crowd, after.t = self.lanes, self.crowd, self.t + 1
        after.seeds, after.byzantine = self.seeds, self.byzantine
        after.parts, after.asked, after.aggregate, after.last = parts, asked, g, g
        each = zip(self.ledger, zip(*costs, strict=True), strict=True)
        after.ledger = tuple(added(old, new) for old, new in each)
        return after


def _parts(lanes: Sequence[Lane]) -> MethodParts:
    methods, states = [lane.method for lane in lanes], [lane.state for lane in lanes]
    engines: list[Any] = [state.engine for state in states]
    attacks = [(lane.engine.adversary, _known(lane), lane.engine.everybody) for lane in lanes]
    return MethodParts(
        group_parts([m.worker for m in methods], [e.worker for e in engines], lambda part: part.batched),
        group_parts([m.wire for m in methods], [e.wire for e in engines], lambda part: part.batched),
        group_parts(attacks, [e.attack for e in engines], _can_forge_for_many),
        group_parts([m.filter for m in methods], [s.filter for s in states], lambda part: part.batched),
        group_parts([m.step for m in methods], [s.step for s in states], lambda part: part.batched),
        group_parts([m.down for m in methods], [e.down for e in engines], lambda part: part.batched),
    )


def _known(lane: Lane) -> Any:
    """The defence, if the attack may look at it."""
    return lane.method.filter if "defence" in lane.engine.adversary.attack.knows else None


def _can_forge_for_many(part: Any) -> bool:
    adversary, rule, everybody = part
    able: bool = adversary.attack.batched and (rule is None or isinstance(rule, StatelessFilter))
    # With absentees the rows that it sees are not equally many, and a loss is that of one run's data.
    return able and everybody and "loss" not in adversary.attack.knows


def _stacked(masks: Sequence[Tensor | None], n: int) -> Tensor | None:
    """Who takes part in each run, `[R, n]`; None where everybody does in all of them."""
    if all(mask is None for mask in masks):
        return None
    everybody = torch.ones(n, dtype=torch.bool, device="cpu")
    return torch.stack([everybody if mask is None else mask for mask in masks])


def _last(state: LoopState) -> Tensor:
    assert state.aggregate is not None  # there has been a round
    return state.aggregate


def _read(groups: PartGroups, look: Callable[[Any, Any], Tensor]) -> Tensor:
    vectors: Tensor = call_parts(groups, lambda part, state, who: (look(part, state), state))[0]
    return vectors
