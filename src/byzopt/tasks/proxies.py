"""Whose loss the server owns, for methods that need one (`Task.proxy`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from byzopt.cohort import Cohort
from byzopt.errors import require
from byzopt.registry import Registry

ProxyLoss = Callable[[Tensor], Tensor]  # x [d] -> scalar, differentiable


class Proxy(ABC):
    """Which loss is q. It is trusted: a Byzantine owner would be lost control, and is refused.

    Examples:
        >>> from byzopt import Cohort, Quadratic, WorkerProxy
        >>> task = Quadratic(proxy=WorkerProxy()).build(Cohort.of(5, 1), seed=0)
        >>> task.proxy() is not None
        True
    """

    name: ClassVar[str]

    @abstractmethod
    def owner(self, cohort: Cohort) -> int:
        """The worker whose loss it is; `cohort.n`, one past the last, for the server's own samples.

        Errors: a worker that does not exist or lies.
        """


PROXIES: Registry[Proxy] = Registry("proxy", Proxy)


@PROXIES.register("worker")
@dataclass(frozen=True)
class WorkerProxy(Proxy):
    """The full local loss of one honest `worker`, whose row is aggregated like any other: as released with
    arXiv:2602.03329, where it is client 0.

    Args:
        worker: Index of the honest worker.

    Examples:
        >>> from byzopt import Cohort, Quadratic, WorkerProxy
        >>> task = Quadratic(proxy=WorkerProxy(worker=0)).build(Cohort.of(5, 1), seed=0)
        >>> float(task.proxy()(task.start())) > 0
        True
    """

    worker: int = 0

    def owner(self, cohort: Cohort) -> int:
        exists = 0 <= self.worker < cohort.n
        require(exists, "Parameter `worker` of the proxy", f"lie in 0..{cohort.n - 1}", self.worker)
        trusted = self.worker not in cohort.byzantine
        owner = f"{self.worker}, which is Byzantine"
        require(trusted, "The owner of the proxy loss", "be honest", owner, "Name an honest worker.")
        return self.worker


@PROXIES.register("server")
@dataclass(frozen=True)
class ServerProxy(Proxy):
    """The server's own samples: one more share of the data, dealt as a worker's is. No row comes of it.

    Examples:
        >>> from byzopt import Cohort, Quadratic, ServerProxy
        >>> task = Quadratic(proxy=ServerProxy()).build(Cohort.of(5, 1), seed=0)
        >>> float(task.proxy()(task.start())) > 0
        True
    """

    def owner(self, cohort: Cohort) -> int:
        return cohort.n
