"""`DistributedDataParallel`: what can be hardened, what is refused, and how."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from byzopt.distributed.communicator import Communicator
from byzopt.distributed.harden.bucket_hook import BucketHook, Copied, harden_hook
from byzopt.distributed.harden.buffers import check_buffers
from byzopt.distributed.harden.guard import Guard
from byzopt.distributed.harden.settings import Settings
from byzopt.distributed.header import WIRE_DTYPES
from byzopt.errors import require


def takes(model: Any) -> bool:
    return isinstance(model, DistributedDataParallel)


def communicator(model: DistributedDataParallel) -> Communicator:
    return Communicator(model.process_group)


def check(model: DistributedDataParallel, settings: Settings) -> str:
    """What is wrong on this rank is raised; what all ranks must have alike is returned."""
    hooks: Any = model._comm_hooks
    hooks[:] = [(hook, state) for hook, state in hooks if not isinstance(state, Copied)]
    found = [str(hook.__qualname__) for hook, _ in hooks]
    logged: Any = model._get_ddp_logging_data
    name = logged().get("comm_hook")
    found += [] if found or name is None else [str(name)]
    reused = [state for _, state in hooks if isinstance(state, BucketHook)]
    free = not found or (len(found) == len(reused) == 1 and not reused[0].guard.active)
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
        require(
            parameter.dtype in WIRE_DTYPES,
            what,
            "be of float16, bfloat16, float32 or float64",
            parameter.dtype,
        )
    scope, whole = "The scope of a rule with DistributedDataParallel", "be the whole model"
    require(settings.scope != "unit", scope, whole, "'unit'", "Leave out `scope`.")
    check_buffers(model.module, settings.buffers)
    told = [(n, tuple(p.shape), str(p.dtype), p.requires_grad) for n, p in model.module.named_parameters()]
    return repr(told)


def attach(model: DistributedDataParallel, comm: Communicator, guard: Guard) -> None:
    """Put the guard where DDP reduces."""
    hooks: Any = model._comm_hooks
    for _, state in hooks:
        state.arm(model, comm, guard)
        return
    model.register_comm_hook(BucketHook(model, comm, guard), harden_hook)
