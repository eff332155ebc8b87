"""What both strategies share: who takes part, a server, rounds that fail closed, evaluation by medians."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from logging import WARNING
from typing import Any, Literal, TypeAlias, cast

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from byzopt.aggregators import Aggregator
from byzopt.distributed.diagnostics import RoundDiagnostics
from byzopt.errors import InvalidInput, TooManyFaults, require
from byzopt.flower.grid import reply_by_reply
from byzopt.flower.members import LOG, Faults, RoundRequests, sample_rows, wait_for_nodes
from byzopt.flower.metrics import Metrics, medians
from byzopt.flower.records import CONFIG
from byzopt.flower.result import RobustResult
from byzopt.flower.sampling import sample_tolerance
from byzopt.flower.server import Server

VERY_MANY = 2**16  # nodes: settings that refuse so many refuse all
Excess: TypeAlias = Literal["raise", "skip"]
Watch: TypeAlias = "Callable[[RoundDiagnostics], None]"


class ServerStrategy(Strategy):
    """A strategy around a `Server`. Round 1 makes the server; each further round is one `aggregate` of it."""

    configrecord_key = CONFIG

    def __init__(
        self,
        f: int | None,
        n: int | None,
        patience: float,
        seed: int,
        watch: Watch,
        excess: Excess,
        faulty_nodes: int | None,
        confidence: float,
    ) -> None:
        what = "Parameter `excess`"
        require(excess in ("raise", "skip"), what, "be 'raise' or 'skip'", excess)
        remedy = "Give the number of nodes, `n`, too."
        require(faulty_nodes is None or n is not None, "`faulty_nodes`", "be some of n nodes", "no n", remedy)
        self.f, self.n, self.patience, self.seed, self.excess = f, n, patience, seed, excess
        self.faulty_nodes, self.confidence = faulty_nodes, confidence
        self.watch = watch
        self.server: Server | None = None
        self.timeout: float | None = None
        self.num_rounds: int | None = None
        self._returned: ArrayRecord | None = None

    @abstractmethod
    def _begin(self, arrays: ArrayRecord, grid: Any) -> Server:
        """The server of a run that begins with these arrays. Errors: `InvalidInput` for what does not fit."""

    @abstractmethod
    def _check(self, n: int) -> None:
        """Errors: `InvalidInput` where n nodes are too few for the rule, f and what is asked in a round."""

    @abstractmethod
    def _asked(self, n: int) -> int:
        """How many of n nodes a round of training asks."""

    @abstractmethod
    def _tolerate(self, f: int) -> Aggregator | None:
        """The rule for f faulty nodes of those asked, where no f was given; None: the method has its own."""

    @abstractmethod
    def _model(self) -> ArrayRecord:
        """The model as of the last good round, as arrays."""

    @property
    def _pending(self) -> str:
        """What the log adds to a rule before round 1, while its f is not known."""
        return "" if self.faulty_nodes is None or self.f is not None else ", whose f is worked out in round 1"

    @property
    def faults(self) -> dict[int, Faults]:
        """Who counted as faulty: round -> node id -> reason."""
        return self._running.faults

    @property
    def answer(self) -> Tensor:
        """The model `[d]` as of the last good round."""
        return self._running.answer

    @property
    def arrays(self) -> ArrayRecord:
        """The model as of the last good round, under the names of the arrays that it began with."""
        _ = self._running
        return self._model()

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
        self.server = cast("Server | None", None)  # it is made in round 1
        self.timeout, self.num_rounds = timeout, num_rounds
        result = super().start(reply_by_reply(grid), initial_arrays, num_rounds, timeout, *args, **kwargs)
        if self.server is None:
            return RobustResult(**vars(result), watch=self.watch)
        server = self.server
        result = RobustResult(**vars(result), faults=server.faults, nodes=server.nodes, watch=self.watch)
        result.arrays = self._model()
        return result

    @property
    def _running(self) -> Server:
        if self.server is None:
            raise InvalidInput("The strategy should have begun. Found no round. Call `start` first.")
        return self.server

    def _prepare(self, t: int, arrays: ArrayRecord, grid: Any) -> Server:
        """The server at round t, which goes on from `arrays`."""
        if self.server is None or t == 1:
            self.server = self._begin(arrays, grid)
            self._returned = None
        elif self._returned is not None and not _equal(arrays, self._returned):
            self._move_to(arrays)
        return self.server

    @abstractmethod
    def _move_to(self, arrays: ArrayRecord) -> None:
        """Go on from arrays that somebody has changed since the last round."""

    def _requests(
        self, t: int, rows: Sequence[int], content: RecordDict, kind: str, grid: Any
    ) -> RoundRequests:
        """Messages with this content to those of the rows' nodes that are connected."""
        nodes = tuple(self._running.nodes[i] for i in rows)
        connected = set(grid.get_node_ids())
        late = len(connected - set(self._running.nodes))
        if late and kind == "train":
            remedy = "they are not asked. Give the strategy `n`, and it waits for all of them in round 1"
            LOG.log(WARNING, "byzopt: round %d: %d nodes came after round 1: %s", t, late, remedy)
        options: Any = {} if self.timeout is None else {"ttl": self.timeout}
        asked = [node for node in nodes if node in connected]
        messages = [Message(content, node, kind, group_id=str(t), **options) for node in asked]
        return RoundRequests(t, nodes, messages)

    def _aggregate(
        self, t: int, aggregate: Callable[[], tuple[Metrics, RoundDiagnostics]]
    ) -> tuple[ArrayRecord | None, MetricRecord]:
        """The model after one round, and its metrics. `excess` decides on rounds with too many faults."""
        try:
            metrics, diagnostics = aggregate()
        except TooManyFaults as error:
            if self.excess == "raise":
                raise
            LOG.log(WARNING, "byzopt: round %d is skipped: %s", t, error)
            return None, MetricRecord({"skipped": 1.0})
        finally:
            for node, reason in self._running.faults.get(t, {}).items():
                LOG.log(WARNING, "byzopt: round %d: node %d is faulty: %s", t, node, reason)
        self.watch(diagnostics)
        self._returned = self._model()
        return self._returned, MetricRecord(dict(metrics))

    def _wait(self, grid: Any) -> tuple[int, ...]:
        """The nodes of the run: `n` of them, or as many as are there once the rule has enough."""
        nodes = wait_for_nodes(grid, self.n, self._fewest() if self.n is None else self.n, self.patience)
        if self.faulty_nodes is not None:
            self._settle(len(nodes), self.faulty_nodes)
        self._check(len(nodes))
        return nodes

    def _settle(self, n: int, faulty: int) -> None:
        """f for the samples of this run, or a check of the f that was given."""
        least = sample_tolerance(n, faulty, self._asked(n), self.num_rounds or 1, self.confidence)
        if self.f is None:
            self.f = least
            rule = self._tolerate(least)
            if rule is not None:
                rule.check(self._asked(n))
                why = f"tolerate f = {least} of {self._asked(n)} nodes, as `faulty_nodes` asks"
                require(rule.tolerance(self._asked(n)) >= least, "The rule", why, rule)
        else:
            what, why = "Parameter `f`", f"be at least {least}, for samples of {self._asked(n)} nodes"
            require(self.f >= least, what, why, self.f, "Or leave it out: it is worked out.")

    def _fewest(self) -> int:
        """The least number of nodes that passes `_check`. Errors: what it says of a very large number."""
        low, high = 0, 1
        while not self._passes(high):
            if high >= VERY_MANY:
                self._check(high)
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._passes(middle) else (middle, high)
        return high

    def _passes(self, n: int) -> bool:
        try:
            self._check(n)
        except InvalidInput:
            return False
        return True

    def _sampled(self, k: int, t: int, purpose: str = "sample") -> tuple[int, ...]:
        return sample_rows(len(self._running.nodes), k, self.seed, t, purpose)

    def _evaluated(
        self, t: int, asked: RoundRequests, replies: Iterable[Message], decoder: Callable[[Message], Metrics]
    ) -> dict[int, Metrics]:
        """What nodes report of the model; who reports nothing that can be read is told in the log."""
        reports, faults = asked.decode(replies, decoder)
        for node, reason in faults.items():
            LOG.log(WARNING, "byzopt: round %d: the evaluation of node %d is left out: %s", t, node, reason)
        return reports


def median_record(reports: Mapping[int, Metrics], left_out: str = "") -> MetricRecord | None:
    """Medians over clients but for the metric `left_out`; None where nobody reports."""
    combined = medians(list(reports.values()))
    combined.pop(left_out, None)
    return MetricRecord(dict(combined)) if reports else None


def _equal(a: ArrayRecord, b: ArrayRecord) -> bool:
    return a is b or (list(a) == list(b) and all(a[name].data == b[name].data for name in a))
