"""A Flower strategy that is any of byzopt's methods: what clients send are rows, one for each node."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from logging import INFO, WARNING, getLogger
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from byzopt.aggregators import Aggregator, rule_from
from byzopt.aggregators.core.filters import blind
from byzopt.distributed.diagnostics import RoundDiagnostics
from byzopt.distributed.watch import Suspicion
from byzopt.errors import InvalidInput, require
from byzopt.flower.members import Turn, gathered, sampled
from byzopt.flower.patient import patient
from byzopt.flower.records import CONFIG, read, written
from byzopt.flower.replies import Refused, measured
from byzopt.flower.result import RobustResult
from byzopt.flower.server import Faults, Server, medians
from byzopt.methods import METHODS, Method, MethodRecipe
from byzopt.methods.base import counted
from byzopt.servers import Step
from byzopt.wire import Broadcast, Channel, Marina
from byzopt.workers import Estimator

LOG = getLogger("flwr")


class RobustStrategy(Strategy):
    """A method of byzopt in a ServerApp; clients are made by `client_app`.

    `method` a registered name, a table, a recipe, or a whole `Method` (which has its rule and lr already);
    `rule`, `f`, `lr` as in a spec; `rounds` for schedules with a horizon (default: those of `start`).
    `worker`, `wire` and `step` put another estimator, channel or server step in the method's place; `proxy`
    is the server's trusted loss.

    `n` is the number of nodes: round 1 waits for them, at most `patience` seconds, and refuses more. Without
    it the nodes are those that are there at round 1, at least 2 f + 1. Ordered by id they are the rows of the
    whole run. `sample` asks so many of them in each round, drawn by `seed`; then f counts the faulty among
    those. `evaluate` has clients evaluate after every round. `watch` is called with every round's
    `RoundDiagnostics`.

    A node that is asked and whose reply is missing, late, an error or not what was asked for, to the letter,
    is faulty in this round: its row is lost, and the rule goes on with f lowered by one for each such row.
    `TooManyFaults` when they are more than it tolerates; then, as after every error, the model is that of the
    last good round, in `answer`, and who was faulty is in `faults`.

    Errors: `InvalidInput` for settings that do not fit, at the latest in round 1.
    """

    def __init__(
        self,
        rule: Aggregator | str = "nnm >> rfa",
        *,
        method: str | Mapping[str, Any] | MethodRecipe | Method = "byz_nsgdm",
        lr: float = 0.1,
        f: int | None = None,
        n: int | None = None,
        sample: int | None = None,
        rounds: int | None = None,
        worker: Estimator | None = None,
        wire: Channel | None = None,
        step: Step | None = None,
        proxy: Callable[[Tensor], Tensor] | None = None,
        evaluate: bool = False,
        watch: Callable[[RoundDiagnostics], None] | None = None,
        patience: float = 300.0,
        seed: int = 0,
    ) -> None:
        ready = isinstance(method, (Method, MethodRecipe))
        self.recipe: Any = method if ready else METHODS.build(method)
        if isinstance(self.recipe, MethodRecipe):
            self.recipe = counted(self.recipe, n, f)
        whole = isinstance(method, Method)
        self.rule = None if whole else rule_from(rule, **({} if f is None else {"f": f}))
        own = {"worker": worker, "wire": wire, "step": step}
        self.own: Any = {slot: part for slot, part in own.items() if part is not None}
        self.lr, self.f, self.n, self.sample, self.rounds = lr, f, n, sample, rounds
        self.proxy, self.evaluate, self.patience, self.seed = proxy, evaluate, patience, seed
        self.watch = Suspicion() if watch is None else watch
        self.server: Server | None = None
        self.timeout: float | None = None
        self.horizon = rounds
        if n is not None:
            self._size(n)

    @property
    def faults(self) -> dict[int, Faults]:
        """Who counted as faulty: round -> node id -> reason."""
        return self._running.faults

    @property
    def answer(self) -> Tensor:
        """The model `[d]` as of the last good round."""
        return self._running.answer

    def start(
        self,
        grid: Any,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        *args: Any,
        **kwargs: Any,
    ) -> RobustResult:
        """Flower's `start`, from round 1 on. `timeout`: how long a round waits for replies, in seconds."""
        self.server, self.timeout = None, timeout
        self.horizon = self.rounds or num_rounds
        result = super().start(patient(grid), initial_arrays, num_rounds, timeout, *args, **kwargs)
        server = self._running
        result = RobustResult(**vars(result), faults=server.faults, nodes=server.nodes, watch=self.watch)
        result.arrays = written(server.answer, server.layout)
        return result

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any
    ) -> Iterable[Message]:
        server = self.server = self.server or self._begun(arrays, grid)
        rows = sampled(len(server.nodes), self._size(len(server.nodes)), self.seed, server_round)
        nodes = tuple(server.nodes[i] for i in rows)
        there = set(grid.get_node_ids())
        asked = [node for node in nodes if node in there]
        self.turn = Turn(server_round, nodes, self._ask("train", asked, server.x, server_round, config))
        return self.turn.messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        server = self._running
        try:
            figures, diagnostics = server.take(self.turn, replies)
        finally:
            for node, reason in server.faults.get(server_round, {}).items():
                LOG.log(WARNING, "byzopt: round %d: node %d is faulty: %s", server_round, node, reason)
        self.watch(diagnostics)
        return written(server.answer, server.layout), MetricRecord(dict(figures))

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any
    ) -> Iterable[Message]:
        server = self._running
        if not self.evaluate:
            return []
        asked = sorted(set(grid.get_node_ids()) & set(server.nodes))
        messages = self._ask("evaluate", asked, server.answer, server_round, config)
        self.evaluation = Turn(server_round, server.nodes, messages)
        return messages

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Medians over clients."""
        found: dict[int, dict[str, float]] = {}
        for reply in replies if self.evaluate else ():
            try:
                found.setdefault(self.evaluation.sender(reply), measured(reply))
            except Refused as error:
                LOG.log(WARNING, "byzopt: round %d: an evaluation is refused: %s", server_round, error)
        return MetricRecord(dict(medians(list(found.values())))) if found else None

    def summary(self) -> None:
        """Log what runs."""
        LOG.log(INFO, "\t├── byzopt: %r, lr %g, rule %r", self.recipe, self.lr, self.rule)

    @property
    def _running(self) -> Server:
        if self.server is None:
            raise InvalidInput("The strategy should have begun. Found no round. Call `start` first.")
        return self.server

    def _begun(self, arrays: ArrayRecord, grid: Any) -> Server:
        recipe = self.recipe
        built = recipe.build(self.rule, self.lr, self.horizon) if self.rule else recipe
        blind(built.filter)
        shares = not isinstance(built.wire, Marina) and isinstance(built.down, Broadcast)
        what = "A method over Flower"
        require(shares, what, "need no last aggregate and no compressed broadcast at clients", built)
        nodes = gathered(grid, self.n, 2 * (self.f or 0) + 1, self.patience)
        method = replace(built, **self.own)
        return Server(method, read(arrays), nodes, self._size(len(nodes)), self.f, self.proxy)

    def _size(self, n: int) -> int:
        """How many rows a round has. Errors: more than there are nodes, or too few for the rule."""
        k = self.sample or n
        require(k <= n, "Parameter `sample`", f"be at most n = {n}", k)
        if self.rule:
            self.rule.check(k)
        return k

    def _ask(self, kind: str, nodes: Sequence[int], x: Tensor, t: int, config: ConfigRecord) -> list[Message]:
        content = self._running.orders(x, t)
        content[CONFIG] = config
        more: Any = {} if self.timeout is None else {"ttl": self.timeout}
        return [Message(content, node, kind, group_id=str(t), **more) for node in nodes]
