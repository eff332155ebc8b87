"""Aggregates of runs side by side, some of which are to be certified."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from byzopt.aggregators.core.certificate import Certificate
from byzopt.aggregators.core.filters import Filter, RoundContext


def certifying_step(
    at: Callable[[int | tuple[int, ...], Tensor], RoundContext],
    faulty: Mapping[int, int],
    certificates: dict[int, Certificate],
) -> Callable[..., tuple[Tensor, Any]]:
    """How `call_parts` steps filters; `at(who, x)` is the context of runs in it.

    `faulty` maps the runs whose aggregates are to be certified to the number of faulty rows to certify for;
    their certificates are put into `certificates`.
    """

    def step(
        part: Filter, state: Any, who: int | tuple[int, ...], rows: Tensor, x: Tensor
    ) -> tuple[Tensor, Any]:
        runs = (who,) if isinstance(who, int) else who
        counts = {faulty[r] for r in runs if r in faulty}
        if not counts:
            return part.step(state, rows, at(who, x))
        # Runs side by side nearly always have equally many faulty rows; the others are certified alone.
        out, after, answers = part.certified_step(state, rows, at(who, x), max(counts))
        for k, (r, certificate) in enumerate(zip(runs, answers, strict=False)):
            if faulty.get(r) == max(counts):
                certificates[r] = certificate
            elif r in faulty:  # a filter that takes several runs at once has no memory of its own
                alone = part.certified_step((), rows[k], at(r, x[k]), faulty[r])[2]
                certificates.update(zip([r], alone, strict=False))
        return out, after

    return step
