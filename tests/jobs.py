"""Jobs whose ranks tests kill and stop: real processes of one group, and files in which they report."""

from __future__ import annotations

import os
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch._dynamo  # what optimizers load, once, and not in every rank
import torch.distributed as dist
import torch.multiprocessing as mp

PATIENCE = 120  # seconds until a test gives up; nothing waits for it when all is well


def leave_together(place, rank, ranks):
    """Wait until so many ranks are done: one that is behind still wants what the others know."""
    (place / f"{rank} is done").touch()
    end = time.monotonic() + PATIENCE
    while len(list(place.glob("* is done"))) < ranks and time.monotonic() < end:
        time.sleep(0.01)


class Job:
    """n ranks that play a function in processes of their own, and a folder where they tell of themselves."""

    def __init__(self, n, play, *arguments):
        self.place = tempfile.TemporaryDirectory()
        self.path = Path(self.place.name)
        context = mp.get_context("fork")
        self.ranks = [context.Process(target=self._one, args=(rank, n, play, arguments)) for rank in range(n)]

    def _one(self, rank, n, play, arguments):
        torch.set_num_threads(1)
        store = dist.FileStore(str(self.path / "store"), n)
        patience = timedelta(seconds=PATIENCE)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=n, timeout=patience)
        torch.save(play(rank, self.path, *arguments), self.path / f"{rank}.part")
        os.replace(self.path / f"{rank}.part", self.path / f"{rank}.pt")
        os._exit(0)  # the group's own goodbye would wait for the dead

    def __enter__(self):
        for rank in self.ranks:
            rank.start()
        return self

    def __exit__(self, *_):
        for rank in self.ranks:
            rank.kill()
            rank.join()
        self.place.cleanup()

    def signal(self, rank, what):
        os.kill(self.ranks[rank].pid, what)

    def wait_for(self, name):
        self._wait((self.path / name).exists, name)

    def wait_until(self, rank, t):
        """Until `rank` is about to make round t, or a later one, or has ended."""
        self._wait(lambda: self._is_there(rank, t) or (self.path / f"{rank}.pt").exists(), (rank, t))

    def _is_there(self, rank, t):
        return any(self._round(path) >= t for path in self.path.glob(f"{rank} at *"))

    @staticmethod
    def _round(path):
        return int(path.name.split()[-1])

    @staticmethod
    def _wait(ready, what):
        end = time.monotonic() + PATIENCE
        while not ready():
            assert time.monotonic() < end, what
            time.sleep(0.01)

    def results(self, ranks):
        for rank in ranks:
            self.wait_for(f"{rank}.pt")
        return {rank: torch.load(self.path / f"{rank}.pt", weights_only=False) for rank in ranks}
