"""Process groups of jobs that torchrun may restart."""

from __future__ import annotations

import os
from datetime import timedelta

import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, TCPStore


def init_process_group(backend: str = "gloo", timeout: timedelta = timedelta(minutes=30)) -> None:
    """`torch.distributed.init_process_group(backend)`, with a rendezvous of its own for each restart by
    torchrun.

    torchrun's agent keeps one store for all attempts. Restarted gloo ranks that join at different moments
    find in it the addresses of those that died, and wait for them until the timeout (seen with torch 2.13).

    Args:
        backend: "gloo" or "nccl".
        timeout: How long operations wait for a rank.

    Examples:
        At the start of a script for `torchrun`:

            from byzopt.distributed import init_process_group

            init_process_group("gloo")
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != str(True):
        dist.init_process_group(backend, timeout=timeout)
        return
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    shared = TCPStore(host, port, is_master=False, timeout=timeout)
    store = PrefixStore(f"restart-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", shared)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timeout)
