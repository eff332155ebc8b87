"""FSDP2 (`fully_shard`) and HSDP: what can be hardened, what is refused, and how.

FSDP's reduce-scatter deals columns already: every rank gets all ranks' rows of its own columns. With HSDP the
workers are the replicas: within one, gradients are averaged over its shards; between them the rule decides,
on products that are summed over the shards too, so that all shards of a replica have the same weights.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import Tensor, nn

from byzopt.distributed.communicator import Communicator
from byzopt.distributed.harden.buffers import check_buffers
from byzopt.distributed.harden.guard import Guard
from byzopt.distributed.harden.mesh import MeshCommunicator
from byzopt.distributed.harden.reductions import ModelReduction, Reduction
from byzopt.distributed.harden.seams import AUTOGRAD, Seam, require_seams
from byzopt.distributed.harden.settings import Settings
from byzopt.distributed.harden.unit_hooks import ReplicaHook, UnitReduceScatter
from byzopt.distributed.harden.units import Unit, has_early_readers
from byzopt.distributed.header import WIRE_DTYPES
from byzopt.distributed.living import living
from byzopt.errors import require

_OF_GROUPS = (
    "fsdp_params",
    "gradient_divide_factor",
    "mesh_info",
    "post_backward",
    "_all_reduce_hook",
    "_reduce_scatter_comm",
)
_OF_PARAMETERS = (
    "contiguous_sharded_stride",
    "padded_sharded_param_size",
    "sharded_param",
    "sharded_size",
    "unsharded_accumulated_grad",
    "unsharded_param",
)


def takes(model: Any) -> bool:
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return fsdp is not None and isinstance(model, getattr(fsdp, "FSDPModule", ()))


def communicator(model: Any) -> Communicator:
    """The workers' collectives."""
    _check_seams(model)
    groups = list(param_groups(model))
    require(bool(groups), "A model to harden", "have parameters that FSDP shards", "none")
    info = groups[0][1].mesh_info
    if not _is_hybrid(info):
        return Communicator(info.shard_process_group)
    return MeshCommunicator(info.replicate_process_group, info.shard_process_group)


