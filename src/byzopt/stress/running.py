"""Running a spec under the ensemble: each attack a small sweep in one store, the searched ones first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from byzopt.attacks.limited import Threat
from byzopt.errors import InvalidInput, require
from byzopt.experiments import Spec
from byzopt.experiments.sweeps import RunStore, Sweep, SweepPlan, plan_sweep, run_sweep
from byzopt.stress.catalogue import NO_ATTACK, ensemble
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
        left: What was left out.
    """

    threat: str
    n: int
    f: int
    attackers: int
    rules: tuple[str, ...]
    trials: tuple[Trial, ...]
    store: Path
    left: tuple[str, ...]  # what the budget did not reach

    def of(self, rule: str, attack: str) -> Trial | None:
        """The trial of a rule under an attack, if it was measured."""
        return next((one for one in self.trials if (one.rule, one.attack) == (rule, attack)), None)

    def worst(self, rule: str) -> Trial | None:
        """The worst that an attack did to a rule; without attack does not count."""
        return worst(one for one in self.trials if one.rule == rule and one.attack != NO_ATTACK)

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
        spec: What to train: its task, model, method and rule. Its own attack and variants are left out.
        store: The directory that keeps every run. The same call goes on where it was stopped.
        compare: Rules to try beside the spec's own.
        threat: What the attackers know.
        attacks: Names of the ensemble's attacks to try; default: all.
        seeds: Runs of each cell, with the seeds that follow the spec's.
        budget: Seconds after which no further run is begun and running ones are put aside. None: no limit.
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
    require(seeds >= 1, "The number of seeds", "be at least 1", seeds)
    require(bool(spec.cohort.byzantine), "A spec to stress", "have attackers", "none", "Set `attackers`.")
    own = {key: value for key, value in spec.data.items() if key not in ("attack", "compare")}
    rules = _rules(
        own["rule"], " >> ".join(stage.name for stage in (*spec.rule.stages, spec.rule.last)), compare
    )
    tried = ensemble(spec.task.build(spec.cohort, spec.seed), threat, attacks)
    every = {NO_ATTACK: {"name": "none"}, **tried}
    end = None if budget is None else monotonic() + budget
    own_rule, *others = rules
    plans = {
        (name, group): _plan(own, spec.seed, [rules[rule] for rule in group], attack, seeds, Path(store))
        for group in ((own_rule,), tuple(others))
        if group
        for name, attack in every.items()
    }
    trials: list[Trial] = []
    left: list[str] = []

    def over() -> bool:
        return stopped() or (end is not None and monotonic() >= end)

    for (name, group), plan in plans.items():
        if plan.to_play and not over():
            (play or _here)(plan, over)
        measured = _trials(name, plan, group)
        trials += measured
        left += [f"{rule} under {name}" for rule in group if rule not in {one.rule for one in measured}]
    n, f = spec.cohort.n, spec.f
    return Stress(
        threat, n, f, len(spec.cohort.byzantine), tuple(rules), tuple(trials), Path(store), tuple(left)
    )


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
