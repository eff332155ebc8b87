"""How tests run a method: recipe, rule and attack to the snapshots of a run on a task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from byzopt.aggregators import Aggregator
from byzopt.aggregators.core.filters import Filter
from byzopt.attacks import ATTACKS, Adversary, Attack, Base, Placement
from byzopt.cohort import Cohort
from byzopt.engines import Against, Simulated, Snapshot, begin, rounds
from byzopt.engines.loop import never
from byzopt.methods import MethodRecipe
from byzopt.servers import ServerContext
from byzopt.tasks import Quartic, Task, TaskRecipe


def play(
    recipe: MethodRecipe,
    rule: Aggregator,
    attack: str | Attack = "none",
    task: TaskRecipe | Task | None = None,
    n: int = 20,
    byzantine: int = 3,
    lr: float = 0.1,
    last: int = 100,
    seed: int = 0,
    placement: Placement = "free",
    base: Base = "own",
    against: Against = never,
    wrapped: Callable[[Aggregator], Filter] | None = None,
) -> Iterator[Snapshot]:
    """Rounds 1 .. last, on the quartic unless told otherwise; `wrapped` makes the filter of a rule."""
    cohort = Cohort.of(n, byzantine)
    task = task or Quartic()
    built = task if isinstance(task, Task) else task.build(cohort, seed)
    method = recipe.build(rule, lr, rounds=last)
    method = replace(method, filter=wrapped(rule)) if wrapped else method
    attack = ATTACKS.build(attack) if isinstance(attack, str) else attack
    adversary = Adversary(attack, built.cohort, byzantine, placement, base)
    parts = (method.worker, method.wire, adversary, seed, method.down, method.participants)
    engine = Simulated(built, *parts)
    start = begin(method, built.start(), ServerContext(built.layout, built.proxy()), built.n)
    return rounds(method, engine, start, last, against)


def finish(snapshots: Iterator[Snapshot]) -> Snapshot:
    """The last snapshot of a run."""
    *_, end = snapshots
    return end
