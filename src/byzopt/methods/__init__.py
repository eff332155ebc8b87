"""Named methods: one paper, one file."""

from byzopt.methods.accelerated import NAG, AcceleratedExtragradient, Nesterov
from byzopt.methods.base import METHODS, Method, MethodRecipe
from byzopt.methods.byz_nsgdm import ByzNSGDM, RobustGD, RobustSGDM
from byzopt.methods.similarity import PIGS, AEGProx

__all__ = [
    "METHODS",
    "NAG",
    "PIGS",
    "AEGProx",
    "AcceleratedExtragradient",
    "ByzNSGDM",
    "Method",
    "MethodRecipe",
    "Nesterov",
    "RobustGD",
    "RobustSGDM",
]
