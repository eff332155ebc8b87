"""`harden` on a torch that lacks what it is built on: refused at once, by name, and nothing has changed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.fsdp._fully_shard import _fsdp_collectives, _fsdp_common
from torch.nn.parallel import DistributedDataParallel

import byzopt
from byzopt import harden
from byzopt.distributed.harden import ddp, fsdp
from byzopt.distributed.harden.seams import AUTOGRAD
from byzopt.errors import InvalidInput


@pytest.fixture(scope="module", autouse=True)
def one_rank():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def sharded():
    return fully_shard(nn.Linear(3, 2), mesh=init_device_mesh("cpu", (1,)))


class Without:
    """Something as it is, but for one name."""

    def __init__(self, thing, name):
        self.__dict__.update(thing=thing, gone=name)

    def __getattr__(self, name):
        if name == self.gone:
            raise AttributeError(name)
        return getattr(self.thing, name)


def refused(model):
    with pytest.raises(InvalidInput) as caught:
        harden(model, "median", f=0)
    return str(caught.value)


@pytest.mark.parametrize("name", fsdp._OF_GROUPS)
def test_a_unit_without_a_seam(name):
    model = sharded()
    state = model._get_fsdp_state()
    state._fsdp_param_groups = [Without(each, name) for each in state._fsdp_param_groups]
    assert f"{name!r} of FSDP's unit" in refused(model)


@pytest.mark.parametrize("name", fsdp._OF_PARAMETERS)
def test_a_parameter_without_a_seam(name):
    model = sharded()
    (group,) = model._get_fsdp_state()._fsdp_param_groups
    group.fsdp_params = [Without(each, name) for each in group.fsdp_params]
    assert f"{name!r} of FSDP's parameters" in refused(model)


@pytest.mark.parametrize(
    ("module", "name"), [(_fsdp_collectives, "_get_gradient_divide_factors"), (_fsdp_common, "FSDPMeshInfo")]
)
def test_a_function_of_fsdp_that_is_gone(module, name, monkeypatch):
    model = sharded()
    monkeypatch.delattr(module, name)
    assert f"{name!r} of FSDP's" in refused(model)


@pytest.mark.parametrize("name", ["set_custom_reduce_scatter", "_get_fsdp_state"])
def test_a_method_of_fully_shard_that_is_gone(name, monkeypatch):
    from torch.distributed.fsdp import FSDPModule

    model = sharded()
    monkeypatch.delattr(FSDPModule, name)
    assert f"{name!r} of fully_shard" in refused(model)


def test_a_state_without_groups():
    model = sharded()
    state = model._get_fsdp_state()
    groups = state.__dict__.pop("_fsdp_param_groups")
    hidden = {"_fsdp_param_group"} & set(dir(type(state)))
    if not hidden:
        assert "of FSDP's state" in refused(model)
    state._fsdp_param_groups = groups


@pytest.mark.parametrize("name", ddp._SEAMS)
def test_distributed_data_parallel_without_a_seam(name, monkeypatch):
    model = DistributedDataParallel(nn.Linear(3, 2))
    if hasattr(DistributedDataParallel, name):
        monkeypatch.delattr(DistributedDataParallel, name)
    else:
        del model.__dict__[name]
    assert f"{name!r} of DistributedDataParallel" in refused(model)


@pytest.mark.parametrize("name", ddp._REDUCER)
def test_a_reducer_without_a_seam(name):
    model = DistributedDataParallel(nn.Linear(3, 2))
    model.reducer = Without(model.reducer, name)
    assert f"{name!r} of Reducer" in refused(model)


@pytest.mark.parametrize(("owner", "name"), [(owner, name) for owner, _, names in AUTOGRAD for name in names])
def test_what_both_need_of_autograd(owner, name, monkeypatch):
    seams = tuple((o, Without(each, name) if o == owner else each, names) for o, each, names in AUTOGRAD)
    for kind, model in ((fsdp, sharded()), (ddp, DistributedDataParallel(nn.Linear(3, 2)))):
        monkeypatch.setattr(kind, "AUTOGRAD", seams)
        assert f"{name!r} of {owner}" in refused(model)


def test_a_tensor_without_a_seam(monkeypatch):
    monkeypatch.setattr(fsdp, "Tensor", Without(torch.Tensor, "_post_accumulate_grad_hooks"))
    assert "'_post_accumulate_grad_hooks' of torch.Tensor" in refused(sharded())


# Names that nothing can be asked for before a step: a wrapper or DDP's `join` sets them later. Without them
# a compiled model is refused, schedulers inside of others are told as two of a kind, a mean is over all.
LATER = {"_orig_mod", "_schedulers", "_divide_by_initial_world_size", "_in_backward_optimizers"}
CHECKED = {
    "_fsdp_param_group",
    "_fsdp_param_groups",
    "_is_root",
    "_execution_engine",
    "_C",
    "_update_process_group",
}


def test_no_other_private_name_of_torch_is_in_use():
    own = {"_replace", "_fields"} | {name for path in SOURCES for name in names_made_in(path)}
    known = {name for _, _, names in AUTOGRAD for name in names}
    known |= {*ddp._SEAMS, *ddp._REDUCER, *fsdp._OF_GROUPS, *fsdp._OF_PARAMETERS, *LATER, *CHECKED}
    known |= {"_get_fsdp_state", "_get_gradient_divide_factors", "_post_accumulate_grad_hooks"}
    used = {(name, path.name) for path in HARDEN for name in private_names_in(path)}
    assert not {each for each in used if each[0] not in own | known}
    assert {"_comm_hooks", "_orig_mod", "_post_accumulate_grad_hooks"} <= {name for name, _ in used}


SOURCES = sorted(Path(byzopt.__file__).parent.joinpath("distributed").rglob("*.py"))
HARDEN = [path for path in SOURCES if path.parent.name == "harden"]


def tree_of(path):
    return ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def private_names_in(path):
    """Attributes that are read or asked for by name."""
    for node in tree_of(path):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            yield node.attr
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr", "setattr"):
            yield from (
                each.value
                for each in node.args
                if isinstance(each, ast.Constant)
                if is_private(str(each.value))
            )


def names_made_in(path):
    """Private functions, classes, and attributes of `self` that a file of this library makes."""
    for node in tree_of(path):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        stored = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if stored and getattr(node.value, "id", "") == "self":
            yield node.attr


def test_with_all_of_them_nothing_is_refused():
    for model in (sharded(), DistributedDataParallel(nn.Linear(3, 2))):
        guard = harden(model, "median", f=0)
        model(torch.ones(4, 3)).sum().backward()
        assert guard.rounds == 1
