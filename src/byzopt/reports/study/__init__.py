"""Reports on a store: what its runs say together, as figures, tables and one page."""

from byzopt.reports.study.page import save_study
from byzopt.reports.study.report import StudyReport, make_report

__all__ = ["StudyReport", "make_report", "save_study"]
