"""Estimators: what honest workers compute and send."""

from byzopt.workers.base import ESTIMATORS, Estimator, Need, Oracle
from byzopt.workers.double import DoubleMomentum, Storm
from byzopt.workers.local import LocalAdamW, LocalSGD, Memory
from byzopt.workers.momentum import Form, Plain, SampledMomentum, Start, WorkerMomentum
from byzopt.workers.participants import PARTICIPANTS, All, Bernoulli, Coined, Exactly, Participants, Trace
from byzopt.workers.private import Per, PrivateMomentum
from byzopt.workers.reduced import LSVRG, Differences, Full, Page

__all__ = [
    "ESTIMATORS",
    "LSVRG",
    "PARTICIPANTS",
    "All",
    "Bernoulli",
    "Coined",
    "Differences",
    "DoubleMomentum",
    "Estimator",
    "Exactly",
    "Form",
    "Full",
    "LocalAdamW",
    "LocalSGD",
    "Memory",
    "Need",
    "Oracle",
    "Page",
    "Participants",
    "Per",
    "Plain",
    "PrivateMomentum",
    "SampledMomentum",
    "Start",
    "Storm",
    "Trace",
    "WorkerMomentum",
]
