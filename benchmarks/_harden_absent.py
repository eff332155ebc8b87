"""A rank that dies, under `DistributedDataParallel`: the script with a deadline, and without."""

from __future__ import annotations

import os
import tempfile
from datetime import timedelta
from time import sleep
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from _harden_script import FAULTY, RULE, Case, Script
from byzopt import harden

DEADLINE, AT = 10.0, 20


class Mortal(Script):
    """Rank 1 is gone from step 20 on."""

    def harden(self) -> Any:
        return harden(self.model, RULE, f=1, deadline=DEADLINE) if self.case.rule else None

    def batch(self, generator: torch.Generator) -> Any:
        if self.rank == FAULTY and self.t == AT:
            os._exit(0)
        return super().batch(generator)


def reached(hardened: bool) -> float | str:
    """Accuracy of rank 0, or the name of the error that it ends in."""
    with tempfile.TemporaryDirectory() as place:
        mp.start_processes(_one, (place, hardened), nprocs=Script.ranks, start_method="fork")
        found: float | str = torch.load(f"{place}/found.pt", weights_only=True)
        return found


def _one(rank: int, place: str, hardened: bool) -> None:
    torch.set_num_threads(1)
    store, wait = dist.FileStore(f"{place}/store", Script.ranks), timedelta(seconds=60)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=Script.ranks, timeout=wait)
    script = Mortal(Case(RULE if hardened else None))
    found: float | str
    try:
        script.run()
        found = script.evaluated()[0]
    except RuntimeError as error:
        found = type(error).__name__
    if rank == 0:
        torch.save(found, f"{place}/found.pt")
    sleep(2)  # others may still want what this rank has sent
    os._exit(0)  # no barrier: one is gone
