"""The loop of a graph, beside that of a server: every node asks at a point of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from byzopt import linalg
from byzopt.engines.base import check_rows
from byzopt.engines.loop import LEDGER, LoopState, added
from byzopt.engines.on_graph import OnGraph
from byzopt.engines.simulated import GradientCount, SimulatedState
from byzopt.engines.stacking import copy_of_run
from byzopt.tasks import Task
from byzopt.workers import Oracle


@dataclass(frozen=True, eq=False)
class GraphSnapshot:
    """A finished round on a graph: the state after it, the honest nodes' mean `x` `[d]`, the nodes
    themselves, and what they said in the exchange.

    Args:
        state: The state after the round.
        x: The honest nodes' mean, `[d]`.
        nodes: Where the honest nodes stand, `[H, d]`.
        said: What they said in the exchange, `[H, d]`.
        mixed: Where they stood right after it, `[H, d]`.
        run: The parts of the run.

    Examples:
        >>> from byzopt.engines import GraphSnapshot
        >>> list(GraphSnapshot.__dataclass_fields__)[:3]
        ['state', 'x', 'nodes']
    """

    state: LoopState
    x: Tensor
    nodes: Tensor
    said: Tensor
    mixed: Tensor
    run: OnGraph

    certificate: ClassVar[None] = None  # nothing of an exchange is certified

    @property
    def reach(self) -> float:
        """The length of the longest node."""
        return float(linalg.norm(self.nodes).max())

    def report(self) -> dict[str, float]:
        """`disagreement` mean ‖x_i - x̄‖²; `drift` ‖x̄⁺ - x̄‖ of the exchange alone; `loss_worst` and
        `loss_nodes` the largest and mean loss at honest nodes' own iterates; with `spread` or `apart` also
        `consensus_error`, mean ‖x_i - x̄⁰‖² over that at the start; what the step reports, on average, and
        workers and attack; and the ledger, of the average honest node."""
        losses = [self.run.task.measure(node)["loss"] for node in self.nodes]
        figures = {
            "disagreement": disagreement(self.nodes),
            "drift": float(linalg.norm(self.mixed.mean(dim=0) - self.said.mean(dim=0))),
            "loss_worst": max(losses),
            "loss_nodes": sum(losses) / len(losses),
        }
        if self.run.graph.spread or self.run.graph.apart:
            starts = self.run.starts[self.run.honest]
            away = (self.nodes - starts.mean(dim=0)).square().sum(dim=1).mean()
            figures["consensus_error"] = float(away) / disagreement(starts)
        return self._of_parts() | figures | dict(zip(LEDGER, self.state.ledger, strict=True))

    def _of_parts(self) -> dict[str, float]:
        inside: SimulatedState = self.state.engine  # type: ignore[assignment]
        found = self.run.method.worker.report(inside.worker)
        return self._of_steps() | found | self.run.adversary.attack.report(inside.attack)

    def _of_steps(self) -> dict[str, float]:
        step, honest = self.run.method.step, self.run.task.cohort.honest
        each = [step.report(copy_of_run(self.state.step, i)) for i in honest]
        return {name: sum(one[name] for one in each) / len(each) for name in each[0]}


def disagreement(nodes: Tensor) -> float:
    """Mean ‖x_i - x̄‖² of nodes `[H, d]`."""
    return float((nodes - nodes.mean(dim=0)).square().sum(dim=1).mean())


def rounds_on_graph(run: OnGraph, state: LoopState, last: int) -> Iterator[GraphSnapshot]:
    """Run rounds `state.t + 1 .. last`: ask, gradients at every node's own point, step, exchange, place.

    Byzantine nodes hold the honest nodes' mean and what their own data make of it: what they would say if
    they were honest.

    Args:
        run: The parts of the run.
        state: What `OnGraph.begin` gave, or the state of an earlier snapshot.
        last: The last round.

    Raises:
        TooManyFaults: More neighbours of a node send no finite row than it tolerates.

    Examples:
        >>> from byzopt import Adversary, Cohort, Quadratic, RobustGD, rule_from
        >>> from byzopt.attacks import Spectral
        >>> from byzopt.engines import Graph, OnGraph, rounds_on_graph
        >>> from byzopt.graphs import TwoWorlds
        >>> from byzopt.mixers import CSPlus
        >>> cohort = Cohort.of(14, byzantine=2)
        >>> task = Quadratic().build(cohort, seed=0)
        >>> method = RobustGD().build(rule_from("mean"), lr=0.1)
        >>> graph = Graph(TwoWorlds(k=4), CSPlus(), liars="everywhere")
        >>> run = OnGraph(task, method, graph, Adversary(Spectral(), cohort, 2), b=2, seed=0)
        >>> [snapshot.state.t for snapshot in rounds_on_graph(run, run.begin(), last=3)]
        [1, 2, 3]
    """
    step = run.method.step
    for t in range(state.t + 1, last + 1):
        points = step.ask(state.step)
        vectors, worker, gradients = _computed(run, state.engine, points, t)
        middle = points[run.honest].mean(dim=0)
        attack = run.adversary.start(middle) if state.engine is None else state.engine.attack
        if run.graph.order == "adapt_combine":
            after = step.tell(state.step, vectors)
            said = step.answer(after)
            mixed, attack = run.exchange(attack, t, middle, said)
            after = step.place(after, everybody(run, mixed))
        else:
            said = step.answer(state.step)
            mixed, attack = run.exchange(attack, t, middle, said)
            after = step.tell(step.place(state.step, everybody(run, mixed)), vectors)
        cost = added(state.ledger, round_cost(run, gradients))
        engine = SimulatedState(worker, (), attack, ())
        state = LoopState(t, after, (), engine, cost[0], cost[1], cost[2], cost[3], cost[4])
        nodes = step.answer(after)[run.honest]
        yield GraphSnapshot(state, nodes.mean(dim=0), nodes, said[run.honest], mixed, run)


def _computed(run: OnGraph, engine: Any, points: Tensor, t: int) -> tuple[Tensor, Any, float]:
    """All nodes' vectors `[n, d]` at points of their own, their state after it, and gradients per node."""
    worker, count = run.method.worker, GradientCount()
    given = count.oracle(run.task, t, run.seed, samples=worker.samples)
    oracle = own_points(given, run.task, count)
    if engine is None:
        vectors, state = worker.init(points, oracle)
    else:
        vectors, state = worker.step(engine.worker, points, oracle)
    check_rows(f"The vectors of {type(worker).__name__}", vectors, run.task.n, points[0])
    return vectors, state, count.gradients


def own_points(given: Oracle, task: Task, count: GradientCount) -> Oracle:
    """An oracle whose call is `at`: on a graph every node asks at a point of its own."""

    def full(points: Tensor) -> Tensor:
        count.gradients += task.passes
        return task.grads_at(points, task.full())

    def sample(k: int) -> Oracle:
        return own_points(given.fresh(k), task, count)

    return Oracle(given.t, given.at, full, given.seed, given.at, sample, players=given.players)


def everybody(run: OnGraph, mixed: Tensor) -> Tensor:
    """The honest nodes' places and, at Byzantine nodes, their mean: `[n, d]`."""
    rows = mixed.mean(dim=0).expand(run.task.n, -1).clone()
    rows[run.honest] = mixed
    return rows


def round_cost(run: OnGraph, gradients: float) -> tuple[float, ...]:
    """What a round costs the average honest node: it sends one row to every neighbour, and hears one."""
    degrees = [run.network.degrees[i] for i in run.task.cohort.honest]
    coordinates = run.task.layout.d * sum(degrees) / len(degrees)
    return gradients, 32 * coordinates, coordinates, 32 * coordinates, coordinates
