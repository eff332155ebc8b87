"""Randomness by hashed names: every stream depends on what it is for, never on what ran before it."""

from __future__ import annotations

from hashlib import blake2b

import torch

from byzopt.errors import require

__all__ = ["coin", "seed_of", "stream"]

Name = str | int


def seed_of(seed: int, *names: Name) -> int:
    """A 32-bit seed hashed from `seed` and the names (CPU generators use no more than 32 bits).

    Names are told apart by value and by kind: 3 and "3" differ, 3 and a NumPy integer 3 do not. Errors: a
    negative seed, which other libraries refuse or take for another one.
    """
    require(seed >= 0, "A seed", "be at least 0", seed)
    parts = [name if isinstance(name, str) else int(name) for name in (seed, *names)]
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=4).digest(), "little")


def stream(seed: int, *names: Name, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator for `(seed, *names)`; equal arguments give equal streams in any order of calls.

    It is the CPU's for a device that has no generators, so that who draws nothing need not have one.
    """
    try:
        generator = torch.Generator(device)
    except RuntimeError:
        generator = torch.Generator("cpu")
    return generator.manual_seed(seed_of(seed, *names))


def coin(seed: int, t: int, p: float) -> bool:
    """Round t's common coin of a run: True with probability p, the same for all who ask."""
    return float(torch.rand((), dtype=torch.float64, generator=stream(seed, "coin", t), device="cpu")) < p
