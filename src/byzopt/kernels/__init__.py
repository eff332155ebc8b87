"""Kernels compiled at run time for the CPU at hand; plain torch is always there too, and gives the same."""

from byzopt.kernels.answers import RankWindow
from byzopt.kernels.between import SideBySide
from byzopt.kernels.blend import fused_blend, mixed_blend, weighted_rows
from byzopt.kernels.centres import TIE, best_shares, bulk_weights, steps_from_bulk, weiszfeld_steps
from byzopt.kernels.columns import reduce_columns, reduces_columns, reduces_sets
from byzopt.kernels.definite import solved
from byzopt.kernels.edges import moved_rows, pair_squares
from byzopt.kernels.excess import sums_beyond
from byzopt.kernels.gram import fused_gram
from byzopt.kernels.history import Grown, Sums, Walk, fused_history
from byzopt.kernels.jit import NUMPY, disabled, kernels_available, parallel_for, supports
from byzopt.kernels.keys import row_sums
from byzopt.kernels.lengths import COUNTS, Figures, row_figures
from byzopt.kernels.measure import measured_rows
from byzopt.kernels.networks import network
from byzopt.kernels.ranks import nearest_rows, nearest_sums, reaches, selects, tightest
from byzopt.kernels.scatter import fused_scatter
from byzopt.kernels.seen import pulls, spread_along, squares_to, walk, ways_to
from byzopt.kernels.signed import signed_products
from byzopt.kernels.square import (
    EXTREME,
    FEW,
    Measured,
    decides,
    matrix_product,
    measured_products,
    mixed_products,
    nearest_shares,
)
from byzopt.kernels.sums import vote_rows
from byzopt.kernels.tall import reduce_tall_sets
from byzopt.kernels.turned import turned_rows, turns

__all__ = [
    "COUNTS",
    "EXTREME",
    "FEW",
    "NUMPY",
    "TIE",
    "Figures",
    "Grown",
    "Measured",
    "RankWindow",
    "SideBySide",
    "Sums",
    "Walk",
    "best_shares",
    "bulk_weights",
    "decides",
    "disabled",
    "fused_blend",
    "fused_gram",
    "fused_history",
    "fused_scatter",
    "kernels_available",
    "matrix_product",
    "measured_products",
    "measured_rows",
    "mixed_blend",
    "mixed_products",
    "moved_rows",
    "nearest_rows",
    "nearest_shares",
    "nearest_sums",
    "network",
    "pair_squares",
    "parallel_for",
    "pulls",
    "reaches",
    "reduce_columns",
    "reduce_tall_sets",
    "reduces_columns",
    "reduces_sets",
    "row_figures",
    "row_sums",
    "selects",
    "signed_products",
    "solved",
    "spread_along",
    "squares_to",
    "steps_from_bulk",
    "sums_beyond",
    "supports",
    "tightest",
    "turned_rows",
    "turns",
    "vote_rows",
    "walk",
    "ways_to",
    "weighted_rows",
    "weiszfeld_steps",
]
