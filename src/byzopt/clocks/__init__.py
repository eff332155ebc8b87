"""Clocks: how long each worker takes for its next gradient, as a function of seed, worker and count."""

from byzopt.clocks.base import CLOCKS, Clock
from byzopt.clocks.families import Equal, Exponential, Given, Script, Spread

__all__ = ["CLOCKS", "Clock", "Equal", "Exponential", "Given", "Script", "Spread"]
