"""Running a spec under the ensemble: each attack a small sweep in one store, and fair shares of a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

from byzopt.attacks.limited import Threat
from byzopt.errors import InvalidInput, require
from byzopt.experiments import Spec
from byzopt.experiments.sweeps import RunStore, Sweep, SweepPlan, plan_sweep, run_sweep
from byzopt.experiments.trials.memory import build_task
from byzopt.stress.catalogue import NEEDS, NO_ATTACK, ensemble, is_cheap, is_searched
from byzopt.stress.difference import Difference, difference_of
from byzopt.stress.verdict import Trial, trial, worst

Play = Callable[[SweepPlan, Callable[[], bool]], Any]


@dataclass(frozen=True)
class Stress:
    """What became of a spec under the ensemble: the trials of each rule, the spec's own rule first.

    Args:
        threat: What the attackers know.
        n: Number of workers.
        f: Number of faulty workers tolerated.
        attackers: Number of those that attack.
        rules: The rules as text, the spec's own first.
        trials: What each rule came to under each attack.
        store: Where the runs are stored.
        left: What was not measured.
        attacks: Names of all attacks that were to be tried.
        seeds: Runs of each cell.
        unfit: Attacks of the ensemble that this training cannot have, and why.
    """

    threat: str
    n: int
    f: int
    attackers: int
    rules: tuple[str, ...]
    trials: tuple[Trial, ...]
    store: Path
    left: tuple[str, ...]
    attacks: tuple[str, ...] = ()
    seeds: int = 1
    unfit: Mapping[str, str] = field(default_factory=dict)

    def of(self, rule: str, attack: str) -> Trial | None:
        """The trial of a rule under an attack, if it was measured."""
        return next((one for one in self.trials if (one.rule, one.attack) == (rule, attack)), None)

    def worst(self, rule: str) -> Trial | None:
        """The worst that an attack did to a rule; without attack does not count."""
        return worst(one for one in self.trials if one.rule == rule and one.attack != NO_ATTACK)

    def calm(self, rule: str) -> Trial | None:
        """The trial of a rule without attack, if it was measured."""
        return self.of(rule, NO_ATTACK)

    def measured(self, rule: str) -> int:
        """How many of the attacks were measured with a rule."""
        return sum(one.rule == rule and one.attack != NO_ATTACK for one in self.trials)

    def complete(self, rule: str) -> bool:
        """Whether a rule was measured under every attack, and without any."""
        return self.measured(rule) == len(self.attacks) and self.calm(rule) is not None

    def difference(self, rule: str) -> Difference | None:
        """How different the honest rows were in all runs of a rule; None where it is not known: on a graph
        and on a clock, and in runs that were stored by earlier versions."""
        apart = [one for trial in self.trials if trial.rule == rule for one in trial.apart]
        return difference_of(apart, self.n, self.attackers)

    @property
    def figure(self) -> str:
        """By what trainings are judged: `accuracy`, or `loss` where there is none."""
        return "accuracy" if any(one.figure == "accuracy" for one in self.trials) else "loss"

    @property
    def mean_over(self) -> str:
        """Over what each figure is a mean."""
        return "the last tenth of the rounds" + (f" and {self.seeds} seeds" if self.seeds > 1 else "")

    @property
    def heading(self) -> str:
        """The figure with its unit, and over what it is a mean."""
        figure = "Test accuracy in %" if self.figure == "accuracy" else "Loss"
        return f"{figure}, mean over {self.mean_over}"

    @property
    def best_rule(self) -> str | None:
        """The rule whose worst is least bad; None unless all rules were tried under the same attacks."""
        tried = {frozenset(one.attack for one in self.trials if one.rule == rule) for rule in self.rules}
        worsts = {rule: one for rule in self.rules if (one := self.worst(rule)) is not None}
        if len(tried) > 1 or len(worsts) < len(self.rules):
            return None
        return min(worsts, key=lambda rule: worsts[rule].badness)


def stress(
    spec: Spec,
    store: str | Path = "byzopt-store",
    *,
    compare: Sequence[str] = (),
    threat: Threat = "omniscient",
    attacks: Sequence[str] = (),
    seeds: int = 1,
    budget: float | None = None,
    play: Play | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Stress:
    """Trains a spec under every attack of the ensemble, and says the worst.

    Args:
        spec: What to train: its task, model, method and rule. The attack and the variants that it names are
            left out.
        store: The directory that keeps every run. The same call goes on where it was stopped.
        compare: Rules to try beside the spec's own.
        threat: What the attackers know.
        attacks: Attacks to try: names of the ensemble, registered names, `"parts.py:Swing"`; default: the
            ensemble.
        seeds: Runs of each cell, with the seeds that follow the spec's.
        budget: Seconds after which no further run is begun and running ones are put aside. The first
            searched attack and the cheap ones come before the others, the spec's own rule before those to
            compare, and no attack that may be slow keeps the others from their share. None: no limit.
        play: Runs the plan of one small sweep; default: in this process.
        stopped: Whether to stop; checkpoints are kept.

    Returns:
        The trials, and the attacks that the budget did not reach.

    Raises:
        InvalidInput: A spec without attackers, an unknown threat, a rule that does not fit; before any run.

    Examples:
        >>> from byzopt.experiments import Spec
        >>> from byzopt.stress import stress
        >>> import tempfile
        >>> spec = Spec.of({"task": "quadratic", "rule": "median", "method": "robust_gd", "lr": 0.1,
        ...     "rounds": 5, "n": 7, "f": 2})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = stress(spec, folder)
        >>> result.worst("median").figure
        'loss'
    """
    end = inf if budget is None else monotonic() + budget
    require(seeds >= 1, "The number of seeds", "be at least 1", seeds)
    require(bool(spec.cohort.byzantine), "A spec to stress", "have attackers", "none", "Set `attackers`.")
    own = {key: value for key, value in spec.data.items() if key not in ("attack", "compare")}
    rules = _rules(own["rule"], _defence(spec), compare)
    tried, unfit = _fitting(own, ensemble(build_task(spec), threat, attacks), bool(attacks))
    every = {NO_ATTACK: {"name": "none"}, **tried}
    own_rule, *others = rules
    plans = {
        (name, group): _plan(own, spec.seed, [rules[rule] for rule in group], attack, seeds, Path(store))
        for group in ((own_rule,), tuple(others))
        if group
        for name, attack in every.items()
    }
    searched = [name for name, attack in tried.items() if is_searched(attack)]
    order = [[name for name in every if name not in searched[1:]], searched[1:]]
    for group in dict.fromkeys(group for _, group in plans):
        for names in order:
            _share(group, {name: plans[name, group] for name in names}, end, play or _here, stopped)
    trials = [one for (name, group), plan in plans.items() for one in _trials(name, plan, group)]
    measured = {(one.rule, one.attack) for one in trials}
    left = [f"{rule} under {name}" for name, group in plans for rule in group if (rule, name) not in measured]
    n, f, liars = spec.cohort.n, spec.f, len(spec.cohort.byzantine)
    return Stress(
        threat, n, f, liars, tuple(rules), tuple(trials), Path(store), tuple(left), tuple(tried), seeds, unfit
    )


def _fitting(
    own: Mapping[str, Any], attacks: Mapping[str, Mapping[str, Any]], named: bool
) -> tuple[dict[str, Mapping[str, Any]], dict[str, str]]:
    """The attacks that this training can have, and why not the others of the ensemble. Errors: `InvalidInput`
    for one that it cannot have where they were `named`."""
    fit, unfit = {}, {} if named else {name: why for name, why in NEEDS.items() if name not in attacks}
    for name, attack in attacks.items():
        try:
            Spec.of({**own, "attack": dict(attack)})
        except InvalidInput as error:
            if named:
                raise
            unfit[name] = str(error).removeprefix("In the spec: ")
        else:
            fit[name] = attack
    return fit, unfit


def _share(
    rules: Sequence[str],
    plans: Mapping[str, SweepPlan],
    end: float,
    play: Play,
    stopped: Callable[[], bool],
) -> None:
    """Plays the plans of attacks until `end`. What is cheap is played whole; what may be slow gets an equal
    share of half of the time and goes on afterwards, since what is put aside everywhere measures nothing."""
    share = inf if end == inf else (end - monotonic()) / (2 * max(1, len(plans)))

    def play_until(name: str, plan: SweepPlan, until: float) -> None:
        def over() -> bool:
            return stopped() or monotonic() >= until

        if plan.to_play and not over():
            play(plan, over)
            _trials(name, plan, rules)  # a run that failed ends it all

    for name, plan in plans.items():
        play_until(name, plan, end if is_cheap(name) else min(end, monotonic() + share))
    for name, plan in plans.items():
        if not is_cheap(name) and not stopped() and monotonic() < end < inf:
            play_until(name, plan_sweep(plan.sweep, plan.store.root), end)


def _defence(spec: Spec) -> str:
    """What defends a training, in words: its rule, or the mixer or intake that takes the rule's place."""
    if spec.graph is not None and not spec.graph.mixer.uses_rule:
        return f"mixer {spec.graph.mixer.name}"
    if spec.asynchrony is not None and not spec.asynchrony.intake.uses_rule:
        return f"intake {spec.asynchrony.intake.name}"
    return " >> ".join(stage.name for stage in (*spec.rule.stages, spec.rule.last))


