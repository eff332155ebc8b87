"""Reports on a store: what its runs say together, as figures, tables and one page."""

from byzopt.reports.study.page import save
from byzopt.reports.study.report import Report, make

__all__ = ["Report", "make", "save"]
