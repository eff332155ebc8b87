"""Engine recipes out of engine classes and out of functions that make engines."""

from __future__ import annotations

from inspect import isfunction
from typing import Any

from byzopt.attacks import Adversary
from byzopt.engines.base import ENGINES, Engine, EngineRecipe
from byzopt.methods import Method
from byzopt.own_files import called, recipe_from
from byzopt.tasks import Task

FILLED = ("task", "method", "adversary", "seed")  # parameters that come from the run


def engine_recipe(part: Any) -> type[EngineRecipe] | None:
    """The recipe's class of an engine's class, or of a function that returns an engine; None for others.

    Its parameters are the keys of the table, but for those that a run fills in: those of
    `EngineRecipe.build`.
    """
    if not isfunction(part) and not (isinstance(part, type) and issubclass(part, Engine)):
        return None
    return recipe_from(part, EngineRecipe, FILLED, _build)


def _build(recipe: Any, task: Task, method: Method, adversary: Adversary, seed: int) -> Engine:
    engine: Engine = called(recipe, {"task": task, "method": method, "adversary": adversary, "seed": seed})
    return engine


ENGINES.adapts(Engine, engine_recipe)
