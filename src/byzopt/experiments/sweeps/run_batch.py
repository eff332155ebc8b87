"""Running one batch under claims, so that nobody else computes its runs meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

import torch

from byzopt.experiments.store.run_store import RunStore, store_writes
from byzopt.experiments.sweeps.batch_runner import BatchRunner, BatchStatus, OnEvent
from byzopt.experiments.sweeps.batches import RunBatch
from byzopt.experiments.sweeps.claims import Claims


def run_batch(
    batch: RunBatch,
    store: RunStore,
    tell: OnEvent,
    stop: Callable[[], bool],
    every: float | None = None,
    threads: int = 1,
) -> BatchStatus:
    """Compute and store those runs of a batch that are not stored, from its checkpoint if there is one.

    Sums in another number of `threads` end on other bits. `every`: see `Pace`. `stop` is asked after every
    round, and the batch's patience looked at; then a checkpoint is kept. Errors: `Unwritable`; what is wrong
    with a run is stored as its outcome, and the others go on.
    """
    end = monotonic() + batch.patience

    def over() -> bool:
        return stop() or monotonic() >= end

    with Claims(store.claims) as claims:
        with store_writes(store.root):
            taken = claims.take(_missing(batch, store))
        if not taken:
            return BatchStatus.BUSY
        # Somebody may have stored some of them before we claimed them.
        wanted = _missing(batch, store)
        if not wanted:
            return BatchStatus.DONE
        with _threads(threads):
            return BatchRunner(batch, store, wanted, tell, over, every).play()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _missing(batch: RunBatch, store: RunStore) -> list[str]:
    return [run for run in batch.ids if store.inspect(run).kind in ("missing", "damaged")]
