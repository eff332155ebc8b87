"""One rank's side of a method: its estimator and its channel, over parameters as one vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from byzopt.aggregators.core.filters import RoundContext, check_unseen_data
from byzopt.distributed.communicator import Communicator
from byzopt.distributed.compressed import CompressedMessages, check_sendable, is_plain
from byzopt.distributed.flat import FlatParameters
from byzopt.distributed.header import ABSENT, Header, hash_of_bits, recipe_text
from byzopt.distributed.optimizer_state import OptimizerState
from byzopt.distributed.rates import at_rate
from byzopt.distributed.reduce import header_of
from byzopt.distributed.topologies import Exchange, Topology, Watch, check_topology
from byzopt.errors import InvalidInput, require
from byzopt.methods import Method
from byzopt.servers import ServerContext
from byzopt.wire import Broadcast
from byzopt.wire import Link as WireLink
from byzopt.workers import Oracle

Closure = Callable[[], Any]
Groups = Sequence[Mapping[str, Any]]


class Position(NamedTuple):
    """Where a rank's model is before a round: the parameters that require a gradient, the states that go with
    them, the point `x` `[d]`, whether the script `moved` it since the last step, and whether it gave other
    parameters, for which states were `rebuilt`."""

    flat: FlatParameters
    state: OptimizerState
    x: Tensor
    moved: bool = False
    rebuilt: bool = False


class Contribution(NamedTuple):
    """What a rank brings to a round: its position, its header and vector, the exchange, the states after it
    of the parts that make messages, and the bits sent."""

    position: Position
    header: Header
    vec: Tensor
    exchange: Exchange
    worker: Any
    wire: Any
    bits: float


class RankWorker:
    """The parts of `method` that one rank of `comm` runs by itself, and the method's states.

    Errors: `InvalidInput` for a method that an optimizer over ranks cannot have, or not in this topology.
    """

    def __init__(self, method: Method, comm: Communicator, topology: Topology, seed: int) -> None:
        self.method, self.comm, self.topology, self.seed = method, comm, topology, seed
        self.compressed = not is_plain(method.wire)
        check_topology(topology, method.filter, self.compressed)
        check_unseen_data(method.filter)
        draws = "draw one sample a round at one point"
        one = method.worker.samples == 1 and "points" not in method.worker.needs
        remedy = "Use LocalSteps, whose ranks step by themselves."
        require(one, "The worker's side of an optimizer", draws, method.worker, remedy)
        require(method.down == Broadcast(), "The downlink of an optimizer", "be a broadcast", method.down)
        step = at_rate(method.step, 1.0)
        self.recipe = recipe_text((method.worker, method.wire, method.filter, step, seed))

    def check(self, flat: FlatParameters) -> None:
        """Raise `InvalidInput` for parameters that the method's channel cannot serve."""
        self.method.wire.check(flat.layout, liars=False)
        if self.compressed:
            check_sendable(self.method.wire, flat.layout, self.seed, flat.parameters[0].dtype)

    def begun(self, flat: FlatParameters) -> OptimizerState:
        """The states before round 1."""
        x = flat.read()
        step = self.method.step.init(x, ServerContext(flat.layout))
        return OptimizerState(0, step, self.method.filter.init(x, self.comm.n), None, None, 0.0)

    def rehearsed(self, flat: FlatParameters) -> OptimizerState:
        """The structure of the state after round 1, from a round of zeros that is not sent."""
        begun, x = self.begun(flat), flat.read()
        zeros = Oracle(1, lambda point: torch.zeros_like(point).unsqueeze(0), lambda point: _no_full())
        message, worker = self.method.worker.init(x, zeros)
        wire, received = self.method.wire.start(message), self._received(message)
        return begun._replace(worker=worker, wire=wire, last=x, received=received)

    def before(self, position: Position) -> OptimizerState:
        """The states as they stood before a round, also before the first."""
        state = position.state
        unbegun = state.worker is None or state.wire is None
        return self.rehearsed(position.flat) if unbegun else state

    def contribution(
        self,
        position: Position,
        g: Tensor,
        gradient_at: Callable[[Tensor], Tensor] | None,
        plan: str,
        watch: Watch,
    ) -> Contribution:
        """What this rank brings whose gradient at its point is `g` `[d]`, and `gradient_at` others on the
        same sample. Nothing moves."""
        state, flat = position.state, position.flat
        message, worker = self._message(position, g, gradient_at)
        channel, t = self.method.wire, state.t + 1
        link = WireLink(t, self.seed, flat.layout, state.last, only=(self.comm.rank, self.comm.n))
        memory = channel.start(message) if state.wire is None else state.wire
        sent, _, wire = channel.send(memory, message, link)
        if not message.isfinite().all():  # one bad round must not make all later ones bad
            sent = torch.full_like(sent, torch.nan)  # whatever a compressor makes of it
            before = self.before(position)
            worker, wire = before.worker, before.wire
        messages = None
        if self.compressed:
            received = self._received(message) if state.received is None else state.received
            messages = CompressedMessages(channel, link, sent, received)
        exchange = Exchange(
            self.method.filter, state.filter, RoundContext(t, position.x), {}, watch, messages
        )
        header = self._header(position, sent[0], exchange, plan)
        return Contribution(position, *header, worker, wire, channel.cost(link).bits)

    def absence(self, position: Position, plan: str, watch: Watch) -> Contribution:
        """What this rank brings without a batch: nothing, but it takes the step."""
        what = "A rank with fewer batches"
        require(not self.compressed, what, "send whole vectors", "compressed messages", "Give all as many.")
        state = position.state
        exchange = Exchange(
            self.method.filter, state.filter, RoundContext(state.t + 1, position.x), {}, watch
        )
        header, vec, exchange = self._header(position, torch.zeros_like(position.x), exchange, plan)
        header = header._replace(status=ABSENT)
        return Contribution(position, header, vec, exchange, state.worker, state.wire, 0.0)

    def _header(
        self, position: Position, vec: Tensor, exchange: Exchange, plan: str
    ) -> tuple[Header, Tensor, Exchange]:
        plan = f"{plan} {position.rebuilt} {position.flat.layout}"
        header, (vec, exchange) = header_of(self.comm, vec, self.topology, exchange, plan)
        parameters = hash_of_bits(position.x) if position.moved else 0.0
        return header._replace(parameters=parameters), vec, exchange

    def _received(self, message: Tensor) -> Any:
        """What a receiver of compressed messages remembers before round 1; None where this rank is none."""
        receives = self.compressed and (self.topology == "replicated" or self.comm.rank == 0)
        return self.method.wire.start(message.expand(self.comm.n, -1)) if receives else None

    def _message(
        self, position: Position, g: Tensor, gradient_at: Callable[[Tensor], Tensor] | None
    ) -> tuple[Tensor, Any]:
        """This rank's message as rows `[1, d]` and its estimator's next state."""
        x, state = position.x, position.state

        def gradient(point: Tensor) -> Tensor:
            if point is x or torch.equal(point, x):
                return g.unsqueeze(0)
            given = gradient_at is not None
            require(given, "This method's `step`", "be given a closure: it asks twice", "none")
            return cast("Callable[[Tensor], Tensor]", gradient_at)(point).unsqueeze(0)

        oracle = Oracle(state.t + 1, gradient, lambda point: _no_full(), self.seed)
        if state.worker is None:
            return self.method.worker.init(x, oracle)
        return self.method.worker.step(state.worker, x, oracle)


def _no_full() -> Tensor:
    raise InvalidInput("An optimizer has no full gradient. Use a method that needs none.")
