"""Attacks: what Byzantine workers send, and what they may know."""

from byzopt.attacks.adaptive import AutoByz
from byzopt.attacks.anti_cge import AntiCGE
from byzopt.attacks.backdoor import Backdoor
from byzopt.attacks.base import ATTACKS, Adversary, Attack, Base, Knowledge, Placement, Remembering, View
from byzopt.attacks.clocks import CLOCK_ATTACKS, ClockAttack, Flooding, LatePoison, Silence
from byzopt.attacks.constants import Huge, Infinite, NotANumber, Shift, Zero
from byzopt.attacks.crowd import MinMax, MinSum
from byzopt.attacks.dba import DBA
from byzopt.attacks.edge_case import EdgeCase
from byzopt.attacks.edges import (
    EDGE_ATTACKS,
    Dissensus,
    EdgeAttack,
    EdgeView,
    LocalALIE,
    LocalIPM,
    SearchedAttack,
    Spectral,
    TwoFaced,
)
from byzopt.attacks.fang import FangKrum, FangTrimmedMean
from byzopt.attacks.faults import Crash, Equivocate, Replay, Stale, Straggle
from byzopt.attacks.flips import BitFlip, NoAttack, SignFlip
from byzopt.attacks.free_rider import FreeRider
from byzopt.attacks.guard import AOnly, Hug, Straddle
from byzopt.attacks.indistinguishable import Indistinguishable
from byzopt.attacks.ipm import IPM
from byzopt.attacks.labels import LabelFlip
from byzopt.attacks.limited import Limited
from byzopt.attacks.little import ALIE
from byzopt.attacks.losses import OwnLoss
from byzopt.attacks.mimic import Mimic, MimicIndex, MimicVariance
from byzopt.attacks.neurotoxin import Neurotoxin
from byzopt.attacks.noise import Gaussian, Uniform
from byzopt.attacks.optimal import OptimalALIE, OptimalIPM
from byzopt.attacks.outward import Outward
from byzopt.attacks.raw import RawGradient
from byzopt.attacks.rop import ROP
from byzopt.attacks.safeguard import DelayedGradient, UnderThreshold, Variance
from byzopt.attacks.shift_back import ShiftBack
from byzopt.attacks.sign_shares import SignShares
from byzopt.attacks.sleeper import Sleeper
from byzopt.attacks.sparse import Sparse
from byzopt.attacks.trapsetter import Trapsetter
from byzopt.attacks.turned_signs import TurnedSigns

__all__ = [
    "ALIE",
    "ATTACKS",
    "CLOCK_ATTACKS",
    "DBA",
    "EDGE_ATTACKS",
    "IPM",
    "ROP",
    "AOnly",
    "Adversary",
    "AntiCGE",
    "Attack",
    "AutoByz",
    "Backdoor",
    "Base",
    "BitFlip",
    "ClockAttack",
    "Crash",
    "DelayedGradient",
    "Dissensus",
    "EdgeAttack",
    "EdgeCase",
    "EdgeView",
    "Equivocate",
    "FangKrum",
    "FangTrimmedMean",
    "Flooding",
    "FreeRider",
    "Gaussian",
    "Hug",
    "Huge",
    "Indistinguishable",
    "Infinite",
    "Knowledge",
    "LabelFlip",
    "LatePoison",
    "Limited",
    "LocalALIE",
    "LocalIPM",
    "Mimic",
    "MimicIndex",
    "MimicVariance",
    "MinMax",
    "MinSum",
    "Neurotoxin",
    "NoAttack",
    "NotANumber",
    "OptimalALIE",
    "OptimalIPM",
    "Outward",
    "OwnLoss",
    "Placement",
    "RawGradient",
    "Remembering",
    "Replay",
    "SearchedAttack",
    "Shift",
    "ShiftBack",
    "SignFlip",
    "SignShares",
    "Silence",
    "Sleeper",
    "Sparse",
    "Spectral",
    "Stale",
    "Straddle",
    "Straggle",
    "Trapsetter",
    "TurnedSigns",
    "TwoFaced",
    "UnderThreshold",
    "Uniform",
    "Variance",
    "View",
    "Zero",
]
