"""What is said of a cell or a defence beside its runs: how much honest data differ, and a round's time."""

from __future__ import annotations

from functools import cache
from math import nan
from time import process_time
from typing import Any

from byzopt.benchmark.entries import load_entry
from byzopt.benchmark.protocol import REFERENCE, SEEDS, Cell
from byzopt.benchmark.rows import Row
from byzopt.experiments import Spec
from byzopt.experiments.running import prepare_spec
from byzopt.experiments.trials.outcome import RunProgress
from byzopt.experiments.trials.trial import Trial

ROUNDS = 40  # of a timed training, beside one of a single round
REPEATS = 5  # of them, of which the quickest counts


@cache
def different(cell: Cell) -> tuple[tuple[int, float], ...]:
    """How different honest workers' data are: h = var/‖m‖² of their full gradients, at three rounds.

    m is the mean of the honest workers' gradients over all of their own data, var the mean of their squared
    distances to m, at points of an unattacked training by the mean on the first seed. Minibatches add noise.

    Args:
        cell: Where.

    Returns:
        Pairs of a round and h: at the start, after a quarter, and at the end.
    """
    found = []
    for rounds in (1, cell.spec["rounds"] // 4, cell.spec["rounds"]):
        spec = _reference(cell, rounds)
        ready = prepare_spec(spec, {})
        task = ready.task
        x = Trial(ready, RunProgress(ready.start), lambda record: None).run(lambda t: False).x
        assert x is not None
        rows = task.grads(x, task.full())[list(task.cohort.honest)].double()
        mean = rows.mean(dim=0)
        spread = (rows - mean).square().sum(dim=1).mean()
        found.append((rounds, float(spread / mean.square().sum())))
    return tuple(found)


def slower(row: Row) -> float:
    """How many times as long a round takes as with the mean in its place, on this processor.

    Of short unattacked trainings by each, and of trainings of one round, the quickest of several, in turn, by
    the processor's own time. What both have, such as figures before and after, is taken off.

    Args:
        row: A row that has chosen its setting.

    Returns:
        The ratio; NaN where the processor was too busy to tell.
    """
    cell = Cell.of(row.cell)

    def mine(rounds: int) -> Spec:
        short = {"rounds": rounds, "eval_every": rounds, "attack": "none", "seed": SEEDS[0]}
        return Spec.of({**row.spec, "rule": row.rules[0], **short})

    specs = [mine(ROUNDS), mine(1), _reference(cell, ROUNDS), _reference(cell, 1)]
    each = [(prepare_spec(spec, {}), list[float]()) for spec in specs]
    for _ in range(REPEATS):
        for ready, spent in each:
            began = process_time()
            Trial(ready, RunProgress(ready.start), lambda record: None).run(lambda t: False)
            spent.append(process_time() - began)
    long, one, plain, plain_one = (min(spent) for _, spent in each)
    return (long - one) / (plain - plain_one) if long > one and plain > plain_one else nan


def _reference(cell: Cell, rounds: int) -> Spec:
    """A short unattacked training by the mean, with the middle one of its settings."""
    data: dict[str, Any] = load_entry(REFERENCE).specs(cell)[1]
    return Spec.of({**data, "attack": "none", "seed": SEEDS[0], "rounds": rounds, "eval_every": rounds})
