"""What a rank that comes back takes from the others beside parameters: states that all ranks have alike."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class Stateful(Protocol):
    """What has a state dict."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


def carried(parameters: Mapping[str, Tensor], scaler: GradScaler | None) -> dict[str, Stateful]:
    """The optimizers of these parameters, their schedulers and the scaler that are alive in this process, by
    names that are the same on all ranks. Of two that no such name tells apart there is neither."""
    living = _living((Optimizer, LRScheduler, GradScaler))
    found: list[tuple[str, Stateful]] = []
    names = {id(parameter): name for name, parameter in parameters.items()}
    known: dict[int, str] = {}
    for optimizer in _of(living, parameters):
        held = (names.get(id(p)) for group in optimizer.param_groups for p in group["params"])
        known[id(optimizer)] = f"{type(optimizer).__name__} of {next(filter(None, held))}"
        found.append((known[id(optimizer)], optimizer))
    nested = {id(part) for each in living for part in getattr(each, "_schedulers", ())}
    for each in living:
        name = known.get(id(getattr(each, "optimizer", None)))
        if isinstance(each, LRScheduler) and name is not None and id(each) not in nested:
            found.append((f"{type(each).__name__} of {name}", each))
    scalers = [each for each in living if isinstance(each, GradScaler) and each.is_enabled()]
    found += [("GradScaler", each) for each in (scalers if scaler is None else [scaler])]
    counts = Counter(name for name, _ in found)
    return {name: each for name, each in sorted(found, key=lambda pair: pair[0]) if counts[name] == 1}


def optimizers_of(parameters: Mapping[str, Tensor]) -> list[Optimizer]:
    """The optimizers that are alive in this process and hold any of these parameters."""
    return _of(_living((Optimizer,)), parameters)


def _of(living: list[Any], parameters: Mapping[str, Tensor]) -> list[Optimizer]:
    mine, found = {id(parameter) for parameter in parameters.values()}, []
    for each in living:
        with suppress(AttributeError):  # one that is being built
            if isinstance(each, Optimizer) and any(
                id(p) in mine for group in each.param_groups for p in group["params"]
            ):
                found.append(each)
    return found


def _living(kinds: tuple[type, ...]) -> list[Any]:
    """The objects of these kinds that are alive in this process."""
    wanted: dict[type, bool] = {}
    found = []
    for each in gc.get_objects():
        kind = type(each)
        if kind not in wanted:
            wanted[kind] = issubclass(kind, kinds)
        if wanted[kind]:
            found.append(each)
    return found


def copied(state: Any) -> Any:
    """A copy of plain data and tensors, in main memory, that packs to the same bytes wherever its values are
    the same. Errors: `TypeError` for what is no plain data."""
    if isinstance(state, Tensor):
        return state.detach().cpu().clone().contiguous()
    if isinstance(state, Mapping):
        items = sorted(state.items(), key=lambda item: (type(item[0]).__name__, repr(item[0])))
        kind = Counter if isinstance(state, Counter) else dict
        return kind({copied(key): copied(value) for key, value in items})
    if isinstance(state, (list, tuple)):
        parts = [copied(part) for part in state]
        return parts if isinstance(state, list) else tuple(parts)
    if isinstance(state, str):  # pickle tells one object from two of the same value
        return sys.intern(str(state))
    if state is None or type(state) in (bool, int, float):
        return state
    raise TypeError(f"{type(state).__name__} is no plain data")


def states_of(parts: Mapping[str, Stateful]) -> dict[str, Any]:
    """Copies of the states of these parts, of which those that are no plain data are left out."""
    found: dict[str, Any] = {}
    for name, part in parts.items():
        with suppress(TypeError):
            found[name] = copied(part.state_dict())
    return found
