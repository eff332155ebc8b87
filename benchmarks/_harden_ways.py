"""What a step of `_harden_time.py` is: a model of d parameters, wrapped, plain or hardened, and the floor.

The floor moves what a hardened step moves, columns out and answers back, and does nothing with them: what is
above it is the rule's arithmetic, and what waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from byzopt import harden
from byzopt.distributed import robust_all_reduce
from byzopt.distributed.communicator import Communicator
from byzopt.distributed.harden.transfer import swap

RULES = {"geometric": "nnm >> rfa", "coordinate": "trimmed_mean", "whole model": "nnm >> rfa"}
WAYS = {
    "DDP": ("plain", "floor", "geometric", "coordinate", "no exchange"),
    "FSDP2": ("plain", "floor", "geometric", "coordinate", "whole model"),
}
ALONE = ("plain alone", "geometric alone", "coordinate alone")
Run = Callable[[], Any]


def perceptron(d: int) -> nn.Sequential:
    """About d parameters in ten square layers; four for 10⁶ and less."""
    depth = 10 if d > 10**6 else 4
    width = int((d / depth) ** 0.5)
    torch.manual_seed(0)
    return nn.Sequential(*[m for _ in range(depth) for m in (nn.Linear(width, width), nn.ReLU())])


def own_randn(*shape: int) -> Tensor:
    """Numbers that no other rank has."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1 + dist.get_rank()))


def tolerated(n: int) -> int:
    return (n - 1) // 3


def step(wrapper: str, way: str, d: int, batch: int) -> Run:
    """A forward and a backward pass on this rank's own samples."""
    module = perceptron(d)
    inputs = own_randn(batch, module[0].in_features)
    model = (replicated if wrapper == "DDP" else sharded)(module, way)
    apart = model.no_sync if way == "no exchange" else nullcontext

    def run() -> None:
        model.zero_grad()
        with apart():
            model(inputs).square().mean().backward()

    return run


def replicated(module: nn.Module, way: str) -> Any:
    model = DistributedDataParallel(module)
    if way == "floor":
        model.register_comm_hook(BareColumns(), bare_columns)
    elif way in RULES:
        harden(model, RULES[way], f=tolerated(dist.get_world_size()))
    return model


def sharded(module: nn.Sequential, way: str) -> Any:
    n = dist.get_world_size()
    mesh = init_device_mesh("cpu", (n,))
    layers = [layer for layer in module if isinstance(layer, nn.Linear)]
    for layer in (*layers, module):
        fully_shard(layer, mesh=mesh)
    if way == "floor":
        for layer in layers:
            layer.set_custom_reduce_scatter(BareScatter())
    elif way in RULES:
        harden(module, RULES[way], f=tolerated(n), scope="model" if way == "whole model" else "unit")
    return module


def alone(way: str, d: int) -> Run:
    """An exchange of d numbers and nothing else."""
    vec, kind = own_randn(d), way.removesuffix(" alone")
    if kind == "plain":
        return lambda: dist.all_reduce(vec)
    return lambda: robust_all_reduce(vec, RULES[kind], f=tolerated(dist.get_world_size()))


class BareColumns:
    """The state of a hook that sends a bucket's columns and sends a block of as many numbers back, by gloo's
    own all-to-all."""

    def __init__(self) -> None:
        self.comm, self.blocks = Communicator(), dict[int, Tensor]()

    def block(self, index: int, numbers: int) -> Tensor:
        held = self.blocks.get(index)
        if held is None or len(held) != numbers:
            self.blocks[index] = held = torch.empty(numbers)
        return held


def bare_columns(state, bucket):  # type: ignore[no-untyped-def]  # DDP reads annotations, and not as strings
    whole, comm = bucket.buffer(), state.comm
    widths = [stop - start for start, stop in comm.columns(len(whole))]
    own = [widths[comm.rank]] * comm.n
    block = state.block(bucket.index(), sum(own))
    dist.all_to_all_single(block, whole, own, widths, async_op=True)
    back = dist.all_to_all_single(whole, block, widths, own, async_op=True)
    told: Future[Tensor] = back.get_future().then(lambda _: whole)
    return told


class BareScatter:
    """A reduce-scatter that moves its columns, and adds nothing up."""

    def __init__(self) -> None:
        self.comm = Communicator()

    def allocate(self, size: Any, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    @torch.no_grad()
    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: Any, op: Any, async_op: bool = False
    ) -> None:
        rows = input_tensor.new_empty(self.comm.n, len(output_tensor))
        swap(self.comm, list(input_tensor.view(self.comm.n, -1)), list(rows)).wait()
        output_tensor.copy_(rows[self.comm.rank])
