"""FedAvg behind a robust rule: ClientApps train and return weights, as for Flower's own strategies."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from logging import INFO
from typing import Any, TypeAlias

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from torch import Tensor

from byzopt.aggregators import Aggregator, rule_from
from byzopt.aggregators.core.filters import Filter, StatelessFilter
from byzopt.distributed.watch import Suspicion
from byzopt.errors import ByzoptError, require
from byzopt.flower.base import Excess, ServerStrategy, Watch, median_record
from byzopt.flower.buffers import combine_buffers
from byzopt.flower.client_momentum import ClientMomentum
from byzopt.flower.fedavg_arguments import refuse
from byzopt.flower.fedavg_method import AnyMethod, AnyStep, MethodChoice
from byzopt.flower.members import LOG, Faults, RoundRequests
from byzopt.flower.metrics import consistent, medians
from byzopt.flower.model import Buffers, ModelArrays, Values
from byzopt.flower.records import Point
from byzopt.flower.server import Server
from byzopt.flower.weighting import capped_claims, check_weightable, weighted_rule
from byzopt.flower.weights import WeightsDecoder, WeightsReply, decode_metrics
from byzopt.methods import Method

CombineMetrics: TypeAlias = "Callable[[list[RecordDict], str], MetricRecord]"


class RobustFedAvg(ServerStrategy):
    """Flower's FedAvg with a robust rule in the place of the mean, for ClientApps as they are.

    Clients get the model, train it and return it. Row i of a round is the difference of the weights that were
    sent and those that client i returned; the rule combines the rows, and the server's step goes along the
    result: with rule "mean" and f = 0 that is FedAvg. At most f of the clients asked in a round may fail,
    send what cannot be read, or lie.

    The first ten arguments are those of FedAvg, with the same meaning, but for these:
    `weighted_by_key` is None, and clients count alike, because their `num-examples` are their own claims.
    Given, a client counts by that metric, at most `weight_cap` times the round's median and at most as much
    as leaves f clients less than half (`Weighted`); with f = 0 nobody lies and there is no cap. Rules without
    a weighted form are refused then. Metrics are medians over clients, unless a function combines them.

    `server_learning_rate` and `server_momentum` as in FedAvgM; `server` another step instead, for instance
    `ServerAdam`, `ServerYogi` or `ServerAdagrad` of `byzopt.servers`. `momentum` is that of each client's
    rows, kept at the server (v <- momentum v + (1 - momentum) row), d numbers for each client: it tells liars
    from noise. Or `method`, a name, recipe or `Method` whose clients send plain rows or momentum, with
    `server_learning_rate` as its lr. `proximal_mu` is told to clients as FedProx does.

    `buffers` are arrays that are not learned but measured (running statistics, counters): a module, whose
    buffers they are, or names with wildcards. None: integers and batch norm's as PyTorch names them.
    `buffer_rule` combines their values; integers become a client's value, the lower median. All other arrays
    are parameters.

    `n` is the number of nodes: round 1 waits for them, at most `patience` seconds, and refuses more. Without
    it the nodes are those that are there in round 1, once they are as many as rule, f and the other arguments
    need; who comes later is not asked. Where `faulty_nodes` of all n are faulty and only some are asked, f is
    worked out in round 1: the least that holds in all rounds with probability `confidence`; an f that is
    given beside it is checked. `watch` is called with every round's `RoundDiagnostics`; the default,
    `Suspicion(alike=False)`, suspects nobody for data that differ. `seed` draws
    the samples. More than f faults: `excess="raise"` raises `TooManyFaults`, `"skip"` leaves the model as
    it is and goes on. After an error the model of the last good round is in `arrays`.

    Errors: `InvalidInput` for settings that do not fit, at the latest in round 1.

    Args:
        fraction_train: Share of the nodes that train in a round, as of FedAvg.
        fraction_evaluate: Share of the nodes that evaluate, as of FedAvg.
        min_train_nodes: Least number that train, as of FedAvg.
        min_evaluate_nodes: Least number that evaluate, as of FedAvg.
        min_available_nodes: Number of nodes to wait for, as of FedAvg.
        weighted_by_key: Metric by which clients count; None: alike.
        arrayrecord_key: Where messages hold the model, as of FedAvg.
        configrecord_key: Where messages hold the settings, as of FedAvg.
        train_metrics_aggr_fn: Combines metrics of training; None: medians.
        evaluate_metrics_aggr_fn: Combines metrics of evaluation; None: medians.
        rule: What is done with the clients' updates, by name or as a recipe.
        f: Number of faulty clients of a round tolerated, where the rule does not say it.
        weight_cap: Largest weight of a client, in medians of the round's weights.
        server_learning_rate: Factor of the step along the aggregate.
        server_momentum: Of the server's step, as of FedAvgM.
        server: Another step of the server's; None: that of FedAvgM.
        momentum: Of each client's rows, kept at the server, in [0, 1).
        method: A method whose clients send plain rows or momentum; None: FedAvg's.
        proximal_mu: Told to clients, as FedProx does; None: nothing is.
        buffers: Arrays that are measured and not learned: a module, or names with wildcards.
        buffer_rule: What is done with their values.
        n: Number of nodes; None: those that are there in round 1.
        faulty_nodes: How many of all n nodes are faulty, for f to be worked out or checked.
        confidence: Probability that no round asks more than f of them.
        watch: Called with the diagnostics of each round.
        patience: Seconds that round 1 waits for nodes.
        seed: Of the samples of clients.
        excess: Where more than f are faulty: "raise", or "skip" the round.
        elsewhere: Arguments of Flower's other strategies, refused with what to use here.

    Raises:
        InvalidInput: Settings that do not fit, at the latest in round 1.

    Examples:
        >>> from byzopt.flower import RobustFedAvg
        >>> from flwr.serverapp.strategy import Strategy
        >>> strategy = RobustFedAvg(rule="rfa", f=1, min_available_nodes=5)
        >>> isinstance(strategy, Strategy)
        True
    """

    def __init__(
        self,
        fraction_train: float = 1.0,
        fraction_evaluate: float = 1.0,
        min_train_nodes: int = 2,
        min_evaluate_nodes: int = 2,
        min_available_nodes: int = 2,
        weighted_by_key: str | None = None,
        arrayrecord_key: str = "arrays",
        configrecord_key: str = "config",
        train_metrics_aggr_fn: CombineMetrics | None = None,
        evaluate_metrics_aggr_fn: CombineMetrics | None = None,
        *,
        rule: Aggregator | str = "rfa",
        f: int | None = None,
        weight_cap: float = 2.0,
        server_learning_rate: float = 1.0,
        server_momentum: float = 0.0,
        server: AnyStep = None,
        momentum: float = 0.0,
        method: AnyMethod = None,
        proximal_mu: float | None = None,
        buffers: Buffers = None,
        buffer_rule: Aggregator | str = "median",
        n: int | None = None,
        faulty_nodes: int | None = None,
        confidence: float = 0.99,
        watch: Watch | None = None,
        patience: float = 300.0,
        seed: int = 0,
        excess: Excess = "raise",
        **elsewhere: Any,
    ) -> None:
        refuse(elsewhere, inspect.signature(RobustFedAvg).parameters.keys() - {"elsewhere"})
        seen = Suspicion(alike=False) if watch is None else watch
        super().__init__(f, n, patience, seed, seen, excess, faulty_nodes, confidence)
        for name, fraction in (("fraction_train", fraction_train), ("fraction_evaluate", fraction_evaluate)):
            require(0 <= fraction <= 1, f"Parameter `{name}`", "lie in [0, 1]", fraction)
        self.fraction_train, self.fraction_evaluate = fraction_train, fraction_evaluate
        self.min_train_nodes = min_train_nodes if fraction_train else 0
        self.min_evaluate_nodes = min_evaluate_nodes if fraction_evaluate else 0
        self.min_available_nodes = min_available_nodes
        self.weighted, self.weight_cap = weighted_by_key is not None, weight_cap
        self.weighted_by_key = weighted_by_key or "num-examples"
        self.arrayrecord_key, self.configrecord_key = arrayrecord_key, configrecord_key
        self.train_metrics_aggr_fn = train_metrics_aggr_fn
        self.evaluate_metrics_aggr_fn = evaluate_metrics_aggr_fn
        self.proximal_mu, self.buffers = proximal_mu, buffers
        self.choice = MethodChoice(method, server, server_learning_rate, server_momentum, momentum)
        self.choice.check()
        self.apart: Values = {}  # buffers and constants, as they are sent next
        worked_out = faulty_nodes is not None and f is None
        self.named = (rule, buffer_rule)
        self.rule = None if isinstance(method, Method) else _rule(rule, 0 if worked_out else f)
        self.buffer_rule = rule_from(buffer_rule, **({} if f is None else {"f": f}))
        if n is not None and not worked_out:
            self._check(n)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any
    ) -> Iterable[Message]:
        server = self._prepare(server_round, arrays, grid)
        rows = self._sampled(self._asked(len(server.nodes)), server_round) if self.fraction_train else ()
        sent = self.model.arrays(server.x, self.apart)
        self.sent = self.model.vector(self.model.values_of(sent))
        more = {} if self.proximal_mu is None else {"proximal-mu": self.proximal_mu}
        content = self._content(sent, server_round, config, more)
        self.train_requests = self._requests(server_round, rows, content, "train", grid)
        return self.train_requests.messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        asked = self.train_requests
        if not asked.nodes:
            return None, None
        key = self.weighted_by_key if self.weighted else None
        decoded, faults = asked.decode(replies, WeightsDecoder(self.model, self.arrayrecord_key, key))

        def aggregate() -> tuple[dict[str, Any], Any]:
            server, (rows, states) = self._running, self._rows(decoded, faults, server_round)
            before, counted = server.state, [decoded[node] for node in rows]
            metrics, diagnostics = server.aggregate(asked, rows, faults, self._filter(asked, decoded, faults))
            try:
                values = [reply.buffers for reply in counted]
                self.apart = self.apart | combine_buffers(
                    self.model, values, len(asked.nodes), self.buffer_rule
                )
            except ByzoptError:
                server.state = before  # the model is one thing: no new parameters beside old buffers
                raise
            self.client_momentum.remember(states)
            if self.train_metrics_aggr_fn is None:
                reported = medians([reply.metrics for reply in counted])
                reported.pop(self.weighted_by_key, None)  # as in FedAvg
                return reported | metrics, diagnostics
            contents = consistent([reply.content for reply in counted], self.weighted_by_key)
            return dict(self.train_metrics_aggr_fn(contents, self.weighted_by_key)), diagnostics

        return self._aggregate(server_round, aggregate)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any
    ) -> Iterable[Message]:
        self.evaluate_requests = RoundRequests(server_round, (), ())
        if not self.fraction_evaluate:
            return []
        n = len(self._running.nodes)
        k = min(n, max(int(n * self.fraction_evaluate), self.min_evaluate_nodes))
        content = self._content(arrays, server_round, config, {})
        rows = self._sampled(k, server_round, "evaluate")
        self.evaluate_requests = self._requests(server_round, rows, content, "evaluate", grid)
        return self.evaluate_requests.messages

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Medians over clients, or what `evaluate_metrics_aggr_fn` makes of them."""
        asked, replies = self.evaluate_requests, list(replies)
        reports = self._evaluated(server_round, asked, replies, decode_metrics)
        if self.evaluate_metrics_aggr_fn is None or not reports:
            return median_record(reports, self.weighted_by_key)
        accepted, _ = asked.by_node(replies)
        contents = consistent([accepted[node].content for node in reports], self.weighted_by_key)
        return self.evaluate_metrics_aggr_fn(contents, self.weighted_by_key)

    def summary(self) -> None:
        """Log what runs."""
        LOG.log(INFO, "\t├── byzopt: rule %r%s, %r", self.rule, self._pending, self.choice)
        how = (
            f"by {self.weighted_by_key!r}, capped" if self.weighted else "alike, whatever they claim to have"
        )
        LOG.log(INFO, "\t├── Clients count %s", how)
        LOG.log(
            INFO,
            "\t├── Fraction: train (%.2f) | evaluate (%.2f)",
            self.fraction_train,
            self.fraction_evaluate,
        )

    def _begin(self, arrays: ArrayRecord, grid: Any) -> Server:
        nodes = self._wait(grid)
        self.model = ModelArrays.of(arrays, self.buffers)
        values, k = self.model.values_of(arrays), self._asked(len(nodes))
        method = self.choice.build(self.rule, k, self.f, self.num_rounds)
        alone = self.rule is not None and method.filter == StatelessFilter(self.rule)
        what, remedy = "A method whose clients are weighted", "Leave out `weighted_by_key`, or `method`."
        require(alone or not self.weighted, what, "combine rows by `rule` alone", method.filter, remedy)
        self.client_momentum = ClientMomentum(method.worker)
        self.apart = self.model.apart(values)
        return Server(method, Point(self.model.vector(values), self.model.layout), nodes, k, self.f)

    def _model(self) -> ArrayRecord:
        return self.model.arrays(self._running.answer, self.apart)

    def _move_to(self, arrays: ArrayRecord) -> None:
        values = self.model.values_of(arrays)
        self._running.move_to(self.model.vector(values))
        self.apart = self.model.apart(values)

    def _asked(self, n: int) -> int:
        """How many of n nodes a round of training asks; n where there is none."""
        return min(n, max(int(n * self.fraction_train), self.min_train_nodes)) if self.fraction_train else n

    def _tolerate(self, f: int) -> Aggregator | None:
        rule, buffer_rule = self.named
        self.rule = rule_from(rule, f=f) if self.rule else None
        self.buffer_rule = rule_from(buffer_rule, f=f)
        return self.rule

    def _check(self, n: int) -> None:
        for name in ("min_available_nodes", "min_train_nodes", "min_evaluate_nodes"):
            least, what = getattr(self, name), f"Parameter `{name}`"
            require(0 <= least <= n, what, f"be at least 0 and at most n = {n}", least)
        k = self._asked(n)
        if self.rule is None:
            require(2 * (self.f or 0) < k, "Parameter `f`", "satisfy 2 f < n", f"f = {self.f} with n = {k}")
            return
        self.rule.check(k)
        self.buffer_rule.check(k)
        tolerated, what = self.rule.tolerance(k), "The `buffer_rule`"
        enough = self.buffer_rule.tolerance(k) >= tolerated
        require(enough, what, f"tolerate what the rule does, f = {tolerated} of {k}", self.buffer_rule)
        if self.weighted:
            check_weightable(self.rule, k, self.weight_cap, self.weighted_by_key)

    def _rows(
        self, decoded: dict[int, WeightsReply], faults: Faults, t: int
    ) -> tuple[dict[int, Tensor], dict[int, Any]]:
        """The rows of the clients and the states of their momenta after them; `faults` grows by those whose
        row is not finite."""
        rows = {node: reply.x.neg_().add_(self.sent) for node, reply in decoded.items()}  # without a copy
        beyond = [node for node, row in rows.items() if not row.isfinite().all()]
        faults |= dict.fromkeys(beyond, "NaN or Inf")
        sound = {node: row for node, row in rows.items() if node not in beyond}
        messages, states, overflows = self.client_momentum.messages(sound, self._running.x, t)
        faults |= overflows
        return messages, states

    def _filter(
        self, asked: RoundRequests, decoded: dict[int, WeightsReply], faults: Faults
    ) -> Filter | None:
        """The rule with the weights of this round's clients; None where all count alike."""
        counted = [node for node in asked.nodes if node in decoded and node not in faults]
        if not self.weighted or self.rule is None or not counted:
            return None
        cap = self.weight_cap if self.rule.tolerance(len(asked.nodes)) else float("inf")
        claims = capped_claims([decoded[node].weight for node in counted], cap)
        weights = dict(zip(counted, claims, strict=True))
        return StatelessFilter(weighted_rule(self.rule, [weights.get(node, 1.0) for node in asked.nodes]))

    def _content(
        self, arrays: ArrayRecord, t: int, config: ConfigRecord, more: dict[str, float]
    ) -> RecordDict:
        settings = ConfigRecord({**config, **more, "server-round": t})
        return RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: settings})


def _rule(rule: Aggregator | str, f: int | None) -> Aggregator:
    if not isinstance(rule, Aggregator):
        remedy = "Write f=1, say; f=0 if all may be trusted."
        what = "Parameter `f` of RobustFedAvg"
        require(f is not None, what, "say how many clients of a round may fail or lie", "none", remedy)
    return rule_from(rule, **({} if f is None else {"f": f}))
