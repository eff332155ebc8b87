"""Robust training over processes: `harden` for any script, `robust_all_reduce`, and optimizers in the manner
of `torch.optim`."""

from __future__ import annotations

from byzopt.deprecation import former_names
from byzopt.distributed.asynchronous import AsynchronousServer, AsynchronousWorker, Job
from byzopt.distributed.deadline import DeadlineTransport
from byzopt.distributed.diagnostics import RoundDiagnostics
from byzopt.distributed.elastic import init_process_group
from byzopt.distributed.gossip import GossipNode
from byzopt.distributed.harden import Guard, harden
from byzopt.distributed.local import LocalSteps
from byzopt.distributed.optimizer import RobustOptimizer
from byzopt.distributed.rank_checkpoints import RankCheckpoints
from byzopt.distributed.recipes import RobustDM21, RobustNSGDM, RobustSGD, RobustVRDM21
from byzopt.distributed.reduce import robust_all_reduce
from byzopt.distributed.watch import Suspicion

__all__ = [
    "AsynchronousServer",
    "AsynchronousWorker",
    "DeadlineTransport",
    "GossipNode",
    "Guard",
    "Job",
    "LocalSteps",
    "RankCheckpoints",
    "RobustDM21",
    "RobustNSGDM",
    "RobustOptimizer",
    "RobustSGD",
    "RobustVRDM21",
    "RoundDiagnostics",
    "Suspicion",
    "harden",
    "init_process_group",
    "robust_all_reduce",
]

_FORMER_NAMES = {
    "ByzDM21": RobustDM21,
    "ByzNSGDM": RobustNSGDM,
    "ByzVRDM21": RobustVRDM21,
    "Keep": RankCheckpoints,
    "Verdict": RoundDiagnostics,
    "join": init_process_group,
}

__getattr__ = former_names(__name__, _FORMER_NAMES)
