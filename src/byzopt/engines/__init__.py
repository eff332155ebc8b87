"""Engines and the one loop that drives them."""

from byzopt.engines.base import Engine, Exchange
from byzopt.engines.loop import Against, LoopState, Snapshot, begin, rounds
from byzopt.engines.simulated import Simulated

__all__ = ["Against", "Engine", "Exchange", "LoopState", "Simulated", "Snapshot", "begin", "rounds"]
