"""Estimators: what honest workers compute and send."""

from byzopt.workers.base import ESTIMATORS, Estimator, Need, Oracle
from byzopt.workers.double import DoubleMomentum, Storm
from byzopt.workers.local import LocalAdamW, LocalSGD, Memory
from byzopt.workers.momentum import Form, Plain, Start, WorkerMomentum
from byzopt.workers.reduced import LSVRG, Differences, Full, Page

__all__ = [
    "ESTIMATORS",
    "LSVRG",
    "Differences",
    "DoubleMomentum",
    "Estimator",
    "Form",
    "Full",
    "LocalAdamW",
    "LocalSGD",
    "Memory",
    "Need",
    "Oracle",
    "Page",
    "Plain",
    "Start",
    "Storm",
    "WorkerMomentum",
]
