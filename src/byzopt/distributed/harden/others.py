"""Other `DistributedDataParallel` models around the parameters of a hardened one: they average gradients past
the rule. A part of the model is refused at once; one that holds the same parameters when it is called."""

from __future__ import annotations

import gc
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.nn.parallel import DistributedDataParallel

from byzopt.distributed.harden.guard import Guard
from byzopt.distributed.living import living
from byzopt.errors import require


def check_parts(model: DistributedDataParallel) -> None:
    """Raise `InvalidInput` where a part of the model averages gradients itself."""
    for name, part in model.module.named_modules():
        averages = isinstance(part, DistributedDataParallel) and not _apart(part, model.process_group)
        found = f"{name or 'its module'}, a {type(part).__name__}, which averages them first"
        what, remedy = "A model to harden", "Wrap every parameter once."
        require(not averages, what, "be the only one to reduce its gradients", found, remedy)


def look_out(model: DistributedDataParallel, guard: Guard) -> None:
    """From now on notice other models that average these gradients, those there are and those to come."""
    _guarded[model] = guard
    if not _listening:
        _listening.append(register_module_module_registration_hook(_built))
    for each in living(DistributedDataParallel):
        if "_modules" in vars(each):
            _attend(each, each)


_guarded: WeakKeyDictionary[DistributedDataParallel, Guard] = WeakKeyDictionary()
_listening: list[Any] = []


def _built(parent: nn.Module, _name: str, part: nn.Module | None) -> None:
    if isinstance(parent, DistributedDataParallel) and part is not None:
        _attend(parent, part)


def _attend(other: DistributedDataParallel, inside: nn.Module) -> None:
    """Have it looked at whenever it is called, if it holds parameters of a hardened model."""
    if _sharing(other, inside):
        other.register_forward_pre_hook(_check)


def _sharing(other: nn.Module, inside: nn.Module) -> list[Guard]:
    """The guards of other models that have parameters in common with what is `inside` of this one."""
    mine = {id(parameter) for parameter in inside.parameters()}
    models = [(model, guard) for model, guard in _guarded.items() if model is not other and guard.active]
    return [guard for model, guard in models if any(id(p) in mine for p in model.parameters())]


def _check(other: DistributedDataParallel, _inputs: Any) -> None:
    own = _guarded.get(other)
    hardened = own is not None and own.active
    if hardened or not (torch.is_grad_enabled() and other.require_backward_grad_sync):
        return
    if _bypassed(other):
        gc.collect()  # a hardened model that nobody can call any more is no reason
        require(
            not _bypassed(other),
            "Gradients of a hardened model",
            "be reduced by that model alone",
            f"another {type(other).__name__} over the same parameters, which averages them past the rule",
            "Call the hardened model; or let go of it (`guard.remove()`), and harden this one.",
        )


def _bypassed(other: DistributedDataParallel) -> bool:
    return any(not _apart(other, guard.comm.group) for guard in _sharing(other, other))


def _apart(other: DistributedDataParallel, group: Any) -> bool:
    """Whether it averages within a worker: its group has one rank of the `group`, or this one alone."""
    try:
        ours, theirs = map(dist.get_process_group_ranks, (group, other.process_group))
    except (KeyError, TypeError, ValueError):  # groups of which torch knows nothing
        return False
    return len({*ours} & {*theirs}) < 2
