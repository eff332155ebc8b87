"""Intakes: what a server makes of rows that come one at a time."""

from byzopt.intakes.base import INTAKES, Arrival, AtServer, Intake, Taken
from byzopt.intakes.basgd import BASGD
from byzopt.intakes.buffers import FedBuff, Latest, Unique
from byzopt.intakes.kardam import Kardam
from byzopt.intakes.throttle import Throttle
from byzopt.intakes.zeno import ZenoPlusPlus

__all__ = [
    "BASGD",
    "INTAKES",
    "Arrival",
    "AtServer",
    "FedBuff",
    "Intake",
    "Kardam",
    "Latest",
    "Taken",
    "Throttle",
    "Unique",
    "ZenoPlusPlus",
]
