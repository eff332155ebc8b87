"""Aggregates of runs side by side, some of which are to be certified."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from byzopt.aggregators.core.certificate import Certificate
from byzopt.aggregators.core.filters import Filter, RoundContext


def certifying_step(
    t: int, faulty: Mapping[int, int], told: dict[int, Certificate]
) -> Callable[..., tuple[Tensor, Any]]:
    """What `bunches.call_parts` makes of filters in round t. `faulty` are the runs whose aggregates are to be
    certified, and for how many faulty rows; their certificates are put into `told`."""

    def aggregate(
        part: Filter, state: Any, who: int | tuple[int, ...], rows: Tensor, x: Tensor
    ) -> tuple[Tensor, Any]:
        runs = (who,) if isinstance(who, int) else who
        liars = {faulty[r] for r in runs if r in faulty}
        if not liars:
            return part.step(state, rows, RoundContext(t, x))
        # Runs side by side nearly always have equally many liars; the others are certified on their own.
        out, after, found = part.certified_step(state, rows, RoundContext(t, x), max(liars))
        for k, (r, one) in enumerate(zip(runs, found, strict=False)):
            if faulty.get(r) == max(liars):
                told[r] = one
            elif r in faulty:  # a filter that takes several runs at once has no memory of its own
                own = part.certified_step((), rows[k], RoundContext(t, x[k]), faulty[r])[2]
                told.update(zip([r], own, strict=False))
        return out, after

    return aggregate
