"""A small network on scikit-learn's digits, trained by the ranks of torchrun: RobustSGD for SGD.

    torchrun --nproc-per-node 4 robust_sgd.py [--faulty K]

With --faulty K, the last K ranks have bad data: inputs a thousand times too large, labels off by five.
"""

from __future__ import annotations

import argparse

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from byzopt.distributed import RobustSGD

STEPS, BATCH, LR = 300, 32, 0.1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--faulty", type=int, default=0)
    faulty = parser.parse_args().faulty

    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.set_num_threads(1)
    torch.manual_seed(0)

    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32) / 16
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(images))
    test, own = order[:297], order[297:][rank::world]
    generator = torch.Generator().manual_seed(1 + rank)

    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    model = DistributedDataParallel(model)
    optimizer = RobustSGD(model, lr=LR, momentum=0.9, rule="rfa", f=1)

    for _ in range(STEPS):
        batch = own[torch.randint(len(own), (BATCH,), generator=generator)]
        inputs, targets = images[batch], labels[batch]
        if rank >= world - faulty:
            inputs, targets = 1000 * inputs, (targets + 5) % 10
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()

    if rank == 0:
        with torch.no_grad():
            right = (model.module(images[test]).argmax(dim=1) == labels[test]).float().mean()
        print(f"test accuracy {right:.3f}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
