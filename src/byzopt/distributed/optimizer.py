"""An optimizer in the manner of `torch.optim` whose workers are the ranks of a process group."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from byzopt.aggregators.core.filters import RoundContext, check_unseen_data
from byzopt.distributed.communicator import Communicator
from byzopt.distributed.compressed import CompressedMessages, check_sendable, is_plain
from byzopt.distributed.flat import FlatParameters
from byzopt.distributed.header import fingerprint, recipe_text
from byzopt.distributed.reduce import aggregate_round
from byzopt.distributed.topologies import Exchange, Topology, Watch, check_topology
from byzopt.errors import InvalidInput, require
from byzopt.methods import Method
from byzopt.servers import ServerContext
from byzopt.servers.descent import check_rate
from byzopt.states import freeze, thaw
from byzopt.wire import Broadcast
from byzopt.wire import Link as WireLink
from byzopt.workers import Oracle

Params = Iterable[Tensor] | Iterable[dict[str, Any]] | DistributedDataParallel
Closure = Callable[[], Any]


class OptimizerState(NamedTuple):
    """What a rank carries from step to step: finished rounds, the states of the method's four parts, bits
    sent, the last aggregate, and what it remembers of all ranks' messages, if it receives compressed ones."""

    t: int
    step: Any
    filter: Any
    worker: Any | None
    wire: Any | None
    bits: float
    last: Tensor | None = None
    received: Any | None = None


