"""Kernels compiled at run time for the CPU at hand; plain torch is always there too, and gives the same."""

from byzopt.kernels.blend import blend, blends
from byzopt.kernels.columns import Plan, columns, reduces
from byzopt.kernels.gram import gram
from byzopt.kernels.jit import available, disabled, split, usable
from byzopt.kernels.lengths import lengths
from byzopt.kernels.networks import network

__all__ = [
    "Plan",
    "available",
    "blend",
    "blends",
    "columns",
    "disabled",
    "gram",
    "lengths",
    "network",
    "reduces",
    "split",
    "usable",
]
