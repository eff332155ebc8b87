"""A store's runs as cases: what was tried, in words, and how it went. Cases that differ in the seed alone
repeat one another."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from byzopt.certificates.privacy import spec_privacy
from byzopt.certificates.progress import OnProgress, no_progress
from byzopt.errors import ByzoptError, require
from byzopt.experiments import Outcome, Spec
from byzopt.experiments.store.reading import Damaged, is_unfinished, run_directories
from byzopt.experiments.store.table import read_variants
from byzopt.own_files import no_user_code
from byzopt.reports.study.bounded import bound_adder
from byzopt.theory.promise import Promise

COMPONENTS = ("task.partition", "task", "method", "attack")  # the first that fits a setting's path takes it
AXES = ("task", "split", "n", "f", "attackers", "attack", "method", "rule", "variant", "lr", "rounds")
OWN = frozenset({"per_worker", "run", "seed", "eval_every", "status", "message", "rounds_run", "seconds"})
SERIES = ("rule", "method", "variant")  # what tells lines and columns apart
Labels = Mapping[str, str]


class WorkerCounts(NamedTuple):
    """How many workers there are, are tolerated to be Byzantine, and are."""

    n: int
    f: int
    attackers: int

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> WorkerCounts:
        """From a run's settings, where attackers are a number or a list."""
        hostile = row["attackers"]
        return cls(row["n"], row["f"], len(hostile) if isinstance(hostile, list) else hostile)


class Case(NamedTuple):
    """One run: its label on every axis, its seed, how it ended, and what is promised of it, if asked."""

    labels: Labels
    seed: int
    outcome: Outcome
    setting: WorkerCounts | None = None
    promise: Promise | None = None
    privacy: tuple[Promise, ...] = ()


@dataclass(frozen=True)
class Study:
    """All cases of a store, what is wrong with the rest, why runs lack a bound that was asked for, and which
    directories hold a run that another holds too."""

    cases: tuple[Case, ...]
    damaged: Mapping[str, str]
    unfinished: int
    unbounded: Mapping[str, str] = field(default_factory=dict)
    repeated: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def varied(self) -> list[str]:
        """The axes on which cases differ."""
        return [axis for axis in self.axes if len(self.values(axis)) > 1]

    @cached_property
    def axes(self) -> list[str]:
        """All axes, the usual ones first."""
        names = dict.fromkeys(axis for case in self.cases for axis in case.labels)
        return sorted(names, key=lambda axis: AXES.index(axis) if axis in AXES else len(AXES))

    @cached_property
    def fixed(self) -> dict[str, str]:
        """The label of every axis on which all cases agree."""
        return {axis: self.values(axis)[0] for axis in self.axes if axis not in self.varied}

    def values(self, axis: str) -> list[str]:
        """The labels on an axis, numbers by size, others by name."""
        return ordered(case.labels.get(axis, "-") for case in self.cases)


def load_study(store: Path, bounds: bool = False, on_progress: OnProgress = no_progress) -> Study:
    """A store's finished runs, with `bounds` of theory in records. Errors: `InvalidInput` for none."""
    added = bound_adder(on_progress)
    unbounded: dict[str, str] = {}
    found: list[tuple[dict[str, Any], Outcome, Promise | None, tuple[Promise, ...]]] = []
    damaged, left = {}, 0
    for path in run_directories(store):
        if is_unfinished(path):
            left += 1
            continue
        try:
            runs = list(read_variants(path))
        except Damaged as error:
            damaged[path.name] = str(error)
            continue
        for spec, row, outcome in runs:
            try:
                with no_user_code("a store"):
                    read = Spec.of(spec.data) if bounds else None
                    bounded = added(read, outcome) if read else (outcome, None)
                    kept = spec_privacy(read) if read else ()
                found.append((row, *bounded, kept))
            except ByzoptError as error:  # its plugin or its data are not here
                unbounded[path.name] = str(error)
                found.append((row, outcome, None, ()))
    require(bool(found), f"Store {store}", "hold a finished run", "none", "Run `byzopt sweep` first.")
    repeated = _repeated([(row, outcome) for row, outcome, *_ in found])
    found = [one for i, one in enumerate(found) if i not in repeated]
    labelled = _labelled([row for row, *_ in found])
    cases = [
        Case(labels, int(row["seed"]), outcome, WorkerCounts.of(row), promise, kept)
        for labels, (row, outcome, promise, kept) in zip(labelled, found, strict=True)
    ]
    return Study(tuple(cases), damaged, left, unbounded, dict(repeated.values()))


