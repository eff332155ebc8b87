"""The comm hook of `DistributedDataParallel`: buckets are dealt by columns while backward goes on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from math import isfinite
from typing import Any
from weakref import WeakMethod, proxy, ref

import torch
import torch.distributed as dist
from torch import Tensor
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from byzopt.aggregators.core.surroundings import isolated
from byzopt.distributed.communicator import Communicator
from byzopt.distributed.harden.abandoned import Sentinel, named, raise_behind
from byzopt.distributed.harden.arena import Arena
from byzopt.distributed.harden.background import Background
from byzopt.distributed.harden.bucket import Bucket, is_unanswered
from byzopt.distributed.harden.buffers import BufferSync
from byzopt.distributed.harden.excess import ExcessPolicy
from byzopt.distributed.harden.frozen import Frozen
from byzopt.distributed.harden.guard import Guard
from byzopt.distributed.harden.leaving import Farewell, mark, watch
from byzopt.distributed.harden.narrowing import narrowed, travelling
from byzopt.distributed.harden.passes import Passes
from byzopt.distributed.harden.place import averaged, buffers_of, refuse_training, refused
from byzopt.distributed.harden.round import Round
from byzopt.distributed.harden.scaling import LossScale
from byzopt.distributed.harden.seams import ENGINE
from byzopt.distributed.harden.transfer import Transfer, next_tag
from byzopt.distributed.header import max_magnitude
from byzopt.errors import ByzoptError, TooManyFaults


class BucketHook:
    """The state of a model's comm hook: one round for each backward that DDP synchronises.

    A bucket's columns leave when DDP has filled it, and are looked at when those of the next one have left.
    After the last one ranks decide, and the answers come back into the buckets' own memory. Whatever happens,
    DDP is given all its buckets; errors are raised from `backward` when DDP has finished with it.
    """

    sync = BufferSync

    def __init__(self, model: DistributedDataParallel, comm: Communicator, guard: Guard) -> None:
        # DDP holds its hook where Python's collector does not look, so that the hook must not hold the model.
        self.model, self.comm, self.guard = proxy(model), comm, guard
        self._living = ref(model)
        self.names = {id(p): name for name, p in model.module.named_parameters()}
        self.frozen = Frozen(model)
        self.buffers = buffers_of(model, comm, guard, self.sync)
        settings = guard.settings
        self.excess = ExcessPolicy(comm, settings.excess, model.parameters(), settings.scaler)
        guard.undo.append(self.excess.clear)
        self.scale = LossScale(settings.scaler)
        self.passes = Passes(dict(model.module.named_parameters()), guard, settings)
        self.dtype = travelling([p.dtype for p in model.parameters()], settings.dtype)
        self.d = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self._round: Round | None = None
        self._buckets: list[Bucket] = []
        self._returning: list[Transfer] = []
        self._work = Background(threaded=dist.get_backend(comm.group) == "gloo" and comm.n > 1)
        self._tag, self._swap = next_tag(comm), settings.swap
        # In whole columns a bucket may be n numbers longer, and each parameter may be a bucket.
        most = sum(p.numel() + comm.n for p in model.parameters())
        self._columns = Arena(most, self.dtype, comm.device)
        self._first, self._rebuilt = 0, model._has_rebuilt_buckets
        self._error: Exception | None = None
        self._leaving: Exception | None = None  # why this rank takes part without a row
        self._alone = False  # whether the last round ended because others are gone, or none takes part
        guard.goodbye = WeakMethod(self.leave)  # no circle: what a guard holds goes with it
        watch(guard)

    @isolated
    def __call__(self, bucket: Any) -> Future[Tensor]:
        whole: Tensor = bucket.buffer()
        told: Future[Tensor] = Future(devices=[whole.device]) if whole.is_cuda else Future()
        if not self.guard.active:
            return averaged(whole, self.comm, told)
        if self.guard.is_over:
            return refused(bucket, told)
        try:
            self._take(bucket, whole, told)
        except Exception as error:  # a rank is gone: others know by themselves
            self._error = self._error or error
        if bucket.is_last():
            self._end()
        return told

    def _take(self, bucket: Any, whole: Tensor, told: Future[Tensor]) -> None:
        """Send a bucket's columns; look at those of the bucket before."""
        if bucket.index() == 0:
            self._begin()
        assert self._round is not None
        self._round.saw(whole)
        with self._round.trouble.noted():
            self._remember(bucket, whole)
        sent = narrowed(whole, self.comm.device, self.dtype)  # usually the same
        if sent is not whole or self.guard.momentum is not None:
            self._round.saw(sent)
        start, stop = self.comm.columns(len(sent))[self.comm.rank]
        block = self._columns.take(self.comm.n, stop - start)
        before = self._buckets[-1] if self._buckets else None
        self._buckets.append(Bucket(whole, sent, block, self._first + start, told))
        self._first += len(whole)
        self._work.do(partial(self._send, self._buckets[-1], before))

    def _remember(self, bucket: Any, whole: Tensor) -> None:
        """Put this rank's momentum in the place of its gradients, if they are finite."""
        momentum, round_ = self.guard.momentum, self._round
        if momentum is None or round_ is None or not round_.part:
            return
        names = [self.names[id(p)] for p in bucket.parameters()]
        self.passes.check(names)
        if isfinite(max_magnitude(whole)) and round_.trouble.error is None:
            momentum.update(names, bucket.gradients(), self.scale.now())

    def _begin(self) -> None:
        part = torch._C._current_graph_task_id() != -1  # else DDP plays along for a rank without data
        self.excess.clear()
        if self.model._has_rebuilt_buckets != self._rebuilt:  # once, after the first step
            self.guard.forget_layout()
            self._rebuilt = self.model._has_rebuilt_buckets
        if part:
            ENGINE.queue_callback(Sentinel(self))
        self._round = self.guard.begin(self.d, part)
        self._buckets, self._returning, self._error = [], [], None
        self._first = 0
        self._columns.clear()
        self._round.trouble.error = self._leaving
        with self._round.trouble.noted():
            self.frozen.check()

    def abandon(self) -> None:
        """Backward has raised on this rank. What the others wait for is sent, so that they hear of it."""
        if self._round is None or not self.guard.active:
            return
        self._round.part = False  # the zeros that are sent are no gradients
        why = ByzoptError("Its backward pass ended before all gradients were there: its own error says why.")
        self._round.trouble.error = self._round.trouble.error or why
        self._send_zeros(len(self._buckets))

    def leave(self, error: BaseException) -> Farewell | None:
        """This rank's script goes no further: beside it, rounds are played in which it has no row, and tells
        why."""
        model = self._living()
        if model is None or self.comm.n == 1:
            return None
        self._leaving = ByzoptError(f"Its training has ended in {type(error).__name__}: {error}")
        # A forward pass is refused, too: DDP's own collectives behind it would meet those of the farewell.
        self.guard.undo.append(model.register_forward_pre_hook(refuse_training).remove)
        self._work = Background(threaded=False)  # the end of the process would wait for a pool's thread

        def play() -> bool:
            self._alone = True
            self._build_buckets()
            self._send_zeros(0)
            return not self._alone and self.guard.active and model is not None  # which lives as long

        return Farewell(play)

    def _build_buckets(self) -> None:
        """Take part in what DDP does once, in a forward pass behind the first rounds, for which it waits for
        all ranks; else nothing."""
        model: Any = self.model
        with suppress(Exception):  # after half a backward pass there is nothing to build them of
            if model.reducer._rebuild_buckets():
                model._has_rebuilt_buckets = True

    def _send_zeros(self, first: int) -> None:
        """Take part in a round without a row: in the place of the buckets from the `first` on go zeros."""
        reducer: Any = self.model.reducer
        with suppress(Exception), torch.no_grad():  # this rank has an error of its own to tell
            for bucket in reducer._get_zeros_like_grad_buckets()[first:]:
                self(bucket)
        # Others wait for all to say which parameters they have used.
        if self.model.find_unused_parameters and not self.model.static_graph:
            with suppress(Exception):
                self.model._match_unused_params_allreduce()

    def _send(self, bucket: Bucket, before: Bucket | None) -> None:
        """Begin to send the columns of a bucket; look at those of the bucket before it."""
        bucket.arrival = self._swap(
            self.comm, bucket.parts(self.comm), list(bucket.block.unbind(0)), self._tag
        )
        if before is not None:
            self._arrived(before)

    def _arrived(self, bucket: Bucket) -> None:
        """Take in the columns of a bucket; where they can be answered alone, send the answer."""
        assert self._round is not None
        assert bucket.arrival is not None
        bucket.arrival.wait()
        self._round.unsound |= bucket.arrival.unsound
        if self._round.add(bucket.block, bucket.first, bucket.parts(self.comm)[self.comm.rank]):
            self._return(bucket)

    def _return(self, bucket: Bucket) -> None:
        """Begin to send this rank's columns of the answer to all."""
        into = bucket.parts(self.comm)
        self._returning.append(self._swap(self.comm, [into[self.comm.rank]] * self.comm.n, into, self._tag))

    def _end(self) -> None:
        """Finish the round, hand all buckets back, and see to it that an error is heard."""
        done = self._round
        error = self._met(self._work.finish) or self._error or self._met(lambda: self._decided(done))
        decided = done is not None and (error is None or isinstance(error, TooManyFaults))
        answered = error is None
        if error is not None:
            error = self._failed(error)
            mark(error)
        if decided and done is not None:
            trouble = self._met(partial(self.buffers.agree, done.present))
            left = self._of_buffers(trouble, answered)
            error = error or left
        self.passes.over()
        for bucket in self._buckets:
            bucket.told.set_result(bucket.whole)
        self._error, self._round, self._buckets, self._returning = None, None, [], []
        if error is not None:
            raise_behind(error)

    def _failed(self, error: Exception) -> Exception | None:
        """Give all ranks the gradient of a round without an answer; what is still to be raised."""
        known, done = named(error), self._round
        self._alone = known is not error or done is None or done.nobody
        if done is not None:
            self.guard.failed(done, known)
        fill, left = self.excess.outcome(known)
        self._fill(fill)
        return left

    def _of_buffers(self, trouble: Exception | None, answered: bool) -> Exception | None:
        """What is still to be raised after buffers were told; where gradients had no answer either, what
        was said about them holds for both."""
        if not isinstance(trouble, TooManyFaults):
            return trouble
        self.guard.restored += 1
        outcome = self.excess.of_buffers(trouble) if answered else None
        if outcome is None:
            return None
        self._fill(outcome.fill)
        return outcome.error

    def _fill(self, value: float) -> None:
        for bucket in self._buckets:
            bucket.whole.fill_(value)

    def _met(self, step: Callable[[], None]) -> Exception | None:
        """The error that a step ends in."""
        try:
            step()
        except Exception as error:
            return error
        return None

    def _decided(self, done: Round | None) -> None:
        assert done is not None
        self._work.do(partial(self._arrived, self._buckets[-1]))
        self._work.finish()
        pieces = []
        try:
            stands = done.decide()
        finally:
            self._settle()  # nothing arrives any more in what is about to be written
        if not stands:
            for bucket, piece in zip(self._buckets, done.answers(), strict=True):
                pieces.append(piece)
                self._return(bucket)
            self._settle()
            if is_unanswered(self._buckets, self.comm):
                done.trouble.shared(self.comm)
        self.guard.finished(done, pieces)
        for bucket in self._buckets:
            if bucket.sent is not bucket.whole:
                bucket.whole.copy_(bucket.sent)
        scale = done.share if getattr(self.model, "_divide_by_initial_world_size", True) else 1.0
        if scale != 1:
            for bucket in self._buckets:
                bucket.whole.mul_(scale)

    def _settle(self) -> None:
        for transfer in self._returning:
            transfer.wait()
        self._returning = []
