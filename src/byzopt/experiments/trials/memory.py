"""The least memory that a run needs, checked before any of it is allocated."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from byzopt.aggregators import Aggregator, Chain, GeometricRule
from byzopt.aggregators.core.wrapper import RuleWrapper
from byzopt.errors import require
from byzopt.experiments.specs.spec import Spec
from byzopt.tasks import Task

PROCESS = 100 << 20  # bytes of a process that has loaded torch
WORKER = 40  # bytes of a worker's number in the lists of who takes part
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def build_task(spec: Spec) -> Task:
    """The task of a spec. Errors: `InvalidInput` for a run that cannot fit into memory."""
    check_memory(spec.n, spec.task.worker_bytes, spec.rule, f"n = {spec.n:,} workers on {spec.task.name}")
    if spec.data_seed is None:
        return spec.task.build(spec.cohort, spec.seed)
    return spec.task.build_on(spec.cohort, spec.seed, spec.data_seed)


def check_memory(n: int, each: int, rule: Aggregator, what: str) -> None:
    """Raise unless n workers of `each` bytes fit, and the inner products of their rows where a rule has
    them."""
    need, have = n * (each + WORKER) + (8 * n * n if _has_products(rule) else 0), available_memory()
    rule_said = f"fit into the {_said(have)} of memory that there are"
    require(need <= have, what, rule_said, f"at least {_said(need)}", "Lower n, the model or the batch.")


def check_processes(spec: Spec, count: int) -> None:
    """Raise unless so many processes of a spec's run fit beside one another."""
    for variant in spec.variants().values():
        what = f"{count:,} processes of n = {variant.n:,} workers on {variant.task.name}"
        check_memory(variant.n, variant.task.worker_bytes + count * PROCESS // variant.n, variant.rule, what)


def available_memory() -> int:
    """Bytes of memory that this process may have: the machine's, its container's or its user's limit. Windows
    tells none of them to Python's standard library: there a run that is too large fails when it allocates."""
    limits = [sys.maxsize]
    for path in _LIMITS:
        with suppress(OSError, ValueError):  # no such file, or `max`
            limits.append(int(Path(path).read_text(encoding="ascii")))
    if sys.platform != "win32":
        import resource

        limits.append(resource.getrlimit(resource.RLIMIT_AS)[0])
        with suppress(ValueError, OSError):  # of systems that do not say
            limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(limit for limit in limits if limit > 0)


def _has_products(rule: Aggregator) -> bool:
    if isinstance(rule, RuleWrapper):
        return _has_products(rule.rule)
    return isinstance(rule, (Chain, GeometricRule))


def _said(size: int) -> str:
    return f"{size / (1 << 30):,.1f} GiB"
