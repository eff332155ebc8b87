"""How tests play several ranks: a function run in n gloo processes on this machine, and what it returned."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # what optimizers load, once, and not in every rank
import torch.distributed as dist
import torch.multiprocessing as mp


def play_ranks(n: int, play: Callable[..., Any], *arguments: Any) -> list[Any]:
    """`play(rank, *arguments)` in n processes of one group; the results by rank."""
    with tempfile.TemporaryDirectory() as place:
        mp.start_processes(
            _one, args=(n, place, play, arguments), nprocs=n, start_method=_method(), join=True
        )
        return [torch.load(Path(place, f"{rank}.pt"), weights_only=False) for rank in range(n)]


def _method() -> str:
    return "fork"  # torch is loaded already; a fresh interpreter costs seconds


def _one(rank: int, n: int, place: str, play: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    gc.freeze()  # what is here already is nobody's model, and takes a second to go through
    torch.set_num_threads(1)
    store = dist.FileStore(str(Path(place, "store")), n)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=n, timeout=timedelta(seconds=60))
    torch.save(play(rank, *arguments), Path(place, f"{rank}.pt"))
    dist.barrier()
    dist.destroy_process_group()
