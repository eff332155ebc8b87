"""Whether a stranger's part does the same in the same rounds: figures that do not come again do not count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from byzopt.benchmark.entries import Entry, shipped_entries
from byzopt.benchmark.protocol import HELD_OUT
from byzopt.errors import require
from byzopt.experiments import Spec
from byzopt.experiments.running import prepare_spec
from byzopt.experiments.trials.outcome import RunProgress
from byzopt.experiments.trials.trial import Trial
from byzopt.tasks import Task

ROUNDS = 3


def check_repeats(entry: Entry, data: Mapping[str, Any]) -> None:
    """Play a few rounds of a spec three times, twice with the same parts and once with parts that are built
    anew, and refuse an entry under which they differ.

    What draws from a generator of its own, or of the process, is found so, as it begins too, and what keeps a
    memory outside of the states that a run carries.

    Args:
        entry: Whose parts these are; those that come with byzopt are known to repeat themselves.
        data: Plain data of a spec.

    Raises:
        InvalidInput: They do not all end in the same point, to the last bit.
    """
    if entry.name in shipped_entries():
        return
    tasks: dict[Any, Task] = {}
    few = {**data, "rounds": ROUNDS, "eval_every": ROUNDS, "seed": HELD_OUT}
    ready, anew = (prepare_spec(Spec.of(few), tasks) for _ in range(2))
    first, *others = (
        Trial(each, RunProgress(each.start), lambda record: None).run(lambda t: False)
        for each in (ready, ready, anew)
    )
    require(
        all(one.status == first.status and _same(one.x, first.x) for one in others),
        f"Entry {entry.name}",
        "come to the same point, to the last bit, when a run is played again: figures are replayed",
        f"another point after {ROUNDS} rounds of the same run",
        "Draw from what a part is handed (its seed and round, a generator), and remember in states alone.",
    )


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is None or other is None or torch.equal(one, other)
