"""One batch of runs, claimed: nobody else computes them meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from byzopt.experiments.store.run_store import Shelf, writing
from byzopt.experiments.sweeps.batch_runner import Played, Player, Tell
from byzopt.experiments.sweeps.batches import Batch
from byzopt.experiments.sweeps.claims import Claims


def play(
    batch: Batch,
    shelf: Shelf,
    tell: Tell,
    stop: Callable[[], bool],
    every: float | None = None,
    threads: int = 1,
) -> Played:
    """Compute and store those runs of a batch that are not stored, from its checkpoint if there is one.

    Sums in another number of `threads` end on other bits. `every`: see `Pace`. `stop` is asked after every
    round; then a checkpoint is kept. Errors: `Unwritable`; what is wrong with a run is stored as its outcome,
    and the others go on.
    """
    with Claims(shelf.claims) as claims:
        with writing(shelf.root):
            taken = claims.take(_missing(batch, shelf))
        if not taken:
            return Played.BUSY
        # Somebody may have stored some of them before we claimed them.
        wanted = _missing(batch, shelf)
        if not wanted:
            return Played.DONE
        with _threads(threads):
            return Player(batch, shelf, wanted, tell, stop, every).play()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _missing(batch: Batch, shelf: Shelf) -> list[str]:
    return [run for run in batch.ids if shelf.look(run).kind in ("missing", "damaged")]
