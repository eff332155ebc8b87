"""Several runs as one batch, round by round in step; each has the outcome that it would have alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

from byzopt import accelerator
from byzopt.attacks import Adversary
from byzopt.engines import InProcess, OnGraph
from byzopt.engines.batched import BatchedRuns
from byzopt.engines.batched_graph import BatchedGraphRuns, GraphLane, mix_together
from byzopt.engines.batched_round import Lane
from byzopt.engines.simulated import Simulated
from byzopt.engines.stacking import RoundLostError
from byzopt.errors import Status, TooManyFaults, require
from byzopt.experiments.specs.spec import Spec
from byzopt.experiments.trials.outcome import Outcome, Record, RunProgress
from byzopt.experiments.trials.prepared import PreparedRun, threads_for
from byzopt.experiments.trials.trial import Trial

MOST_NUMBERS = 1 << 17  # in a batch's rows: beyond it calls cost nothing beside the work, and caches overflow
MOST_RUNS = 256


def batch_groups(specs: Sequence[Spec]) -> list[tuple[int, ...]]:
    """Which of these specs may advance together: places in `specs`, each in exactly one group, in order.

    Runs go together when their task, their n, their workers' side of the method and the placement of their
    adversary are equal; seed, rates, attack, rule, attackers, rounds and figures may differ. Those on a graph
    share the graph, the attackers, f and the rule too. A group's rows
    hold at most `MOST_NUMBERS`, so that runs of a large model, which gain nothing, stay alone. Variants
    (`compare`) are not looked at.
    """
    keys: list[Any] = []
    members: list[list[int]] = []
    for i, spec in enumerate(specs):
        key, most = _company(spec)
        for known, group in zip(keys, members, strict=True):
            if len(group) < most and known == key:
                group.append(i)
                break
        else:
            keys.append(key)
            members.append([i])
    return [tuple(group) for group in members]


def _company(spec: Spec) -> tuple[Any, int]:
    """What must be equal in a group of this spec, and how many may be in it."""
    method = spec.built()
    d = spec.task.dimension
    # On a clock workers answer one by one.
    alone_on_it = spec.graph is not None and not mix_together(spec.graph)
    alone = spec.engine != InProcess() or alone_on_it or spec.asynchrony is not None
    most = 1 if d is None or alone else max(1, min(MOST_RUNS, MOST_NUMBERS // (spec.n * d)))
    nodes = None if spec.graph is None else (spec.graph, spec.cohort, spec.f, spec.rule)
    return (spec.task, spec.n, method.worker, method.wire, _place(spec), spec.engine, nodes), most


def _place(one: Spec | Adversary) -> tuple[Any, ...]:
    """Where an adversary acts; with `base` for parity with released code, also who is honest."""
    return one.placement, one.base, one.cohort if one.base != "own" else None


class BatchedTrials:
    """Runs on their way from `progress` (default: their start) to their outcomes, round by round in step.

    Each run's records, status and state are those of `Trial` on it alone, up to the rounding of sums that
    are taken for several runs in one call; the same runs together give the same numbers again, and continued
    from `progress` too. A run that ends leaves, the others go on. `on_record(i, record)` hears of run i.

    Runs of any kind may be given. Those whose workers' side, n, d, dtype or device differ are stepped beside
    one another; what gains is those that agree.

    Errors: `InvalidInput` for several runs one of which is on an engine of another kind than the simulated.
    """

    def __init__(
        self,
        ready: Sequence[PreparedRun],
        progress: Sequence[RunProgress] | None,
        on_record: Callable[[int, Record], None],
    ) -> None:
        for one in ready[1:] and ready:
            simulated, remedy = isinstance(one.engine, (Simulated, OnGraph)), "Run it alone."
            found = type(one.engine).__name__
            require(simulated, "Runs that advance together", "be on the simulated engine", found, remedy)
        self.ready, self.clock = tuple(ready), _Shared(len(ready))
        begun = progress or [RunProgress(one.start) for one in ready]
        self.trials = [
            Trial(one, where, partial(on_record, i), self.clock)
            for i, (one, where) in enumerate(zip(ready, begun, strict=True))
        ]
        self.outcomes: list[Outcome | None] = [None] * len(ready)
        self.batches: list[_Lanes] = []

    @property
    def progress(self) -> list[RunProgress]:
        """Where each run stands, for a checkpoint: `freeze` and `thaw` work on each `state`."""
        self._settle()
        return [trial.progress for trial in self.trials]

    def run(self, on_round: Callable[[int], bool]) -> list[Outcome]:
        """Go on to all ends, or until `on_round(t)`, called after every round t, returns True."""
        if len(self.ready) == 1:  # nothing to stack
            self.outcomes = [self.trials[0].run(on_round)]
        elif self.ready:
            with threads_for(self.ready[0].task, len(self.ready)):
                self._run(on_round)
        return [outcome for outcome in self.outcomes if outcome is not None]

    def _run(self, on_round: Callable[[int], bool]) -> None:
        stop = self._begin() and on_round(1)
        self._form()
        while self.batches and not stop:
            t = min(batch.many.t for batch in self.batches)
            for batch in [batch for batch in self.batches if batch.many.t == t]:
                self.batches.remove(batch)
                self._advance(batch)
            stop = on_round(t + 1)
        self._settle()
        for i, outcome in enumerate(self.outcomes):
            if outcome is None:
                self._end(i, Status.INTERRUPTED)

    def _begin(self) -> bool:
        """Measure starting points and take in first rounds, where not yet done. Whether there was a round."""
        played = False
        for i, trial in enumerate(self.trials):
            status, first = trial.begin(), trial.ready.first
            if status is None and trial.state.t == 0:
                if isinstance(first, TooManyFaults):
                    self._leave(i, trial.lost(first))
                    continue
                played, status = True, trial.take(first)
            self._end(i, status or self._over(i))
        return played

    def _form(self) -> None:
        kinds: list[tuple[Any, list[int]]] = []
        for i, outcome in enumerate(self.outcomes):
            if outcome is None:
                key = _kind(self.trials[i])
                known = [members for kind, members in kinds if kind == key]
                known[0].append(i) if known else kinds.append((key, [i]))
        self.batches = [_Lanes(who, _together([self.trials[i] for i in who])) for _, who in kinds]

    def _advance(self, batch: _Lanes) -> None:
        try:
            after = batch._replace(many=batch.many.round(self._faulty(batch), self._summarised(batch)))
        except RoundLostError as error:
            self._settle(batch)
            for k, reason in error.reasons.items():
                self._leave(batch.who[k], self.trials[batch.who[k]].lost(reason))
            if left := self._left(batch):
                self._advance(left)
            return
        self._judge(batch, after)
        if left := self._left(after):
            self.batches.append(left)

    def _judge(self, before: _Lanes, after: _Lanes) -> None:
        """Hand the round to the runs that are to be measured, and to those that have diverged."""
        t, trials = after.many.t, [self.trials[i] for i in after.who]
        measures, near = [trial.ready.settings.measures(t) for trial in trials], [True] * len(trials)
        if any(measures) or not accelerator.holds(after.many.x):  # as a trial by itself
            lengths = after.many.reaches
            near = [length <= trial.bound for length, trial in zip(lengths, trials, strict=True)]
        due = [k for k, measured in enumerate(measures) if near[k] and measured]
        figures = dict(zip(due, after.many.crowd.measure(after.many.x[due], due), strict=True)) if due else {}
        for k, i in enumerate(after.who):
            if near[k] and k not in figures:
                continue
            self._place(before, k)
            snapshot = after.many.snapshot(k)
            if snapshot is not None:
                self._end(i, trials[k].take(snapshot, figures.get(k)) or self._over(i))

    def _faulty(self, batch: _Lanes) -> dict[int, int]:
        """The runs whose next aggregates are to be certified, and for how many faulty rows."""
        wanted = {k: self.trials[i].against(batch.many.t + 1) for k, i in enumerate(batch.who)}
        return {k: f for k, f in wanted.items() if f is not None}

    def _summarised(self, batch: _Lanes) -> list[int]:
        """The runs of whose honest rows figures are to be taken."""
        t = batch.many.t + 1
        return [k for k, i in enumerate(batch.who) if self.trials[i].ready.summarised(t)]

    def _left(self, batch: _Lanes) -> _Lanes | None:
        """The batch of those that have not ended."""
        left = [k for k, i in enumerate(batch.who) if self.outcomes[i] is None]
        if len(left) == len(batch.who):
            return batch
        return _Lanes([batch.who[k] for k in left], batch.many.only(left)) if left else None

    def _over(self, i: int) -> Status | None:
        trial = self.trials[i]
        return Status.COMPLETED if trial.state.t >= trial.ready.settings.rounds else None

    def _end(self, i: int, status: Status | None) -> None:
        if status is not None:
            self._leave(i, self.trials[i].outcome(status))

    def _leave(self, i: int, outcome: Outcome) -> None:
        self.outcomes[i] = outcome
        self.clock.leave()

    def _settle(self, *batches: _Lanes) -> None:
        """Update the trials with the states of their runs."""
        for batch in batches or self.batches:
            for k in range(len(batch.who)):
                self._place(batch, k)

    def _place(self, batch: _Lanes, k: int) -> None:
        snapshot, trial = batch.many.snapshot(k), self.trials[batch.who[k]]
        if snapshot is not None:
            trial.state = snapshot.state
            trial.latest = snapshot


class _Lanes(NamedTuple):
    """Runs by their places in `BatchedTrials`, and where they stand."""

    who: list[int]
    many: BatchedRuns | BatchedGraphRuns


class _Shared:
    """Seconds that one of the runs still under way has cost: those that pass are shared among them."""

    def __init__(self, runs: int) -> None:
        self.spent, self.since, self.runs = 0.0, perf_counter(), runs

    def __call__(self) -> float:
        return self.spent + (perf_counter() - self.since) / max(1, self.runs)

    def leave(self) -> None:
        """One run less from now on."""
        self.spent, self.since, self.runs = self(), perf_counter(), self.runs - 1


def _kind(trial: Trial) -> Any:
    method, task, x = trial.ready.method, trial.ready.task, trial.x
    engine = trial.ready.engine
    assert isinstance(engine, (Simulated, OnGraph))  # seen to be so at the start
    nodes = (engine.graph, task.cohort, engine.b, engine.rule) if isinstance(engine, OnGraph) else None
    # Nodes that judge by losses do so by those of their own run.
    judges = trial if isinstance(engine, OnGraph) and not mix_together(engine.graph) else None
    place = _place(engine.adversary)
    return method.worker, method.wire, task.n, x.shape, x.dtype, x.device, trial.state.t, place, nodes, judges


def _together(trials: Sequence[Trial]) -> BatchedRuns | BatchedGraphRuns:
    """Runs of one kind, from where they stand."""
    lanes, on_graph = list[Lane](), list[GraphLane]()
    for trial in trials:
        engine = trial.ready.engine
        if isinstance(engine, OnGraph):
            on_graph.append(GraphLane(engine, trial.state))
        elif isinstance(engine, Simulated):
            lanes.append(Lane(trial.ready.method, engine, trial.state))
    return BatchedGraphRuns(on_graph) if on_graph else BatchedRuns(lanes)
