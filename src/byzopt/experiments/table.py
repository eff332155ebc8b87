"""The former place of `byzopt.experiments.runs_table`, for one release."""

from warnings import warn

from byzopt.experiments.store.table import runs_table as table

__all__ = ["table"]

warn("byzopt.experiments.table.table is now byzopt.experiments.runs_table.", DeprecationWarning, stacklevel=2)
