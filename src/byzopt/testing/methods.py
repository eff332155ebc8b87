"""What every method promises: it runs, repeats, survives faulty rows, and one worker moves no other's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from byzopt.aggregators import NNM, Mean, Median
from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput, Status
from byzopt.experiments import Outcome, simulate
from byzopt.layout import Layout
from byzopt.methods import Method, MethodRecipe
from byzopt.methods.base import with_counts
from byzopt.tasks import TASKS, Task
from byzopt.testing.checks import Requirement, equal, holds, normal
from byzopt.wire import Link
from byzopt.workers import Oracle

N, F, D, ROUNDS = 7, 2, 8, 12


def run(method: MethodRecipe, attack: str = "none", rounds: int = ROUNDS) -> Outcome:
    """A short run on a quadratic with a loss that the server owns."""
    return simulate(_task(), _rule(method), 0.01, rounds, F, method, attack)


def builds_a_method(recipe: MethodRecipe) -> None:
    """`build` gives a `Method`, and equal recipes give equal methods."""
    first, second = (_told(recipe).build(_rule(recipe), 0.1, 10) for _ in range(2))
    holds(isinstance(first, Method), type(first).__name__)
    holds(first == second, "two methods that differ")


def runs_and_stays_finite(method: MethodRecipe) -> None:
    """A run without faults ends as planned, at a finite point."""
    outcome = run(method)
    holds(outcome.status is Status.COMPLETED, f"status {outcome.status}: {outcome.message}")
    holds(isinstance(outcome.x, Tensor) and outcome.x.isfinite().all(), "a point that is not finite")


def repeats_to_the_last_bit(method: MethodRecipe) -> None:
    """The same run ends at the same point to the bit, whatever the global seed is."""
    before = torch.get_rng_state()
    try:
        torch.manual_seed(1)
        first = run(method, "gaussian")
        torch.manual_seed(2)
        holds(equal(first.x, run(method, "gaussian").x), "another point")
    finally:
        torch.set_rng_state(before)


def survives_faulty_rows(method: MethodRecipe) -> None:
    """With f workers that send NaN from some round on, a run goes on to its end."""
    outcome = run(method, "nan")
    holds(outcome.status is Status.COMPLETED, f"status {outcome.status}: {outcome.message}")


def emits_one_row_for_each_worker(recipe: MethodRecipe) -> None:
    """Estimator and channel keep the shape `[n, d]` and the dtype of the gradients, from round 1 on."""
    for dtype in (torch.float64, torch.float32):
        for rows in _rows(recipe, [_gradients(t, dtype) for t in range(3)]):
            holds(rows.shape == (N, D) and rows.dtype == dtype, f"{rows.dtype} {list(rows.shape)}")


def keeps_workers_apart(recipe: MethodRecipe) -> None:
    """Another gradient of worker 0 moves the row of worker 0 alone."""
    plain = [_gradients(t) for t in range(3)]
    moved = [rows.clone() for rows in plain]
    for rows in moved:
        rows[0] += 3.0
    for a, b in zip(_rows(recipe, plain), _rows(recipe, moved), strict=True):
        holds(equal(a[1:], b[1:]), "other rows of the other workers")


def _rows(recipe: MethodRecipe, gradients: list[Tensor]) -> list[Tensor]:
    """The rows of rounds 1, 2, ... when workers see these gradients at every point."""
    method = _told(recipe).build(_rule(recipe), 0.1, len(gradients))
    layout, x = Layout.flat(D), torch.zeros(D, dtype=gradients[0].dtype, device="cpu")
    worker: Any = None
    wire: Any = None
    out = []
    for t, rows in enumerate(gradients, start=1):
        oracle = _pulled(t, rows)
        said, worker = (
            method.worker.init(x, oracle) if worker is None else method.worker.step(worker, x, oracle)
        )
        wire = method.wire.start(said) if t == 1 else wire
        _, meant, wire = method.wire.send(wire, said, Link(t, 0, layout, x))
        out.append(meant)
    return out


def _pulled(t: int, rows: Tensor) -> Oracle:
    """Round t's oracle on workers whose gradient is `rows[i]` plus the point, on every sample."""

    def pull(points: Tensor) -> Tensor:
        return rows + points

    return Oracle(t, pull, pull, grads_at=pull, sample=lambda k: _pulled(t, rows))


def _gradients(t: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return normal(N, D, seed=t, dtype=dtype)


def _rule(recipe: MethodRecipe) -> Any:
    """A robust rule that the method takes; guards, which bring a defence of their own, take the mean."""
    try:
        _told(recipe).build(NNM(f=F) >> Median(f=F), 0.1, 10)
    except InvalidInput:
        return Mean()
    return NNM(f=F) >> Median(f=F)


def _told(recipe: MethodRecipe) -> MethodRecipe:
    return with_counts(recipe, N, F)


def _task() -> Task:
    alike = {"name": "quadratic", "proxy": "worker", "heterogeneity": 0.0}  # guards ask for one distribution
    return TASKS.build(alike).build(Cohort.of(N, F), 0)


PROMISES = (
    Requirement(builds_a_method),
    Requirement(runs_and_stays_finite),
    Requirement(repeats_to_the_last_bit),
    Requirement(survives_faulty_rows),
    Requirement(emits_one_row_for_each_worker),
    Requirement(keeps_workers_apart),
)
