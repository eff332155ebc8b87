"""An optimizer in the manner of `torch.optim` whose workers are the ranks of a process group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.algorithms.join import Join, Joinable, JoinHook

from byzopt.aggregators.core.filters import RoundContext
from byzopt.aggregators.core.surroundings import isolated
from byzopt.distributed.agreement import exchange_headers
from byzopt.distributed.communicator import Communicator
from byzopt.distributed.deadline import DeadlineTransport
from byzopt.distributed.flat import FlatParameters
from byzopt.distributed.harden.buffers import BufferSync, check_buffers, check_mode
from byzopt.distributed.harden.settings import Buffers
from byzopt.distributed.header import Header, fingerprint
from byzopt.distributed.models import Params, buffers_apart, check_deadline, keep_local, replicas_in
from byzopt.distributed.optimizer_state import OptimizerState, loaded, saved
from byzopt.distributed.parameters import Settlement, settled
from byzopt.distributed.rank_worker import Closure, Contribution, Position, RankWorker
from byzopt.distributed.rates import check_rates, has_rate, rate_of, recentred, stepped
from byzopt.distributed.reduce import aggregate, tolerated
from byzopt.distributed.timed import timed_round
from byzopt.distributed.topologies import Exchange, Topology, Watch
from byzopt.errors import TooManyFaults, require
from byzopt.methods import Method
from byzopt.methods.base import check_everybody, check_without_noise
from byzopt.servers import ServerContext


class RobustOptimizer(torch.optim.Optimizer, Joinable):
    """Any `Method` over the ranks of `group`: each rank is one worker, and all take the same step.

    `params` are a model, parameters, or groups of them. `DistributedDataParallel` models in it, however they
    are wrapped or compiled, then leave gradients local: averaging them before the rule would undo it. On
    construction all ranks take rank 0's parameters. `step` takes the gradients that the last `backward` left
    (none count as zeros), updates this rank's estimator (worker momentum), sends the message, gets the robust
    aggregate and makes the server's step, whose iterate it writes into the parameters.

    Groups have their own `lr`, the scale of the server's step, and `weight_decay`, which adds that multiple
    of the parameters to the gradient as in `torch.optim.SGD`; schedulers may change both, and all ranks must
    have the same. An `lr` of 0 is a step of length zero. What a script changes between steps counts, if it
    changes it alike on all ranks: values of parameters (`load_state_dict`, clamping) become the iterate;
    where others require a gradient, or groups are added, the method's states start afresh. Up to f ranks
    that have other values than the rest are taken for faulty: their vectors do not count this round, their
    parameters are set to the others', and all ranks warn.

    A channel that compresses (`method.wire`) sends the bytes that its compressor emits, and nothing else, to
    rank 0 ("server") or to all ("replicated"), which keep what the channel remembers of every rank: n d
    numbers, or twice as many. A message that cannot be read counts as a vector that is not finite, and so
    does what comes behind a malformed header; `malformed` says why, by rank, on those that read it. `seed` is
    that of compressors and coins that draw.

    A rank whose gradient holds NaN or Inf says so: its row is dropped in that round. Its momentum and its
    channel go on from what they were before. With a `torch.amp.GradScaler` every rank still takes part in
    every step; only where more ranks overflow than the rule tolerates all skip it, which `skipped` counts.
    Ranks with fewer batches than others call for `with Join([model, optimizer])`: those that have no more
    are absent from the rule, which must suit the rest, and take its steps.

    Parameters of a `DistributedDataParallel` model, given in the place of the model, come with gradients that
    are averaged already. So in the first step whose gradients are finite and not zero, ranks that were given
    parameters compare them, and where those of n - f ranks are equal to the last bit all refuse, and nothing
    has moved; `same_data=True` says that ranks take the same data on purpose.

    With a `deadline` in seconds (or a `DeadlineTransport` as `group`) a rank that is dead, stopped or late
    counts like one that is not finite, and the others go on, with whole vectors to all as in "replicated".
    One that comes back takes the steps that it has missed, or the state on which more than f others agree.
    Scripts then count `rounds`, and not calls of `step`.

    Buffers that a forward pass writes, such as running statistics, bypass the rule. Given a model, `step`
    makes those of all ranks equal, in the place of DDP's broadcast of rank 0's, which is switched off: with
    `buffers` "median" to the coordinate median of those without NaN; "local" leaves each rank its own, and
    "refuse" makes a written one an error. They stay local where DDP was built with
    `broadcast_buffers=False`, with a `deadline`, and where the optimizer is given parameters.

    `topology`: see `byzopt.distributed.topologies`. `watch` is called with the `RoundDiagnostics` of each
    step, or of every `watch.every`-th where it has such a number; all ranks give one or none.

    Errors, on all ranks alike, also where only one has the mistake: `InvalidInput` for parameters of several
    dtypes or devices, or that differ over ranks in number or shape; for a filter that expels ranks and takes
    their data for alike (`differing=True` says that it may do so all the same); for a filter or compressed
    messages that the topology cannot serve, a compressed downlink, a rule that cannot work on so many ranks;
    in `step` as `robust_all_reduce`, for gradients averaged already, and for what the closure raises.

    Args:
        params: The model's parameters, or a `DistributedDataParallel` model.
        method: What ranks compute and send, and the step that all take.
        lr: Scale of the server's step.
        weight_decay: Multiple of the parameters that is added to the gradient, as in `torch.optim.SGD`.
        group: Process group of the ranks; None: all.
        topology: "sharded", "server" or "replicated".
        watch: Called with the diagnostics of each step; None: nobody watches.
        seed: Of compressors and coins that draw.
        same_data: Whether ranks take the same data on purpose.
        deadline: Seconds after which a rank is missing from a round; None: all are waited for.
        buffers: What becomes of a model's buffers at each step: "median", "local" or "refuse".

    Raises:
        InvalidInput: What cannot work together, and gradients that were averaged already.
        TooManyFaults: More ranks than the rule tolerates are not finite, in `step`, or have NaN in their
            buffers, which all ranks then set back.

    Examples:
        >>> import torch
        >>> import torch.distributed as dist
        >>> from byzopt import RobustGD, rule_from
        >>> from byzopt.distributed import RobustOptimizer
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # torchrun has more
        >>> model = torch.nn.Linear(2, 1)
        >>> method = RobustGD().build(rule_from("mean"), lr=0.1)
        >>> optimizer = RobustOptimizer(model.parameters(), method, lr=0.1)
        >>> model(torch.ones(4, 2)).sum().backward()
        >>> optimizer.step()
        >>> dist.destroy_process_group()
    """

    _step_supports_amp_scaling = True  # a GradScaler calls `step` whatever it found

    def __init__(
        self,
        params: Params,
        method: Method | Callable[[], Method],
        lr: float,
        *,
        weight_decay: float = 0.0,
        group: Any = None,
        topology: Topology = "sharded",
        watch: Watch = None,
        seed: int = 0,
        same_data: bool = False,
        deadline: float | None = None,
        buffers: Buffers = "median",
    ) -> None:
        Joinable.__init__(self)
        given_transport = isinstance(group, DeadlineTransport)
        self.comm = group.comm if given_transport else Communicator(group)
        self.topology, self.watch = topology, watch
        self.malformed: dict[int, str] = {}
        self.skipped = 0

        def prepare() -> tuple[Header, None]:
            self._replicas = replicas_in(params)
            self._buffers = list(params.buffers()) if isinstance(params, nn.Module) else []
            given = params.parameters() if isinstance(params, nn.Module) else params
            torch.optim.Optimizer.__init__(self, cast(Any, given), {"lr": lr, "weight_decay": weight_decay})
            self.method = method if isinstance(method, Method) else method()
            check_everybody(self.method, "A method over ranks")
            check_without_noise(self.method, "A method over ranks")
            self.worker = RankWorker(self.method, self.comm, topology, seed)
            self._fixed_rate = None if has_rate(self.method.step) else rate_of(lr)
            self.flat = FlatParameters(self.param_groups)
            self.worker.check(self.flat)
            mode = buffers if self._buffers else ""
            header = Header.of(self.flat.read(), 0, f"{topology} {self._plan()} {self.flat.layout} {mode}")
            check_mode(buffers)
            if isinstance(params, nn.Module):
                check_buffers(params, buffers)
            if deadline is not None or given_transport:
                limit = group if given_transport else deadline
                check_deadline(limit, self.worker.compressed, self._replicas, buffers)
            keep_local(self._replicas)
            return header, None

        exchange_headers(self.comm, prepare)
        self._compared = same_data or bool(self._replicas)
        self.flat.write(self.comm.broadcast(self.flat.read()).to(self.flat.device))
        self.progress = self.worker.begun(self.flat)
        made = None if deadline is None else DeadlineTransport(deadline, group)
        self.transport: DeadlineTransport | None = group if given_transport else made
        self._sync: BufferSync | None = None
        if isinstance(params, nn.Module) and self.transport is None:
            first = Exchange(self.method.filter, self.progress.filter, RoundContext(0, self.flat.read()), {})
            faulty = tolerated(first, self.comm.n)
            self._sync = BufferSync(self.comm, params, buffers, faulty, buffers_apart(params, self._replicas))

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
        Join.notify_join_context(self)
        loss: list[Any] = [None]
        self._round(partial(self._contribution, closure, loss))
        return loss[0]

    @isolated
    def _round(self, contribute: Callable[[], Contribution]) -> None:
        try:
            if self.transport is not None:
                timed_round(self, self.transport, contribute)
            else:
                self._untimed_round(contribute)
        except TooManyFaults:
            if getattr(self, "found_inf", None) is None:
                raise
            self.skipped += 1  # the ranks' scalers back off, as without a rule

    def _untimed_round(self, contribute: Callable[[], Contribution]) -> None:
        summary, mine = exchange_headers(self.comm, lambda: _with_header(contribute()))
        mine = self._settled(settled(self.comm, summary, mine), mine)
        self.malformed = mine.exchange.malformed
        if self._sync is not None:  # before anything moves: it may raise
            present = [rank not in summary.absent for rank in range(self.comm.n)]
            self._sync.agree(torch.tensor(present, device="cpu"))
        done = aggregate(self.comm, mine.vec, self.topology, mine.exchange, summary)
        self._finish(mine, done.out.to(mine.position.flat.device), done.state)

    def _finish(self, mine: Contribution, g: Tensor, filter_state: Any) -> None:
        """Make the server's step along the aggregate `g` `[d]`."""
        state, exchange, wire = mine.position.state, mine.exchange, mine.wire
        self._compared = self._compared or mine.header.fingerprint > 0
        if self.comm.rank in exchange.malformed:  # the receivers go on from what they remembered
            wire = self.worker.before(mine.position).wire
        received = exchange.messages.memory if exchange.messages else state.received
        self.flat = mine.position.flat
        spans = self.flat.spans(self.param_groups)
        step = stepped(self.method.step, state.step, g, self._rates, spans)
        bits = state.bits + mine.bits
        self.progress = OptimizerState(
            exchange.at.t, step, filter_state, mine.worker, wire, bits, g, received
        )
        self.flat.write(self.method.step.ask(step))

    def _contribution(self, closure: Closure | None, loss: list[Any]) -> Contribution:
        """What this rank brings to the next round. Nothing of this optimizer moves."""
        self._require_joined()
        if closure is not None:
            loss[0] = _called(closure)
        position = self._position()
        flat, x = position.flat, position.x
        g = self._unscaled(flat.gradient())
        mark = 0.0 if self._compared else fingerprint(g)

        def gradient_at(point: Tensor) -> Tensor:
            flat.write(point)
            try:
                _called(cast(Closure, closure))
                return flat.decayed(self._unscaled(flat.gradient()), point, self.param_groups)
            finally:
                flat.write(x)

        g = flat.decayed(g, x, self.param_groups)
        others = None if closure is None else gradient_at
        mine = self.worker.contribution(position, g, others, self._plan(), self._listener())
        return mine._replace(header=mine.header._replace(fingerprint=mark))

    def _absence(self) -> Contribution:
        return self.worker.absence(self._position(), self._plan(), self._listener())

    def _unscaled(self, g: Tensor) -> Tensor:
        """The gradient without the factor of a `GradScaler`; NaN where that has found an overflow."""
        scale, overflow = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        g = g if scale is None else g / scale.to(g.device)
        return g if overflow is None or not float(overflow) else torch.full_like(g, torch.nan)

    def _position(self) -> Position:
        """Where the script has left the model."""
        if not self.flat.serves(self.param_groups):
            flat, old = FlatParameters(self.param_groups), self.progress
            self.worker.check(flat)
            state = self.worker.begun(flat)._replace(t=old.t, bits=old.bits)
            return Position(flat, state, flat.read(), self.transport is not None, rebuilt=True)
        x = self.method.step.ask(self.progress.step)
        if self.flat.holds(x):
            return Position(self.flat, self.progress, x)
        return self._at(Position(self.flat, self.progress, x), self.flat.read())._replace(moved=True)

    def _at(self, position: Position, x: Tensor) -> Position:
        """The position moved to `x` `[d]`."""
        step = recentred(self.method.step, position.state.step, x, ServerContext(position.flat.layout))
        return position._replace(state=position.state._replace(step=step), x=x)

    def _settled(self, settlement: Settlement, mine: Contribution) -> Contribution:
        """`mine` at the parameters that the ranks have settled on."""
        if settlement.reverted:
            position = mine.position._replace(state=self.progress, x=self.method.step.ask(self.progress.step))
        elif settlement.x is not None:
            position = self._at(mine.position, settlement.x)
        else:
            return mine
        exchange = mine.exchange._replace(at=mine.exchange.at._replace(x=position.x))
        return mine._replace(position=position, exchange=exchange)

    def state_dict(self) -> dict[str, Any]:
        """This rank's own state: plain data and tensors, for `torch.save` and `weights_only=True`.

        Every rank keeps its own, for its momentum is its own; see `byzopt.distributed.rank_checkpoints`.
        """
        return saved(self.progress, self.comm, self.worker.recipe, self.param_groups)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on, bit for bit, from what `state_dict` gave on this rank; the parameters are set, too.

        The state of another rank, or of a job with another number of ranks, serves as well: what belongs to
        that rank alone (its momentum, and what its channel remembers) starts afresh, with a warning. Where
        messages are compressed both ends remember, so that it starts afresh on all ranks if it does on one,
        and this is a collective. Errors: `InvalidInput` for another method or model.
        """
        begun, template = self.worker.begun(self.flat), self.worker.rehearsed(self.flat)
        progress, fresh = loaded(state_dict, self.comm, self.worker.recipe, begun, template)
        if self.worker.compressed:
            flag = torch.tensor([float(fresh)], dtype=torch.float64, device="cpu")
            fresh = bool(self.comm.all_gather(flag).any())
        self.progress = progress._replace(worker=None, wire=None, received=None) if fresh else progress
        for group, kept in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update(kept)
        self.flat.write(self.method.step.ask(self.progress.step))

    def join_hook(self, **kwargs: Any) -> JoinHook:
        """The hook of `torch.distributed.algorithms.join.Join`: absent ranks take the others' steps."""
        return _Absent(self)

    @property
    def join_device(self) -> torch.device:
        """Where `Join` counts."""
        return self.comm.device

    @property
    def join_process_group(self) -> Any:
        """Whom `Join` counts."""
        return self.comm.group or torch.distributed.group.WORLD

    def _require_joined(self) -> None:
        inside = any(replica._join_config.enable for replica in self._replicas)
        what, remedy = "A context for uneven inputs", "Write `with Join([model, optimizer])`."
        known = not inside or self._join_config.enable
        require(known, what, "know of the optimizer, too", "model.join() alone", remedy)

    def _plan(self) -> str:
        """What all ranks must have alike, in words. Errors: `InvalidInput` for rates that do not serve."""
        self._rates = [rate_of(group["lr"]) for group in self.param_groups]
        check_rates(self.method.step, self._rates)
        fixed = self._fixed_rate
        what = f"The learning rate of the step {self.method.step.name!r}, which has none of its own,"
        require(fixed is None or set(self._rates) == {fixed}, what, f"stay {fixed}", str(self._rates))
        decays = [float(group.get("weight_decay", 0)) for group in self.param_groups]
        return f"{self.worker.recipe} {self._rates} {decays}"

    def _listener(self) -> Watch:
        due = self.watch and (self.progress.t + 1) % int(getattr(self.watch, "every", 1)) == 0
        return self.watch if due else None


class _Absent(JoinHook):
    """What a rank that has no more batches does while others have some."""

    def __init__(self, optimizer: RobustOptimizer) -> None:
        self.optimizer = optimizer

    @torch.no_grad()
    def main_hook(self) -> None:
        """Take one step with the others."""
        self.optimizer._round(self.optimizer._absence)


def _with_header(mine: Contribution) -> tuple[Header, Contribution]:
    return mine.header, mine


def _called(closure: Closure) -> Any:
    with torch.enable_grad():
        return closure()
