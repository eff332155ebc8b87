"""The clocks: all alike, some slower than others, at random, as a list says, or in a written order."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from byzopt.clocks.base import CLOCKS, Clock, check_time
from byzopt.errors import require
from byzopt.rng import stream


@CLOCKS.register("equal")
@dataclass(frozen=True)
class Equal(Clock):
    """Everybody takes the same `time`: all answer in every round.

    Args:
        time: How long a job takes, > 0.

    Examples:
        >>> from byzopt.clocks import Equal
        >>> Equal().service(seed=0, worker=3, count=1, n=10)
        1.0
    """

    time: float = 1.0

    def __post_init__(self) -> None:
        check_time(self, "time", self.time)

    def service(self, seed: int, worker: int, count: int, n: int) -> float:
        return float(self.time)

    def mean(self, worker: int, n: int) -> float:
        return float(self.time)


@dataclass(frozen=True)
class Between(Clock):
    """Worker i of n takes `fastest` + (`slowest` - `fastest`) i/(n - 1) on average."""

    fastest: float = 1.0
    slowest: float = 2.0

    def __post_init__(self) -> None:
        check_time(self, "fastest", self.fastest)
        what, found = f"The times of clock {self.name}", f"{self.fastest} and {self.slowest}"
        require(self.fastest <= self.slowest, what, "satisfy fastest <= slowest", found)

    def mean(self, worker: int, n: int) -> float:
        return self.fastest + (self.slowest - self.fastest) * worker / max(n - 1, 1)


@CLOCKS.register("spread")
@dataclass(frozen=True)
class Spread(Between):
    """Worker i of n always takes `fastest` + (`slowest` - `fastest`) i/(n - 1): worker 0 is the fastest.

    Args:
        fastest: How long worker 0 takes, > 0.
        slowest: How long the last worker takes.

    Examples:
        >>> from byzopt.clocks import Spread
        >>> [Spread(1.0, 2.0).service(seed=0, worker=i, count=1, n=3) for i in range(3)]
        [1.0, 1.5, 2.0]
    """

    def service(self, seed: int, worker: int, count: int, n: int) -> float:
        return self.mean(worker, n)


@CLOCKS.register("exponential")
@dataclass(frozen=True)
class Exponential(Between):
    """Exponential times, drawn anew for every job, with the means of `spread`.

    Args:
        fastest: Mean time of worker 0, > 0.
        slowest: Mean time of the last worker.

    Examples:
        >>> from byzopt.clocks import Exponential
        >>> times = [Exponential(1.0, 1.0).service(seed=0, worker=0, count=c, n=2) for c in range(1, 1001)]
        >>> 0.9 < sum(times) / 1000 < 1.1
        True
    """

    slowest: float = 1.0

    def service(self, seed: int, worker: int, count: int, n: int) -> float:
        generator = stream(seed, "clock", worker, count)
        drawn = torch.rand((), dtype=torch.float64, generator=generator, device="cpu")
        return self.mean(worker, n) * -float((1 - drawn).log()) + 1e-12  # never 0


@CLOCKS.register("given")
@dataclass(frozen=True)
class Given(Clock):
    """Worker i always takes `times[i]`.

    Args:
        times: A time above 0 for each worker.

    Examples:
        >>> from byzopt.clocks import Given
        >>> Given(times=(1.0, 3.0)).service(seed=0, worker=1, count=5, n=2)
        3.0
    """

    times: tuple[float, ...] = field(kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "times", tuple(self.times))
        for time in self.times:
            check_time(self, "times", time)

    def check(self, n: int) -> None:
        require(len(self.times) == n, "`times` of clock given", f"name n = {n} times", len(self.times))

    def service(self, seed: int, worker: int, count: int, n: int) -> float:
        return float(self.times[worker])

    def mean(self, worker: int, n: int) -> float:
        return float(self.times[worker])


@CLOCKS.register("script")
@dataclass(frozen=True)
class Script(Clock):
    """Workers answer in a written order, one after another; after its end from its start again.

    Args:
        order: Who answers, by number from 0; everybody at least once.

    Examples:
        >>> from byzopt.clocks import Script
        >>> clock = Script(order=(0, 1, 0))  # worker 0 answers at times 1, 3, 4, 6, ...
        >>> [clock.service(seed=0, worker=0, count=c, n=2) for c in (1, 2, 3, 4)]
        [1.0, 2.0, 1.0, 2.0]
    """

    order: tuple[int, ...] = field(kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "order", tuple(self.order))

    def check(self, n: int) -> None:
        what, rule = "`order` of clock script", f"name each of the workers 0..{n - 1}, and nobody else"
        require(set(self.order) == set(range(n)), what, rule, sorted(set(self.order))[:8])

    def service(self, seed: int, worker: int, count: int, n: int) -> float:
        return float(self._time(worker, count) - (self._time(worker, count - 1) if count > 1 else 0))

    def mean(self, worker: int, n: int) -> float:
        return len(self.order) / self.order.count(worker)

    def _time(self, worker: int, count: int) -> int:
        """When a worker answers for the `count`-th time."""
        places = [k for k, who in enumerate(self.order, start=1) if who == worker]
        laps, place = divmod(count - 1, len(places))
        return laps * len(self.order) + places[place]
