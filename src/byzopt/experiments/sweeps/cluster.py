"""The same batches as tasks of a Ray cluster, whose machines share the store's file system."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

from byzopt.errors import MissingExtra
from byzopt.experiments.store.run_store import RunStore, Unwritable, store_writes
from byzopt.experiments.sweeps.batch_runner import BatchStatus, OnEvent
from byzopt.experiments.sweeps.batches import RunBatch
from byzopt.experiments.sweeps.queue import BatchQueue
from byzopt.experiments.sweeps.run_batch import run_batch

WAIT = 0.2


def run_ray(
    batches: Sequence[RunBatch],
    store: RunStore,
    tell: OnEvent,
    stopped: Callable[[], bool],
    every: float | None,
) -> None:
    """Play all batches as tasks of one core each on the Ray cluster at hand, or on one that is started here.

    The cluster is the one of `RAY_ADDRESS`, or that the program has joined. Every machine must have byzopt
    and see the store under the same path. Errors: `MissingExtra`; `Unwritable`.
    """
    try:
        import ray
    except ImportError:
        raise MissingExtra('Engine "ray" needs the package ray. Run: pip install "byzopt[ray]"') from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False, configure_logging=False)
    remote = ray.remote(num_cpus=1, max_retries=0)(_task)
    work = BatchQueue(batches, store, tell)
    halt = store.root.resolve() / "claims" / f"stop-{uuid4().hex}"
    under_way: dict[Any, RunBatch] = {}
    while work.left:
        if stopped():
            with store_writes(store.root):
                halt.touch()
        while not halt.exists() and (batch := work.next()) is not None:
            under_way[remote.remote(batch, store.root.resolve(), halt, every)] = batch
        if not under_way and halt.exists():
            break
        if not under_way:
            sleep(WAIT)
            continue
        for one in ray.wait(list(under_way), timeout=WAIT)[0]:
            _hear(ray, one, under_way.pop(one), work, tell)
    halt.unlink(missing_ok=True)


def _hear(ray: Any, one: Any, batch: RunBatch, work: BatchQueue, tell: OnEvent) -> None:
    try:
        played, said = ray.get(one)
    except ray.exceptions.RayTaskError as error:
        cause = error.as_instanceof_cause()
        raise cause if isinstance(cause, Unwritable) else error from None
    except ray.exceptions.RayError as error:
        work.crashed(batch, type(error).__name__)
        return
    for kind, content in said:
        tell(kind, content)
    work.ended(batch, BatchStatus(played))


def _task(batch: RunBatch, root: Path, halt: Path, every: float | None) -> tuple[str, list[Any]]:
    said: list[Any] = []
    asked = [monotonic(), False]

    def tell(kind: str, content: Any) -> None:
        if kind != "rounds":
            said.append((kind, content))

    def stop() -> bool:
        if monotonic() - asked[0] > WAIT:
            asked[:] = [monotonic(), halt.exists()]
        return bool(asked[1])

    with suppress(FileNotFoundError):
        return str(run_batch(batch, RunStore(root), tell, stop, every)), said
    return str(BatchStatus.BUSY), said
