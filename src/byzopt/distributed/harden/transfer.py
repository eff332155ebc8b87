"""Messages between all pairs of ranks that travel while a rank goes on computing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from byzopt.distributed.communicator import Communicator, _bytes
from byzopt.distributed.harden.block_scaled import coded_size, decode, encoded

_FIRST = 0x10000  # tags of messages between two ranks, so that they never match a script's own
_last = [_FIRST]


def next_tag(comm: Communicator) -> int:
    """A tag for the transfers of one model, which none of these ranks has used yet. A collective."""
    used = comm.all_gather(torch.tensor([float(_last[0])], dtype=torch.float64, device="cpu"))
    _last[0] = int(used.max()) + 1
    return _last[0]


class Transfer:
    """Tensors on their way. `wait` returns when those to be received are there and those sent are free.

    `unsound` are the ranks whose bytes, as far as is known then, do not stand for finite numbers.
    """

    def __init__(self, pending: Sequence[Any], kept: Any) -> None:
        self._pending, self._kept = pending, kept  # what is sent must live until it has been
        self.unsound = set[int]()

    def wait(self) -> None:
        """Errors: torch's own, when a rank is gone, or hangs beyond the group's timeout."""
        for work in self._pending:
            work.wait()
        self._pending, self._kept = (), None


def swap(comm: Communicator, out: Sequence[Tensor], into: Sequence[Tensor], tag: int = _FIRST) -> Transfer:
    """Begin to send rank j `out[j]` and to receive `into[j]` from it, for all j at once.

    Contiguous tensors where the backend wants them; both ends know dtype and shape. Empty ones do not travel.
    A rank's own may be where it is to be already.
    All ranks begin the transfers of one `tag` in one order.
    """
    if into[comm.rank].data_ptr() != out[comm.rank].data_ptr():
        into[comm.rank].copy_(out[comm.rank])
    comm.sent += sum(t.numel() * t.element_size() for j, t in enumerate(out) if j != comm.rank)
    if dist.get_backend(comm.group) != "gloo":
        sent, received = [_bytes(t) for t in out], [_bytes(t) for t in into]
        work = dist.all_to_all(received, sent, group=comm.group, async_op=True)
        return Transfer([work], (sent, received))
    names = list(range(comm.n)) if comm.group is None else dist.get_process_group_ranks(comm.group)
    others = [(comm.rank + k) % comm.n for k in range(1, comm.n)]
    ways = [(dist.irecv, into, j) for j in reversed(others)] + [(dist.isend, out, j) for j in others]
    pending = [
        way(_bytes(parts[j]), names[j], group=comm.group, tag=tag)
        for way, parts, j in ways
        if parts[j].numel()
    ]
    return Transfer(pending, (out, into))


class CodedTransfer(Transfer):
    """Tensors on their way as 8-bit codes, which `wait` turns into numbers: this rank's own, too."""

    def __init__(self, arrival: Transfer, coded: Sequence[Tensor], into: Sequence[Tensor]) -> None:
        super().__init__([arrival], None)
        self._coded, self._into = coded, into

    def wait(self) -> None:
        super().wait()
        pairs = enumerate(zip(self._coded, self._into, strict=True))
        self.unsound = {rank for rank, (data, numbers) in pairs if not decode(data, numbers)}
        self._coded = self._into = ()


def swap_coded(
    comm: Communicator, out: Sequence[Tensor], into: Sequence[Tensor], tag: int = _FIRST
) -> Transfer:
    """As `swap`, in a quarter of float32's bytes; all ranks end with the numbers that the codes stand for."""
    known = {id(piece): piece for piece in out}
    codes = {key: encoded(piece) for key, piece in known.items()}
    sent = [codes[id(piece)] for piece in out]
    coded = [sent[0].new_empty(coded_size(len(piece), piece.dtype)) for piece in into]
    coded[comm.rank] = sent[comm.rank]
    return CodedTransfer(swap(comm, sent, coded, tag), coded, into)
