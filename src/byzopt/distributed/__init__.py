"""Robust training over processes: `harden` for any script, `robust_all_reduce`, and optimizers in the manner
of `torch.optim`."""

from __future__ import annotations

from typing import Any
from warnings import warn

from byzopt.distributed.diagnostics import RoundDiagnostics
from byzopt.distributed.elastic import init_process_group
from byzopt.distributed.harden import Guard, harden
from byzopt.distributed.optimizer import RobustOptimizer
from byzopt.distributed.rank_checkpoints import RankCheckpoints
from byzopt.distributed.recipes import RobustDM21, RobustNSGDM, RobustSGD, RobustVRDM21
from byzopt.distributed.reduce import robust_all_reduce
from byzopt.distributed.watch import Suspicion

__all__ = [
    "Guard",
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

_FORMER_NAMES: dict[str, Any] = {
    "ByzDM21": RobustDM21,
    "ByzNSGDM": RobustNSGDM,
    "ByzVRDM21": RobustVRDM21,
    "Keep": RankCheckpoints,
    "Verdict": RoundDiagnostics,
    "join": init_process_group,
}


def __getattr__(name: str) -> Any:
    """Former names, importable for one release with a `DeprecationWarning`."""
    if name not in _FORMER_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    present = _FORMER_NAMES[name]
    warn(f"{__name__}.{name} is now called {present.__name__}.", DeprecationWarning, stacklevel=2)
    return present
