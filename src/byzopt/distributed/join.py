"""Joining torchrun's job so that it can be started again."""

from __future__ import annotations

import os
from datetime import timedelta

import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, TCPStore


def join(backend: str = "gloo", timeout: timedelta = timedelta(minutes=30)) -> None:
    """`init_process_group(backend)` under torchrun, with the meeting place of each restart its own.

    torchrun's agent keeps one store for all attempts. Restarted gloo ranks that join at different moments
    find in it the addresses of those that died, and wait for them until the timeout (seen with torch 2.13).
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != str(True):
        dist.init_process_group(backend, timeout=timeout)
        return
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    shared = TCPStore(host, port, is_master=False, timeout=timeout)
    store = PrefixStore(f"restart-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", shared)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timeout)
