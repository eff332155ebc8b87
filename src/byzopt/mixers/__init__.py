"""Mixers: how the nodes of a graph take in what their neighbours say, all nodes in one call."""

from byzopt.mixers.base import MIXERS, Hearing, Mixer
from byzopt.mixers.clipped import ClippedGossip, ClippedOracle, CSPlus, FixedRadius
from byzopt.mixers.local import OneNode, mix_one
from byzopt.mixers.nearest import GTS, NNA
from byzopt.mixers.scaled import Gossip, ScaledMixer
from byzopt.mixers.screened import Screen
from byzopt.mixers.ubar import UBAR

__all__ = [
    "GTS",
    "MIXERS",
    "NNA",
    "UBAR",
    "CSPlus",
    "ClippedGossip",
    "ClippedOracle",
    "FixedRadius",
    "Gossip",
    "Hearing",
    "Mixer",
    "OneNode",
    "ScaledMixer",
    "Screen",
    "mix_one",
]
