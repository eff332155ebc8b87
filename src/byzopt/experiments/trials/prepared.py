"""A prepared run: everything is built and checked and round 1 is computed, before anything is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from byzopt.attacks import Adversary, Attack, Base, NoAttack, Placement
from byzopt.engines import (
    Against,
    Asynchrony,
    ClockSnapshot,
    Engine,
    EngineRecipe,
    Graph,
    GraphSnapshot,
    InProcess,
    LoopState,
    OnClock,
    OnGraph,
    Snapshot,
    begin,
    rounds,
    rounds_on_clock,
    rounds_on_graph,
)
from byzopt.engines.asynchrony import check_clock
from byzopt.engines.graph import check_rule, check_server
from byzopt.errors import TooManyFaults, UnknownName, require, unknown
from byzopt.experiments.trials.method_on_engine import check_runs
from byzopt.experiments.trials.same_distribution import check_same_distribution
from byzopt.methods import Method
from byzopt.servers import ServerContext
from byzopt.tasks import Task

SIMULATED = InProcess()
SMALL = 1 << 21  # numbers in a round's rows below which one thread is taken


@dataclass(frozen=True)
class RunSettings:
    """How a method is run on a task.

    `f` is the server's tolerance. `rounds` are measured every `interval` of them, until the figures of `stop`
    are reached; `per_worker`: each honest worker's too. `placement` and `base`: where the adversary acts, see
    `Adversary`. `engine` is a recipe, or an engine that is built over the task; with a `graph` there is no
    server, and `f` is what each node tolerates; with `asynchrony` it hears workers one at a time.
    """

    attack: Attack
    f: int
    seed: int
    rounds: int
    interval: int
    stop: Mapping[str, float] = field(default_factory=dict)
    per_worker: bool = False
    placement: Placement = "free"
    base: Base = "own"
    engine: EngineRecipe | Engine = SIMULATED
    graph: Graph | None = None
    asynchrony: Asynchrony | None = None

    def measures(self, t: int) -> bool:
        """Whether the run is measured after round t."""
        return t % self.interval == 0 or t == self.rounds


AnySnapshot: TypeAlias = Snapshot | GraphSnapshot | ClockSnapshot


class PreparedRun(NamedTuple):
    """A run that is known to work: round 1 has been computed, and nothing has been written."""

    task: Task
    method: Method
    engine: Engine | OnGraph | OnClock
    settings: RunSettings
    start: LoopState
    first: AnySnapshot | TooManyFaults

    def rounds(self, state: LoopState, last: int, against: Against) -> Iterator[AnySnapshot]:
        """The rounds after `state`, up to `last`."""
        if isinstance(self.engine, OnClock):
            return rounds_on_clock(self.engine, state, last)
        if isinstance(self.engine, OnGraph):
            return rounds_on_graph(self.engine, state, last)
        return rounds(self.method, self.engine, state, last, against, self.summarised)

    def summarised(self, t: int) -> Sequence[int]:
        """Whose rows of round t are summarised: the honest workers', where others attack, if the run is
        measured after that round."""
        cohort = self.task.cohort
        return cohort.honest if cohort.byzantine and self.settings.measures(t) else ()

    def answer(self, state: LoopState) -> Tensor:
        """The iterate `[d]` where the run stands; on a graph the honest nodes' mean."""
        if isinstance(self.engine, OnGraph):
            return self.engine.answer(state)
        return self.method.step.answer(state.step)


def certify_against(task: Task, method: Method, settings: RunSettings) -> Against:
    """For how many faulty rows a round's aggregate is certified: the attackers that there are, in rounds that
    are measured, where the rule's coefficient is not known in advance and single answers may be certified."""
    faulty = len(task.cohort.byzantine)
    plain = settings.graph is None and settings.asynchrony is None
    worth = plain and method.filter.certifiable(task.n, faulty)
    return lambda t: faulty if worth and settings.measures(t) else None


def prepare(task: Task, method: Method, settings: RunSettings) -> PreparedRun:
    """Build the run and compute its first round: configuration errors surface here, before anything is
    written.

    `task` is not poisoned yet. Errors: `InvalidInput`.
    """
    check_same_distribution(task, method.filter)
    adversary = Adversary(settings.attack, task.cohort, settings.f, settings.placement, settings.base)
    task = adversary.poison(task)
    engine: Engine | OnGraph | OnClock
    if settings.asynchrony is None:
        check_clock(settings.attack)
    if settings.graph is not None:
        engine = _on_graph(settings.graph, task, method, adversary, settings)
        start = engine.begin()
    elif settings.asynchrony is not None:
        engine = _on_clock(settings.asynchrony, task, method, adversary, settings)
        start = engine.begin()
    else:
        check_server(settings.attack)
        engine = _engine(settings.engine, task, method, adversary, settings.seed)
        start = begin(method, task.start(), ServerContext(task.layout, task.proxy()), task.n)
    if settings.stop:
        known = list(task.measure(task.start()))
        for name in settings.stop:
            if name not in known:
                raise UnknownName(f"In `stop`: {unknown('figure', name, known)}")
    if settings.per_worker:
        task.measure_workers(task.start())  # refused now where it cannot be
    without = PreparedRun(task, method, engine, settings, start, TooManyFaults("round 1 is not computed yet"))
    first: AnySnapshot | TooManyFaults
    try:
        with threads_for(task):
            played = without.rounds(start, 1, certify_against(task, method, settings))
            first = next(iter(played))
    except TooManyFaults as error:
        first = error
    return PreparedRun(task, method, engine, settings, start, first)


def _on_graph(
    graph: Graph, task: Task, method: Method, adversary: Adversary, settings: RunSettings
) -> OnGraph:
    alone = settings.engine == SIMULATED
    require(alone, "The engine of a run on a graph", "be the simulated one", settings.engine)
    run = OnGraph(task, method, graph, adversary, settings.f, settings.seed)
    check_rule(graph, run.rule)
    return run


def _on_clock(
    asynchrony: Asynchrony, task: Task, method: Method, adversary: Adversary, settings: RunSettings
) -> OnClock:
    alone = settings.engine == SIMULATED and settings.graph is None
    what, found = "The engine of a run on a clock", f"{settings.engine}, graph {settings.graph}"
    require(alone, what, "be the simulated one, with a server", found)
    check_server(settings.attack)
    return OnClock(task, method, asynchrony, adversary, settings.f, settings.seed)


def _engine(
    engine: EngineRecipe | Engine, task: Task, method: Method, adversary: Adversary, seed: int
) -> Engine:
    built = engine if isinstance(engine, Engine) else engine.build(task, method, adversary, seed)
    require(isinstance(built, Engine), f"`build` of {type(engine).__name__}", "return an Engine", built)
    require(built.n == task.n, f"Engine {type(built).__name__}", f"have n = {task.n} workers", built.n)
    honest = not adversary.cohort.byzantine or adversary.attack == NoAttack()
    # One that was built before the attack was named cannot know of it.
    plays = built.forges and built is not engine
    what, rule = f"Engine {type(built).__name__}", "let attacks forge rows, or have none to play"
    remedy = "Leave the attack out, or let a recipe build an engine that applies it and sets `forges = True`."
    require(honest or plays, what, rule, f"attack {adversary.attack}", remedy)
    check_runs(built, method, prepared=built is engine)
    return built


@contextmanager
def threads_for(task: Task, runs: int = 1) -> Iterator[None]:
    """Use one thread where the rows of all runs are small: more would mostly wait for one another."""
    before = torch.get_num_threads()
    if runs * task.n * task.layout.d < SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
