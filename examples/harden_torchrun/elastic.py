"""The script with RobustSGD and checkpoints, so that torchrun can start it again where it died.

    torchrun --nproc-per-node 4 --max-restarts 3 elastic.py --keep FOLDER [--steps T] [--out FILE]

Kill any rank at any time: torchrun starts all ranks anew, they go on from the newest round that all of them
have kept, and the result is the same to the last bit. With --die-at T, rank 1 kills itself before step T.
"""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn

from byzopt.distributed import RankCheckpoints, RobustSGD, init_process_group

BATCH, LR, EVERY = 32, 0.1, 10


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--die-at", type=int, default=0)
    options = parser.parse_args()

    init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.set_num_threads(1)
    torch.manual_seed(0)

    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32) / 16
    labels = torch.tensor(digits.target)
    own = torch.randperm(len(images))[rank::world]

    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = RobustSGD(model.parameters(), lr=LR, momentum=0.9, rule="rfa", f=1)
    checkpoints = RankCheckpoints(options.keep)
    start = checkpoints.restore(model=model, optimizer=optimizer)

    for t in range(start + 1, options.steps + 1):
        if t == options.die_at and rank == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        # What a step draws depends on the step and the rank alone, so that a restart draws it again.
        generator = torch.Generator().manual_seed(1_000_003 * rank + t)
        batch = own[torch.randint(len(own), (BATCH,), generator=generator)]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()
        if t % EVERY == 0:
            checkpoints.save(t, model=model, optimizer=optimizer)

    if rank == 0 and options.out:
        torch.save({"start": start, "x": optimizer.answer()}, options.out)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
