"""Engines and the one loop that drives them."""

from byzopt.engines.asynchrony import Asynchrony
from byzopt.engines.base import ENGINES, Engine, EngineRecipe, Exchange
from byzopt.engines.clock_loop import ClockSnapshot, rounds_on_clock
from byzopt.engines.graph import Graph
from byzopt.engines.graph_loop import GraphSnapshot, rounds_on_graph
from byzopt.engines.loop import Against, LoopState, Snapshot, begin, rounds
from byzopt.engines.on_clock import OnClock
from byzopt.engines.on_graph import OnGraph
from byzopt.engines.own import engine_recipe as _engine_recipe  # noqa: F401  (classes as engines)
from byzopt.engines.simulated import GradientCount, InProcess, Simulated

__all__ = [
    "ENGINES",
    "Against",
    "Asynchrony",
    "ClockSnapshot",
    "Engine",
    "EngineRecipe",
    "Exchange",
    "GradientCount",
    "Graph",
    "GraphSnapshot",
    "InProcess",
    "LoopState",
    "OnClock",
    "OnGraph",
    "Simulated",
    "Snapshot",
    "begin",
    "rounds",
    "rounds_on_clock",
    "rounds_on_graph",
]
