"""Attacks on the edges of a graph: what liars tell each receiver, chosen against that receiver's rule."""

from byzopt.attacks.edges.base import EDGE_ATTACKS, EdgeAttack, EdgeView, from_all
from byzopt.attacks.edges.directions import Dissensus, LocalALIE, LocalIPM, Spectral, TwoFaced
from byzopt.attacks.edges.searched import SearchedAttack, farthest, lengths_to_try

__all__ = [
    "EDGE_ATTACKS",
    "Dissensus",
    "EdgeAttack",
    "EdgeView",
    "LocalALIE",
    "LocalIPM",
    "SearchedAttack",
    "Spectral",
    "TwoFaced",
    "farthest",
    "from_all",
    "lengths_to_try",
]
