"""Which runs are computed together: a pure function of the sweep and of what is stored."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from math import inf
from typing import NamedTuple

from byzopt.experiments.sweeps.runs import Run
from byzopt.experiments.trials.batched import batch_groups


class RunBatch(NamedTuple):
    """Runs that are computed together, in this order. What has been worked on for `patience` seconds is put
    aside with its checkpoint; it goes on where the same runs stand in the queue again."""

    runs: tuple[Run, ...]
    patience: float = inf

    @property
    def id(self) -> str:
        """A hash of who is in it."""
        return sha256(" ".join(self.ids).encode()).hexdigest()[:16]

    @property
    def ids(self) -> tuple[str, ...]:
        """Its runs' ids."""
        return tuple(run.id for run in self.runs)


def plan_batches(
    runs: Sequence[Run], missing: Collection[str], stored: Mapping[str, tuple[str, ...]], together: int
) -> list[RunBatch]:
    """The batches that compute all `missing` runs. `stored` maps runs to the ids that each was computed with.

    The last bits of a run may depend on who advances with it, as sums over several runs are taken in one
    call. So a missing run is computed in the batch that a stored run of the sweep names as its own and the
    missing one's; runs that nobody names, in the batch of the missing ones of their group. A sweep that was
    killed, or a run that was damaged or removed, thus comes out as if nothing had happened, bit for bit;
    and a sweep to which values were added computes the new runs alone.
    """
    known = {run.id: run for run in runs}
    earlier = {member: names for names in stored.values() if set(names) <= known.keys() for member in names}
    found: dict[tuple[str, ...], None] = {}
    for group in _groups(runs, together):
        wanted = [run.id for run in group if run.id in missing]
        fresh = tuple(run for run in wanted if run not in earlier)
        for run in wanted:
            found[earlier.get(run, fresh)] = None
    return [RunBatch(tuple(known[name] for name in names)) for names in found]


def _groups(runs: Sequence[Run], together: int) -> list[list[Run]]:
    """Groups of runs whose shapes agree, in parts of nearly equal size."""
    found = []
    for group in batch_groups([run.spec for run in runs]):
        parts = -(-len(group) // together)
        found += [[runs[i] for i in group[part::parts]] for part in range(parts)]
    return found
