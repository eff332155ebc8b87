"""`harden` on a torch that lacks what it is built on: refused at once, by name, and nothing has changed."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.fsdp._fully_shard import _fsdp_collectives, _fsdp_common
from torch.nn.parallel import DistributedDataParallel

from byzopt import harden
from byzopt.distributed.harden import ddp, fsdp
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


def test_what_both_need_of_autograd(monkeypatch):
    monkeypatch.delattr(torch.autograd.grad_mode, "_unsafe_preserve_version_counter")
    for model in (sharded(), DistributedDataParallel(nn.Linear(3, 2))):
        assert "'_unsafe_preserve_version_counter' of torch.autograd.grad_mode" in refused(model)


def test_with_all_of_them_nothing_is_refused():
    for model in (sharded(), DistributedDataParallel(nn.Linear(3, 2))):
        guard = harden(model, "median", f=0)
        model(torch.ones(4, 3)).sum().backward()
        assert guard.rounds == 1
