"""One round of R runs in step, as their parts see it: links, oracles, channels and attacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from byzopt.aggregators.core.defence import Defence
from byzopt.aggregators.core.filters import Filter, GuardLimits, RoundContext
from byzopt.engines.absence import unmoved, zero_absent
from byzopt.engines.loop import LoopState
from byzopt.engines.simulated import Simulated
from byzopt.engines.stacking import PartGroups, Who, call_parts, state_of
from byzopt.errors import TooManyFaults, require
from byzopt.methods import Method
from byzopt.rng import stream
from byzopt.tasks.crowd import Crowd
from byzopt.wire import Link
from byzopt.workers import Oracle


class Lane(NamedTuple):
    """One run: its method, its engine and where it stands, after round 1 at least."""

    method: Method
    engine: Simulated
    state: LoopState


@dataclass(frozen=True)
class BatchedRound:
    """Round `t` of the runs in `lanes`: their seeds, the aggregates `[R, d]` of the round before, and their
    rules with their states."""

    t: int
    lanes: tuple[Lane, ...]
    seeds: tuple[int, ...]
    last: Tensor
    filters: PartGroups
    present: Tensor | None = None  # `[R, n]`, where not everybody takes part

    def link(self, who: int | Who, last: Tensor, way: str = "up") -> Link:
        """What both ends of the wire know of this round, for the runs `who`."""
        seed = self.seeds[who] if isinstance(who, int) else tuple(self.seeds[r] for r in who)
        present = None if self.present is None else _of(self.present, who)
        return Link(self.t, seed, self.lanes[0].engine.task.layout, last, way, present=present)

    def at(self, who: int | Who, x: Tensor) -> RoundContext:
        """The round's context for the runs `who`, asked at `x`."""
        # Filters that toss coins are called for one run at a time: the coin is that run's own.
        seed = self.seeds[who if isinstance(who, int) else who[0]]
        return RoundContext(self.t, x, None if self.present is None else _of(self.present, who), seed)

    def broadcast(self, part: Any, state: Any, who: int | Who, x: Tensor) -> tuple[list[Any], Any]:
        """The points that reach workers, and what they cost: bits and coordinates down."""
        link = self.link(who, x, "down")
        points, state = part.send(state, x, link)
        cost = part.cost(link)
        return [points, cost.bits + self.lanes[0].method.worker.coined, cost.coordinates], state

    def forge(self, part: Any, state: Any, who: int | Who, x: Tensor, rows: Tensor) -> tuple[Any, Any]:
        """Rows with the attack's in their places."""
        first = who if isinstance(who, int) else who[0]
        # Attacks that draw or know a loss are called for one run at a time: stream and loss are its own.
        generator = stream(self.seeds[first], "attack", self.t, device=x.device)
        at = self.at(who, x)._replace(present=None) if part[2] else self.at(who, x)
        defence = BatchedDefence(self, first, at)
        losses = part[0].losses(self.lanes[first].engine.task)
        seen = (state, self.t, x, rows, generator, defence, at.present, losses)
        forged: tuple[Any, Any] = part[0].forge_rows(*seen)
        return forged


class BatchedDefence(NamedTuple):
    """Run r's rule as it stands, on its rows; or one without memory on those of several runs."""

    round: BatchedRound
    r: int
    at: RoundContext

    def __call__(self, rows: Tensor) -> Tensor:
        rule, t, x = self._filter, self.at.t, self.at.x
        if rows.ndim == 2:
            return rule.preview(self._memory, rows, self.at)
        try:
            return rule.preview((), rows, self.at)
        except TooManyFaults:
            return torch.stack(
                [_or_nan(rule, RoundContext(t, at), each) for at, each in zip(x, rows, strict=True)]
            )

    def limits(self) -> GuardLimits | None:
        """What workers may do this round unseen."""
        return self._filter.limits(self._memory, self.at)

    @property
    def single(self) -> Defence:
        """Run r's rule alone, whose `x` is that of one run."""
        x = self.at.x if self.at.x.ndim == 1 else self.at.x[0]
        return Defence(self._filter, self._memory, self.at._replace(x=x))

    @property
    def _filter(self) -> Filter:
        return self.round.lanes[self.r].method.filter

    @property
    def _memory(self) -> Any:
        return state_of(self.round.filters, self.r)


