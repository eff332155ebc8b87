"""What a rank sends in a round with a deadline: its gradient as one row, its buffers, and a few numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from byzopt.distributed.agreement import error_text, raise_shared
from byzopt.distributed.communicator import Communicator
from byzopt.distributed.deadline.consensus import ranks_of
from byzopt.distributed.deadline.transport import Rows
from byzopt.distributed.harden.block_scaled import coded_size, decode, encoded
from byzopt.distributed.harden.buffers import SMALL, BufferSync, _bytes, _flat, _shaped, agreed
from byzopt.distributed.harden.settings import Buffers
from byzopt.distributed.header import hash_of_bits, hashed
from byzopt.errors import InvalidInput

_TAKES_PART, _FAILED = 1.0, 2.0


class Told(NamedTuple):
    """The numbers before a row: whether its rank takes part, the round, hashes of its parameters and of the
    shapes of its buffers, the ranks (a mask) that it knows to wait for a state, and how many bytes of buffers
    follow."""

    status: float
    t: float
    parameters: float
    layout: float
    asking: float
    buffers: float


_NUMBERS = len(Told._fields) * 8  # bytes


class RowFormat(NamedTuple):
    """How a row of d numbers of a dtype lies in a message: as they are, or as 8-bit codes; and behind it the
    `marks` of parameters, used or not."""

    d: int
    dtype: torch.dtype
    coded: bool
    marks: int

    @property
    def size(self) -> int:
        """In bytes."""
        return coded_size(self.d, self.dtype) if self.coded else self.d * self.dtype.itemsize

    def read(self, data: Tensor, into: Tensor) -> None:
        """Write what the bytes `data` stand for in `into` `[d]`."""
        if self.coded:
            decode(data, into)
        else:
            into.copy_(data.view(self.dtype))


class Heard(NamedTuple):
    """What came of a round: rows `[n, d]` (zeros where there is none), what each rank told, the bytes of its
    buffers, which parameters it has `used`, and why others are `missing`. `odd` are those with other
    parameters than most, and missing."""

    rows: Tensor
    told: dict[int, Told]
    buffers: dict[int, Tensor]
    used: dict[int, Tensor]
    missing: dict[int, str]
    odd: list[int]

    @property
    def wanting(self) -> set[int]:
        """The ranks that take the state of the others now."""
        masks = [int(self.told[rank].asking) for rank in self.buffers]
        return set(self.odd).union(*(ranks_of(mask, len(self.rows)) for mask in masks))


def packed_row(told: Told, pieces: Sequence[Tensor], used: Tensor, buffers: Tensor, wire: RowFormat) -> Any:
    """A payload for `DeadlineTransport.exchange`, in memory of its own."""
    numbers = torch.tensor(told._replace(buffers=float(len(buffers))), dtype=torch.float64, device="cpu")
    row = [piece.detach().cpu() for piece in pieces]
    parts = [numbers, *([encoded(torch.cat(row))] if wire.coded else row), used, buffers]
    return torch.cat([part.contiguous().view(torch.uint8) for part in parts]).numpy().data


def packed_error(error: Exception | None, n: int) -> bytes:
    """A payload of a rank that cannot take part."""
    told = Told(_FAILED, 0.0, 0.0, 0.0, 0.0, 0.0)
    return np.array(told, dtype=np.float64).tobytes() + error_text(error, n)


def heard(rows: Rows, n: int, wire: RowFormat, error: Exception | None) -> Heard:
    """Read what all ranks have sent, alike on all of them. What cannot be read is its sender's fault.

    Errors, on all ranks: what kept any of them from taking part; `InvalidInput` where no parameters are those
    of more than half of the ranks.
    """
    told = {rank: Told(*_numbers(payload)) for rank, payload in rows.payloads.items()}
    failed = {rank: bytes(rows.payloads[rank][_NUMBERS:]) for rank in told if told[rank].status == _FAILED}
    if failed:
        raise_shared(failed, n, error)
    missing, width = dict(rows.missing), wire.size
    for rank, each in list(told.items()):
        length = len(rows.payloads[rank]) - _NUMBERS - width - wire.marks
        if each.status != _TAKES_PART or length < 0 or each.buffers != length:
            missing[rank] = f"Its message of {len(rows.payloads[rank])} bytes cannot be read."
            del told[rank]
    odd = _odd(told)
    for rank in odd:
        missing[rank] = "It has other parameters than most ranks."
    out = torch.zeros(n, wire.d, dtype=wire.dtype, device="cpu")
    used, buffers = {}, {}
    for rank in set(told) - set(odd):
        payload = rows.payloads[rank]
        data = torch.frombuffer(payload, dtype=torch.uint8, count=width, offset=_NUMBERS)
        wire.read(data, out[rank])
        tail = np.frombuffer(bytearray(payload[_NUMBERS + width :]), np.uint8)  # torch reads no empty memory
        used[rank], buffers[rank] = map(torch.from_numpy, np.split(tail, [wire.marks]))
    return Heard(out, told, buffers, used, missing, odd)


def _odd(told: Mapping[int, Told]) -> list[int]:
    """The ranks whose parameters or buffers' shapes are not those of more than half."""
    counts = Counter((each.parameters, each.layout) for each in told.values())
    usual, count = counts.most_common(1)[0] if counts else ((0.0, 0.0), 0)
    if 2 * count <= len(told):
        raise InvalidInput(
            f"More than half of the ranks should have the same parameters and shapes of buffers. Found "
            f"{len(counts)} kinds among ranks {sorted(told)}. Start all from one checkpoint."
        )
    return [rank for rank, each in told.items() if (each.parameters, each.layout) != usual]


