"""Whether an engine runs the method: a part that the engine passes over would be left out in silence."""

from __future__ import annotations

from typing import Any

from byzopt.engines import Engine
from byzopt.errors import require
from byzopt.methods import Method
from byzopt.wire import Broadcast, Direct, Identity
from byzopt.workers import All, Plain

PARTS = {
    "worker": "plain gradients at the workers",
    "wire": "rows sent up as they are",
    "down": "points sent down as they are",
    "participants": "everybody in every round",
}


def check_runs(engine: Engine, method: Method, prepared: bool) -> None:
    """Raise `InvalidInput` unless the engine runs every part of the method that has to be run.

    `prepared`: it was built before the method was named, so that it runs the parts that it holds.
    """
    name = type(engine).__name__
    for part, plainly in PARTS.items():
        asked = getattr(method, part)
        if part not in engine.runs:
            remedy = f"Take one that has, as robust_gd does, or run `method.{part}` and name it in `runs`."
            what, rule = f"A method on engine {name}, which does not run `{part}`,", f"have {plainly}"
            require(is_plain(asked), what, rule, asked, remedy)
        elif prepared:
            held = getattr(engine, part, None)
            remedy = "Give the engine's recipe or name: it is then built for the method."
            what, rule = f"Engine {name}, built before", f"hold the method's `{part}`, {asked}"
            require(held == asked, what, rule, held, remedy)


def is_plain(part: Any) -> bool:
    """Whether an engine that knows nothing of methods does just this."""
    if type(part) is Direct:
        return type(part.compressor) is Identity
    return type(part) in (Plain, Broadcast, All)