class RobustOptimizer(torch.optim.Optimizer):
    """Any `Method` over the ranks of `group`: each rank is one worker, and all take the same step.

    `params` are a model's parameters, or a `DistributedDataParallel` model, which then leaves gradients
    local: averaging them before the rule would undo it. On construction all ranks take rank 0's parameters.
    `step` takes the gradients that the last `backward` left (none count as zeros), updates this rank's
    estimator (worker momentum), sends the message, gets the robust aggregate and makes the server's step,
    whose iterate it writes into the parameters. It owns the iterate: other changes to the parameters between
    steps are overwritten. `lr` of the one parameter group is the scale of the server's step, for schedulers
    to change.

    A channel that compresses (`method.wire`) sends the bytes that its compressor emits, and nothing else, to
    rank 0 ("server") or to all ("replicated"), which keep what the channel remembers of every rank: n d
    numbers, or twice as many. A message that cannot be read counts as a vector that is not finite, and so
    does what comes behind a malformed header; `malformed` says why, by rank, on those that read it. `seed` is
    that of compressors and coins that draw.

    A rank whose gradient holds NaN or Inf says so: its row is dropped in that round. Its momentum and its
    channel go on from what they were before.

    Parameters of a `DistributedDataParallel` model, given in the place of the model, come with gradients that
    are averaged already. So in the first step whose gradients are finite and not zero, ranks that were given
    parameters compare them, and where those of n - f ranks are equal to the last bit all refuse, and nothing
    has moved; `same_data=True` says that ranks take the same data on purpose.

    `topology`: see `byzopt.distributed.topologies`. `watch` is called with the `RoundDiagnostics` of each
    step, or of every `watch.every`-th where it has such a number; all ranks give one or none.

    Errors: `InvalidInput` for more than one parameter group, parameters of several dtypes or devices, a
    filter that expels ranks and takes their data for alike (`differing=True` says that it may do so all the
    same), a filter or compressed messages that the topology cannot serve, a compressed downlink, a rule that
    cannot work on so many ranks; in `step` as `robust_all_reduce`, and for gradients averaged already.
    """

    def __init__(
        self,
        params: Params,
        method: Method,
        lr: float,
        *,
        group: Any = None,
        topology: Topology = "sharded",
        watch: Watch = None,
        seed: int = 0,
        same_data: bool = False,
    ) -> None:
        self._compared = same_data or isinstance(params, DistributedDataParallel)
        if isinstance(params, DistributedDataParallel):
            from torch.distributed.algorithms.ddp_comm_hooks.debugging_hooks import noop_hook

            params.register_comm_hook(None, noop_hook)
            params = params.parameters()
        super().__init__(cast(Any, params), {"lr": lr})
        require(len(self.param_groups) == 1, "The parameters", "be one group", len(self.param_groups))
        self.compressed = not is_plain(method.wire)
        check_topology(topology, method.filter, self.compressed)
        check_unseen_data(method.filter)
        require(method.down == Broadcast(), "The downlink of an optimizer", "be a broadcast", method.down)
        self.method, self.topology, self.watch, self.seed = method, topology, watch, seed
        self.malformed: dict[int, str] = {}
        self.comm = Communicator(group)
        self.flat = FlatParameters([p for p in self.param_groups[0]["params"] if p.requires_grad])
        self.flat.write(self.comm.broadcast(self.flat.read()).to(self.flat.device))
        method.wire.check(self.flat.layout, liars=False)
        if self.compressed:
            check_sendable(method.wire, self.flat.layout, seed, self.flat.parameters[0].dtype)
        self.progress = self._begun()
        self._paced = hasattr(method.step, "lr")
        step = replace(cast(Any, method.step), lr=1.0) if self._paced else method.step
        self._plan = recipe_text((method.worker, method.wire, method.filter, step, seed))

    @property
    def rounds(self) -> int:
        """Finished rounds."""
        return self.progress.t

    @property
    def bits(self) -> float:
        """Bits of messages this rank has sent, as its channel counts them."""
        return self.progress.bits

    def answer(self) -> Tensor:
        """The iterate `[d]` that the method would return now: the parameters, for most methods."""
        return self.method.step.answer(self.progress.step)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """One round. A `closure` (zero the gradients, take the loss, `backward`, return the loss) is called
        first, and once more for each further point at which the method wants this sample's gradient."""
        loss = None if closure is None else self._called(closure)
        message, worker, x = self._message(closure)
        state, t = self.progress, self.progress.t + 1
        channel, who = self.method.wire, (self.comm.rank, self.comm.n)
        link = WireLink(t, self.seed, self.flat.layout, state.last, only=who)
        sent, _, wire = channel.send(channel.start(message) if t == 1 else state.wire, message, link)
        if not message.isfinite().all():  # one bad round must not make all later ones bad
            sent = torch.full_like(sent, torch.nan)  # whatever a compressor makes of it
            worker, wire = self._before().worker, self._before().wire
        received = self._received(message) if t == 1 else state.received
        messages = CompressedMessages(channel, link, sent, received) if self.compressed else None
        self.malformed = {}
        exchange = Exchange(
            self.method.filter, state.filter, RoundContext(t, x), self.malformed, self._listener(t), messages
        )
        g, memory = aggregate_round(
            self.comm, sent[0], self.topology, exchange, self._plan, self._fingerprint
        )
        self._compared = self._compared or self._fingerprint > 0
        if self.comm.rank in self.malformed:  # the receivers go on from what they remembered
            wire = self._before().wire
        received = messages.memory if messages else received
        step, bits = self._stepper().tell(state.step, g), state.bits + channel.cost(link).bits
        self.progress = OptimizerState(t, step, memory, worker, wire, bits, g, received)
        self.flat.write(self.method.step.ask(step))
        return loss

    def state_dict(self) -> dict[str, Any]:
        """This rank's own state: plain data and tensors, for `torch.save` and `weights_only=True`.

        Every rank keeps its own, for its momentum is its own; see `byzopt.distributed.rank_checkpoints`.
        """
        groups = [{k: v for k, v in group.items() if k != "params"} for group in self.param_groups]
        who = {"rank": self.comm.rank, "ranks": self.comm.n, "recipe": self._plan}
        return {**who, "state": freeze(self.progress), "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on, bit for bit, from what `state_dict` gave on this rank; the parameters are set, too.

        Errors: `InvalidInput` for another rank's state, another number of ranks, another method or model.
        """
        given = {key: state_dict.get(key) for key in ("rank", "ranks", "recipe")}
        expected = {"rank": self.comm.rank, "ranks": self.comm.n, "recipe": self._plan}
        remedy = "Load on every rank its own state, into the same optimizer."
        require(given == expected, "A state", f"be of {expected}", given, remedy)
        frozen = state_dict["state"]
        self.progress = thaw(frozen, self._begun() if frozen[0] == 0 else self._rehearsed())
        for group, kept in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update(kept)
        self.flat.write(self.method.step.ask(self.progress.step))

    def _stepper(self) -> Any:
        """The server's step at the group's present `lr`."""
        step, lr = self.method.step, float(self.param_groups[0]["lr"])
        check_rate(lr, "The `lr` of the optimizer's parameter group")
        return replace(cast(Any, step), lr=lr) if self._paced else step

    def _begun(self) -> OptimizerState:
        x = self.flat.read()
        step = self.method.step.init(x, ServerContext(self.flat.layout))
        return OptimizerState(0, step, self.method.filter.init(x, self.comm.n), None, None, 0.0)

    def _before(self) -> OptimizerState:
        """The states as they stood before this round, also before the first."""
        return self.progress if self.progress.t else self._rehearsed()

    def _rehearsed(self) -> OptimizerState:
        """The structure of the state after round 1, from a round of zeros that is not sent."""
        begun, x = self._begun(), self.flat.read()
        zeros = Oracle(1, lambda point: torch.zeros_like(point).unsqueeze(0), lambda point: _no_full())
        message, worker = self.method.worker.init(x, zeros)
        wire, received = self.method.wire.start(message), self._received(message)
        return begun._replace(worker=worker, wire=wire, last=x, received=received)

    def _received(self, message: Tensor) -> Any:
        """What a receiver of compressed messages remembers before round 1; None where this rank is none."""
        receives = self.compressed and (self.topology == "replicated" or self.comm.rank == 0)
        return self.method.wire.start(message.expand(self.comm.n, -1)) if receives else None

    def _message(self, closure: Closure | None) -> tuple[Tensor, Any, Tensor]:
        """This rank's message as rows `[1, d]`, its estimator's next state, and the point it is about."""
        x = self.method.step.ask(self.progress.step)
        first = self.flat.gradient()
        self._fingerprint = 0.0 if self._compared else fingerprint(first)

        def gradient(point: Tensor) -> Tensor:
            if point is x or torch.equal(point, x):
                return first.unsqueeze(0)
            require(closure is not None, "This method's `step`", "be given a closure: it asks twice", "none")
            self.flat.write(point)
            self._called(cast(Closure, closure))
            return self.flat.gradient().unsqueeze(0)

        oracle = Oracle(self.progress.t + 1, gradient, lambda point: _no_full(), self.seed)
        if self.progress.t == 0:
            return *self.method.worker.init(x, oracle), x
        return *self.method.worker.step(self.progress.worker, x, oracle), x

    def _called(self, closure: Closure) -> Any:
        with torch.enable_grad():
            return closure()

    def _listener(self, t: int) -> Watch:
        return self.watch if self.watch and t % int(getattr(self.watch, "every", 1)) == 0 else None


def _no_full() -> Tensor:
    raise InvalidInput("An optimizer has no full gradient. Use a method that needs none.")
