"""Engines and the one loop that drives them."""

from byzopt.engines.base import ENGINES, Engine, EngineRecipe, Exchange
from byzopt.engines.loop import Against, LoopState, Snapshot, begin, rounds
from byzopt.engines.own import engine_recipe as _engine_recipe  # noqa: F401  (classes as engines)
from byzopt.engines.simulated import GradientCount, InProcess, Simulated

__all__ = [
    "ENGINES",
    "Against",
    "Engine",
    "EngineRecipe",
    "Exchange",
    "GradientCount",
    "InProcess",
    "LoopState",
    "Simulated",
    "Snapshot",
    "begin",
    "rounds",
]
