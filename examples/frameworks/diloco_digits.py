"""DiLoCo: ranks train alone for five steps, and a rule combines how far each has come.

torchrun --nproc-per-node 4 examples/frameworks/diloco_digits.py --faulty
torchrun --nproc-per-node 4 examples/frameworks/diloco_digits.py --faulty --undefended
"""

import argparse

import torch
import torch.distributed as dist
from digits import accuracy, digits, network
from torch.nn import functional

from byzopt.distributed import LocalSteps

STEPS, EVERY = 100, 5


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--faulty", action="store_true")
    parser.add_argument("--undefended", action="store_true")
    options = parser.parse_args()
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    torch.set_num_threads(1)
    model = network()
    rule, f = ("mean", 0) if options.undefended else ("rfa", 1)
    local = LocalSteps(model, every=EVERY, rule=rule, f=f)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    x, y = digits(rank, ranks).tensors
    generator = torch.Generator().manual_seed(rank)
    faulty = options.faulty and rank == 1
    start = [p.detach().clone() for p in model.parameters()]
    for t in range(1, STEPS + 1):
        batch = torch.randint(len(x), (32,), generator=generator)
        functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
        optimizer.zero_grad()
        if faulty and t % EVERY == 0:  # ten times as far, the other way
            with torch.no_grad():
                for p, s in zip(model.parameters(), start, strict=True):
                    p.copy_(s - 10 * (p - s))
        if local.step():
            start = [p.detach().clone() for p in model.parameters()]
    if rank == 0:
        print(f"accuracy {accuracy(model):.3f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
