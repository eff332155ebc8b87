"""The script under wrappers that torch and byzopt bring: ZeRO, FSDP2, HSDP, local steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer

from _harden_script import FAULTS, FAULTY, STEPS, Linear, Script
from byzopt.distributed import LocalSteps
from byzopt.distributed.local import nesterov


class Zero(Script):
    """`ZeroRedundancyOptimizer`: every rank holds a part of the optimizer's state."""

    def make_optimizer(self) -> Any:
        return ZeroRedundancyOptimizer(
            self.model.parameters(), torch.optim.AdamW, lr=3e-3, betas=self.case.betas
        )

    def resume(self) -> None:
        self.optimizer.consolidate_state_dict(0)
        if self.rank:
            self.optimizer._all_state_dicts = [{}]  # asked for on all ranks, used from rank 0
        told = [(self.module.state_dict(), self.optimizer.state_dict() if self.rank == 0 else None)]
        dist.broadcast_object_list(told)
        own = self.guard.state_dict()
        self.build()
        self.module.load_state_dict(told[0][0])
        self.optimizer.load_state_dict(told[0][1])
        self.guard.load_state_dict(own)


class Sharded(Script):
    """FSDP2: every layer a unit."""

    def mesh(self) -> Any:
        return init_device_mesh("cpu", (self.n,))

    def wrap(self, module: nn.Module) -> Any:
        mesh = self.mesh()
        for layer in module:
            if isinstance(layer, Linear):
                fully_shard(layer, mesh=mesh)
        return fully_shard(module, mesh=mesh)

    @contextmanager
    def without_exchange(self) -> Iterator[None]:
        self.model.set_requires_gradient_sync(False)
        yield
        self.model.set_requires_gradient_sync(True)

    def resume(self) -> None:
        """Every rank keeps its own shards."""
        kept = self.module.state_dict(), self.optimizer.state_dict(), self.guard.state_dict()
        kept = ({name: each.clone() for name, each in kept[0].items()}, *kept[1:])
        self.build()
        for each, state in zip((self.module, self.optimizer, self.guard), kept, strict=True):
            each.load_state_dict(state)

    def parameters(self) -> Tensor:
        return torch.cat([p.full_tensor().detach().reshape(-1) for p in self.module.parameters()])


class Hybrid(Sharded):
    """HSDP: three replicas of two shards each. A faulty rank makes its replica faulty."""

    ranks = 6

    def mesh(self) -> Any:
        return init_device_mesh("cpu", (self.n // 2, 2), mesh_dim_names=("replicas", "shards"))


class Local(Script):
    """DiLoCo: five local steps, then an exchange. What is faulty is a rank's pseudo-gradient."""

    every = 5

    def wrap(self, module: nn.Module) -> Any:
        return module

    def break_layers(self) -> None:
        self.forging: Callable[[Tensor], Tensor] | None = None
        if self.case.fault and self.rank == FAULTY:
            forge = FAULTS[self.case.fault]()
            self.forging = lambda gone: forge(gone, self.t + 1)

    def without_exchange(self) -> Any:
        return nullcontext()

    def harden(self) -> Any:
        rule, self.start = self.case.rule, self.flat()
        if rule is None:
            return Averaged(self)
        deadline = self.case.deadline
        return LocalSteps(self.module, self.every, rule, self.case.f, on_fault=self.forget, deadline=deadline)

    def steps(self) -> Iterator[int]:
        if self.case.deadline is None:
            yield from super().steps()
            return
        while self.guard.rounds * self.every < STEPS:
            yield self.guard.rounds * self.every + self.guard.taken % self.every

    def forget(self) -> None:
        """NaN in the averages of a rank's AdamW would never leave them."""
        self.optimizer.state.clear()

    @torch.no_grad()
    def after_step(self) -> None:
        if (self.t + 1) % self.every == 0 and self.forging is not None:
            self.write(self.start - self.forging(self.start - self.flat()))
        if self.guard.step():
            self.start = self.flat()

    def resume(self) -> None:
        """Every rank keeps its own inner optimizer."""
        kept = self.module.state_dict(), self.optimizer.state_dict(), self.guard.state_dict()
        self.build()
        for each, state in zip((self.module, self.optimizer, self.guard), kept, strict=True):
            each.load_state_dict(state)
        self.start = self.guard.point.detach().clone()

    def flat(self) -> Tensor:
        return torch.cat([p.detach().reshape(-1) for p in self.module.parameters()])

    @torch.no_grad()
    def write(self, x: Tensor) -> None:
        """Copies, where `vector_to_parameters` would make the parameters views of x."""
        parameters = list(self.module.parameters())
        for p, piece in zip(parameters, x.split([p.numel() for p in parameters]), strict=True):
            p.copy_(piece.view_as(p))


class Averaged:
    """DiLoCo without a rule: pseudo-gradients and buffers are averaged."""

    def __init__(self, script: Local) -> None:
        self.script, self.taken = script, 0
        self.point = nn.Parameter(script.flat())
        self.outer = nesterov([self.point])

    def step(self) -> bool:
        self.taken += 1
        if self.taken % self.script.every:
            return False
        self.point.grad = self.point.detach() - self.script.flat()
        floats = [b for b in self.script.module.buffers() if b.dtype.is_floating_point]
        for each in (self.point.grad, *floats):
            dist.all_reduce(each)
            each /= self.script.n
        self.outer.step()
        self.script.write(self.point.detach())
        return True
