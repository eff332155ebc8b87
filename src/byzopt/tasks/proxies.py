"""Whose loss the server owns, for methods that need one (`Task.proxy`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput, require
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

        Errors: a worker that does not exist or lies, and samples of their own where a task has none.
        """

    def drawn(self, m: int, generator: torch.Generator) -> Tensor | None:
        """Which of the m training samples are the server's too; None: the loss is that of `owner`."""
        return None


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


@PROXIES.register("sample")
@dataclass(frozen=True)
class SampleProxy(Proxy):
    """A clean sample of all training data, drawn by lot without replacement; workers keep theirs, unchanged.

    It is like all data however unlike the workers' are, as FLTrust's root data (arXiv:2012.13995, with 100
    samples) and the trial data of arXiv:2505.07614 are. Samples of a poisoned worker are in it as they were.
    What the server holds so is no secret to it.

    Args:
        size: Number of samples, at least 1.

    Raises:
        InvalidInput: A task has fewer samples, or is not made of samples.

    Examples:
        >>> from byzopt import Cohort, Digits, SampleProxy
        >>> task = Digits(proxy=SampleProxy(size=50)).build(Cohort.of(5, 1), seed=0)
        >>> float(task.proxy()(task.start())) > 0
        True
    """

    size: int = 100

    def __post_init__(self) -> None:
        require(self.size >= 1, "Parameter `size` of the proxy", "be at least 1", self.size)

    def owner(self, cohort: Cohort) -> int:
        raise InvalidInput(
            "A server's own sample should be drawn of a task's samples. Found a task that is made of none. "
            'Set proxy = "worker" or "server".'
        )

    def drawn(self, m: int, generator: torch.Generator) -> Tensor | None:
        require(self.size <= m, "Parameter `size` of the proxy", f"be at most the {m} samples", self.size)
        return torch.randperm(m, generator=generator, device="cpu")[: self.size].sort().values


def owned(
    proxy: Proxy | None, cohort: Cohort, m: int, generator: torch.Generator
) -> tuple[int | None, Tensor | None]:
    """Whose loss is the server's (`cohort.n`: a share of its own; None: nobody's), and which of m samples it
    drew instead, None where it drew none. Errors: as `Proxy.owner`."""
    if proxy is None:
        return None, None
    chosen = proxy.drawn(m, generator)
    return (proxy.owner(cohort), None) if chosen is None else (None, chosen)
