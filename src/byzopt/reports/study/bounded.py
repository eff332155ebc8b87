"""Records with what theory promises beside what was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from byzopt.attacks import NoAttack
from byzopt.experiments import Outcome, Spec
from byzopt.experiments.estimates import Tell, silent
from byzopt.experiments.promised import curve

BOUND = "_bound"  # a record's `loss_bound` bounds its `loss`


def bounding(tell: Tell = silent) -> Callable[[Spec, Outcome], Outcome]:
    """A function that adds the bound of a run's theorem, where it has one, to its records.

    Constants are estimated on the run's own task; runs that differ in attack or rate alone share them.
    """
    known: dict[str, tuple[str, dict[float, float]]] = {}

    def bounded(spec: Spec, outcome: Outcome) -> Outcome:
        about = replace(spec, attack=NoAttack(), placement="free", base="own", lr=1.0, stop={}).id
        if about not in known:
            key, values, _ = curve(spec, tell)
            known[about] = key, values
        key, values = known[about]
        told = [r | ({key + BOUND: values[r["t"]]} if r["t"] in values else {}) for r in outcome.records]
        return replace(outcome, records=tuple(told))

    return bounded
