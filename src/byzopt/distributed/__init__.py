"""Robust training over processes: `robust_all_reduce`, and optimizers in the manner of `torch.optim`."""

from byzopt.distributed.join import join
from byzopt.distributed.keep import Keep
from byzopt.distributed.optimizer import RobustOptimizer
from byzopt.distributed.recipes import ByzDM21, ByzNSGDM, ByzVRDM21, RobustSGD
from byzopt.distributed.reduce import robust_all_reduce
from byzopt.distributed.verdict import Verdict
from byzopt.distributed.watch import Suspicion

__all__ = [
    "ByzDM21",
    "ByzNSGDM",
    "ByzVRDM21",
    "Keep",
    "RobustOptimizer",
    "RobustSGD",
    "Suspicion",
    "Verdict",
    "join",
    "robust_all_reduce",
]
