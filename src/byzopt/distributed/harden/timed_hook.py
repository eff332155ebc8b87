"""The comm hook of `DistributedDataParallel` with a deadline: whole rows, and whoever is late is missing.

Nothing else may wait for ranks that are gone: buffers travel beside the rows, and what all ranks have to know
of one another stands in front of them. Every rank decides by itself, on the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast
from warnings import warn

import torch
from torch import Tensor
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from byzopt.checkpoint import packed, unpacked
from byzopt.distributed.communicator import Communicator
from byzopt.distributed.deadline import Behind, DeadlineTransport
from byzopt.distributed.deadline.consensus import mask_of
from byzopt.distributed.harden.abandoned import raise_behind, run_behind
from byzopt.distributed.harden.bucket import Bucket
from byzopt.distributed.harden.bucket_hook import BucketHook
from byzopt.distributed.harden.carried import carried, copied, left_out, optimizers_of, states_of
from byzopt.distributed.harden.guard import Guard
from byzopt.distributed.harden.leaving import Farewell
from byzopt.distributed.harden.narrowing import narrowed
from byzopt.distributed.harden.round import Round
from byzopt.distributed.harden.seams import ENGINE
from byzopt.distributed.harden.timed_rows import (
    Heard,
    RowFormat,
    TimedBuffers,
    Told,
    hash_of,
    heard,
    packed_error,
    packed_row,
)
from byzopt.distributed.harden.usage import Usage
from byzopt.distributed.harden.whole import Alone, WholeRows
from byzopt.distributed.header import max_magnitude
from byzopt.errors import TooManyFaults, require

T = TypeVar("T")
_KEPT = 8  # rounds for which a state that a rank has asked for is kept


class TimedHook(BucketHook):
    """One round for each backward that DDP synchronises, in which nobody is waited for beyond the deadline.

    A rank that is one round late gets the answer that the others have had, and so makes the same step. One
    that is further behind takes the state of the others, as more than f of them have it.
    """

    sync = TimedBuffers

    def __init__(self, model: DistributedDataParallel, comm: Communicator, guard: Guard) -> None:
        super().__init__(model, comm, guard)
        self.excess.comm = Alone()  # ranks that run one script have a scaler or none
        self.transport = DeadlineTransport(cast(float, guard.settings.deadline), comm.group)
        guard.undo.append(self.transport.close)
        named = model.module.named_parameters()
        self.parameters = {name: p for name, p in named if name not in model.parameters_to_ignore}
        self.usage = Usage(model, self.parameters)
        guard.undo.append(partial(self.usage.remove, comm.group))
        self._gradients: list[tuple[list[str], list[Tensor]]] = []
        self._heard: Heard | None = None
        self._looked = False

    @property
    def _timed(self) -> TimedBuffers:
        return cast(TimedBuffers, self.buffers)

    def _take(self, bucket: Any, whole: Tensor, told: Future[Tensor]) -> None:
        if bucket.index() == 0:
            self._begin()
            self._gradients, self._heard = [], None
        assert self._round is not None
        with self._round.trouble.noted():
            self._remember(bucket, whole)
        sent = narrowed(whole, self.comm.device, self.dtype)
        self._gradients.append(([self.names[id(p)] for p in bucket.parameters()], bucket.gradients()))
        self._buckets.append(Bucket(whole, sent, sent, self._first, told))
        self._first += len(whole)

    def leave(self, error: BaseException) -> Farewell:
        """The others need not wait for this rank any more."""

        def play() -> bool:
            self.transport.close()
            return False

        return Farewell(play)

    def abandon(self) -> None:
        """Nothing has been sent: for the others it is a row that did not come."""

    def _end(self) -> None:
        done = self._round
        assert done is not None
        error = self._error or self._met(partial(self._decided, done))
        answered = error is None
        if error is not None:
            error = self._failed(error)
        if self._heard is not None:
            self._timed.hear(self._heard.buffers, len(self._heard.missing))
            present = torch.zeros(self.comm.n, dtype=torch.bool, device="cpu")
            present[list(self._heard.buffers)] = True
            left = self._of_buffers(self._met(partial(self.buffers.agree, present)), answered)
            error = error or left
            if answered and error is None:
                self._offer(self._heard)
            self._settle_usage(list(self._heard.used.values()))
        elif error is not None:
            self.usage.clear()
        self.passes.over()
        for bucket in self._buckets:
            bucket.told.set_result(bucket.whole)
        self._error, self._round, self._buckets, self._gradients, self._heard = None, None, [], [], None
        if error is not None:
            raise_behind(error)

    def _decided(self, done: Round | None) -> None:
        assert done is not None
        try:
            found = self._exchanged(done)
        except Behind:
            self._meet(done, self._recover)
            return
        self._heard = found
        for rank in found.missing:
            self.guard.missing[rank] += 1
        rounds = [found.told[rank].t if rank in found.buffers else done.t for rank in range(self.comm.n)]
        sizes = [max_magnitude(row) for row in found.rows]
        told = torch.tensor([rounds, sizes], dtype=torch.float64, device="cpu")
        done.comm = WholeRows(*told)
        done.missing = set(found.missing)
        answer = found.rows.new_empty(found.rows.shape[1])
        done.add(found.rows, 0, answer)
        try:
            stands = done.decide()
        except TooManyFaults as error:
            reasons = "".join(f" Rank {rank}: {why}" for rank, why in sorted(found.missing.items()))
            raise TooManyFaults(f"{error}{reasons}", error.rows) from None
        if not stands:
            (answer,) = done.answers()
        done.raise_own()
        self._write(answer)
        self.guard.finished(done, [answer])

    def _exchanged(self, done: Round) -> Heard:
        """The rows of all ranks that count. Errors: as `DeadlineTransport.exchange` and `heard`; `Behind`
        where this rank has to take the state of the others."""
        n, payload = self.comm.n, b""
        wire = RowFormat(self._first, self.dtype, self.guard.settings.wire == "int8", len(self.usage))
        with done.trouble.noted():
            self._look()
            asking = float(mask_of(self.transport.asking))
            told = Told(1.0, float(done.t), hash_of(self.parameters), self._timed.layout(), asking, 0.0)
            pieces = [bucket.sent for bucket in self._buckets]
            payload = packed_row(told, pieces, self.usage.own(), self._timed.own(), wire)
        trouble = done.trouble.error
        if trouble is None and self.transport.behind > 1:
            raise Behind("Others are two rounds ahead.")
        rows = self._meet(done, lambda: self.transport.exchange(payload or packed_error(trouble, n)))
        found = heard(rows, n, wire, trouble)
        if trouble is not None:  # the others have not heard of it
            raise trouble
        if self.comm.rank in found.odd:
            raise Behind("Most others have other parameters.")
        return found

    def _meet(self, done: Round, others: Callable[[], T]) -> T:
        """What comes of `others()`, where too few of them may be left."""
        try:
            return others()
        except TooManyFaults as error:
            done.undecided(error.rows)
            raise

    def _look(self) -> None:
        """Look once, in the first round, at what the script trains with: raise `InvalidInput` for an
        optimizer that waits for all ranks, and warn of what a rank that comes back would not take over."""
        if self._looked:
            return
        self._looked = True
        left = left_out(self.parameters, self.excess.scaler, self.guard.parts)
        if left:
            warn(
                f"A rank that comes back should take over all that drives the parameters. It would not take "
                f"{'; '.join(left)}. Name the objects: guard.also(name=object).",
                stacklevel=2,
            )
        living = optimizers_of(self.parameters)
        zero = "ZeroRedundancyOptimizer"  # by name: to import it takes long
        found = any(kind.__name__ == zero for each in living for kind in type(each).__mro__)
        what, rule, remedy = "An optimizer with a deadline", "wait for no rank", "Use the one inside of it."
        require(not found, what, rule, f"{zero}, of which each rank has a part", remedy)

    def _settle_usage(self, told: list[Tensor]) -> None:
        """Unused parameters get the gradient that they have on all ranks, when DDP has finished."""
        if len(self.usage):
            pairs = [
                (self.parameters[name], g)
                for names, gs in self._gradients
                for name, g in zip(names, gs, strict=True)
            ]
            then = partial(self.usage.taken, told, {id(parameter): g for parameter, g in pairs})
            run_behind(then)

    def _write(self, answer: Tensor) -> None:
        """Put the answer `[d]` into DDP's buckets."""
        pieces = torch.split(answer, [len(bucket.whole) for bucket in self._buckets])
        for bucket, piece in zip(self._buckets, pieces, strict=True):
            bucket.whole.copy_(piece)

    def _failed(self, error: Exception) -> Exception | None:
        """As without a deadline; but where more ranks are missing than the rule tolerates nobody goes on."""
        done = self._round
        if isinstance(error, TooManyFaults) and done is not None:
            if len(done.missing) <= self.guard.tolerance:
                return super()._failed(error)
            self.guard.failed(done, error)
            self._fill(0.0)
        else:
            self._fill(torch.nan)
        return error

    def _offer(self, found: Heard) -> None:
        """Keep what all ranks have alike before the step that is to come, where one of them wants it."""
        if not found.wanting:
            self.transport.drop_states(_KEPT)
            return
        parts = carried(self.parameters, self.excess.scaler, self.guard.parts)
        common = {
            "answer": copied(torch.cat([bucket.whole for bucket in self._buckets])),
            "parameters": copied(self.parameters),
            "buffers": copied(self.buffers.state_dict()),
            "parts": states_of(parts),
            "memory": copied(self.guard.memory),
            "rounds": self.guard.rounds,
            "used": copied(list(found.used.values())),
        }
        self.transport.keep(Snapshot(common, copied(self._timed.local())), found.wanting)

    def _recover(self) -> None:
        """Take the state of the others, and the answer with which they make their latest step."""
        before, guard = self.guard.rounds, self.guard
        common, each = self.transport.catch_up(guard.tolerance + 1)
        state = unpacked(common)
        self._write(state["answer"])
        self._settle_usage(state["used"])
        guard.take_over(state["rounds"], state["memory"], state["answer"])
        warn(
            f"Rank {self.comm.rank} was behind after round {before}: it has taken parameters, buffers and "
            f"the states of {', '.join(state['parts']) or 'no optimizer'} of round {guard.rounds}, on which "
            f"{len(each)} other ranks agree.",
            stacklevel=2,
        )
        # Backward may still need the parameters that it began with.
        then = partial(self._take_over, state, [unpacked(own) for own in each], self._gradients)
        ENGINE.queue_callback(then)

    @torch.no_grad()
    def _take_over(self, state: dict[str, Any], local: list[Any], gradients: Any) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(state["parameters"][name])
        self._timed.take_over(state["buffers"], local)
        parts = carried(self.parameters, self.excess.scaler, self.guard.parts)
        for name in sorted(set(parts) & set(state["parts"])):
            with torch.enable_grad():
                parts[name].load_state_dict(state["parts"][name])
        momentum = self.guard.momentum
        if momentum is not None:  # begins with a robust average of the others'
            momentum.clear()
            for names, answers in gradients:
                momentum.update(names, [answer.clone() for answer in answers], self.scale.now())


class Snapshot:
    """What all ranks have alike and what this one has for itself, packed when somebody asks for it."""

    def __init__(self, common: Any, own: Any) -> None:
        self._content = common, own
        self._packed: tuple[bytes, bytes] | None = None

    def __call__(self) -> tuple[bytes, bytes]:
        if self._packed is None:
            common, own = self._content
            self._packed = packed(common), packed(own)
        return self._packed