class BatchedChannel:
    """All runs' channels in one round, with their states inside, and their attacks with theirs.

    `points` `[R, d]` are where workers evaluate. After `send`, `costs` holds bits and coordinates up.
    """

    def __init__(self, round: BatchedRound, wire: PartGroups, attack: PartGroups, points: Tensor) -> None:
        self.round, self.wire, self.attack, self.points = round, wire, attack, points
        self.costs: tuple[Sequence[float], ...] = ()

    def send(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        messages, targets, *costs = self._call(self._send, vectors)
        self.costs = tuple(costs)
        return messages, targets

    def receive(self, messages: Tensor) -> Tensor:
        return self._tensor(lambda part, state, link, sent: part.receive(state, sent, link), messages)

    def compress(self, rows: Tensor) -> Tensor:
        return self._tensor(lambda part, state, link, row: (part.compress(row, link), state), rows)

    def base(self, like: Tensor) -> Tensor:
        return self._tensor(lambda part, state, link, row: (part.base(state, row, link), state), like)

    def overwrite_memory(self, rows: Tensor) -> None:
        self._call(lambda part, state, link, row: (0, part.overwrite_memory(state, row, link)), rows)

    def forge(self, rows: Tensor) -> Tensor:
        """Rows with the attacks' in their places."""
        forged: Tensor
        forged, self.attack = call_parts(self.attack, self.round.forge, self.points, rows)
        return forged

    def _send(self, part: Any, state: Any, link: Link, vectors: Tensor) -> tuple[list[Any], Any]:
        messages, targets, state = part.send(state, vectors, link)
        return [messages, targets, *part.cost(link)], state

    def _tensor(self, act: Any, rows: Tensor) -> Tensor:
        rows_after: Tensor = self._call(act, rows)
        return rows_after

    def _call(self, act: Any, rows: Tensor) -> Any:
        outputs, self.wire = call_parts(self.wire, partial(self._linked, act), rows, self.round.last)
        return outputs

    def _linked(self, act: Any, part: Any, state: Any, who: int | Who, rows: Tensor, last: Tensor) -> Any:
        link = self.round.link(who, last)._replace(x=_of(self.points, who))
        out, after = act(part, state, link, rows)
        return out, unmoved(after, state, link.present)


class BatchedOracles:
    """A round's gradients for all runs at once, or for one of them, on `samples` samples; counts the calls of
    each run."""

    def __init__(
        self, t: int, crowd: Crowd, seeds: Sequence[int], samples: int = 1, present: Tensor | None = None
    ) -> None:
        self.t, self.crowd, self.seeds, self.samples, self.present = t, crowd, seeds, samples, present
        self.calls = [0.0] * len(seeds)

    def of(self, who: int | Who) -> Oracle:
        """The oracle of these runs."""
        crowd: Crowd | _Single = _Single(self.crowd, who) if isinstance(who, int) else self.crowd
        runs = (who,) if isinstance(who, int) else who
        present = None if self.present is None else _of(self.present, who)

        def full(x: Tensor) -> Tensor:
            for r in runs:
                self.calls[r] += self.crowd.tasks[r].passes
            return zero_absent(crowd.grads(x, crowd.full()), present)

        def on(k: int) -> Oracle:
            wanted = f"be one of its {self.samples}, from 0"
            require(0 <= k < self.samples, "A sample of a round", wanted, f"k = {k}")
            number = (self.t - 1) * self.samples + 1 + k
            sample = crowd.draw(number)

            def grads(x: Tensor) -> Tensor:
                self._count(runs)
                return zero_absent(crowd.grads(x, sample), present)

            def grads_at(points: Tensor) -> Tensor:
                self._count(runs)
                return zero_absent(crowd.grads_at(points, sample), present)

            def clip(x: Tensor, radius: float, poisson: bool) -> tuple[Tensor, Tensor]:
                self._count(runs)
                task = self.crowd.tasks[runs[0]]
                rows, counts = task.clipped_grads(x, task.poisson(number) if poisson else sample, radius)
                return zero_absent(rows, present), counts

            # Parts that toss coins or draw noise are called for one run at a time: they are that run's own.
            alone = isinstance(who, int)
            single = (clip, (slice(None), self.crowd.tasks[runs[0]].n)) if alone else (None, None)
            return Oracle(self.t, grads, full, self.seeds[runs[0]], grads_at, on, present, *single)

        return on(0)

    def _count(self, runs: Sequence[int]) -> None:
        for r in runs:
            self.calls[r] += 1


class _Single:
    """One task of a crowd."""

    def __init__(self, crowd: Crowd, r: int) -> None:
        task = crowd.tasks[r]
        self.draw, self.full, self.grads, self.grads_at = task.draw, task.full, task.grads, task.grads_at


def _of(by_run: Tensor, who: int | Who) -> Tensor:
    """The part of some runs, in their order."""
    return by_run[who] if isinstance(who, int) else by_run[list(who)]


def _or_nan(rule: Filter, at: RoundContext, rows: Tensor) -> Tensor:
    """The answer of a rule without memory, NaN where it refuses the rows."""
    try:
        return rule.preview((), rows, at)
    except TooManyFaults:
        return torch.full_like(rows[0], torch.nan)
