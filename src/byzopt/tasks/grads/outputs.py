"""What modules put out for a batch: one tensor, or several in tuples and dictionaries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten


def leaves(output: Any) -> list[Any]:
    """The parts of an output, in order."""
    parts: list[Any] = tree_flatten(output)[0]
    return parts


def by_sample(output: Any, samples: int) -> bool:
    """Whether an output consists of tensors with a row for each sample."""
    parts = leaves(output)
    return bool(parts) and all(isinstance(p, Tensor) and p.ndim > 0 and len(p) == samples for p in parts)


def joined(outputs: Sequence[Any]) -> Any:
    """Outputs for parts of a batch as the output for all of it."""
    flat, shapes = zip(*(tree_flatten(output) for output in outputs), strict=True)
    return tree_unflatten([torch.cat(parts) for parts in zip(*flat, strict=True)], shapes[0])


def apart(output: Callable[[Tensor], Any], samples: Tensor, exact: bool) -> bool:
    """Whether the output for a sample hangs on that sample alone: not on the others with it, on how many
    they are, or on its place among them. With `exact`, to the last bit; False where that cannot be seen."""
    others = samples[:1].expand_as(samples).clone()
    if len(samples) < 2 or torch.equal(others, samples):
        return False
    try:
        whole = output(samples)
        if not by_sample(whole, len(samples)):
            return False
        looks = [
            (0, output(others), exact),
            (0, output(samples[:1]), False),
            (-1, output(samples[-1:]), False),
        ]
    except Exception:  # a module that needs more than one sample looks at them together
        return False
    pairs = [
        (mine[place], theirs[place], bits)
        for place, part, bits in looks
        for mine, theirs in zip(leaves(whole), leaves(part), strict=True)
    ]
    return all(_equal(mine, theirs, bits) for mine, theirs, bits in pairs)


def _equal(a: Tensor, b: Tensor, bits: bool) -> bool:
    if bits or not a.is_floating_point():
        return bool(((a == b) | ((a != a) & (b != b))).all())
    near = torch.finfo(a.dtype).eps ** 0.5
    scale = float(a.detach().abs().max()) if a.numel() else 0.0
    return torch.allclose(a, b, rtol=near, atol=near * scale if scale == scale else 0.0, equal_nan=True)
