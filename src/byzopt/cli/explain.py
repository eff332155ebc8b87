"""`byzopt explain`: a method's card, with a task's numbers filled in where a spec names one."""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from byzopt.methods import MethodRecipe


def command(
    what: Annotated[str, typer.Argument(help="A method's name, a TOML file, or a preset.")],
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings of the spec.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the spec. Repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Print a method's card: paper, algorithm, symbols, assumptions, step sizes.

    For a spec or preset the constants of its task are estimated, and the card ends with what the method's
    theorem says with those numbers.
    """
    from byzopt.errors import InvalidInput
    from byzopt.methods import METHODS

    if what in METHODS:
        if more or settings:
            raise InvalidInput(f"Settings change a spec. Found the method {what!r} alone. Name a spec.")
        found = card(METHODS.build(what))
    else:
        found = _filled(what, [*(settings or ()), *(more or ())])
    if as_json:
        print(json.dumps(found, allow_nan=False))
    else:
        _print(found)


def card(recipe: MethodRecipe) -> dict[str, Any]:
    """What a method says of itself: its text, its family's, its parameters."""
    from byzopt.registry import plain

    family = inspect.getmodule(type(recipe)).__doc__ or ""
    text = {"card": inspect.cleandoc(type(recipe).__doc__ or ""), "family": inspect.cleandoc(family)}
    return {"method": recipe.name, **text, "parameters": plain(recipe)}


def _filled(source: str, changes: list[str]) -> dict[str, Any]:
    from byzopt.cli.audit import told
    from byzopt.cli.progress import Steps
    from byzopt.errors import UnknownName, unknown
    from byzopt.experiments import load
    from byzopt.experiments.loading import presets
    from byzopt.experiments.promised import promised
    from byzopt.methods import METHODS

    if source not in presets() and not Path(source).exists() and not source.endswith(".toml"):
        raise UnknownName(str(unknown("method or preset", source, [*METHODS, *presets()])))
    spec = load(source, changes, compare=False)
    with Steps() as tell:
        known, promise = promised(spec, tell)
    found = card(spec.method) | {"constants": asdict(known), "step_in_spec": spec.lr}
    return found | {"promise": told(promise) if promise else None}


def _print(found: dict[str, Any]) -> None:
    print(f"{found['method']}\n\n{found['card']}\n\n{found['family']}\n")
    print("Parameters: " + (", ".join(f"{k} = {v}" for k, v in _parameters(found).items()) or "none"))
    if "constants" not in found:
        return
    known = {key: value for key, value in found["constants"].items() if value is not None}
    print("\nOn this task: " + ", ".join(f"{key} = {value:.4g}" for key, value in known.items()))
    promise = found["promise"]
    if promise is None:
        print("No theorem is known.")
        return
    print(f"{promise['theorem']}, on {promise['measures']}:")
    steps = ", ".join(f"{key} = {value:.4g}" for key, value in promise["steps"].items())
    print(f"  steps: {steps or '-'} (the spec has lr = {found['step_in_spec']:.4g})")
    for key in ("bound", "floor"):
        print(f"  {key}: {'-' if promise[key] is None else format(promise[key], '.4g')}")
    for key in ("missing", "remarks"):
        for line in promise[key]:
            print(f"  {key}: {line}")


def _parameters(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found["parameters"].items() if key != "name"}
