"""A run made ready: everything built, checked, and round 1 computed, before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from byzopt.attacks import Adversary, Attack, Base, NoAttack, Placement
from byzopt.distributed.communicator import Communicator
from byzopt.engines import Against, Engine, EngineRecipe, InProcess, LoopState, Snapshot, begin, rounds
from byzopt.engines.process_group import ProcessGroup, WorkerShare
from byzopt.errors import TooManyFaults, UnknownName, require, unknown
from byzopt.experiments.trials.same_distribution import check_same_distribution
from byzopt.methods import Method
from byzopt.servers import ServerContext
from byzopt.tasks import Task

SIMULATED = InProcess()
SMALL = 1 << 21  # numbers in a round's rows below which one thread is taken


class RunSettings(NamedTuple):
    """How long to run, how often to measure, the figures at which the run has converged, and whether to
    measure each honest worker's."""

    rounds: int
    interval: int
    stop: dict[str, float]
    per_worker: bool = False

    def measures(self, t: int) -> bool:
        """Whether the run is measured after round t."""
        return t % self.interval == 0 or t == self.rounds


class Over(NamedTuple):
    """The processes that play a run's workers, and the run's number among those that they play."""

    comm: Communicator
    run: int


class PreparedRun(NamedTuple):
    """A run of which everything is known to work: round 1 has been computed, and nothing else."""

    task: Task
    method: Method
    engine: Engine
    plan: RunSettings
    start: LoopState
    first: Snapshot | TooManyFaults


def certify_against(task: Task, method: Method, plan: RunSettings) -> Against:
    """For how many faulty rows a round's aggregate is certified: the attackers that there are, in rounds that
    are measured, where the rule's coefficient is not known in advance and single answers may be certified."""
    faulty = len(task.cohort.byzantine)
    worth = method.filter.certifiable(task.n, faulty)
    return lambda t: faulty if worth and plan.measures(t) else None


def prepare(
    task: Task,
    method: Method,
    attack: Attack,
    f: int,
    seed: int,
    plan: RunSettings,
    placement: Placement = "free",
    base: Base = "own",
    over: Over | None = None,
    engine: EngineRecipe | Engine = SIMULATED,
) -> PreparedRun:
    """Build the run and compute its first round, so that whatever does not fit is refused before it starts.

    `task` is not poisoned yet; `f` is the server's tolerance; `over` says which processes play the workers
    (None: this one, all of them at once). `engine` is a recipe, or an engine that is built over the task;
    with `over` it is the simulated one. Errors: `InvalidInput`.
    """
    check_same_distribution(task, method.filter)
    adversary = Adversary(attack, task.cohort, f, placement, base)
    task = adversary.poison(task)
    engine = _engine(engine, task, method, adversary, seed, over)
    start = begin(method, task.start(), ServerContext(task.layout, task.proxy()), task.n)
    if plan.stop:
        known = list(task.measure(task.start()))
        for name in plan.stop:
            if name not in known:
                raise UnknownName(f"In `stop`: {unknown('figure', name, known)}")
    if plan.per_worker:
        task.measure_workers(task.start())  # refused now where it cannot be
    first: Snapshot | TooManyFaults
    try:
        with threads_for(task):
            first = next(rounds(method, engine, start, 1, certify_against(task, method, plan)))
    except TooManyFaults as error:
        first = error
    return PreparedRun(task, method, engine, plan, start, first)


def _engine(
    engine: EngineRecipe | Engine,
    task: Task,
    method: Method,
    adversary: Adversary,
    seed: int,
    over: Over | None,
) -> Engine:
    if over:
        what, remedy = "An engine over processes", "Run it without --engine torchrun."
        require(engine == SIMULATED, what, "be the simulated one", engine, remedy)
        share = WorkerShare(task, method.worker, seed, over.comm)
        parts = (task, method.worker, method.wire, adversary, seed, method.down)
        return ProcessGroup(*parts, share, over.run)
    built = engine if isinstance(engine, Engine) else engine.build(task, method, adversary, seed)
    require(isinstance(built, Engine), f"`build` of {type(engine).__name__}", "return an Engine", built)
    require(built.n == task.n, f"Engine {type(built).__name__}", f"have n = {task.n} workers", built.n)
    honest = not adversary.cohort.byzantine or adversary.attack == NoAttack()
    # One that was built before the attack was named cannot know of it.
    plays = built.forges and built is not engine
    what, rule = f"Engine {type(built).__name__}", "let attacks forge rows, or have none to play"
    remedy = "Leave the attack out, or let a recipe build an engine that applies it and sets `forges = True`."
    require(honest or plays, what, rule, f"attack {adversary.attack}", remedy)
    return built


@contextmanager
def threads_for(task: Task, runs: int = 1) -> Iterator[None]:
    """One thread while the rows of all runs are small: threads would mostly wait for one another."""
    before = torch.get_num_threads()
    if runs * task.n * task.layout.d < SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
