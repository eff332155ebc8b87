"""Data sets: where their files are found or fetched, and how they are read."""

from byzopt.tasks.data.loaders import FEATURES, digits, libsvm, mnist, parse_idx, shakespeare
from byzopt.tasks.data.sharing import share_while_used
from byzopt.tasks.data.store import DATASETS, DataFile, available, find

__all__ = [
    "DATASETS",
    "FEATURES",
    "DataFile",
    "available",
    "digits",
    "find",
    "libsvm",
    "mnist",
    "parse_idx",
    "shakespeare",
    "share_while_used",
]
