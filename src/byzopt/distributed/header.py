"""What ranks tell one another before an exchange: six numbers each, from which all draw one conclusion."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import NamedTuple

import torch
from torch import Tensor

from byzopt.distributed.link import Link
from byzopt.errors import InvalidInput

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Header(NamedTuple):
    """A rank's vector and what it means to do with it, as numbers that float64 holds exactly.

    `kind` is the place of the dtype in `DTYPES`, or -1; `dims` and `d` the number of dimensions and of
    numbers; `t` the round; `plan` a hash of the rule and the way; `size` the largest magnitude, or ∞ where
    something is not finite.
    """

    kind: float
    dims: float
    d: float
    t: float
    plan: float
    size: float

    @classmethod
    def of(cls, vec: Tensor, t: int, plan: str) -> Header:
        """The header of any tensor: one that fits nowhere must be told of, too."""
        kind = DTYPES.index(vec.dtype) if vec.dtype in DTYPES else -1
        size = largest(vec) if kind >= 0 and vec.numel() else 0.0
        return cls(kind, vec.ndim, vec.numel(), t, _hashed(plan), size)

    def __str__(self) -> str:
        dtype = str(DTYPES[int(self.kind)]).removeprefix("torch.") if self.kind >= 0 else "a foreign dtype"
        shape = f"[{self.d:.0f}]" if self.dims == 1 else f"{self.dims:.0f} dimensions, {self.d:.0f} numbers"
        return f"{shape} of {dtype} in round {self.t:.0f}, plan {self.plan:.0f}"


def largest(vec: Tensor) -> float:
    """The largest magnitude in `vec`; ∞ where something is not finite."""
    low, high = map(float, torch.aminmax(vec))
    size = max(-low, high)
    return size if size < float("inf") else float("inf")  # NaN compares false


def meet(link: Link, vec: Tensor, t: int, plan: str) -> Tensor:
    """The largest magnitudes `[n]` (float64, CPU) of all ranks' vectors, ∞ for one that is not finite.

    Errors: `InvalidInput`, the same on all ranks, when vectors, rounds or plans differ, or do not serve.
    """
    own = torch.tensor(Header.of(vec, t, plan), dtype=torch.float64)
    told = [Header(*line) for line in link.everyone(own).tolist()]
    kinds = [header[:5] for header in told]
    usual = told[kinds.index(max(kinds, key=kinds.count))]
    odd = [rank for rank, header in enumerate(told) if header[:5] != usual[:5]]
    if odd:
        others = "; ".join(f"rank {rank} has {told[rank]}" for rank in odd[:8])
        raise InvalidInput(
            f"All ranks should bring like vectors, in one round, with one rule and topology. Found {others}; "
            f"the others have {usual}. Start all ranks with the same script, model and settings."
        )
    if usual.kind < 0 or usual.dims != 1 or usual.d < 1:
        raise InvalidInput(
            f"Vectors should be [d] with d >= 1, of float16, bfloat16, float32 or float64. Found {usual}."
        )
    return torch.tensor([header.size for header in told], dtype=torch.float64)


def recipe_text(recipe: object) -> str:
    """What a recipe is, in words that are the same in every process: no addresses of objects."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(recipe))


def _hashed(plan: str) -> int:
    return int.from_bytes(blake2b(plan.encode(), digest_size=6).digest(), "little")
