"""Records with what theory promises beside what was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from byzopt.attacks import NoAttack
from byzopt.experiments import Outcome, Spec
from byzopt.experiments.estimates import Tell, silent
from byzopt.experiments.promised import constants, curve
from byzopt.methods import METHODS
from byzopt.theory.promise import Constants, Promise

BOUND = "_bound"  # a record's `gap_bound` bounds its `gap`
LEAST = "_least_bound"  # a record's `grad_norm_least_bound` bounds the least `grad_norm` up to there


def bounding(tell: Tell = silent) -> Callable[[Spec, Outcome], tuple[Outcome, Promise]]:
    """A function that adds the bound of a run's theorem to its records, where every premise stands and the
    bound is not vacuous, and gives the promise itself.

    Constants are those of the run's own task; runs that differ in attack, method or step alone share them.
    """
    known: dict[str, Constants] = {}

    def bounded(spec: Spec, outcome: Outcome) -> tuple[Outcome, Promise]:
        bare = replace(spec, attack=NoAttack(), placement="free", base="own", lr=1.0, stop={}, compare={})
        about = replace(bare, method=METHODS.build("robust_gd")).id
        if about not in known:
            known[about] = constants(spec, tell)
        found = curve(spec, known[about], tell, outcome.records)
        key = found.key + (LEAST if found.least else BOUND)
        told = tuple(
            record | ({key: found.values[record["t"]]} if record["t"] in found.values else {})
            for record in outcome.records
        )
        return replace(outcome, records=told), found.promise

    return bounded
