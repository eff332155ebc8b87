"""`byzopt list`: every registered component, its first sentence and its parameters."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from byzopt.cli.parameters import AsJson
from byzopt.errors import UnknownName, unknown

if TYPE_CHECKING:
    from byzopt.registry import Registry

KINDS = (
    "rules",
    "pre_aggregators",
    "wrappers",
    "attacks",
    "methods",
    "tasks",
    "partitions",
    "schedules",
    "norms",
    "proxies",
    "inner_solvers",
    "compressors",
    "channels",
    "downlinks",
    "estimators",
    "participants",
    "steps",
    "engines",
    "edge_attacks",
    "topologies",
    "mixers",
    "clocks",
    "intakes",
    "clock_attacks",
    "presets",
    "sweeps",
    "reproductions",
)
REQUIRED = "required"


def command(
    kind: Annotated[
        str | None,
        typer.Argument(help=f"One of {', '.join(KINDS)}, or a Python file of your own. Default: all kinds."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the rules, attacks, methods, tasks, presets ... that a spec can name."""
    if kind is not None and kind.endswith(".py"):
        shown = catalogue_of(kind)
    else:
        components = catalogue()
        if kind is not None and kind not in KINDS:
            at = next((room for room in KINDS if any(one["name"] == kind for one in components[room])), None)
            hint = f" {kind!r} is one of `byzopt list {at}`." if at else ""
            raise UnknownName(f"{unknown('kind', kind, KINDS)}{hint}")
        shown = {name: components[name] for name in ([kind] if kind else KINDS)}
    if as_json:
        print(json.dumps(shown))
    else:
        _print(shown)


def catalogue() -> dict[str, list[dict[str, Any]]]:
    """Kind to components, each with `name`, `summary` and `parameters` (their defaults, or "required").
    Presets have `searched` too: what attacks that search leave of them."""
    from byzopt.experiments.specs.loading import presets, sweeps
    from byzopt.plugins import load_plugins
    from byzopt.reproductions.loading import reproductions
    from byzopt.reproductions.searched import searched_sentence

    load_plugins()
    components = {kind: [_described(room[name]) for name in room] for kind, room in _rooms().items()}
    files = {"presets": presets(), "sweeps": sweeps(), "reproductions": reproductions()}
    for kind, summaries in files.items():
        components[kind] = [
            {"name": name, "summary": text, "parameters": {}} for name, text in summaries.items()
        ]
    for preset in components["presets"]:
        preset["searched"] = searched_sentence(preset["name"])
    return components


def catalogue_of(path: str) -> dict[str, list[dict[str, Any]]]:
    """The same of the parts in a user's own file, by kind. Of functions, those that say what they return."""
    from byzopt.own_files import parts_of
    from byzopt.registry import kinds_of

    rooms = _rooms()
    found: dict[str, list[dict[str, Any]]] = {}
    for name, part in parts_of(path).items():
        for kind, room in rooms.items():
            if room in kinds_of(part):
                found.setdefault(kind, []).append(_described(room.class_of(f"{path}:{name}")))
    return {kind: found[kind] for kind in KINDS if kind in found}


def _rooms() -> dict[str, Registry[Any]]:
    from byzopt.aggregators import PRE_AGGREGATORS, RULES, WRAPPERS
    from byzopt.attacks import ATTACKS, CLOCK_ATTACKS, EDGE_ATTACKS
    from byzopt.clocks import CLOCKS
    from byzopt.engines import ENGINES
    from byzopt.graphs import TOPOLOGIES
    from byzopt.intakes import INTAKES
    from byzopt.methods import METHODS
    from byzopt.mixers import MIXERS
    from byzopt.schedules import SCHEDULES
    from byzopt.servers import INNERS, NORMS, STEPS
    from byzopt.tasks import PARTITIONS, PROXIES, TASKS
    from byzopt.wire import CHANNELS, COMPRESSORS, DOWNLINKS
    from byzopt.workers import ESTIMATORS, PARTICIPANTS

    rooms: list[Registry[Any]] = [RULES, PRE_AGGREGATORS, WRAPPERS, ATTACKS, METHODS]
    rooms += [TASKS, PARTITIONS, SCHEDULES, NORMS, PROXIES, INNERS]
    rooms += [COMPRESSORS, CHANNELS, DOWNLINKS, ESTIMATORS, PARTICIPANTS, STEPS, ENGINES]
    rooms += [EDGE_ATTACKS, TOPOLOGIES, MIXERS]
    rooms += [CLOCKS, INTAKES, CLOCK_ATTACKS]
    return dict(zip(KINDS[:-3], rooms, strict=True))


def _described(recipe: type) -> dict[str, Any]:
    from byzopt.registry import plain

    parameters: dict[str, Any] = {}
    for field in fields(recipe):
        if field.init:
            given = field.default is not MISSING or field.default_factory is not MISSING
            default = field.default if field.default_factory is MISSING else field.default_factory()
            parameters[field.name] = plain(default) if given else REQUIRED
    return {"name": recipe.name, "summary": _summary(recipe), "parameters": parameters}  # type: ignore[attr-defined]


def _summary(recipe: type) -> str:
    paragraph = (recipe.__doc__ or "").strip().partition("\n\n")[0]
    # A sentence ends at a full stop, not at the dots of `v_1 .. v_n`.
    return re.split(r"(?<![ .])\. ", " ".join(paragraph.split()))[0].rstrip(".") + "."


def _print(shown: dict[str, list[dict[str, Any]]]) -> None:
    from rich.padding import Padding
    from rich.text import Text

    from byzopt.cli.terminal import console, words

    out = console()
    for kind, components in shown.items():
        out.print(words(kind, "bold"))
        for one in components:
            parameters = ", ".join(f"{key}={_spelled(value)}" for key, value in one["parameters"].items())
            rest = (f"({parameters})" if parameters else "") + f"\n  {one['summary']}"
            rest += f"\n  {one['searched']}" if "searched" in one else ""
            out.print(Padding(Text.assemble(words(one["name"], "cyan"), words(rest)), (0, 0, 0, 2)))


def _spelled(value: Any) -> str:
    if isinstance(value, dict) and set(value) == {"name"}:
        value = value["name"]
    return value if isinstance(value, str) else json.dumps(value)
