"""R runs on one graph in step: one round of all of them, in which equal parts are called once.

What is taken for several runs in one call is elementwise, or sums along a row; products of matrices and means
over nodes are a call for each run. So a run among others has the bits of one alone, wherever the mixer, the
estimator and the task keep them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from byzopt import linalg
from byzopt.attacks import Attack, EdgeAttack
from byzopt.attacks.edges import SearchedAttack, farthest, from_all, lengths_to_try
from byzopt.engines.batched_round import BatchedOracles
from byzopt.engines.graph import Graph
from byzopt.engines.graph_loop import GraphSnapshot, everybody, own_points, round_cost, rounds_on_graph
from byzopt.engines.loop import LoopState, added
from byzopt.engines.on_graph import OnGraph
from byzopt.engines.simulated import GradientCount, SimulatedState
from byzopt.engines.stacking import PartGroups, RoundLostError, Who, call_parts, group_parts, state_of
from byzopt.errors import TooManyFaults
from byzopt.states import map_leaves
from byzopt.tasks.crowd import Crowd, Stacked, together
from byzopt.workers import Oracle


class GraphLane(NamedTuple):
    """One run on a graph, and where it stands, after round 1 at least."""

    run: OnGraph
    state: LoopState


class _Round(NamedTuple):
    """What a round leaves: where nodes stand `[R, n, d]`, what they said, and where honest ones stood right
    after the exchange `[R, H, d]`."""

    nodes: Tensor
    said: Tensor
    mixed: Tensor


class BatchedGraphRuns:
    """R runs after the same round t, equal in graph, cohort, tolerance, rule, workers' side and the task's
    recipe; `round` is the next. It is never changed.
    """

    def __init__(self, lanes: Sequence[GraphLane]) -> None:
        self.lanes, self.t = tuple(lanes), lanes[0].state.t
        self.runs = tuple(lane.run for lane in lanes)
        states = [lane.state for lane in lanes]
        engines: list[Any] = [state.engine for state in states]
        methods = [run.method for run in self.runs]
        self.step = group_parts([m.step for m in methods], [s.step for s in states], lambda part: True)
        self.worker = group_parts(
            [m.worker for m in methods], [e.worker for e in engines], lambda part: part.batched
        )
        self.attacks = tuple(engine.attack for engine in engines)
        self.ledger = tuple(state.ledger for state in states)
        tasks = [run.task for run in self.runs]
        crowd = together(tasks)
        self.crowd = crowd if isinstance(crowd, Stacked) else Crowd(tasks)
        self.played: _Round | None = None

    @property
    def x(self) -> Tensor:
        """The honest nodes' means `[R, d]`."""
        return linalg.row_mean(self._nodes[:, self.runs[0].honest])

    @property
    def reaches(self) -> list[float]:
        """The length of each run's longest node."""
        lengths: list[float] = linalg.norm(self._nodes[:, self.runs[0].honest]).amax(dim=-1).cpu().tolist()
        return lengths

    @property
    def _nodes(self) -> Tensor:
        return self.played.nodes if self.played else _answered(self.step)

    def state(self, r: int) -> LoopState:
        """Run r's state, as the run alone would have it."""
        engine = SimulatedState(state_of(self.worker, r), (), self.attacks[r], ())
        cost = self.ledger[r]
        step = state_of(self.step, r)
        return LoopState(self.t, step, (), engine, cost[0], cost[1], cost[2], cost[3], cost[4])

    def snapshot(self, r: int) -> GraphSnapshot | None:
        """Run r's finished round; None where no round has been played here yet."""
        if self.played is None:
            return None
        run, (nodes, said, mixed) = self.runs[r], (part[r] for part in self.played)
        honest = nodes[run.honest]
        return GraphSnapshot(self.state(r), honest.mean(dim=0), honest, said[run.honest], mixed.clone(), run)

    def only(self, left: Sequence[int]) -> BatchedGraphRuns:
        """These runs alone, in this order."""
        few = BatchedGraphRuns([GraphLane(self.runs[r], self.state(r)) for r in left])
        if self.played is not None:
            few.played = _Round(*(part[list(left)] for part in self.played))
        return few

    def round(
        self, faulty: Mapping[int, int] | None = None, summarised: Collection[int] = ()
    ) -> BatchedGraphRuns:
        """All runs after one round more. Nothing of an exchange is certified, and no rows are summarised:
        no server sees them.

        Errors: `RoundLostError` names the runs in which a node hears too little. Nothing has happened then,
        and the round can be taken without them.
        """
        try:
            return self._round(self.t + 1)
        except (TooManyFaults, RoundLostError):
            raise RoundLostError(self._lost()) from None

    def _round(self, t: int) -> BatchedGraphRuns:
        first = self.runs[0]
        points = _asked(self.step)
        vectors, worker, gradients = self._computed(points, t)
        before = linalg.row_mean(points[:, first.honest])
        if first.graph.order == "adapt_combine":
            step = _told(self.step, vectors)
            said = _answered(step)
            mixed, attacks = self._exchange(t, before, said)
            step = _placed(step, _everybody(first, mixed))
        else:
            said = _answered(self.step)
            mixed, attacks = self._exchange(t, before, said)
            step = _told(_placed(self.step, _everybody(first, mixed)), vectors)
        after: BatchedGraphRuns = object.__new__(BatchedGraphRuns)
        after.lanes, after.runs, after.crowd, after.t = self.lanes, self.runs, self.crowd, t
        after.step, after.worker, after.attacks = step, worker, attacks
        after.played = _Round(_answered(step), said, mixed)
        costs = [round_cost(run, count) for run, count in zip(self.runs, gradients, strict=True)]
        after.ledger = tuple(added(old, new) for old, new in zip(self.ledger, costs, strict=True))
        return after

    def _computed(self, points: Tensor, t: int) -> tuple[Tensor, PartGroups, list[float]]:
        """All nodes' vectors `[R, n, d]` at points of their own, their states, and gradients per node."""
        seeds, samples = [run.seed for run in self.runs], self.runs[0].method.worker.samples
        counts = [GradientCount() for _ in self.runs]
        oracles = BatchedOracles(t, self.crowd, seeds, samples)

        def step(part: Any, state: Any, who: int | Who, at: Tensor) -> tuple[Tensor, Any]:
            if isinstance(who, int):
                task, count = self.runs[who].task, counts[who]
                given = count.oracle(task, t, seeds[who], samples=samples)
                found: tuple[Tensor, Any] = part.step(state, at, own_points(given, task, count))
            else:
                found = part.step(state, at, self._own_points(oracles.of(who), oracles))
            return found

        vectors, worker = call_parts(self.worker, step, points)
        gradients = [a.gradients + b for a, b in zip(counts, oracles.calls, strict=True)]
        return vectors, worker, gradients

    def _own_points(self, given: Oracle, oracles: BatchedOracles) -> Oracle:
        """An oracle of all runs whose call is `at`: on a graph every node asks at a point of its own."""

        def full(points: Tensor) -> Tensor:
            for r, run in enumerate(self.runs):
                oracles.calls[r] += run.task.passes
            return self.crowd.grads_at(points, self.crowd.full())

        def sample(k: int) -> Oracle:
            return self._own_points(given.fresh(k), oracles)

        return Oracle(given.t, given.at, full, given.seed, given.at, sample)

    def _exchange(self, t: int, before: Tensor, said: Tensor) -> tuple[Tensor, tuple[Any, ...]]:
        """Where honest nodes stand `[R, H, d]` after all nodes have said `said` `[R, n, d]` and liars lied,
        and the attacks' next states."""
        first, attacks = self.runs[0], list(self.attacks)
        rows = said[:, first.honest]
        if not len(first.byzantine):
            return first.mix(rows, said[:, first.byzantine], False, t), self.attacks
        mixed = torch.empty_like(rows)
        kinds = [run.adversary.attack for run in self.runs]
        edges = [r for r, kind in enumerate(kinds) if isinstance(kind, EdgeAttack)]
        if edges:
            answer = first.answers(rows[edges], t)
            mixed[edges] = answer(self._edge_lies(edges, t, before, said))
        others = [r for r in range(len(kinds)) if r not in edges]
        if others:
            forged = []
            for r in others:
                lies, attacks[r] = self.runs[r].forged(self.attacks[r], t, before[r], said[r])
                forged.append(lies)
            mixed[others] = first.mix(rows[others], torch.stack(forged), False, t)
        return mixed, tuple(attacks)

    def _edge_lies(self, who: Sequence[int], t: int, before: Tensor, said: Tensor) -> Tensor:
        """What liars tell single receivers in the runs `who`: `[len(who), b, H, d]`. Lengths are searched for
        all runs at once."""
        lies: dict[int, Tensor] = {}
        searched = [r for r in who if searches(self.runs[r].adversary.attack)]
        if searched:
            rows, u, lengths = (
                torch.stack(parts)
                for parts in zip(*(self._ways(r, t, before[r], said[r]) for r in searched), strict=True)
            )
            b = len(self.runs[0].byzantine)
            answer = self.runs[0].answers(rows, t)
            chosen = farthest(rows, u, lengths.transpose(0, 1), lambda told: answer(from_all(told, b)))
            lies = dict(zip(searched, from_all(chosen, b), strict=True))
        for r in set(who) - set(searched):
            lies[r] = self.runs[r].edge_lies(t, before[r], said[r])
        each = [lies[r] for r in who]
        if all(len(lie) == 1 or lie.stride(0) == 0 for lie in each):  # all liars tell a receiver the same
            return from_all(torch.stack([lie[0] for lie in each]), len(each[0]))
        return torch.stack(each)

    def _ways(self, r: int, t: int, before: Tensor, said: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What run r's honest nodes say, the directions of its attack, and the lengths to try."""
        run, attack = self.runs[r], self.runs[r].adversary.attack
        assert isinstance(attack, SearchedAttack)
        view = run.edge_view(t, before, said)
        rows = view.honest
        return rows, attack.directions(view), lengths_to_try(view, rows)

    def _lost(self) -> dict[int, TooManyFaults]:
        """The runs that cannot take the next round, each with the reason."""
        lost: dict[int, TooManyFaults] = {}
        for r, run in enumerate(self.runs):
            try:
                next(rounds_on_graph(run, self.state(r), self.t + 1))
            except TooManyFaults as error:
                lost[r] = error
        return lost


def mix_together(graph: Graph) -> bool:
    """Whether one call serves the nodes of many runs: not where they judge by losses of their own run, or mix
    one after another."""
    return graph.together and not graph.mixer.judges


def searches(attack: Attack) -> bool:
    """Whether the attack is one direction for each receiver and a search for how far, as `SearchedAttack` has
    it."""
    if not isinstance(attack, SearchedAttack) or attack.scale is not None:
        return False
    return type(attack).forge_edges is SearchedAttack.forge_edges


def _of_steps(act: Callable[..., Any], groups: PartGroups, *rows: Tensor) -> tuple[Any, PartGroups]:
    """`act(step, state, *rows)` for every run's step, which works on nodes `[R n, ...]` where it works on
    runs `[R, ...]`; states and what it answers are `[R, n, ...]`."""

    def call(part: Any, state: Any, who: int | Who, *given: Tensor) -> tuple[Any, Any]:
        if isinstance(who, int):
            return act(part, state, *given)  # type: ignore[no-any-return]
        out, after = act(part, _flat(state), *(each.flatten(0, 1) for each in given))
        return _apart(out, len(who)), _apart(after, len(who))

    return call_parts(groups, call, *rows)


def _asked(groups: PartGroups) -> Tensor:
    points: Tensor = _of_steps(lambda step, state: (step.ask(state), state), groups)[0]
    return points


def _answered(groups: PartGroups) -> Tensor:
    nodes: Tensor = _of_steps(lambda step, state: (step.answer(state), state), groups)[0]
    return nodes


def _told(groups: PartGroups, vectors: Tensor) -> PartGroups:
    return _of_steps(lambda step, state, rows: (rows, step.tell(state, rows)), groups, vectors)[1]


def _placed(groups: PartGroups, nodes: Tensor) -> PartGroups:
    return _of_steps(lambda step, state, rows: (rows, step.place(state, rows)), groups, nodes)[1]


def _flat(state: Any) -> Any:
    """States `[R, n, ...]` as `[R n, ...]`."""
    return map_leaves(lambda leaf: leaf.flatten(0, 1) if isinstance(leaf, Tensor) else leaf, state)


def _apart(state: Any, runs: int) -> Any:
    """States `[R n, ...]` as `[R, n, ...]`."""
    return map_leaves(
        lambda leaf: leaf.reshape(runs, -1, *leaf.shape[1:]) if isinstance(leaf, Tensor) else leaf, state
    )


def _everybody(run: OnGraph, mixed: Tensor) -> Tensor:
    """Honest nodes' places `[R, H, d]` and, at Byzantine nodes, their mean: `[R, n, d]`."""
    return torch.stack([everybody(run, each) for each in mixed])
