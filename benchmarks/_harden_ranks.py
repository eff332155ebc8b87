"""How benchmarks/harden.py plays several ranks: gloo processes on this machine, one thread each."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # what optimizers load: once, and not in every rank
import torch.distributed as dist
import torch.multiprocessing as mp


def played(n: int, play: Callable[..., Any], *arguments: Any) -> list[Any]:
    """`play(rank, *arguments)` in n processes of one group; the results by rank."""
    with tempfile.TemporaryDirectory() as place:
        mp.start_processes(_one, (n, place, play, arguments), nprocs=n, start_method="fork")
        return [torch.load(Path(place, f"{rank}.pt"), weights_only=False) for rank in range(n)]


def _one(rank: int, n: int, place: str, play: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{place}/store", n)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=n, timeout=timedelta(minutes=10))
    torch.save(play(rank, *arguments), Path(place, f"{rank}.pt"))
    dist.barrier()
    dist.destroy_process_group()