def param_groups(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The units that FSDP reduces one by one, by the name of their module."""
    from torch.distributed.fsdp import FSDPModule

    for name, module in model.named_modules():
        if isinstance(module, FSDPModule):
            state: Any = module._get_fsdp_state()
            groups = getattr(state, "_fsdp_param_groups", None)
            for each in [state._fsdp_param_group] if groups is None else groups:
                if each is not None:
                    yield name, each


def check(model: Any, settings: Settings) -> str:
    """What is wrong on this rank is raised; what all ranks must have alike is returned."""
    units = list(param_groups(model))
    _check_root(model)
    require(
        settings.deadline is None,
        "A deadline",
        "be one for a model that every rank holds whole",
        "shards, of which a rank that dies takes the only copy along",
        "Wrap the model in DistributedDataParallel, or leave out `deadline` and restart all ranks from "
        "checkpoints.",
    )
    names = [name for name, _ in units]
    twice = [name for name in names if names.count(name) > 1]
    what, remedy = f"several in {twice[:1]}", "Give fully_shard one mesh a module."
    require(not twice, "A model to harden", "have one group of parameters a module", what, remedy)
    first = units[0][1].mesh_info
    shards = hasattr(first, "shard_process_group")
    require(shards, "A model to harden", "be sharded", "replicas alone", "Use DistributedDataParallel.")
    hybrid = _is_hybrid(first)
    found = settings.scope
    fits = found in (None, "unit") or (found == "model" and not hybrid)
    require(fits, "The scope of a rule with HSDP", 'be "unit"', repr(found), "Leave out `scope`.")
    for name, unit in units:
        _check_unit(name, unit, first)
        _check_hooks(name, unit, settings)
    for name, module in model.named_modules():
        sync = isinstance(module, nn.SyncBatchNorm)
        what = f"SyncBatchNorm {name!r}, which averages activations over ranks, a faulty one's too"
        require(not sync, "A model to harden", "keep ranks apart in its forward pass", what, "Use BatchNorm.")
    for name, parameter in model.named_parameters():
        mesh = getattr(parameter, "device_mesh", None)
        outside = f"the parameter {name!r}, which lies on {'no mesh' if mesh is None else 'another mesh'}"
        known = mesh is not None and mesh.ndim == (2 if hybrid else 1)
        remedy = "Harden works without tensor or pipeline parallelism."
        require(known, "Parameters", "be sharded by fully_shard alone", outside, remedy)
        kinds = "be of float16, bfloat16, float32 or float64"
        require(parameter.dtype in WIRE_DTYPES, f"The parameter {name!r}", kinds, parameter.dtype)
    check_buffers(model, settings.buffers)
    told = [(n, tuple(p.shape), str(p.dtype), p.requires_grad) for n, p in model.named_parameters()]
    return repr((told, [name for name, _ in units], hybrid))


def _check_seams(model: Any) -> None:
    """Raise where this torch lacks anything of FSDP2 that is used here and in `units`."""
    from torch.distributed.fsdp._fully_shard import _fsdp_collectives, _fsdp_common

    functions: list[Seam] = [
        ("fully_shard", model, ("set_custom_reduce_scatter", "set_all_reduce_hook", "_get_fsdp_state")),
        ("FSDP's collectives", _fsdp_collectives, ("_get_gradient_divide_factors",)),
        ("FSDP's meshes", _fsdp_common, ("FSDPMeshInfo",)),
        ("torch.Tensor", Tensor, ("_post_accumulate_grad_hooks",)),
    ]
    require_seams((*AUTOGRAD, *functions))
    state = model._get_fsdp_state()
    groups = "_fsdp_param_group" if hasattr(state, "_fsdp_param_group") else "_fsdp_param_groups"
    require_seams([("FSDP's state", state, (groups, "_is_root"))])
    for name, group in param_groups(model):
        require_seams([(f"FSDP's unit {name!r}", group, _OF_GROUPS)])
        mesh = group.mesh_info
        meshes = ("mesh", "shard_mesh_dim") if hasattr(mesh, "shard_process_group") else ()
        require_seams([("FSDP's meshes", mesh, meshes)])
        require_seams(("FSDP's parameters", each, _OF_PARAMETERS) for each in group.fsdp_params)


def _check_root(model: Any) -> None:
    """Raise where the model is a part of another one of fully_shard, which averages its other units."""
    around = _around(model)
    if around:
        gc.collect()  # one that nobody can call any more does no harm
        around = _around(model)
    what, remedy = f"a part of a {', '.join(around)} of fully_shard", "Harden the outermost module."
    require(not around, "A model to harden", "be the root of what fully_shard was called on", what, remedy)


def _around(model: Any) -> list[str]:
    from torch.distributed.fsdp import FSDPModule

    others = [each for each in living(FSDPModule) if each is not model and "_modules" in vars(each)]
    return sorted({type(each).__name__ for each in others if any(part is model for part in each.modules())})


def _check_unit(name: str, unit: Any, first: Any) -> None:
    """Raise where a unit reduces in a way of its own already, or over other ranks than the first."""
    hooked = unit._all_reduce_hook is not None
    custom = type(unit._reduce_scatter_comm).__module__.split(".")[0] != "torch"
    what = f"the unit {name!r}, whose reduction is replaced already"
    remedy = "Harden a model once, or call `remove` of the guard before; leave out other hooks."
    require(not hooked and not custom, "A model to harden", "reduce as FSDP does", what, remedy)
    same = unit.mesh_info.mesh == first.mesh
    require(same, "A model to harden", "lie on one mesh", f"the unit {name!r} on another one")


def _check_hooks(name: str, unit: Any, settings: Settings) -> None:
    """Raise where something reads gradients before a decision for the whole model can have been made."""
    early = settings.scope == "model" and any(has_early_readers(each) for each in unit.fsdp_params)
    what = f"a hook behind the gradients of the unit {name!r}, which would see zeros"
    require(not early, "A model with scope='model'", "be read after backward", what, "Say scope='unit'.")


def attach(model: Any, comm: Communicator, guard: Guard) -> None:
    """Put the guard where FSDP reduces."""
    alone = comm.n == 1  # FSDP scatters nothing then; its hook is called all the same
    whole = guard.settings.scope == "model" and not alone
    reduction = (ModelReduction if whole else Reduction)(model, comm, guard)
    units = dict(param_groups(model))
    reduction.largest = max(
        units, key=lambda name: sum(p.sharded_param.numel() for p in units[name].fsdp_params)
    )
    for name, group in units.items():
        unit = Unit(name, group)
        guard.undo.append(unit.watch())
        if isinstance(comm, MeshCommunicator):
            _keep_all_reduce(unit, reduction)
        if alone or isinstance(comm, MeshCommunicator):
            guard.undo.append(partial(setattr, group, "_all_reduce_hook", group._all_reduce_hook))
            group._all_reduce_hook = ReplicaHook(unit, reduction)
            continue
        guard.undo.append(partial(setattr, group, "_reduce_scatter_comm", group._reduce_scatter_comm))
        group._reduce_scatter_comm = UnitReduceScatter(unit, reduction)


def _keep_all_reduce(unit: Unit, reduction: Reduction) -> None:
    """HSDP: FSDP shards within a replica as before, and leaves what it would all-reduce to its hook."""
    from torch.distributed.fsdp._fully_shard._fsdp_common import FSDPMeshInfo

    both = unit.group.mesh_info
    reduction.guard.undo.append(partial(setattr, unit.group, "mesh_info", both))
    unit.group.mesh_info = FSDPMeshInfo(mesh=both.mesh, shard_mesh_dim=both.shard_mesh_dim)


def _is_hybrid(info: Any) -> bool:
    return hasattr(info, "replicate_process_group") and hasattr(info, "shard_process_group")
