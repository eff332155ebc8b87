"""A Flower strategy that is any of byzopt's methods: what clients send are rows, one for each node."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from logging import INFO
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from torch import Tensor

from byzopt.aggregators import Aggregator, rule_from
from byzopt.aggregators.core.filters import check_unseen_data
from byzopt.distributed.watch import Suspicion
from byzopt.errors import TooManyFaults, require
from byzopt.flower.base import Excess, ServerStrategy, Watch, median_record
from byzopt.flower.members import LOG
from byzopt.flower.metrics import medians
from byzopt.flower.records import ARRAYS, BYZOPT, CONFIG, PROTOCOL, to_arrays, to_point
from byzopt.flower.replies import decode_evaluation, decode_gradient
from byzopt.flower.server import Server
from byzopt.methods import METHODS, Method, MethodRecipe
from byzopt.methods.base import check_everybody, check_without_noise, with_counts
from byzopt.registry import plain
from byzopt.servers import Step
from byzopt.wire import Broadcast, Channel, Marina
from byzopt.workers import Estimator

NOBODY = (
    "No node at all gave a reply of `client_app`: if their ClientApps train and return weights, "
    "use RobustFedAvg."
)


class RobustStrategy(ServerStrategy):
    """A method of byzopt in a ServerApp; clients are made by `client_app`, and answer with gradients.

    For ClientApps that train and return weights there is `RobustFedAvg`: here their replies, which carry no
    mark of `client_app`, are refused.

    `method` a registered name, a table, a recipe, or a whole `Method` (which has its rule and lr already);
    `rule`, `f`, `lr` as in a spec; `rounds` for schedules with a horizon (default: those of `start`).
    `worker`, `wire` and `step` put another estimator, channel or server step in the method's place; `proxy`
    is the server's trusted loss.

    `n` is the number of nodes: round 1 waits for them, at most `patience` seconds, and refuses more. Without
    it the nodes are those that are there once they are enough for rule and f. Ordered by id they are the rows
    of the whole run. `sample` asks so many of them in each round, drawn by `seed`; then f counts the faulty
    among those. `evaluate` has clients evaluate after every round. `watch` is called with every round's
    `RoundDiagnostics`.

    A node that is asked and whose reply is missing, late, an error or not what was asked for, to the letter,
    is faulty in this round: its row is lost, and the rule goes on with f lowered by one for each such row.
    When they are more than it tolerates the round fails: `excess="raise"` raises `TooManyFaults`, and
    `"skip"` leaves the model as it is and goes on. After an error the model is that of the last good round,
    in `answer` and `arrays`, and who was faulty is in `faults`.

    Errors: `InvalidInput` for settings that do not fit, at the latest in round 1.

    Args:
        rule: What is done with the clients' rows, by name or as a recipe.
        method: What clients send and how the server steps.
        lr: Scale of the server's steps.
        f: Number of faulty clients of a round tolerated, where the rule does not say it.
        n: Number of nodes; None: those that are there once they are enough.
        sample: Number of nodes asked in a round; None: all.
        faulty_nodes: How many of all n nodes are faulty, for f to be worked out or checked.
        confidence: Probability that no round asks more than f of them.
        rounds: Length of the run, for schedules with a horizon; None: that of `start`.
        worker: An estimator in the method's place.
        wire: A channel in the method's place.
        step: A server step in the method's place.
        proxy: The server's trusted loss, `[d]` to a number.
        evaluate: Whether clients evaluate after every round.
        watch: Called with the diagnostics of each round.
        patience: Seconds that round 1 waits for nodes.
        seed: Of what the method draws, and of the samples of clients.
        excess: Where more than f are faulty: "raise", or "skip" the round.

    Raises:
        InvalidInput: Settings that do not fit, at the latest in round 1.

    Examples:
        >>> from byzopt.flower import RobustStrategy
        >>> from flwr.serverapp.strategy import Strategy
        >>> strategy = RobustStrategy("rfa", method="byz_nsgdm", lr=0.1, f=3, n=20)
        >>> isinstance(strategy, Strategy)
        True
    """

    def __init__(
        self,
        rule: Aggregator | str = "rfa",
        *,
        method: str | Mapping[str, Any] | MethodRecipe | Method = "byz_nsgdm",
        lr: float = 0.1,
        f: int | None = None,
        n: int | None = None,
        sample: int | None = None,
        faulty_nodes: int | None = None,
        confidence: float = 0.99,
        rounds: int | None = None,
        worker: Estimator | None = None,
        wire: Channel | None = None,
        step: Step | None = None,
        proxy: Callable[[Tensor], Tensor] | None = None,
        evaluate: bool = False,
        watch: Watch | None = None,
        patience: float = 300.0,
        seed: int = 0,
        excess: Excess = "raise",
    ) -> None:
        seen = Suspicion() if watch is None else watch
        super().__init__(f, n, patience, seed, seen, excess, faulty_nodes, confidence)
        ready = isinstance(method, (Method, MethodRecipe))
        self.recipe: Any = method if ready else METHODS.build(method)
        if isinstance(self.recipe, MethodRecipe):
            self.recipe = with_counts(self.recipe, n, f)
        whole = isinstance(method, Method)
        self.named, worked_out = rule, faulty_nodes is not None and f is None
        self.rule = (
            None if whole else rule_from(rule, **({"f": f or 0} if f is not None or worked_out else {}))
        )
        parts = {"worker": worker, "wire": wire, "step": step}
        self.replaced: Any = {slot: part for slot, part in parts.items() if part is not None}
        self.lr, self.sample, self.rounds = lr, sample, rounds
        self.proxy, self.evaluate = proxy, evaluate
        if n is not None and not worked_out:
            self._check(n)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any
    ) -> Iterable[Message]:
        server = self._prepare(server_round, arrays, grid)
        rows = self._sampled(self._asked(len(server.nodes)), server_round)
        content = self._content(server.x, server_round, config)
        self.train_requests = self._requests(server_round, rows, content, "train", grid)
        return self.train_requests.messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        server, asked = self._running, self.train_requests
        decoder = partial(decode_gradient, layout=server.layout, dtype=server.x.dtype)
        decoded, faults = asked.decode(replies, decoder)
        rows = {node: reply.row for node, reply in decoded.items()}
        reported = medians([reply.metrics for reply in decoded.values()])

        def aggregate() -> tuple[dict[str, Any], Any]:
            try:
                metrics, diagnostics = server.aggregate(asked, rows, faults)
            except TooManyFaults as error:
                if rows or server.state.t:
                    raise
                raise TooManyFaults(f"{error} {NOBODY}", error.rows) from None
            return reported | metrics, diagnostics

        return self._aggregate(server_round, aggregate)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any
    ) -> Iterable[Message]:
        if not self.evaluate:
            return []
        server = self._running
        content = self._content(server.answer, server_round, config)
        rows = range(len(server.nodes))
        self.evaluate_requests = self._requests(server_round, rows, content, "evaluate", grid)
        return self.evaluate_requests.messages

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Medians over clients."""
        if not self.evaluate:
            return None
        return median_record(
            self._evaluated(server_round, self.evaluate_requests, replies, decode_evaluation)
        )

    def summary(self) -> None:
        """Log what runs."""
        LOG.log(INFO, "\t├── byzopt: %r, lr %g, rule %r%s", self.recipe, self.lr, self.rule, self._pending)

    def _begin(self, arrays: ArrayRecord, grid: Any) -> Server:
        built = self._built()
        check_unseen_data(built.filter)
        shares = not isinstance(built.wire, Marina) and isinstance(built.down, Broadcast)
        what = "A method over Flower"
        require(shares, what, "need no last aggregate and no compressed broadcast at clients", built)
        check_everybody(built, what)
        check_without_noise(built, what)
        nodes = self._wait(grid)  # settles f
        method = replace(self._built(), **self.replaced)
        return Server(method, to_point(arrays), nodes, self._asked(len(nodes)), self.f, self.proxy)

    def _built(self) -> Method:
        horizon = self.rounds or self.num_rounds
        method: Method = self.recipe.build(self.rule, self.lr, horizon) if self.rule else self.recipe
        return method

    def _model(self) -> ArrayRecord:
        return to_arrays(self._running.answer, self._running.layout)

    def _move_to(self, arrays: ArrayRecord) -> None:
        server = self._running
        point = to_point(arrays, server.layout.names)
        same = (point.layout, point.x.dtype) == (server.layout, server.answer.dtype)
        require(same, "The arrays of a later round", f"be those of round 1, {server.layout}", point.layout)
        server.move_to(point.x)

    def _asked(self, n: int) -> int:
        return self.sample or n

    def _tolerate(self, f: int) -> Aggregator | None:
        if self.rule:
            self.rule = rule_from(self.named, f=f)
        if isinstance(self.recipe, MethodRecipe):
            self.recipe = with_counts(self.recipe, self.n, f)
        return self.rule

    def _check(self, n: int) -> None:
        k = self._asked(n)
        require(k <= n, "Parameter `sample`", f"be at most n = {n}", k)
        if self.rule:
            self.rule.check(k)
        elif self.f is not None:
            require(2 * self.f < k, "Parameter `f`", "satisfy 2 f < n", f"f = {self.f} with n = {k}")

    def _content(self, x: Tensor, t: int, config: ConfigRecord) -> RecordDict:
        """What a node is sent in round t: the model `x` `[d]`, and how to make its message."""
        server = self._running
        request: dict[str, Any] = {"protocol": PROTOCOL, "t": t, "names": list(server.layout.names)}
        for slot, part in (("worker", server.method.worker), ("wire", server.method.wire)):
            request[slot] = json.dumps(plain(part))
        arrays = to_arrays(x, server.layout)
        return RecordDict({ARRAYS: arrays, BYZOPT: ConfigRecord(request), CONFIG: config})
