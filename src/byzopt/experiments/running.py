"""Running a spec: validate everything, then every variant in turn, with checkpoints on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from byzopt.aggregators import Aggregator, rule_from
from byzopt.attacks import Attack, Base, Placement
from byzopt.cohort import Cohort
from byzopt.distributed.communicator import Communicator
from byzopt.engines import ENGINES, Asynchrony, Engine, EngineRecipe, Graph
from byzopt.engines.process_group import OverProcesses
from byzopt.errors import InvalidInput, require, said
from byzopt.experiments.result import Result
from byzopt.experiments.specs.attacks import attack_recipe
from byzopt.experiments.specs.loading import load
from byzopt.experiments.specs.plain_spec import MAIN
from byzopt.experiments.specs.remarks import doubts, doubts_on_task, warn_of
from byzopt.experiments.specs.settings import check_settings
from byzopt.experiments.specs.spec import Spec
from byzopt.experiments.store.content import content_of
from byzopt.experiments.store.run_directory import RunDirectory
from byzopt.experiments.trials.memory import build_task
from byzopt.experiments.trials.outcome import Outcome, Record, RunProgress
from byzopt.experiments.trials.prepared import SIMULATED, PreparedRun, RunSettings, prepare
from byzopt.experiments.trials.trial import Trial
from byzopt.experiments.variants import OnRecord, OnRound, VariantRunner
from byzopt.methods import METHODS, MethodRecipe
from byzopt.methods.base import with_counts
from byzopt.tasks import Task
from byzopt.workers import PARTICIPANTS, Participants


def run(
    spec: Spec | str | Path,
    on_record: OnRecord | None = None,
    out: str | Path | None = None,
    on_round: OnRound | None = None,
    fresh: bool = False,
    comm: Communicator | None = None,
    on_start: Callable[[str], None] = lambda name: None,
    engine: Engine | EngineRecipe | str | Mapping[str, Any] | None = None,
) -> Result:
    """Run a spec (or the file or preset of that name) and the variants beside it.

    With `out` the run is stored there; an unfinished run of the same spec is continued, bit for bit, and a
    finished one is read back, unless `fresh`. Everything is validated, and each variant's first round
    computed, before the directory is made; `on_start(variant)` hears of each before that. `comm` leads to
    processes that serve the spec (`worker_processes`). `engine` takes the place of the spec's: a recipe, its
    name or table; or an engine that is built already, for runs that are not stored.

    Errors: `InvalidInput`, `MissingData` before any work. What goes wrong later is a status of the outcome.
    Where theory says that a setting cannot work as asked, a `DoubtfulSetting` warning tells.

    Args:
        spec: What to run: a spec, or the path or name of one.
        on_record: Called with the variant's name and each record.
        out: Directory to store the run in; None: it is not stored.
        on_round: Called with the variant's name and each round; a true answer interrupts the run.
        fresh: Whether to start again where the directory holds a run of this spec.
        comm: Processes that serve the spec.
        on_start: Called with each variant's name before its first round is computed.
        engine: Who carries points to the workers and rows back, in place of the spec's.

    Returns:
        How it ended, and how its variants did.

    Raises:
        InvalidInput: A spec that cannot be run, or a directory of another one; before any work.
        MissingData: A data file is neither on disk nor downloadable.

    Examples:
        >>> from byzopt import load, run
        >>> result = run(load("byz-nsgdm/quartic", ["rounds=5"], compare=False))
        >>> result.main.rounds, sorted(result.metrics)[:2]
        (5, ['aggregate_norm', 'bits'])
    """
    spec = spec if isinstance(spec, Spec) else load(spec)
    for what, value in (("on_record", on_record), ("on_round", on_round), ("on_start", on_start)):
        require(value is None or callable(value), f"`{what}` of run", "be a function", said(value))
    named = out is None or isinstance(out, (str, Path))
    require(named, "`out` of run", "be the path of a directory, or None", said(out))
    warn_of(doubts(spec.variants()))
    if isinstance(engine, Engine):
        what, remedy = "The engine of a run that is stored", "Give the recipe, or leave `out` away."
        require(out is None, what, "be a recipe, which can be written down", said(engine), remedy)
    elif engine is not None:
        spec = spec.on(ENGINES.recipe(engine))
    store = RunDirectory(Path(out), spec) if out is not None else None
    if store:
        store.check()
        if store.finished and not fresh:
            return Result(spec, store.read_outcomes(), store.path)
        store.check_writable()
    tasks: dict[Any, Task] = {}
    variants = spec.variants().items()
    ready: dict[str, PreparedRun] = {}
    for number, (name, variant) in enumerate(variants):
        on_start(name)
        chosen = engine if isinstance(engine, Engine) else variant.engine
        ready[name] = prepare_spec(variant, tasks, _over(comm, number, chosen) if comm else chosen)
    on_record, on_round = on_record or (lambda name, record: None), on_round or (lambda name, t: False)
    content = content_of(spec) if store else {}
    runner = VariantRunner(ready, store, on_record, on_round, content)
    if store:
        store.create()
        store.remove_leftovers()
        if fresh:
            store.remove_results()
        runner.restore()
    outcomes = runner.run()
    result = Result(spec, outcomes, store.path if store else None)
    if store and not result.interrupted:
        store.write_result(outcomes, content)
    return result


def simulate(
    task: Task,
    rule: Aggregator | str | Mapping[str, Any] | Sequence[Any],
    lr: float,
    rounds: int,
    f: int,
    method: MethodRecipe | str | Mapping[str, Any] = "byz_nsgdm",
    attack: Attack | str | Mapping[str, Any] = "none",
    seed: int = 0,
    eval_every: int | None = None,
    stop: Mapping[str, float] | None = None,
    on_record: Callable[[Record], None] = lambda record: None,
    placement: Placement = "free",
    base: Base = "own",
    per_worker: bool = False,
    engine: Engine | EngineRecipe | str | Mapping[str, Any] = "simulated",
    participants: Participants | str | Mapping[str, Any] = "all",
    graph: Graph | None = None,
    asynchrony: Asynchrony | None = None,
) -> Outcome:
    """Run a method on a task that is already built; its cohort says who lies.

    `rule`, `method` and `attack` are recipes, their names or tables (`{"name": "ipm", "scale": 3.0}`). `f` is
    the server's tolerance, which fills the rule's missing `f`. `engine` is a recipe, its name or table, or an
    engine that is built over the task; the rest is as in `Spec`.

    Errors: `InvalidInput` (`UnknownName` for keys and names), as of `Spec`. Where theory says that a setting
    cannot work as asked, a `DoubtfulSetting` warning tells.

    Args:
        task: The task, built; its cohort says who lies.
        rule: What the server does with the rows: a recipe, text, a table or a list.
        lr: Scale of the server's steps, > 0.
        rounds: Number of communication rounds.
        f: Number of faulty workers that the server tolerates, 2 f < n.
        method: What workers send and how the server steps.
        attack: What the Byzantine workers send.
        seed: Of what the method and the attack draw.
        eval_every: Rounds between two measurements; None: rounds/50, at least 1.
        stop: Values at which the run has converged, by figure.
        on_record: Called with each record.
        placement: Where the adversary acts: "free", "state" or "message".
        base: "own", or "last_honest" for parity with released code.
        per_worker: Whether records hold each honest worker's figures on its own data.
        engine: Who carries points to the workers and rows back.
        participants: Who takes part in a round.
        graph: Who hears whom, where there is no server; `f` is then what each node tolerates.
        asynchrony: How long workers take, and when the server steps; None: all answer in every round.

    Returns:
        How the run ended, with its records.

    Raises:
        InvalidInput: Anything out of range.
        UnknownName: A name or a key that does not exist.

    Examples:
        >>> from byzopt import Cohort, Quadratic, simulate
        >>> task = Quadratic().build(Cohort.of(20, byzantine=3), seed=0)
        >>> attack = {"name": "ipm", "scale": 10.0}
        >>> robust = simulate(task, "nnm >> rfa", lr=0.1, rounds=30, f=3, attack=attack)
        >>> broken = simulate(task, "mean", lr=0.1, rounds=30, f=3, attack=attack)
        >>> robust.metrics["loss"] < robust.records[0]["loss"] < broken.metrics["loss"]
        True
    """
    if not isinstance(task, Task):
        raise InvalidInput(f"`task` should be a Task that is built. Found {said(task)}.")
    require(callable(on_record), "`on_record`", "be called on a record", said(on_record))
    stop = {} if stop is None else stop
    check_settings(task.n, f, rounds, lr, seed, eval_every, stop, per_worker)
    rule = rule_from(rule, f=f)
    engine = engine if isinstance(engine, Engine) else ENGINES.recipe(engine)
    recipe = with_counts(METHODS.recipe(method), task.n, f)
    settings = RunSettings(
        attack_recipe(attack, graph is not None, asynchrony is not None),
        f,
        seed,
        rounds,
        max(1, rounds // 50) if eval_every is None else eval_every,
        dict(stop),
        per_worker,
        placement,
        base,
        engine,
        graph,
        asynchrony,
    )
    built = recipe.build(rule, lr, rounds).among(PARTICIPANTS.recipe(participants))
    ready = prepare(task, built, settings)
    about = _Given(task.cohort, f, rule, settings.attack, graph, asynchrony)
    warn_of((*doubts({MAIN: about}), *doubts_on_task(task, recipe, about, rounds)))
    return Trial(ready, RunProgress(ready.start), on_record).run(lambda t: False)


def prepare_spec(
    spec: Spec, tasks: dict[Any, Task], engine: Engine | EngineRecipe | None = None
) -> PreparedRun:
    """A spec ready to run, on its own engine unless another is given. Specs that differ in nothing a task
    depends on share it, by way of `tasks`."""
    key = (spec.task, spec.cohort, spec.seed, spec.data_seed)
    if key not in tasks:
        tasks[key] = build_task(spec)
    settings = RunSettings(
        spec.attack,
        spec.f,
        spec.seed,
        spec.rounds,
        spec.interval,
        dict(spec.stop),
        spec.per_worker,
        spec.placement,
        spec.base,
        engine or spec.engine,
        spec.graph,
        spec.asynchrony,
    )
    ready = prepare(tasks[key], spec.built(), settings)
    warn_of(doubts_on_task(tasks[key], spec.method, spec, spec.rounds))
    return ready


class _Given(NamedTuple):
    """What `simulate` is given, as far as there is something to say about it before a run."""

    cohort: Cohort
    f: int
    rule: Aggregator
    attack: Attack
    graph: Graph | None
    asynchrony: Asynchrony | None


def _over(comm: Communicator, run: int, engine: Engine | EngineRecipe) -> OverProcesses:
    what, remedy = "An engine over processes", "Run it without --engine torchrun."
    require(engine == SIMULATED, what, "be the simulated one", engine, remedy)
    return OverProcesses(comm, run)
