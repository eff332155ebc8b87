"""A spec over processes: spawned on this machine, or those that torchrun has started already.

python -m byzopt.experiments.processes FOLDER RANK RANKS < spec.json     # how one spawned process is started
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
import torch.distributed as dist

from byzopt.attacks import Adversary
from byzopt.distributed.link import Link
from byzopt.engines.process_group import Share, announce, serve
from byzopt.errors import require
from byzopt.experiments.spec import Spec


@contextmanager
def processes(spec: Spec, count: int | None = None) -> Iterator[Link | None]:
    """The link of `count` processes (default: one for each worker) to rank 0, while they serve `spec`.

    Under torchrun they are the ranks that it started; there the others get None, when all is over.
    """
    ranks = [variant.n for variant in spec.variants().values()]
    count = int(os.environ["WORLD_SIZE"]) if launched() else count or min(ranks)
    require(1 <= count <= min(ranks), "The number of processes", f"lie in 1..n = {min(ranks)}", count)
    with tempfile.TemporaryDirectory() as folder:
        children = [] if launched() else [_start(spec, folder, rank, count) for rank in range(1, count)]
        try:
            link = _joined(None if launched() else Path(folder), 0, count)
            if link.rank:
                serve(link, shares(spec, link))
                yield None
            else:
                try:
                    yield link
                finally:
                    with suppress(RuntimeError):  # a process that is gone has been told of already
                        announce(link)
        finally:
            dist.destroy_process_group()
            for child in children:
                _end(child)


def launched() -> bool:
    """Whether torchrun started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def shares(spec: Spec, link: Link) -> list[Share]:
    """This process's workers in every variant of the spec, in order."""
    found = []
    for variant in spec.variants().values():
        adversary = Adversary(variant.attack, variant.cohort, variant.f)
        task = adversary.poison(variant.task.build(variant.cohort, variant.seed))
        method = variant.method.build(variant.rule, variant.lr, variant.rounds)
        found.append(Share(task, method.worker, variant.seed, link))
    return found


def _joined(folder: Path | None, rank: int, count: int) -> Link:
    if folder is None:
        dist.init_process_group("gloo")
    else:
        place = f"file://{(folder / 'store').resolve()}"
        dist.init_process_group("gloo", init_method=place, rank=rank, world_size=count)
    return Link()


def _start(spec: Spec, folder: str, rank: int, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "byzopt.experiments.processes", folder, str(rank), str(count)]
    # A session of its own: an interrupt from the terminal is for rank 0, which stops in good order.
    child = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)
    assert child.stdin is not None
    with child.stdin:
        child.stdin.write(json.dumps(spec.data))
    return child


def _end(child: subprocess.Popen[str]) -> None:
    try:
        child.wait(timeout=10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def main() -> None:
    """One spawned process: reads the spec, joins, plays its workers until rank 0 is done."""
    folder, rank, count = sys.argv[1:]
    spec = Spec.of(json.load(sys.stdin))
    torch.set_num_threads(1)
    link = _joined(Path(folder), int(rank), int(count))
    try:
        serve(link, shares(spec, link))
    except RuntimeError:
        sys.exit(1)  # rank 0 is gone; it has said why
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
