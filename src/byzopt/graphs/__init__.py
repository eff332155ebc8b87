"""Graphs: who hears whom, by name or from a list of edges, and the spectral numbers that matter."""

from byzopt.graphs.base import TOPOLOGIES, Edges, Topology
from byzopt.graphs.families import (
    Chain,
    Complete,
    Dumbbell,
    EdgeList,
    Ring,
    Star,
    Torus,
    TwoWorlds,
)
from byzopt.graphs.network import Attachment, Network, Weighting
from byzopt.graphs.random import ErdosRenyi, SmallWorld

__all__ = [
    "TOPOLOGIES",
    "Attachment",
    "Chain",
    "Complete",
    "Dumbbell",
    "EdgeList",
    "Edges",
    "ErdosRenyi",
    "Network",
    "Ring",
    "SmallWorld",
    "Star",
    "Topology",
    "Torus",
    "TwoWorlds",
    "Weighting",
]
