"""DDP with AdamW, parameter groups, accumulation, bfloat16, clipping and a schedule, hardened in a line.

torchrun --nproc-per-node 4 examples/frameworks/adamw_digits.py --faulty
torchrun --nproc-per-node 4 examples/frameworks/adamw_digits.py --faulty --undefended
"""

import argparse
from contextlib import nullcontext

import torch
import torch.distributed as dist
from digits import accuracy, digits, network
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from byzopt import harden

STEPS, ACCUMULATE = 60, 2


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--faulty", action="store_true")
    parser.add_argument("--undefended", action="store_true")
    options = parser.parse_args()
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    torch.set_num_threads(1)
    model = DistributedDataParallel(network())
    if not options.undefended:
        harden(model, "rfa", f=1)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": others}], lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=STEPS)
    x, y = digits(rank, ranks).tensors
    generator = torch.Generator().manual_seed(rank)
    lie = -10 if options.faulty and rank == 1 else 1
    for _ in range(STEPS):
        for k in range(ACCUMULATE):
            batch = torch.randint(len(x), (16,), generator=generator)
            with model.no_sync() if k < ACCUMULATE - 1 else nullcontext():
                with torch.autocast("cpu", torch.bfloat16):
                    loss = functional.cross_entropy(model(x[batch]), y[batch]) / ACCUMULATE
                (lie * loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    if rank == 0:
        print(f"accuracy {accuracy(model.module):.3f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
