"""Kernels compiled at run time for the CPU at hand; plain torch is always there too, and gives the same."""

from byzopt.kernels.answers import RankWindow
from byzopt.kernels.blend import blends, fused_blend
from byzopt.kernels.columns import reduce_columns, reduces_columns
from byzopt.kernels.gram import fused_gram
from byzopt.kernels.jit import disabled, kernels_available, parallel_for, supports
from byzopt.kernels.lengths import fused_lengths
from byzopt.kernels.networks import network

__all__ = [
    "RankWindow",
    "blends",
    "disabled",
    "fused_blend",
    "fused_gram",
    "fused_lengths",
    "kernels_available",
    "network",
    "parallel_for",
    "reduce_columns",
    "reduces_columns",
    "supports",
]
