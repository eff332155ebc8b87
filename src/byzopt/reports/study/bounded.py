"""Records with what theory promises beside what was measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from byzopt.certificates.estimates import with_rule
from byzopt.certificates.progress import OnProgress, no_progress
from byzopt.certificates.promised import bound_curve, spec_constants
from byzopt.experiments import Outcome, Spec
from byzopt.registry import plain
from byzopt.theory.promise import Constants, Promise

BOUND = "_bound"  # a record's `gap_bound` bounds its `gap`
LEAST = "_least_bound"  # a record's `grad_norm_least_bound` bounds the least `grad_norm` up to there


def bound_adder(on_progress: OnProgress = no_progress) -> Callable[[Spec, Outcome], tuple[Outcome, Promise]]:
    """A function that adds the bound of a run's theorem to its records, where every premise stands and the
    bound is not vacuous, and gives the promise itself.

    Constants are those of the run's own task; runs on one task with the same liars share them.
    """
    known: dict[str, Constants] = {}

    def bounded(spec: Spec, outcome: Outcome) -> tuple[Outcome, Promise]:
        about = json.dumps([plain(spec.task), spec.n, spec.cohort.byzantine, spec.seed, spec.data_seed])
        if about not in known:
            known[about] = spec_constants(spec, on_progress)
        here = replace(known[about], f=spec.f, rounds=spec.rounds)
        here = with_rule(here, spec.rule, spec.cohort)
        curve = bound_curve(spec, here, on_progress, outcome.records)
        key = curve.key + (LEAST if curve.least else BOUND)
        with_bounds = tuple(
            record | ({key: curve.values[record["t"]]} if record["t"] in curve.values else {})
            for record in outcome.records
        )
        return replace(outcome, records=with_bounds), curve.promise

    return bounded