def _numbers(payload: Any) -> list[float]:
    found: list[float] = np.frombuffer(bytes(payload[:_NUMBERS]).ljust(_NUMBERS, b"\0"), np.float64).tolist()
    return found


def hash_of(tensors: Mapping[str, Tensor]) -> float:
    """A hash of all bits of these tensors."""
    hashes = [hash_of_bits(each.reshape(-1)) if each.numel() else 0.0 for each in tensors.values()]
    return hashed(np.array(hashes, dtype=np.float64).tobytes())


class TimedBuffers(BufferSync):
    """Buffers that travel beside the rows: each rank tells those that are small or that it has written since
    all agreed; the others are as they were."""

    def __init__(
        self, comm: Communicator, module: nn.Module, mode: Buffers, f: int, ignored: set[str]
    ) -> None:
        super().__init__(comm, module, mode, f, ignored)
        self._rows: dict[int, Tensor] = {}
        self._gone = 0

    def layout(self) -> float:
        """A hash of names and shapes."""
        kinds = [(name, tuple(each.shape), str(each.dtype)) for name, each in self._named().items()]
        return hashed(repr(kinds).encode())

    def own(self) -> Tensor:
        """This rank's: a flag for each buffer, then the bytes of those that are told."""
        named = {} if self.mode == "local" else self._named()
        told = [self._is_told(*each) for each in named.items()]
        parts = [_bytes(each).cpu() for each, yes in zip(named.values(), told, strict=True) if yes]
        return torch.cat([torch.tensor(told, dtype=torch.uint8, device="cpu"), *parts])

    def hear(self, rows: Mapping[int, Tensor], gone: int) -> None:
        """What ranks have told this round, of which so many are missing."""
        self._rows, self._gone = dict(rows), gone

    def local(self) -> dict[str, Tensor]:
        """The buffers that are this rank's alone."""
        return self._named() if self.mode == "local" else {}

    @torch.no_grad()
    def take_over(self, common: Mapping[str, Tensor], local: Sequence[Mapping[str, Tensor]]) -> None:
        """Take what the others have agreed on last, and of what is each rank's alone the median."""
        self.load_state_dict(common)
        self.restore()
        for name, buffer in self.local().items():
            rows = torch.stack([_flat(each[name]) for each in local])
            buffer.copy_(_shaped(agreed(rows), buffer))

    def _is_told(self, name: str, buffer: Tensor) -> bool:
        small = buffer.numel() <= SMALL and self.mode != "refuse"
        return small or not self._is_agreed(name, buffer)

    def _most(self, present: Tensor) -> int:
        return max(0, min(self.f - self._gone, (int(present.sum()) - 1) // 2))

    def _chosen(self, named: dict[str, Tensor]) -> dict[str, Tensor]:
        flags = torch.stack([row[: len(named)] for row in self._rows.values()]).any(dim=0).tolist()
        return {name: buffer for (name, buffer), told in zip(named.items(), flags, strict=True) if told}

    def _told(self, chosen: Mapping[str, Tensor], own: Tensor) -> Tensor:
        out = own.new_zeros(self.comm.n, len(own))
        out[:, -1] = 1  # of whoever cannot be read
        for rank, row in self._rows.items():
            read = self._read(row, chosen)
            if read is not None:
                out[rank] = read.to(out.device)
        return out

    def _read(self, row: Tensor, chosen: Mapping[str, Tensor]) -> Tensor | None:
        """The bytes of the chosen buffers in a rank's message, and whether it has new NaN."""
        named = self._named()
        flags, rest = row[: len(named)].tolist(), row[len(named) :]
        sizes = {name: len(_bytes(each)) for name, each in named.items()}
        if sum(size for size, told in zip(sizes.values(), flags, strict=True) if told) != len(rest):
            return None
        parts, new = [], False
        for (name, buffer), told in zip(named.items(), flags, strict=True):
            if told:
                piece, rest = rest[: sizes[name]], rest[sizes[name] :]
                before = _flat(self._agreed[name]).isnan().cpu()
                new = new or bool((piece.clone().view(_flat(buffer).dtype).isnan() & ~before).any())
            if name in chosen:
                parts.append(piece if told else _bytes(self._agreed[name]).cpu())
        return torch.cat([*parts, torch.tensor([new], dtype=torch.uint8, device="cpu")])
