"""Slow float64 twin of 8-bit block-scaled numbers: one block after the other, one number after the other."""

from __future__ import annotations

from math import isfinite, nan


def steps(numbers: list[float], tiny: float, block: int = 64) -> list[float]:
    """Each number's step: the largest magnitude in its block over 127, and no less than `tiny`."""
    out: list[float] = []
    for start in range(0, len(numbers), block):
        part = numbers[start : start + block]
        sound = all(isfinite(number) for number in part)
        out += [max(max(map(abs, part)) / 127, tiny) if sound else nan] * len(part)
    return out


def sent(numbers: list[float], tiny: float, block: int = 64) -> list[float]:
    """What arrives: the multiples of the steps that are nearest, halves to the even ones; NaN for all of a
    block with a number that is not finite."""
    out = []
    for number, step in zip(numbers, steps(numbers, tiny, block), strict=True):
        out.append(round(number / step) * step if isfinite(step) else nan)
    return out
