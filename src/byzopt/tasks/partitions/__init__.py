"""Partitions: which samples each worker owns. Every sample has exactly one owner, no worker is empty."""

from byzopt.tasks.partitions.base import PARTITIONS, Partition
from byzopt.tasks.partitions.by_label import GammaSimilarity, LabelQuantity, LabelShards, SortedByLabel
from byzopt.tasks.partitions.by_order import IID, Contiguous, Strided
from byzopt.tasks.partitions.skewed import Dirichlet, LongTail, Unbalanced

__all__ = [
    "IID",
    "PARTITIONS",
    "Contiguous",
    "Dirichlet",
    "GammaSimilarity",
    "LabelQuantity",
    "LabelShards",
    "LongTail",
    "Partition",
    "SortedByLabel",
    "Strided",
    "Unbalanced",
]