def _rules(own: Any, name: str, compare: Sequence[str]) -> dict[str, Any]:
    """The rules by name, the spec's own first."""
    return {name: own, **{rule: rule for rule in compare}}


def _plan(
    spec: Mapping[str, Any],
    seed: int,
    rules: Sequence[Any],
    attack: Mapping[str, Any],
    seeds: int,
    store: Path,
) -> SweepPlan:
    grid = {"rule": list(rules), "seed": [seed + k for k in range(seeds)]}
    every = spec.get("eval_every") or max(1, int(spec["rounds"]) // 50)
    data = {**spec, "attack": dict(attack), "eval_every": every}
    sweep = Sweep(name="stress", spec={k: v for k, v in data.items() if k not in grid}, grid=grid)
    return plan_sweep(sweep, store)


def _here(plan: SweepPlan, over: Callable[[], bool]) -> None:
    run_sweep(plan, jobs=0, stopped=over)


def _trials(attack: str, plan: SweepPlan, rules: Sequence[str]) -> list[Trial]:
    """The trials of one attack whose runs have all ended."""
    store, out = RunStore(plan.store.root), []
    runs = [run.id for run in plan.expansion.runs]
    each = len(runs) // len(rules)
    for k, rule in enumerate(rules):
        mine = runs[k * each : (k + 1) * each]
        stored = [store.inspect(run) for run in mine]
        failed = next((one for one in stored if one.kind == "failed"), None)
        if failed is not None:
            raise InvalidInput(f"The run of {rule} under {attack} failed: {failed.message}")
        if all(one.kind == "whole" for one in stored):
            out.append(trial(rule, attack, mine, [store.read_outcome(run) for run in mine]))
    return out
