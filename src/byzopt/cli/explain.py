"""`byzopt explain`: a method's card, with a task's numbers filled in where a spec names one."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from byzopt.cli.parameters import AsJson, Settings

if TYPE_CHECKING:
    from byzopt.experiments import Spec
    from byzopt.methods import MethodRecipe


def command(
    what: Annotated[str, typer.Argument(help="A method's name, a TOML file, or a preset.")],
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings of the spec.")
    ] = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Print a method's card: paper, algorithm, symbols, assumptions, step sizes.

    For a spec or preset the constants of its task are estimated where the task does not state them, and the
    card ends with what the method's theorem says with those numbers and the spec's own step: every premise
    with its verdict, and a bound where all of them stand.
    """
    from byzopt.errors import InvalidInput
    from byzopt.methods import METHODS

    if what in METHODS:
        if more or settings:
            raise InvalidInput(f"Settings change a spec. Found the method {what!r} alone. Name a spec.")
        data, notes = card(METHODS.build(what)), list[str]()
    else:
        data, notes = _filled(what, [*(settings or ()), *(more or ())])
    if as_json:
        print(json.dumps(data, allow_nan=False))
    else:
        _print(data, notes)


def card(recipe: MethodRecipe) -> dict[str, Any]:
    """What a method says of itself: its text, its family's, its parameters."""
    from byzopt.docstrings import sections
    from byzopt.registry import plain

    family = inspect.getmodule(type(recipe)).__doc__ or ""
    text = {"card": sections(type(recipe).__doc__)[""], "family": inspect.cleandoc(family)}
    return {"method": recipe.name, **text, "parameters": plain(recipe)}


def _filled(source: str, changes: list[str]) -> tuple[dict[str, Any], list[str]]:
    from byzopt.certificates.privacy import spec_privacy
    from byzopt.certificates.promised import spec_promise
    from byzopt.cli.progress import StageProgress
    from byzopt.cli.promises import (
        bound_words,
        lines,
        plain_constants,
        plain_promise,
        privacy_lines,
        steps_line,
    )
    from byzopt.errors import UnknownName, unknown
    from byzopt.experiments import load
    from byzopt.experiments.specs.loading import presets
    from byzopt.methods import METHODS

    if source not in presets() and not Path(source).exists() and not source.endswith(".toml"):
        raise UnknownName(str(unknown("method or preset", source, [*METHODS, *presets()])))
    spec = load(source, changes, compare=False)
    if spec.graph is not None:
        return _on_graph(spec)
    if spec.asynchrony is not None:
        return _on_clock(spec)
    with StageProgress() as tell:
        known, promise = spec_promise(spec, tell)
    data = card(spec.method) | {"constants": plain_constants(known), "step_in_spec": spec.lr}
    # Where the spec's step is out of range: what would hold with the theorem's own.
    other = spec.method.promise(replace(known, lr=None)) if promise.broken else None
    better = other if other is not None and not other.broken and other.bound is not None else None
    data |= {"promise": plain_promise(promise)}
    budgets = spec_privacy(spec)
    data |= {"privacy": [plain_promise(budget) for budget in budgets]}
    data |= {"expulsion": list(spec.method.expulsion(known))}
    data |= {"with_the_theorems_own_step": plain_promise(better) if better else None}
    notes = lines(promise, spec.lr)
    if better:
        bound, floor = bound_words(better), bound_words(better, "floor")
        notes.append(f"  with its own step {steps_line(better)} instead, bound: {bound}, floor: {floor}")
    for budget in budgets:
        notes += privacy_lines(budget)
    notes += [f"  expulsion: {line}" for line in data["expulsion"]]
    return data, notes


def _on_graph(spec: Spec) -> tuple[dict[str, Any], list[str]]:
    """The card, the numbers of the graph, and what is promised of its mixer."""
    from byzopt.certificates.graphs import graph_facts
    from byzopt.cli.promises import lines, plain_promise

    facts = graph_facts(spec)
    data = card(spec.method) | {"step_in_spec": spec.lr, "graph": facts.numbers}
    data |= {"warnings": list(facts.warnings), "promise": plain_promise(facts.promise)}
    notes = [f"  {name} = {value:.6g}" for name, value in facts.numbers.items()]
    return data, [*notes, *(f"  note: {line}" for line in facts.warnings), *lines(facts.promise, None)]


def _on_clock(spec: Spec) -> tuple[dict[str, Any], list[str]]:
    """The cards of method and intake, the numbers of the clock, and the longest step where it is known."""
    from byzopt.certificates.asynchrony import clock_facts
    from byzopt.cli.promises import lines, plain_promise
    from byzopt.docstrings import sections

    facts = clock_facts(spec)
    assert spec.asynchrony is not None
    intake = spec.asynchrony.intake
    told = {"name": intake.name, "card": sections(type(intake).__doc__)[""]}
    data = card(spec.method) | {"step_in_spec": spec.lr, "asynchrony": facts.numbers, "intake": told}
    data |= {"warnings": list(facts.warnings), "promise": plain_promise(facts.promise)}
    notes = [f"  {name} = {value:.6g}" for name, value in facts.numbers.items()]
    return data, [*notes, *(f"  note: {line}" for line in facts.warnings), *lines(facts.promise, spec.lr)]


def _print(data: dict[str, Any], notes: list[str]) -> None:
    print(f"{data['method']}\n\n{data['card']}\n\n{data['family']}\n")
    print("Parameters: " + (", ".join(f"{k} = {v}" for k, v in _parameters(data).items()) or "none"))
    if "graph" in data:
        print("\nGraph:\n" + "\n".join(notes))
    if "asynchrony" in data:
        print(f"\nIntake {data['intake']['name']}\n\n{data['intake']['card']}")
        print("\nClock and intake:\n" + "\n".join(notes))
    if "constants" not in data:
        return
    from byzopt.cli.audit import known_lines

    print("\n" + "\n".join(known_lines(data["constants"])))
    print("\n".join(notes))


def _parameters(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data["parameters"].items() if key not in ("name", "source")}