def _repeated(runs: Sequence[tuple[Mapping[str, Any], Outcome]]) -> dict[int, tuple[str, str]]:
    """Runs that repeat another, seed and all: by place, their directory and the one that counts for both.

    A copy is no second seed. Of runs that were recorded at other rounds the one with the most records counts.
    """
    same: dict[str, list[int]] = {}
    for i, (row, _) in enumerate(runs):
        settings = {path: value for path, value in row.items() if path not in OWN or path == "seed"}
        same.setdefault(json.dumps(settings, sort_keys=True), []).append(i)
    seen: dict[int, tuple[str, str]] = {}
    for places in same.values():
        first = max(places, key=lambda i: len(runs[i][1].records))
        seen |= {i: (runs[i][0]["run"], runs[first][0]["run"]) for i in places if i != first}
    return seen


def group_cases(cases: Iterable[Case], axes: Sequence[str]) -> dict[tuple[str, ...], list[Case]]:
    """Cases by their labels on these axes, in the axes' order."""
    groups: dict[tuple[str, ...], list[Case]] = {}
    cases = list(cases)
    for case in cases:
        groups.setdefault(tuple(case.labels.get(axis, "-") for axis in axes), []).append(case)
    ranks = [
        {label: i for i, label in enumerate(ordered(case.labels.get(axis, "-") for case in cases))}
        for axis in axes
    ]

    def place(labels: tuple[str, ...]) -> list[int]:
        return [rank[label] for rank, label in zip(ranks, labels, strict=True)]

    return {labels: groups[labels] for labels in sorted(groups, key=place)}


def ordered(labels: Iterable[str]) -> list[str]:
    """Each once: numbers by size, then "none", then the rest by name."""
    return sorted(set(labels), key=lambda x: (_number(x) is None, _number(x) or 0.0, x != "none", x))


def _number(label: str) -> float | None:
    """What a label such as `0.1` or `dirichlet(alpha=0.1)` should be ordered by."""
    text = label.rpartition("=")[2].rstrip(")")
    try:
        return float(text)
    except ValueError:
        return None


def _labelled(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """A row's settings as labels: a component with those of its parameters that vary under its name."""
    owner = {path: _component(path) for row in rows for path in row if path not in OWN}
    seen: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        for path, value in row.items():
            if (home := owner.get(path)) is not None:
                seen.setdefault((path, str(row.get(home))), set()).add(json.dumps(value))
    usual = all(row.get("attackers") == row.get("f") for row in rows)
    told = []
    for row in rows:
        labels = {}
        for path, value in row.items():
            if path in OWN or (path == "attackers" and usual):
                continue
            home = owner[path]
            if home is None:
                labels[path] = label_text(value)
            elif path == home:
                parts = [
                    f"{other.removeprefix(home + '.')}={label_text(row[other])}"
                    for other in row
                    if other != home and owner.get(other) == home and len(seen[other, str(row.get(home))]) > 1
                ]
                name = "split" if home == "task.partition" else home
                labels[name] = f"{value}({', '.join(parts)})" if parts else str(value)
        told.append(labels)
    return told


def _component(path: str) -> str | None:
    return next((home for home in COMPONENTS if path == home or path.startswith(home + ".")), None)


def label_text(value: Any) -> str:
    """A setting as a label."""
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return value if isinstance(value, str) else json.dumps(value)
