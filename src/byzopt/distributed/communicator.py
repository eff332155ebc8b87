"""The collectives that robust rules need, over a process group, on typed buffers of a fixed layout.

gloo's own all-gather and all-reduce pass data along a ring: n - 1 or 2 (n - 1) messages one after the other,
each of which waits for another process. Here every rank writes to every other at once: one such wait, and the
same traffic.

Bytes that arrive are read as numbers of the dtype and shape that both ends know beforehand. Nothing is
pickled, and so nothing that another rank sends can run code here.
"""

from __future__ import annotations

import atexit
from time import monotonic, sleep
from typing import Any
from weakref import WeakValueDictionary

import torch
import torch.distributed as dist
from torch import Tensor

from byzopt.distributed.primitives import is_remade, primitives_of
from byzopt.errors import require

_FEW = 1 << 20  # bytes of all ranks together that a rank may hold twice, and add up itself
_TAG = 0x627A  # of messages between two ranks, so that they never match a script's own


class Communicator:
    """The collectives of `group` (None: all ranks; torch's or torchft's). `sent` counts the payload bytes
    that this rank has sent.

    Buffers live where the backend wants them: on the current GPU for NCCL, else in main memory. Every method
    is a collective, to be called by all ranks in one order. A rank that is gone, or that hangs beyond the
    group's timeout, makes the others raise torch's own error.

    Errors: `InvalidInput` without an initialised process group, or outside of `group`.
    """

    def __init__(self, group: Any = None) -> None:
        ready = is_remade(group) or (dist.is_available() and dist.is_initialized())
        remedy = 'Call torch.distributed.init_process_group("gloo") first, and start the script by torchrun.'
        require(ready, "The process group", "be initialised", "none", remedy)
        self.group, self._group = group, primitives_of(group)
        self.rank, self.n = self._group.rank, self._group.n
        require(self.rank >= 0, "This rank", "be in the group", "one outside of it")
        self._pairwise, nccl = "gloo" in self._group.backend, "nccl" in self._group.backend
        self.device = torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
        self.sent = 0

    def all_reduce(self, partial: Tensor) -> Tensor:
        """The sum over ranks of equal tensors, the same on every rank to the last bit."""
        if self._pairwise and self.n * _size(partial) <= _FEW:
            return self.all_gather(partial).sum(dim=0).to(partial.device)
        whole = partial.to(self.device, copy=True).contiguous()
        self._group.all_reduce(_loaned(whole))
        self.sent += 2 * _size(whole) * (self.n - 1) // self.n
        return whole.to(partial.device)

    @property
    def everyone(self) -> Communicator:
        """All ranks that wait for one another here, and that have to hear of an error: those of the group."""
        return self

    def tell(self, codes: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
        """The `codes` `[k]` of every rank, `[n, k]`, and the sum over ranks of `sums` `[m]`, on the CPU: one
        message."""
        told = self.all_gather(torch.cat([codes, sums])).cpu()
        return told[:, : len(codes)], told[:, len(codes) :].sum(dim=0)

    def all_gather(self, local: Tensor) -> Tensor:
        """Every rank's tensor of one shape and dtype, `[n, *shape]`."""
        local = local.to(self.device).contiguous()
        whole = local.new_empty(self.n, *local.shape)
        if self._pairwise and _size(whole) <= _FEW:
            copies = local.expand(self.n, *local.shape).contiguous()
            self._group.all_to_all(_bytes(whole), _bytes(copies))
        elif self._pairwise:
            self._exchange([local] * self.n, list(whole.unbind(0)))
        else:
            self._group.all_gather(_bytes(whole), _bytes(local))
        self.sent += _size(local) * (self.n - 1)
        return whole

    def scatter_columns(self, vec: Tensor) -> Tensor:
        """Every rank's piece of this rank's columns, `[n, width]`, from all ranks' vectors `[d]`.

        Its memory has room for d numbers, which `gather_columns` may reuse: fresh memory costs as much as
        sending.
        """
        spans = self.columns(len(vec))
        widths, item = [stop - start for start, stop in spans], vec.element_size()
        width = widths[self.rank]
        block = vec.new_empty(max(self.n * width, len(vec)))[: self.n * width].view(self.n, width)
        splits = [width * item] * self.n, [w * item for w in widths]
        self._group.all_to_all(_bytes(block), _bytes(vec), *splits)
        self.sent += (len(vec) - width) * item
        return block

    def gather_columns(self, piece: Tensor, d: int, block: Tensor) -> Tensor:
        """The vector `[d]` of which every rank holds the piece over its own columns. It may reuse the memory
        of `block`, which came from `scatter_columns` and is not needed any more."""
        spans = self.columns(d)
        width = spans[0][1] - spans[0][0]
        if self._pairwise:
            whole = piece.new_empty(0)
            if block.dtype == piece.dtype and _separate(block, piece):
                whole.set_(block.untyped_storage(), 0, (d,))  # type: ignore[call-overload]
            else:
                whole.resize_(d)
            self._exchange([piece] * self.n, [whole[start:stop] for start, stop in spans])
            self.sent += _size(piece) * (self.n - 1)
            return whole
        if len(piece) < width:
            piece = torch.cat([piece, piece.new_zeros(width - len(piece))])
        return self.all_gather(piece).reshape(-1)[:d]

    def columns(self, d: int) -> list[tuple[int, int]]:
        """Start and stop of every rank's columns: ⌈d/n⌉ each, less or none for the last ones."""
        width = -(-d // self.n)
        return [(min(r * width, d), min((r + 1) * width, d)) for r in range(self.n)]

    def _exchange(self, out: list[Tensor], into: list[Tensor]) -> None:
        """Send rank j `out[j]` and receive `into[j]` from it, for all j at once; empty ones do not travel."""
        into[self.rank].copy_(out[self.rank])
        others = [(self.rank + k) % self.n for k in range(1, self.n)]
        receives, sends = self._group.receive, self._group.send
        ways = [(receives, into, j) for j in reversed(others)] + [(sends, out, j) for j in others]
        pending = [way(_bytes(parts[j]), j, _TAG) for way, parts, j in ways if parts[j].numel()]
        for work in pending:
            work.wait()

    def gather(self, local: Tensor) -> Tensor | None:
        """Every rank's tensor, `[n, *shape]`, on rank 0; None on the others."""
        local = local.to(self.device).contiguous()
        whole = local.new_empty(self.n, *local.shape) if self.rank == 0 else None
        parts = None if whole is None else list(_bytes(whole).view(self.n, -1).unbind(0))
        self._group.gather(_bytes(local), parts)
        self.sent += _size(local) if self.rank else 0
        return whole

    def broadcast(self, vec: Tensor, source: int = 0) -> Tensor:
        """The `vec` of rank `source`; the others give a tensor of the same shape and dtype, which is not
        changed."""
        copy = vec.to(self.device, copy=True).contiguous()
        self._group.broadcast(_bytes(copy), source)
        self.sent += _size(copy) if self.rank == source else 0
        return copy


def _separate(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage().data_ptr() != other.untyped_storage().data_ptr()


def _bytes(tensor: Tensor) -> Tensor:
    """The memory of a contiguous tensor as bytes: not every backend knows every dtype."""
    return _loaned(tensor.reshape(-1).view(torch.uint8))


_loans: WeakValueDictionary[int, Tensor] = WeakValueDictionary()  # what the backend's threads may still hold


def _loaned(tensor: Tensor) -> Tensor:
    """The same memory as a tensor of its own, which nobody but the backend is left with afterwards."""
    loan = tensor.detach()
    _loans[id(loan)] = loan
    return loan


@atexit.register
def _await_backend(patience: float = 5.0) -> None:
    """Wait until the backend's threads hold none of our tensors, for at most so many seconds.

    A collective returns before gloo's thread has dropped its tensors, and dropping one takes the lock of the
    interpreter. A thread that waits for it when the interpreter ends kills the process: "terminate called
    without an active exception" (pytorch/pytorch#190489). `destroy_process_group` joins these threads only
    when nothing else holds the group, as a `DistributedDataParallel` model does.
    """
    end = monotonic() + patience
    while _loans and monotonic() < end:
        sleep(0.001)


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
