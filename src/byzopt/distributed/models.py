"""What an optimizer is given: parameters, groups of them, or a model, whose gradients have to stay local."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from typing import Any, TypeAlias
from weakref import WeakSet

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.debugging_hooks import noop_hook
from torch.nn.modules.module import register_module_module_registration_hook
from torch.nn.parallel import DistributedDataParallel

from byzopt.distributed.deadline.transport import DeadlineTransport, check_seconds
from byzopt.distributed.harden.settings import Buffers
from byzopt.distributed.living import living
from byzopt.errors import InvalidInput, require

Params: TypeAlias = Iterable[Tensor] | Iterable[dict[str, Any]] | nn.Module


def replicas_in(params: Params) -> list[DistributedDataParallel]:
    """The `DistributedDataParallel` models in a model, however it is wrapped or compiled; none in parameters.

    Errors: `InvalidInput` for a model whose parameters are sharded over ranks.
    """
    if not isinstance(params, nn.Module):
        return []
    sharded = [type(m).__name__ for m in params.modules() if type(m).__name__ == "FullyShardedDataParallel"]
    require(not sharded, "The model", "be whole on every rank", *_sharded(sharded))
    return [module for module in params.modules() if isinstance(module, DistributedDataParallel)]


def averaging(model: nn.Module, group: Any) -> list[str]:
    """Names of what averages gradients of `model` over ranks of `group` in every backward pass.

    It may be a part of the model, or hold the model or parameters of it and be alive elsewhere in this
    process: then its hooks run wherever the script calls it. A `DistributedDataParallel` whose own group has
    one rank of `group`, such as that of one machine's GPUs, averages within a worker and does not count.
    """
    found = _averaging(model, group)
    if found:
        gc.collect()  # one that nobody can call any more does no harm
        found = _averaging(model, group)
    return found


def wrappings(model: nn.Module) -> int:
    """A number that changes when anything is built in this process that may wrap `model`: a module that gets
    a part, or one of the model's own that learns to synchronise, as by `fully_shard`."""
    if not _counting:
        _counting.append(register_module_module_registration_hook(_count_module))
    return _built[0] + sum(_synchronises(type(each)) for each in model.modules())


def _count_module(*_: Any) -> None:
    _built[0] += 1


_built, _counting = [0], list[Any]()  # modules that were made parts of others, once somebody has asked


def _averaging(model: nn.Module, group: Any) -> list[str]:
    mine = {id(parameter) for parameter in model.parameters()}
    alive = [each for each in living(nn.Module) if _synchronises(type(each)) and "_modules" in vars(each)]
    parts = [each for each in model.modules() if _synchronises(type(each))]
    around = [each for each in alive if any(id(parameter) in mine for parameter in each.parameters())]
    return sorted({type(each).__name__ for each in (*parts, *around) if not _within_worker(each, group)})


def _synchronises(kind: type) -> bool:
    """Whether models of this `kind` can be told not to synchronise gradients, and otherwise do."""
    ways = ("no_sync", "set_requires_gradient_sync")
    return issubclass(kind, nn.Module) and any(hasattr(kind, way) for way in ways)


def _within_worker(module: nn.Module, group: Any) -> bool:
    if not isinstance(module, DistributedDataParallel):
        return False
    try:
        ours, theirs = map(dist.get_process_group_ranks, (group, getattr(module, "process_group", None)))
    except (KeyError, TypeError, ValueError):  # torchft's groups, of which torch knows nothing
        return False
    return len({*ours} & {*theirs}) < 2


def check_deadline(
    deadline: Any, compressed: bool, replicas: Iterable[DistributedDataParallel], buffers: Buffers
) -> None:
    """Raise `InvalidInput` for what waits for ranks that a deadline would not wait for."""
    if not isinstance(deadline, DeadlineTransport):
        check_seconds(deadline)
    what = "Messages with a deadline"
    require(not compressed, what, "be whole vectors", "compressed ones", "Use a plain channel.")
    what, remedy = "Buffers with buffers='refuse'", "With one they stay each rank's own: say buffers='local'."
    require(buffers != "refuse", what, "be checked at every step", "a deadline", remedy)
    for replica in replicas:
        waits = [name for name in ("broadcast_buffers", "find_unused_parameters") if getattr(replica, name)]
        waits = [
            name for name in waits if name != "broadcast_buffers" or any(True for _ in replica.buffers())
        ]
        remedy = "Give the bare model, or say so of DistributedDataParallel."
        found = " and ".join(f"{name}=True" for name in waits)
        require(not waits, "A model with a deadline", "wait for no rank in its forward pass", found, remedy)


def keep_local(replicas: Iterable[DistributedDataParallel]) -> None:
    """Tell these models to leave gradients as they are, for averages over ranks cannot be defended.

    Errors: `InvalidInput` for one that has another communication hook.
    """
    for replica in replicas:
        hooks = [hook for hook, _ in getattr(replica, "_comm_hooks", [])]
        if noop_hook in hooks:
            continue
        remedy = "Use that hook or a robust optimizer, and make the model anew for the other."
        require(not hooks, "The model", "have no communication hook yet", _names(hooks), remedy)
        try:
            replica.register_comm_hook(None, noop_hook)
        except RuntimeError as error:
            raise InvalidInput(f"The model should leave gradients local. Found: {error}.") from error


def buffers_apart(model: nn.Module, replicas: Iterable[DistributedDataParallel]) -> set[str]:
    """The buffers of `model` that stay each rank's own: of replicas built without a broadcast of buffers, and
    those that replicas ignore. The broadcast of the others, which hands rank 0's to all, is switched off."""
    apart: set[int] = set()
    for replica in replicas:
        if replica.broadcast_buffers:
            replica.broadcast_buffers = False
            _broadcasting.add(replica)
        whole, ignored = replica not in _broadcasting, set(replica.parameters_to_ignore)
        named = replica.module.named_buffers()
        apart |= {id(buffer) for name, buffer in named if whole or name in ignored}
    return {name for name, buffer in model.named_buffers() if id(buffer) in apart}


_broadcasting: WeakSet[DistributedDataParallel] = WeakSet()  # built so, and switched off here


def _sharded(found: list[str]) -> tuple[str, str]:
    return ", ".join(sorted(set(found))), "Harden the model in the place of its optimizer."


def _names(hooks: list[Any]) -> str:
    return ", ".join(getattr(hook, "__name__", repr(hook)) for hook in hooks)
