"""FSDP2: every layer and the root sharded, and the root hardened.

torchrun --nproc-per-node 4 examples/frameworks/fsdp_digits.py --faulty
torchrun --nproc-per-node 4 examples/frameworks/fsdp_digits.py --faulty --undefended
"""

import argparse

import torch
import torch.distributed as dist
from digits import accuracy, digits, network
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional

from byzopt import harden

STEPS = 60


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--faulty", action="store_true")
    parser.add_argument("--undefended", action="store_true")
    options = parser.parse_args()
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    torch.set_num_threads(1)
    model, mesh = network(), init_device_mesh("cpu", (ranks,))
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    if not options.undefended:
        harden(model, "rfa", f=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    x, y = digits(rank, ranks).tensors
    generator = torch.Generator().manual_seed(rank)
    lie = -10 if options.faulty and rank == 1 else 1
    for _ in range(STEPS):
        batch = torch.randint(len(x), (32,), generator=generator)
        (lie * functional.cross_entropy(model(x[batch]), y[batch])).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    reached = accuracy(model)  # all ranks, since each holds a part of the model
    if rank == 0:
        print(f"accuracy {reached:.3f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
