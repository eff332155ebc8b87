"""What a rank that comes back takes from the others beside parameters: states that all ranks have alike."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from byzopt.distributed.living import living
from byzopt.errors import require


class Stateful(Protocol):
    """What has a state dict."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


def carried(
    parameters: Mapping[str, Tensor], scaler: GradScaler | None, also: Mapping[str, Stateful]
) -> dict[str, Stateful]:
    """The optimizers of these parameters, their schedulers and the scaler that are alive in this process, by
    names that are the same on all ranks, and what the script has named itself (`also`). Of two that no such
    name tells apart there is neither."""
    found = _found(parameters, scaler, also)
    counts = Counter(name for name, _ in found)
    alone = [(name, part) for name, part in found if counts[name] == 1]
    return dict(sorted([*alone, *also.items()], key=lambda pair: pair[0]))


def left_out(
    parameters: Mapping[str, Tensor], scaler: GradScaler | None, also: Mapping[str, Stateful]
) -> list[str]:
    """What drives these parameters or follows them, as far as can be seen, and is not `carried`, in words."""
    names = Counter(name for name, _ in _found(parameters, scaler, also))
    out = [f"{count} objects that are each a {name}" for name, count in sorted(names.items()) if count > 1]
    if not optimizers_of(parameters) and not also:
        out.append("an optimizer: none of torch.optim holds the parameters")
    shapes, known = [p.shape for p in parameters.values()], set(map(id, also.values()))
    averages = [each for each in living(AveragedModel) if id(each) not in known]
    return out + ["an AveragedModel" for each in averages if [p.shape for p in each.parameters()] == shapes]


def check_part(name: str, part: Any) -> None:
    """Raise `InvalidInput` for what no rank can take over from others."""
    what, methods = f"What {name!r} names for a rank that comes back", ("state_dict", "load_state_dict")
    fits = all(callable(getattr(part, method, None)) for method in methods)
    require(fits, what, "have state_dict and load_state_dict", type(part).__name__)
    try:
        copied(part.state_dict())
    except TypeError as error:
        remedy = "Give an object whose state is made of these."
        require(False, what, "have a state of plain data and tensors", error, remedy)


def _found(
    parameters: Mapping[str, Tensor], scaler: GradScaler | None, also: Mapping[str, Stateful]
) -> list[tuple[str, Stateful]]:
    """All that are alive, by names that need not be one's alone; without those named in `also`."""
    apart = set(map(id, also.values()))
    alive = [each for each in living(Optimizer, LRScheduler, GradScaler) if id(each) not in apart]
    found: list[tuple[str, Stateful]] = []
    names = {id(parameter): name for name, parameter in parameters.items()}
    known: dict[int, str] = {}
    for optimizer in optimizers_of(parameters):
        held = (names.get(id(p)) for group in optimizer.param_groups for p in group["params"])
        known[id(optimizer)] = f"{type(optimizer).__name__} of {next(filter(None, held))}"
        if id(optimizer) not in apart:
            found.append((known[id(optimizer)], optimizer))
    nested = {id(part) for each in alive for part in getattr(each, "_schedulers", ())}
    for each in alive:
        name = known.get(id(getattr(each, "optimizer", None)))
        if isinstance(each, LRScheduler) and name is not None and id(each) not in nested:
            found.append((f"{type(each).__name__} of {name}", each))
    scalers = [each for each in alive if isinstance(each, GradScaler) and each.is_enabled()]
    if scaler is not None:
        scalers = [] if id(scaler) in apart else [scaler]
    return found + [("GradScaler", each) for each in scalers]


def optimizers_of(parameters: Mapping[str, Tensor]) -> list[Optimizer]:
    """The optimizers that are alive in this process and hold any of these parameters."""
    mine, found = {id(parameter) for parameter in parameters.values()}, []
    for each in living(Optimizer):
        with suppress(AttributeError):  # one that is being built
            if any(id(p) in mine for group in each.param_groups for p in group["params"]):
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
