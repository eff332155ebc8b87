"""Named methods: one paper, one file."""

from byzopt.methods.accelerated import NAG, AcceleratedExtragradient, Nesterov
from byzopt.methods.bant import Bant
from byzopt.methods.base import METHODS, Method, MethodRecipe
from byzopt.methods.byz_dm21 import ByzDM21, ByzVRDM21
from byzopt.methods.byz_nsgdm import ByzNSGDM, RobustGD, RobustSGDM
from byzopt.methods.byzantine_sgd import ByzantineSGD
from byzopt.methods.feedback import ByzEF21, ByzEF21BC, ByzEF21SGDM, EFSign
from byzopt.methods.fldetector import FLDetector
from byzopt.methods.hybrid import Hybrid
from byzopt.methods.local_steps import DiLoCo, FedAvg, FedOpt
from byzopt.methods.private import Clip21, SafeDSHB
from byzopt.methods.safeguard import SafeguardSGD
from byzopt.methods.sampled import ByzVRMarinaPP, DeMoA, RoSDHB
from byzopt.methods.server_momentum import ServerSGDM
from byzopt.methods.similarity import PIGS, AEGProx
from byzopt.methods.slsgd import SLSGD
from byzopt.methods.unbiased import (
    BRCSGD,
    BRLSVRG,
    BRMVR,
    BRDiana,
    ByzDashaPage,
    ByzVRMarina,
    ByzVRMarina2,
)

__all__ = [
    "BRCSGD",
    "BRLSVRG",
    "BRMVR",
    "METHODS",
    "NAG",
    "PIGS",
    "SLSGD",
    "AEGProx",
    "AcceleratedExtragradient",
    "BRDiana",
    "Bant",
    "ByzDM21",
    "ByzDashaPage",
    "ByzEF21",
    "ByzEF21BC",
    "ByzEF21SGDM",
    "ByzNSGDM",
    "ByzVRDM21",
    "ByzVRMarina",
    "ByzVRMarina2",
    "ByzVRMarinaPP",
    "ByzantineSGD",
    "Clip21",
    "DeMoA",
    "DiLoCo",
    "EFSign",
    "FLDetector",
    "FedAvg",
    "FedOpt",
    "Hybrid",
    "Method",
    "MethodRecipe",
    "Nesterov",
    "RoSDHB",
    "RobustGD",
    "RobustSGDM",
    "SafeDSHB",
    "SafeguardSGD",
    "ServerSGDM",
]
