"""The benchmark of the field: defences tuned, attacked and ranked by one protocol; entries of anybody."""

from byzopt.benchmark.entries import Entry, load_entry, shipped_entries
from byzopt.benchmark.evaluating import evaluate, replay
from byzopt.benchmark.protocol import ATTACKS, Cell, cells
from byzopt.benchmark.ranking import Overall, Place, by_cell, overall, places
from byzopt.benchmark.rows import Row
from byzopt.benchmark.scoring import Score, score
from byzopt.benchmark.storing import read_rows

__all__ = [
    "ATTACKS",
    "Cell",
    "Entry",
    "Overall",
    "Place",
    "Row",
    "Score",
    "by_cell",
    "cells",
    "evaluate",
    "load_entry",
    "overall",
    "places",
    "read_rows",
    "replay",
    "score",
    "shipped_entries",
]
