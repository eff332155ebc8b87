"""Running a spec under the ensemble: one sweep over all attacks, in order of importance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

from byzopt.attacks.limited import Threat
from byzopt.errors import InvalidInput, Status, require
from byzopt.experiments import Spec
from byzopt.experiments.sweeps import SweepPlan, run_sweep
from byzopt.experiments.trials.memory import build_task
from byzopt.stress.catalogue import NEEDS, NO_ATTACK, ensemble
from byzopt.stress.difference import Difference, difference_of
from byzopt.stress.planning import cells_of, joined, rules_of
from byzopt.stress.verdict import Trial, worst

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
        play: Runs the plan of one sweep until the function that it gets says that it is over; default: in
            this process, one run after another.
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
    rules = rules_of(spec, own, compare)
    tried, unfit = _fitting(own, ensemble(build_task(spec), threat, attacks), bool(attacks))
    every = {NO_ATTACK: {"name": "none"}, **tried}
    ranks = cells_of(own, rules, every, [spec.seed + k for k in range(seeds)], Path(store))
    plan = joined(ranks, inf if budget is None else budget)

    def over() -> bool:
        return stopped() or monotonic() >= end

    if plan.to_play and not over():
        (play or _here)(plan, over)
    cells = {(cell.rule, cell.attack): cell.trial() for rank in ranks for cell in rank}
    order = [
        (rule, attack) for group in (list(rules)[:1], list(rules)[1:]) for attack in every for rule in group
    ]
    trials = tuple(one for at in order if (one := cells[at]) is not None)
    left = tuple(f"{rule} under {attack}" for rule, attack in order if cells[rule, attack] is None)
    n, f, liars = spec.cohort.n, spec.f, len(spec.cohort.byzantine)
    return Stress(threat, n, f, liars, tuple(rules), trials, Path(store), left, tuple(tried), seeds, unfit)


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


def _here(plan: SweepPlan, over: Callable[[], bool]) -> None:
    """Plays in this process; a run that failed ends it."""
    failed: list[str] = []

    def hear(kind: str, content: Any) -> None:
        if kind == "ended" and content[1] == Status.ERROR:
            failed.append(content[0])

    run_sweep(plan, jobs=0, tell=hear, stopped=lambda: bool(failed) or over())
