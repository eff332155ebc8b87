"""Headers: seven numbers that every rank sends to all before an exchange, so that all decide alike."""

from __future__ import annotations

import re
from collections import Counter
from hashlib import blake2b
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

from byzopt.distributed.communicator import Communicator
from byzopt.errors import InvalidInput, TooManyFaults

WIRE_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_HASH = 6  # bytes of a plan's hash
_EXACT = 2.0**53  # up to here float64 holds every whole number
_RANGES = {  # of the whole numbers in a header; rounds may be anything that a script counts
    "kind": (-1, len(WIRE_DTYPES) - 1),
    "dims": (0, 64),
    "d": (0, _EXACT),
    "t": (-_EXACT, _EXACT),
    "plan": (0, 2.0 ** (8 * _HASH) - 1),
    "fingerprint": (0, 2.0 ** (8 * _HASH) - 1),
}


class Header(NamedTuple):
    """A rank's vector and what it means to do with it, as numbers that float64 holds exactly.

    `kind` is the place of the dtype in `WIRE_DTYPES`, or -1; `dims` and `d` the number of dimensions and of
    numbers; `t` the round; `plan` a hash of the rule and the way; `size` the largest magnitude, or ∞ where
    something is not finite; `fingerprint` a hash of this rank's gradient where the ranks compare theirs, or
    0.
    """

    kind: float
    dims: float
    d: float
    t: float
    plan: float
    size: float
    fingerprint: float = 0.0

    @classmethod
    def of(cls, vec: Tensor, t: int, plan: str) -> Header:
        """The header of any tensor: one that no rule can take is described, too."""
        kind = WIRE_DTYPES.index(vec.dtype) if vec.dtype in WIRE_DTYPES else -1
        size = max_magnitude(vec) if kind >= 0 and vec.numel() else 0.0
        return cls(kind, vec.ndim, vec.numel(), t, _hashed(plan), size)

    def fault(self) -> str | None:
        """Why no rank that runs this program can have sent this; None if one can."""
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not (low <= value <= high and value == int(value)):
                return f"`{name}` should be a whole number in {low:.0f}..{high:.0f}. Found {value:g}."
        end = torch.finfo(WIRE_DTYPES[int(self.kind)]).max if self.kind >= 0 else 0.0
        if not (0 <= self.size <= end or self.size == inf):  # NaN compares false
            return f"`size` should be a magnitude of its dtype, or infinite. Found {self.size:g}."
        return None

    def __str__(self) -> str:
        dtype = (
            str(WIRE_DTYPES[int(self.kind)]).removeprefix("torch.") if self.kind >= 0 else "a foreign dtype"
        )
        shape = f"[{self.d:.0f}]" if self.dims == 1 else f"{self.dims:.0f} dimensions, {self.d:.0f} numbers"
        return f"{shape} of {dtype} in round {self.t:.0f}, plan {self.plan:.0f}"


def max_magnitude(vec: Tensor) -> float:
    """The largest magnitude in `vec`; ∞ where something is not finite."""
    low, high = map(float, torch.aminmax(vec))
    size = max(-low, high)
    return size if size < float("inf") else float("inf")  # NaN compares false


def fingerprint(vec: Tensor) -> float:
    """A hash of all bits of `vec` `[d]`, above 0; 0 where it is zero or not finite, and so says nothing."""
    size = max_magnitude(vec)
    if not 0 < size < inf:
        return 0.0
    data = vec.detach().cpu().contiguous().view(torch.uint8).numpy().data
    return float(max(1, int.from_bytes(blake2b(data, digest_size=_HASH).digest(), "little")))


class HeaderSummary(NamedTuple):
    """The largest magnitudes `sizes` `[n]` (float64, CPU) of all ranks' vectors, ∞ for those that do not
    count this round; why the header of a rank was `malformed`, by rank; the most ranks that gave one
    `fingerprint` other than 0."""

    sizes: Tensor
    malformed: dict[int, str]
    equal: int


def exchange_headers(
    comm: Communicator, vec: Tensor, t: int, plan: str, fingerprint: float = 0.0
) -> HeaderSummary:
    """The headers of all ranks for this round, judged alike on every one of them.

    A malformed header (numbers that no such vector has) is its sender's fault: the vector that follows it
    counts as one that is not finite. A well-formed one that differs stops all ranks, because then nobody
    knows which of the two settings is the right one.

    Errors: `InvalidInput`, the same on all ranks, when vectors, rounds or plans differ, or do not serve;
    `TooManyFaults` when all headers are malformed.
    """
    header = Header.of(vec, t, plan)
    header = header._replace(fingerprint=fingerprint) if fingerprint else header
    local = torch.tensor(header, dtype=torch.float64, device="cpu")
    headers = [Header(*line) for line in comm.all_gather(local).tolist()]
    faults = {rank: header.fault() for rank, header in enumerate(headers)}
    malformed = {rank: f"Its header is malformed: {why}" for rank, why in faults.items() if why}
    if len(malformed) == len(headers):
        raise TooManyFaults(
            f"Some headers should be well-formed. Found none among {len(headers)} ranks: {malformed[0]}",
            list(malformed),
        )
    _require_same({rank: header for rank, header in enumerate(headers) if rank not in malformed})
    sizes = [inf if rank in malformed else header.size for rank, header in enumerate(headers)]
    fingerprints = Counter(
        header.fingerprint
        for rank, header in enumerate(headers)
        if rank not in malformed and header.fingerprint
    )
    lengths = torch.tensor(sizes, dtype=torch.float64, device="cpu")
    return HeaderSummary(lengths, malformed, max(fingerprints.values(), default=0))


def _require_same(headers: dict[int, Header]) -> None:
    """Raise `InvalidInput` unless these headers agree in all but `size` and `fingerprint`, and serve."""
    kinds = [header[:5] for header in headers.values()]
    usual = list(headers.values())[kinds.index(max(kinds, key=kinds.count))]
    odd = [rank for rank, header in headers.items() if header[:5] != usual[:5]]
    if odd:
        others = "; ".join(f"rank {rank} has {headers[rank]}" for rank in odd[:8])
        raise InvalidInput(
            f"All ranks should bring like vectors, in one round, with one rule and topology. Found {others}; "
            f"the others have {usual}. Start all ranks with the same script, model and settings."
        )
    if usual.kind < 0 or usual.dims != 1 or usual.d < 1:
        raise InvalidInput(
            f"Vectors should be [d] with d >= 1, of float16, bfloat16, float32 or float64. Found {usual}."
        )


def recipe_text(recipe: object) -> str:
    """What a recipe is, in words that are the same in every process: no addresses of objects."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(recipe))


def _hashed(plan: str) -> int:
    return int.from_bytes(blake2b(plan.encode(), digest_size=_HASH).digest(), "little")
