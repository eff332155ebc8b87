"""The parts of a run on a graph: its nodes, their side of a method, who lies, and one exchange."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from byzopt.aggregators.core.base import BaseAggregator
from byzopt.aggregators.core.filters import StatelessFilter
from byzopt.attacks import Adversary, EdgeAttack, EdgeView
from byzopt.attacks.edges import from_all
from byzopt.engines.graph import Graph
from byzopt.engines.loop import LoopState
from byzopt.engines.simulated import check_needs
from byzopt.engines.stacking import stack_states
from byzopt.errors import require
from byzopt.graphs import Network
from byzopt.methods import Method
from byzopt.methods.base import check_everybody
from byzopt.mixers import Hearing, mix_one
from byzopt.rng import stream
from byzopt.servers import ServerContext
from byzopt.tasks import Task
from byzopt.wire import Broadcast, Direct, Identity


@dataclass(frozen=True)
class OnGraph:
    """The nodes of a graph, their side of a method, and who lies. `b` is what each node tolerates.

    Errors: `InvalidInput` for parts that do not fit one another, the task or the graph.

    Args:
        task: Losses and data, those of Byzantine nodes as the attack wants them.
        method: What nodes compute and how they step; it sends rows as they are.
        graph: Who hears whom, and the mixer.
        adversary: Who lies, and how.
        b: How many Byzantine neighbours each node tolerates.
        seed: Of all that is drawn.

    Raises:
        InvalidInput: Parts that do not fit one another, the task or the graph.

    Examples:
        >>> from byzopt import Adversary, Cohort, NoAttack, Quadratic, RobustGD, rule_from
        >>> from byzopt.engines import Graph, OnGraph, rounds_on_graph
        >>> from byzopt.graphs import Ring
        >>> from byzopt.mixers import Gossip
        >>> cohort = Cohort.of(6)
        >>> task = Quadratic().build(cohort, seed=0)
        >>> method = RobustGD().build(rule_from("mean"), lr=0.1)
        >>> graph, adversary = Graph(Ring(), Gossip()), Adversary(NoAttack(), cohort, 0)
        >>> run = OnGraph(task, method, graph, adversary, b=0, seed=0)
        >>> *_, last = rounds_on_graph(run, run.begin(), last=3)
        >>> last.nodes.shape
        torch.Size([6, 20])
    """

    task: Task
    method: Method
    graph: Graph
    adversary: Adversary
    b: int
    seed: int

    def __post_init__(self) -> None:
        method, remedy = self.method, "Take another method, robust_sgdm for instance."
        plain = type(method.wire) is Direct and type(method.wire.compressor) is Identity
        plain = plain and type(method.down) is Broadcast
        require(
            plain, "A method on a graph", "send rows as they are", f"{method.wire}, {method.down}", remedy
        )
        check_everybody(method, "A method on a graph")
        moves = method.step.batched and method.step.scales
        what = "The step of a method on a graph"
        require(moves, what, "work for many nodes at once", type(method.step).__name__, remedy)
        known = isinstance(method.filter, StatelessFilter)
        what = "The rule of a method on a graph"
        require(known, what, "remember nothing", type(method.filter).__name__, remedy)
        place, what = self.adversary.placement, "The placement of an attack on a graph"
        require(place == "free", what, "be 'free': nodes send rows as they are", repr(place))
        check_needs(method.worker, self.task)
        self.graph.mixer.check(self.network, self.b, self.rule)
        if self.graph.mixer.judges:
            self.task.measure_workers(self.task.start())  # refused now where it cannot be

    @property
    def rule(self) -> BaseAggregator:
        """The run's rule, which mixers may use."""
        assert isinstance(self.method.filter, StatelessFilter)  # seen to be so at the start
        return self.method.filter.rule

    @cached_property
    def network(self) -> Network:
        """Who hears whom."""
        return self.graph.network(self.task.cohort)

    @cached_property
    def starts(self) -> Tensor:
        """Where nodes start, `[n, d]`, each in memory of its own."""
        x, n = self.task.start(), self.task.n
        rows = x.expand(n, -1).clone()
        if self.graph.spread:
            generator = stream(self.seed, "graph", "starts")
            drawn = torch.randn(n, len(x), dtype=torch.float64, generator=generator, device="cpu")
            rows += (self.graph.spread * drawn).to(rows)
        if self.graph.apart:
            half = self.honest[: len(self.honest) // 2]
            rows += self.graph.apart / 2
            rows[half] -= self.graph.apart
        return rows

    @cached_property
    def honest(self) -> Tensor:
        """The honest nodes' numbers."""
        return torch.tensor(self.task.cohort.honest, device=self.task.start().device)

    @cached_property
    def byzantine(self) -> Tensor:
        """The Byzantine nodes' numbers."""
        return torch.tensor(self.task.cohort.byzantine, dtype=torch.int64, device=self.starts.device)

    def begin(self) -> LoopState:
        """The state before round 1."""
        site = ServerContext(self.task.layout, self.task.proxy())
        step = stack_states([self.method.step.init(x.clone(), site) for x in self.starts])
        return LoopState(0, step, (), None, 0.0, 0.0)

    def answer(self, state: LoopState) -> Tensor:
        """The honest nodes' mean, `[d]`."""
        return self.method.step.answer(state.step)[self.honest].mean(dim=0)

    def mix(self, rows: Tensor, lies: Tensor, per_receiver: bool, t: int) -> Tensor:
        """Where honest nodes stand after an exchange in which they say `rows` `[H, d]`."""
        if not self.graph.together:
            rule = self.rule.at(t) if self.graph.mixer.uses_rule else None
            return self._one_by_one(rows, lies.to(rows.dtype), per_receiver, rule)
        return self.graph.mixer.mix(self.hearing(rows, lies, per_receiver, t))

    def hearing(self, rows: Tensor, lies: Tensor, per_receiver: bool, t: int) -> Hearing:
        """The exchange of round t as mixers see it; with leading dimensions of runs that are equal in all
        that mixers look at."""
        rule = self.rule.at(t) if self.graph.mixer.uses_rule else None
        losses = self._losses if self.graph.mixer.judges else None
        return Hearing(self.network, self.b, rows, lies.to(rows.dtype), per_receiver, rule, losses)

    def _one_by_one(
        self, rows: Tensor, lies: Tensor, per_receiver: bool, rule: BaseAggregator | None
    ) -> Tensor:
        """What `mix` gives, by the arithmetic of ranks that are nodes."""
        cohort, mixed = self.task.cohort, []
        for k, node in enumerate(cohort.honest):
            said = dict(zip(cohort.honest, rows, strict=True))
            said |= dict(zip(cohort.byzantine, lies[:, k] if per_receiver else lies, strict=True))
            heard = [said[j] for j in self.network.neighbours(node)]
            told = torch.stack(heard) if heard else rows[:0]
            mixed.append(mix_one(self.graph.mixer, self.network, node, self.b, rows[k], told, rule))
        return torch.stack(mixed)

    def answers(self, rows: Tensor, t: int) -> Callable[[Tensor], Tensor]:
        """From lies for single receivers `[..., b, H, d]` to where honest nodes stand `[..., H, d]` who say
        `rows`."""
        if not self.graph.together:
            return lambda lies: self.mix(rows, lies, True, t)
        nobody = from_all(rows, len(self.byzantine))  # of the right shape; nothing looks at it
        hearing = self.hearing(rows, nobody, True, t)
        return lambda lies: self.graph.mixer.mix(hearing.telling(lies.to(rows.dtype)))

    def exchange(self, attack: Any, t: int, before: Tensor, said: Tensor) -> tuple[Tensor, Any]:
        """Where honest nodes stand `[H, d]` after all nodes have said `said` `[n, d]` and liars lied, and the
        attack's next state. `before` is the honest nodes' mean before the round."""
        rows, kind = said[self.honest], self.adversary.attack
        if not len(self.byzantine):
            return self.mix(rows, said[self.byzantine], False, t), attack
        if isinstance(kind, EdgeAttack):
            return self.mix(rows, self.edge_lies(t, before, said), True, t), attack
        lies, attack = self.forged(attack, t, before, said)
        return self.mix(rows, lies, False, t), attack

    def forged(self, attack: Any, t: int, before: Tensor, said: Tensor) -> tuple[Tensor, Any]:
        """What liars tell everybody, `[b, d]`, and the attack's next state."""
        defence = MeanAfter(self, said[self.honest], t)
        generator = stream(self.seed, "attack", t, device=said.device)
        losses = self.adversary.losses(self.task)
        seen = (attack, t, before, said, generator, defence, None, losses)
        rows, attack = self.adversary.forge_rows(*seen, places=True)
        return rows[self.byzantine], attack

    def edge_lies(self, t: int, before: Tensor, said: Tensor) -> Tensor:
        """What liars tell single receivers, `[b, H, d]`, by an attack on edges."""
        kind = self.adversary.attack
        assert isinstance(kind, EdgeAttack)  # asked of no other
        view = self.edge_view(t, before, said)
        lies = kind.forge_edges(view, stream(self.seed, "attack", t, device=said.device))
        wanted = (len(self.byzantine), len(self.honest), said.shape[-1])
        good, found = lies.shape == wanted and lies.is_floating_point(), f"{list(lies.shape)} of {lies.dtype}"
        require(good, f"The lies of {type(kind).__name__}", f"be a floating tensor {list(wanted)}", found)
        return lies

    def edge_view(self, t: int, before: Tensor, said: Tensor) -> EdgeView:
        """What an attack on edges sees of an exchange."""
        knows, answers = self.adversary.attack.knows, self.answers(said[self.honest], t)
        losses = self.adversary.losses(self.task)
        return EdgeView(t, before, said, self.task.cohort, self.b, knows, answers, self.network, losses)

    def _losses(self, x: Tensor) -> Sequence[float]:
        return self.task.measure_workers(x)["loss"]


@dataclass(frozen=True)
class MeanAfter:
    """The defence as attacks see it that know of one server: the honest nodes' mean after the exchange."""

    run: OnGraph
    rows: Tensor
    t: int

    def __call__(self, rows: Tensor) -> Tensor:
        """The mean `[d]` after an exchange in which all nodes say `rows` `[n, d]`."""
        said, lies = rows[self.run.honest].to(self.rows.dtype), rows[self.run.byzantine]
        return self.run.mix(said, lies, False, self.t).mean(dim=0)

    def batch(self, rows: Tensor) -> Tensor:
        """The means `[K, d]` for rows `[K, n, d]`."""
        return torch.stack([self(each) for each in rows])

    def draws(self, count: int = 3) -> list[MeanAfter]:
        """The defence as somebody knows it who does not know the lots of the nodes' rule: with `count` draws
        of other rounds, or as it is where there are none."""
        others = [replace(self, t=self.t + (k << 20)) for k in range(1, count + 1)]
        rule, used = self.run.rule, self.run.graph.mixer.uses_rule
        return others if used and rule.at(self.t) != rule.at(others[0].t) else [self]

    def limits(self) -> None:
        """How far a worker may go unseen: there is no such limit."""
        return
