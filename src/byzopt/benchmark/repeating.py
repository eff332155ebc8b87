"""Whether a stranger's part does the same in the same rounds: figures that do not come again do not count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from byzopt.benchmark.entries import Entry, shipped_entries
from byzopt.benchmark.protocol import HELD_OUT
from byzopt.errors import require
from byzopt.experiments import Spec
from byzopt.experiments.running import prepare_spec
from byzopt.experiments.trials.outcome import RunProgress
from byzopt.experiments.trials.trial import Trial

ROUNDS = 3


def check_repeats(entry: Entry, data: Mapping[str, Any]) -> None:
    """Play a few rounds of a spec twice, with the same parts, and refuse an entry under which they differ.

    What draws from a generator of its own, or of the process, is found so, and what keeps a memory outside of
    the states that a run carries.

    Args:
        entry: Whose parts these are; those that come with byzopt are known to repeat themselves.
        data: Plain data of a spec.

    Raises:
        InvalidInput: The two do not end in the same point, to the last bit.
    """
    if entry.name in shipped_entries():
        return
    ready = prepare_spec(Spec.of({**data, "rounds": ROUNDS, "eval_every": ROUNDS, "seed": HELD_OUT}), {})
    ends = [
        Trial(ready, RunProgress(ready.start), lambda record: None).run(lambda t: False) for _ in range(2)
    ]
    first, second = (one.x for one in ends)
    same = first is None or second is None or torch.equal(first, second)
    require(
        same and ends[0].status == ends[1].status,
        f"Entry {entry.name}",
        "come to the same point, to the last bit, when a run is played again: figures are replayed",
        f"another point after {ROUNDS} rounds of the same run",
        "Draw from what a part is handed (its seed and round, a generator), and remember in states alone.",
    )
