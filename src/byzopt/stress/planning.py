"""What stress runs: a cell for each rule and attack, and one plan for them all, in order of importance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from byzopt.aggregators import Aggregator
from byzopt.errors import InvalidInput, require
from byzopt.experiments import Spec
from byzopt.experiments.sweeps import RunStore, Sweep, SweepPlan, plan_sweep
from byzopt.experiments.sweeps.batches import RunBatch
from byzopt.experiments.sweeps.runs import Expansion
from byzopt.own_files import UserError
from byzopt.stress.catalogue import is_cheap, is_searched
from byzopt.stress.verdict import Trial, trial

AXES = ("attack", "rule", "seed")  # in which the runs differ


class Cell(NamedTuple):
    """A rule under an attack, a run for each seed."""

    rule: str
    attack: str
    plan: SweepPlan

    def trial(self) -> Trial | None:
        """What it came to; None unless all runs have ended. Errors: `InvalidInput` for a run that failed."""
        store, runs = RunStore(self.plan.store.root), [run.id for run in self.plan.expansion.runs]
        stored = [store.inspect(run) for run in runs]
        failed = next((one for one in stored if one.kind == "failed"), None)
        if failed is not None:
            raise InvalidInput(f"The run of {self.rule} under {self.attack} failed: {failed.message}")
        if any(one.kind != "whole" for one in stored):
            return None
        return trial(self.rule, self.attack, runs, [store.read_outcome(run) for run in runs])


def defence_of(spec: Spec) -> str:
    """What defends a training, in words: its rule, or the mixer or intake that takes the rule's place."""
    return _instead(spec) or " >> ".join(stage.name for stage in (*spec.rule.stages, spec.rule.last))


def rules_of(spec: Spec, own: Mapping[str, Any], rules: Sequence[str]) -> dict[str, Any]:
    """The rules by name, the spec's own first.

    Errors: `InvalidInput` where no rule combines, or for one that does not fit.
    """
    instead = _instead(spec)
    require(
        not instead or not rules,
        "A spec whose rule is compared with others",
        "combine rows by a rule",
        f"the {instead}, which does that itself",
        "Compare no rules, and stress a spec with another of its kind instead.",
    )
    name = defence_of(spec)
    others = {rule: rule for rule in rules if _recipe(own, rule) != spec.rule or rule != name}
    return {f"{name} (the spec's)" if name in others else name: own["rule"], **others}


def _recipe(own: Mapping[str, Any], rule: str) -> Aggregator:
    """A rule to compare, filled in as the spec's own is."""
    try:
        return Spec.of({**own, "rule": rule}).rule
    except UserError:
        raise
    except InvalidInput as error:
        why = str(error).removeprefix("In the spec: ")
        raise type(error)(f"Rule {rule!r} to compare does not fit this spec. {why}") from None


def cells_of(
    own: Mapping[str, Any],
    rules: Mapping[str, Any],
    attacks: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    store: Path,
) -> list[list[Cell]]:
    """Every rule under every attack, in ranks, the most important ones first.

    The spec's own rule, the first, comes before the others, and for each: first one attack that searches and
    all that do not, then the other searched ones.
    """
    mine, *others = rules
    searched = [name for name, attack in attacks.items() if is_searched(attack)]
    ranks = [name for name in attacks if name not in searched[1:]], searched[1:]
    found = [
        [
            Cell(rule, name, _plan(own, rules[rule], attacks[name], seeds, store))
            for name in rank
            for rule in group
        ]
        for group in ([mine], others)
        for rank in ranks
    ]
    return [rank for rank in found if rank]


def joined(ranks: Sequence[Sequence[Cell]], budget: float = inf) -> SweepPlan:
    """One plan for the runs of all cells, in their order.

    With a `budget` in seconds what may be slow is put aside when it has had an equal share of half of it, and
    goes on after the others of its rank: what is put aside everywhere measures nothing.
    """
    cells = [cell for rank in ranks for cell in rank]
    share, batches = budget / (2 * len(cells)), list[RunBatch]()
    for rank in ranks:
        slow = [cell for cell in rank if share < inf and not is_cheap(cell.attack)]
        for cell in rank:
            patience = share if cell in slow else inf
            batches += [batch._replace(patience=patience) for batch in cell.plan.batches]
        batches += [batch for cell in slow for batch in cell.plan.batches]
    first, *_ = plans = [cell.plan for cell in cells]
    grid = {axis: _distinct(value for plan in plans for value in plan.sweep.grid[axis]) for axis in AXES}
    intents = {intent.run.id: intent for plan in plans for intent in plan.intents}
    runs = Expansion(tuple(intent.run for intent in intents.values()), ())
    sweep = replace(first.sweep, grid=grid)
    return SweepPlan(sweep, first.store, runs, tuple(intents.values()), tuple(batches))


def _distinct(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        found += [] if value in found else [value]
    return found


def _plan(
    own: Mapping[str, Any], rule: Any, attack: Mapping[str, Any], seeds: Sequence[int], store: Path
) -> SweepPlan:
    every = own.get("eval_every") or max(1, int(own["rounds"]) // 50)
    data = {**own, "eval_every": every}
    grid = dict(zip(AXES, ([dict(attack)], [rule], list(seeds)), strict=True))
    sweep = Sweep(name="stress", spec={k: v for k, v in data.items() if k not in AXES}, grid=grid)
    return plan_sweep(sweep, store)


def _instead(spec: Spec) -> str:
    """The mixer or intake that takes a rule's place, in words; empty where a rule combines."""
    if spec.graph is not None and not spec.graph.mixer.uses_rule:
        return f"mixer {spec.graph.mixer.name}"
    if spec.asynchrony is not None and not spec.asynchrony.intake.uses_rule:
        return f"intake {spec.asynchrony.intake.name}"
    return ""
