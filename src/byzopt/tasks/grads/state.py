"""What a module or a loss carries from one forward pass to the next, besides parameters."""

from __future__ import annotations

import pickle
import random
from collections import deque
from collections.abc import Iterator, Mapping
from copy import deepcopy
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from byzopt.rng import seed_of

# Slots that every module has, of which only buffers are carried along; parameters are given anew.
_SLOTS = frozenset(vars(nn.Module())) - {"_buffers"}
# Torch's own lists of references to the parameters of a recurrent layer.
_REFERENCES = frozenset({"_flat_weights", "_flat_weight_refs"})


def fresh(module: nn.Module, loss: Any) -> tuple[nn.Module, Any]:
    """Copies of a module and a loss with whatever state they have; parameters are shared, not copied."""
    memo: dict[int, Any] = {id(p): p for p in module.parameters()}
    return deepcopy(module, memo), unused(loss)


def unused(call: Any) -> Any:
    """`call`, or a copy of it where calling it may leave something behind."""
    if isinstance(call, (FunctionType, BuiltinFunctionType, MethodType)):
        return call
    try:
        return deepcopy(call)
    except Exception:  # nothing is known of what cannot be copied
        return call


def written(before: Any, after: Any, name: str = "") -> Iterator[str]:
    """Names of what differs between two objects, one of which was a copy of the other."""
    yield from (place or "itself" for place in _differences(before, after, name, set()))


def reseed(part: Any, seed: int) -> None:
    """Start the generators that modules hold themselves from `seed`, each from its own stream."""
    layers = part.modules() if isinstance(part, nn.Module) else [part]
    for k, layer in enumerate(layers):
        for name, value in list(getattr(layer, "__dict__", {}).items()):
            number = seed_of(seed, "own", k, name)
            if isinstance(value, torch.Generator):
                value.manual_seed(number)
            elif isinstance(value, (random.Random, np.random.RandomState)):
                value.seed(number)
            elif isinstance(value, np.random.Generator):
                setattr(layer, name, np.random.default_rng(number))


def _differences(a: Any, b: Any, name: str, seen: set[tuple[int, int]]) -> Iterator[str]:
    if a is b or (id(a), id(b)) in seen:
        return
    seen.add((id(a), id(b)))
    if type(a) is not type(b):
        yield name
    elif isinstance(a, Tensor):
        if not _equal(a, b):
            yield name
    elif isinstance(a, nn.Module):
        yield from _pairs(a._modules, b._modules, name, seen)
        yield from _pairs(a._buffers, b._buffers, name, seen)
        left = _SLOTS | (_REFERENCES if isinstance(a, nn.RNNBase) else frozenset())
        mine, theirs = ({k: v for k, v in vars(m).items() if k not in left | {"_buffers"}} for m in (a, b))
        yield from _pairs(mine, theirs, name, seen)
    elif isinstance(a, Mapping):
        yield from _pairs(a, b, name, seen)
    elif isinstance(a, (list, tuple, deque)):
        yield from _pairs(dict(enumerate(a)), dict(enumerate(b)), name, seen)
    elif (states := _generator_states(a, b)) is not None:
        if next(_differences(*states, name, seen), None) is not None:
            yield name
    elif getattr(a, "__dict__", None):
        yield from _pairs(vars(a), vars(b), name, seen)
    elif not _alike(a, b):
        yield name


def _pairs(
    a: Mapping[Any, Any], b: Mapping[Any, Any], name: str, seen: set[tuple[int, int]]
) -> Iterator[str]:
    prefix = f"{name}." if name else ""
    for key in [*a, *(k for k in b if k not in a)]:
        if key in a and key in b:
            yield from _differences(a[key], b[key], f"{prefix}{key}", seen)
        else:
            yield f"{prefix}{key}"


def _generator_states(a: Any, b: Any) -> tuple[Any, Any] | None:
    if isinstance(a, torch.Generator):
        return a.get_state(), b.get_state()
    if isinstance(a, random.Random):
        return a.getstate(), b.getstate()
    if isinstance(a, np.random.Generator):
        return a.bit_generator.state, b.bit_generator.state
    if isinstance(a, np.random.RandomState):
        return a.get_state(), b.get_state()
    return None


def _equal(a: Tensor, b: Tensor) -> bool:
    if (a.shape, a.dtype, a.layout) != (b.shape, b.dtype, b.layout):
        return False
    return bool(torch.eq(a, b).logical_or(a.isnan() & b.isnan()).all()) if a.numel() else True


def _alike(a: Any, b: Any) -> bool:
    """Equality of two objects of one type that nothing else is known of."""
    try:
        if isinstance(a, np.ndarray):
            return bool(a.shape == b.shape and a.tobytes() == b.tobytes())
        return bool(a == b) or bool(pickle.dumps(a) == pickle.dumps(b))
    except Exception:  # what can be neither compared nor written down is taken to be as it was
        return True
