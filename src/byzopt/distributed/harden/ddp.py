"""`DistributedDataParallel`: what can be hardened, what is refused, and how."""

from __future__ import annotations

from functools import partial
from typing import Any
from weakref import proxy

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from byzopt.distributed.communicator import Communicator
from byzopt.distributed.harden.bucket_hook import BucketHook
from byzopt.distributed.harden.buffers import check_buffers
from byzopt.distributed.harden.guard import Guard
from byzopt.distributed.harden.others import check_parts, look_out
from byzopt.distributed.harden.place import Copied, HookPlace, harden_hook
from byzopt.distributed.harden.seams import AUTOGRAD, require_seams
from byzopt.distributed.harden.settings import Settings
from byzopt.distributed.harden.timed_hook import TimedHook
from byzopt.distributed.header import WIRE_DTYPES
from byzopt.distributed.primitives import is_remade
from byzopt.errors import InvalidInput, require

_SEAMS = (
    "_comm_hooks",
    "_get_ddp_logging_data",
    "_has_rebuilt_buckets",
    "_use_python_reducer",
    "_delay_all_reduce_params",
    "_match_unused_params_allreduce",
    "parameters_to_ignore",
)
_REDUCER = ("_get_zeros_like_grad_buckets", "prepare_for_backward", "_rebuild_buckets")


def takes(model: Any) -> bool:
    return isinstance(model, DistributedDataParallel)


def communicator(model: DistributedDataParallel) -> Communicator:
    return Communicator(model.process_group)


def check(model: DistributedDataParallel, settings: Settings) -> str:
    """What is wrong on this rank is raised; what all ranks must have alike is returned."""
    require_seams((*AUTOGRAD, ("DistributedDataParallel", model, _SEAMS)))
    require_seams((("Reducer", model.reducer, _REDUCER),))
    require(
        not is_remade(model.process_group),
        "The process group of a model to harden",
        "be one of torch, whose ranks stay the same",
        "one of torchft, which is made anew for each quorum",
        "Take gradients through robust_all_reduce(..., group=), or say `deadline` over a group of torch.",
    )
    hooks: Any = model._comm_hooks
    hooks[:] = [(hook, state) for hook, state in hooks if not isinstance(state, Copied)]
    found = [str(hook.__qualname__) for hook, _ in hooks]
    logged: Any = model._get_ddp_logging_data
    name = logged().get("comm_hook")
    found += [] if found or name is None else [str(name)]
    reused = [state for _, state in hooks if isinstance(state, HookPlace)]
    free = not found or (len(found) == len(reused) == 1 and not reused[0].hook.guard.active)
    require(
        free,
        "A model to harden",
        "have no comm hook yet: DDP takes one, for good",
        ", ".join(found),
        "Leave out the other hook, or build DistributedDataParallel anew.",
    )
    require(
        not model._use_python_reducer and not model._delay_all_reduce_params,
        "A model to harden",
        "reduce all gradients in its buckets",
        "optimize_ddp='python_reducer', or delay_all_reduce_named_params",
        "Leave them out.",
    )
    for module_name, module in model.module.named_modules():
        require(
            not isinstance(module, nn.SyncBatchNorm),
            "A model to harden",
            "keep ranks apart in its forward pass",
            f"SyncBatchNorm {module_name!r}, which averages activations over ranks, a faulty one's too",
            "Use BatchNorm: its buffers are defended.",
        )
        require(
            not getattr(module, "sparse", False),
            "Gradients",
            "be dense",
            f"{type(module).__name__} {module_name!r} with sparse=True",
            "Say sparse=False.",
        )
    for name, parameter in model.module.named_parameters():
        require(
            type(parameter.data).__name__ != "DTensor",
            "Parameters",
            "be plain tensors under DistributedDataParallel",
            f"the DTensor {name!r}, part of which other ranks hold",
            "Harden over the data-parallel dimension of fully_shard.",
        )
        what = f"The parameter {name!r}"
        early, remedy = hasattr(parameter, "_in_backward_optimizers"), "Step when backward has ended."
        require(not early, what, "be left alone by backward", "an optimizer that steps within it", remedy)
        require(
            parameter.dtype in WIRE_DTYPES,
            what,
            "be of float16, bfloat16, float32 or float64",
            parameter.dtype,
        )
    scope, whole = "The scope of a rule with DistributedDataParallel", "be the whole model"
    require(settings.scope != "unit", scope, whole, "'unit'", "Leave out `scope`.")
    check_buffers(model.module, settings.buffers)
    check_parts(model)
    if settings.deadline is not None:
        check_waits(model)
    told = [(n, tuple(p.shape), str(p.dtype), p.requires_grad) for n, p in model.module.named_parameters()]
    return repr((told, settings.deadline is not None and model.find_unused_parameters))


def attach(model: DistributedDataParallel, comm: Communicator, guard: Guard) -> None:
    """Put the guard where DDP reduces."""
    look_out(model, guard)
    if guard.settings.deadline is not None:
        build_buckets(model)
        own: Any = model  # attributes of this object stand before those of its class
        own.join_hook = _refuse_join
        guard.undo.append(partial(delattr, proxy(model), "join_hook"))
    hook = (BucketHook if guard.settings.deadline is None else TimedHook)(model, comm, guard)
    hooks: Any = model._comm_hooks
    for _, place in hooks:
        place.hook = hook
        return
    model.register_comm_hook(HookPlace(hook), harden_hook)


def check_waits(model: DistributedDataParallel) -> None:
    """Raise `InvalidInput` for what of DDP itself waits for ranks that a deadline would not wait for."""
    what, rule = "A model with a deadline", "wait for no rank in its backward pass"
    remedy = "Leave it out, and say find_unused_parameters=True where some are not used in every pass."
    require(not model.static_graph, what, rule, "static_graph=True, which makes all ranks compare", remedy)
    require_seams((("Reducer", model.reducer, ("_update_process_group",)),))


def build_buckets(model: DistributedDataParallel) -> None:
    """Have DDP build its buckets for good, while all ranks are there. It waits for all of them to do so once,
    after its first backward pass: this is one, which adds zeros to no gradient that is kept."""
    reducer: Any = model.reducer
    parameters = [p for p in model.module.parameters() if p.requires_grad]
    if model._has_rebuilt_buckets or model.find_unused_parameters or not parameters:
        return  # where DDP looks for unused parameters its buckets are what they were from the beginning
    kept = [p.grad for p in parameters]
    for parameter in parameters:
        parameter.grad = None
    with torch.enable_grad():
        reducer.prepare_for_backward([])
        nothing: Any = torch.stack([p.reshape(-1)[:0].sum().double().cpu() for p in parameters]).sum()
        nothing.backward()
        reducer._rebuild_buckets()
    model._has_rebuilt_buckets = True
    for parameter, gradient in zip(parameters, kept, strict=True):
        parameter.grad = gradient


def _refuse_join(**settings: Any) -> Any:
    """In the place of DDP's, which asks all ranks before each forward pass who has data left."""
    raise InvalidInput(
        "A model with a deadline should wait for no rank in its forward pass. Found `join`. Give all ranks "
        "as many batches; a rank that stops early is missing, and counts against f."
    )
