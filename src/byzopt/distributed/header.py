"""Headers: nine numbers that every rank sends to all before an exchange, so that all decide alike."""

from __future__ import annotations

import re
from hashlib import blake2b
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

WIRE_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
PRESENT, ABSENT, FAILED = range(3)  # the status of a rank
_HASH = 6  # bytes of a plan's hash
_EXACT = 2.0**53  # up to here float64 holds every whole number
_HASHES = (0, 2.0 ** (8 * _HASH) - 1)
_RANGES = {  # of the whole numbers in a header; rounds may be anything that a script counts
    "kind": (-1, len(WIRE_DTYPES) - 1),
    "dims": (0, 64),
    "d": (0, _EXACT),
    "t": (-_EXACT, _EXACT),
    "plan": _HASHES,
    "fingerprint": _HASHES,
    "parameters": _HASHES,
    "status": (PRESENT, FAILED),
}


class Header(NamedTuple):
    """A rank's vector and what it means to do with it, as numbers that float64 holds exactly.

    `kind` is the place of the dtype in `WIRE_DTYPES`, or -1; `dims` and `d` the number of dimensions and of
    numbers; `t` the round; `plan` a hash of the rule and the topology; `size` the largest magnitude, or ∞
    where something is not finite; `fingerprint` a hash of this rank's gradient where the ranks compare
    theirs, or 0; `parameters` a hash of this rank's parameters where its script changed them, or 0; `status`
    whether the rank is `PRESENT`, `ABSENT` (it has no vector this round, but takes the answer), or `FAILED`
    (its error follows, and all ranks raise it).
    """

    kind: float
    dims: float
    d: float
    t: float
    plan: float
    size: float
    fingerprint: float = 0.0
    parameters: float = 0.0
    status: float = PRESENT

    @classmethod
    def of(cls, vec: Tensor, t: int, plan: str) -> Header:
        """The header of any tensor: one that no rule can take is described, too."""
        kind = WIRE_DTYPES.index(vec.dtype) if vec.dtype in WIRE_DTYPES else -1
        size = max_magnitude(vec) if kind >= 0 and vec.numel() else 0.0
        return cls(kind, vec.ndim, vec.numel(), t, hashed(plan.encode()), size)

    @classmethod
    def failed(cls) -> Header:
        """The header of a rank that cannot take part."""
        return cls(-1, 0, 0, 0, 0, 0.0, status=FAILED)

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

    @property
    def agreed(self) -> tuple[float, ...]:
        """What must be the same on all ranks."""
        return self[:5]

    def __str__(self) -> str:
        known = self.kind >= 0
        dtype = str(WIRE_DTYPES[int(self.kind)]).removeprefix("torch.") if known else "a foreign dtype"
        shape = f"[{self.d:.0f}]" if self.dims == 1 else f"{self.dims:.0f} dimensions, {self.d:.0f} numbers"
        return f"{shape} of {dtype} in round {self.t:.0f}, plan {self.plan:.0f}"


def max_magnitude(vec: Tensor) -> float:
    """The largest magnitude in `vec`; ∞ where something is not finite."""
    low, high = torch.stack(torch.aminmax(vec)).cpu().tolist()  # one look, where `vec` is on a GPU
    size = max(-low, high)
    return size if size < inf else inf  # NaN compares false


def fingerprint(vec: Tensor) -> float:
    """A hash of all bits of `vec` `[d]`, above 0; 0 where it is zero or not finite, and so says nothing."""
    return hash_of_bits(vec) if 0 < max_magnitude(vec) < inf else 0.0


def hash_of_bits(vec: Tensor) -> float:
    """A hash of all bits of `vec` `[d]`, above 0."""
    return max(1.0, hashed(vec.detach().cpu().contiguous().view(torch.uint8).numpy().data))


def hashed(data: bytes | memoryview) -> float:
    """A hash of bytes that float64 holds exactly."""
    return float(int.from_bytes(blake2b(data, digest_size=_HASH).digest(), "little"))


def recipe_text(recipe: object) -> str:
    """What a recipe is, in words that are the same in every process: no addresses of objects."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(recipe))
