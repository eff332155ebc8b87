"""The place of a comm hook in `DistributedDataParallel`, and what DDP does without one."""

from __future__ import annotations

from functools import partial
from typing import Any
from warnings import warn
from weakref import proxy

import torch
import torch.distributed as dist
from torch import Tensor
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from byzopt.distributed.communicator import Communicator
from byzopt.distributed.harden.abandoned import raise_behind
from byzopt.distributed.harden.buffers import BufferSync
from byzopt.distributed.harden.guard import Guard
from byzopt.distributed.harden.settings import Buffers
from byzopt.errors import ByzoptError


class Copied:
    """Stands where the hook was in a copy of a model."""


class HookPlace:
    """What stays with DDP for good: the place of a hook, which one guard after another may fill."""

    def __init__(self, hook: Any) -> None:
        self.hook = hook

    def __call__(self, bucket: Any) -> Future[Tensor]:
        then: Future[Tensor] = self.hook(bucket)
        return then

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        """Of a copied or pickled model DDP takes no hook along."""
        warn("A copy of a hardened model averages gradients again: harden it, too.", stacklevel=2)
        return Copied, ()


def harden_hook(state, bucket):  # type: ignore[no-untyped-def]  # DDP reads annotations, and not as strings
    """Registered with DDP, which asks for a plain function."""
    return state(bucket)


def averaged(whole: Tensor, comm: Communicator, told: Future[Tensor]) -> Future[Tensor]:
    """What DDP does without a hook."""
    whole.div_(comm.n)
    work = dist.all_reduce(whole, group=comm.group, async_op=True)

    def done(future: Future[Any]) -> Tensor:
        return whole

    then: Future[Tensor] = work.get_future().then(done)
    return then


def refused(bucket: Any, told: Future[Tensor]) -> Future[Tensor]:
    """What becomes of a backward pass on a rank that has left: no gradient, and an error."""
    told.set_result(bucket.buffer().fill_(torch.nan))
    if bucket.is_last():
        raise_behind(ByzoptError(_OVER))
    return told


def refuse_training(*unused: Any) -> None:
    """Raise in the forward pass of a rank that has left, unless it is for no gradient."""
    if torch.is_grad_enabled():
        raise ByzoptError(_OVER)


_OVER = (
    "A guard that an error has left (`with guard:`) should be used no more: the other ranks have been told. "
    "Found another training step. Start all ranks again."
)


def buffers_of(
    model: DistributedDataParallel, comm: Communicator, guard: Guard, kind: type[BufferSync]
) -> BufferSync:
    """Buffers are told here in the place of DDP's broadcast; where that was off they stay each rank's own."""
    mode: Buffers = guard.settings.buffers if model.broadcast_buffers else "local"
    guard.undo.append(partial(setattr, proxy(model), "broadcast_buffers", model.broadcast_buffers))
    model.broadcast_buffers = False
    return kind(comm, model.module, mode, guard.tolerance, set(model.parameters_to_ignore))
