"""Step sizes by round: the server's γ_k, the workers' η_k, and when both start afresh.

A schedule gives factors: the server's step in round k is `lr * gamma(k)`. Rounds are numbered from 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

from byzopt.errors import InvalidInput, require
from byzopt.registry import Registry

__all__ = [
    "SCHEDULES",
    "Anytime",
    "Constant",
    "Doubling",
    "Exponents",
    "FixedHorizon",
    "InverseSqrt",
    "Schedule",
    "horizon_exponents",
]


class Schedule(ABC):
    """Factors by round. `eta` returns the method's own weight unless the schedule prescribes one.

    Examples:
        >>> from byzopt.schedules import Schedule
        >>> class Halving(Schedule):
        ...     def gamma(self, k):
        ...         return 0.5 ** (k // 100)
        >>> [Halving().gamma(k) for k in (1, 100, 200)]
        [1.0, 0.5, 0.25]
    """

    name: ClassVar[str]

    @abstractmethod
    def gamma(self, k: int) -> float:
        """The factor of the step size in round k >= 1."""

    def eta(self, k: int, default: float) -> float:
        """The weight of the new gradient in round k."""
        return default

    def fresh(self, k: int) -> bool:
        """Whether workers start their momentum anew in round k, as in round 1."""
        return k == 1

    def returns(self, k: int) -> bool:
        """Whether the server goes back to x^0 before round k."""
        return False

    def over(self, rounds: int | None) -> Schedule:
        """This schedule for a run of so many rounds; only schedules with a horizon care.

        Errors: a horizon that neither the schedule nor the run (None) gives.
        """
        return self


SCHEDULES: Registry[Schedule] = Registry("schedule", Schedule)


@SCHEDULES.register("constant")
@dataclass(frozen=True)
class Constant(Schedule):
    """γ_k = γ0.

    Examples:
        >>> from byzopt.schedules import Constant
        >>> Constant().gamma(1000)
        1.0
    """

    def gamma(self, k: int) -> float:
        return 1.0


@SCHEDULES.register("inverse_sqrt")
@dataclass(frozen=True)
class InverseSqrt(Schedule):
    """γ_k = γ0 / √k: the experiments of arXiv:2603.12512; no theorem.

    Examples:
        >>> from byzopt.schedules import InverseSqrt
        >>> InverseSqrt().gamma(4)
        0.5
    """

    def gamma(self, k: int) -> float:
        return float(k**-0.5)


@SCHEDULES.register("anytime")
@dataclass(frozen=True)
class Anytime(Schedule):
    """γ_k = γ0 k^(-3/4), η_k = k^(-1/2): usual for normalised momentum; no theorem in arXiv:2603.12512.

    Examples:
        >>> from byzopt.schedules import Anytime
        >>> Anytime().gamma(16), Anytime().eta(16, default=0.1)
        (0.125, 0.25)
    """

    def gamma(self, k: int) -> float:
        return float(k**-0.75)

    def eta(self, k: int, default: float) -> float:
        return float(k**-0.5)


class Exponents(NamedTuple):
    """Powers of the horizon T: γ = γ0 T^-gamma, η = T^-eta; the bound falls as T^-rate.

    Args:
        gamma: Of the step γ.
        eta: Of the weight η.
        rate: Of the bound.

    Examples:
        >>> from byzopt.schedules import horizon_exponents
        >>> horizon_exponents(p=2.0)
        Exponents(gamma=0.75, eta=0.5, rate=0.25)
    """

    gamma: float
    eta: float
    rate: float


def horizon_exponents(p: float = 2.0) -> Exponents:
    """The exponents that balance start, momentum lag and noise when the noise has p moments, 1 < p <= 2.

    p = 2 is Theorem 1 of arXiv:2603.12512 (3/4, 1/2, 1/4). Its Remark 3 names p < 2 without exponents; these
    make 1/(γT), γ/η and η^((p-1)/p) equal, which leaves γ²T/η, and so the cap on γ0, unchanged.

    Args:
        p: Moment of the noise that is finite, in (1, 2].

    Returns:
        The exponents of γ, of η and of the bound.

    Raises:
        InvalidInput: p outside of (1, 2].

    Examples:
        >>> from byzopt.schedules import horizon_exponents
        >>> horizon_exponents(p=2.0).eta
        0.5
    """
    require(1 < p <= 2, "The number of moments `p`", "lie in (1, 2]", p)
    return Exponents((2 * p - 1) / (3 * p - 2), p / (3 * p - 2), (p - 1) / (3 * p - 2))


@SCHEDULES.register("fixed_horizon")
@dataclass(frozen=True)
class FixedHorizon(Schedule):
    """γ = γ0 T^(-(2p-1)/(3p-2)), η = T^(-p/(3p-2)) for T = `rounds` rounds; by default those of the run.

    p = 2 (bounded variance) is Theorem 1 of arXiv:2603.12512: γ0 T^(-3/4) and T^(-1/2); p in (1, 2) is for
    heavier tails (`horizon_exponents`).

    Args:
        rounds: Horizon T; None: the rounds of the run.
        p: Moment of the noise that is finite, in (1, 2].

    Raises:
        InvalidInput: A horizon that neither the schedule nor the run gives.

    Examples:
        >>> from byzopt.schedules import FixedHorizon
        >>> schedule = FixedHorizon().over(rounds=16)
        >>> schedule.gamma(1), schedule.eta(1, default=0.1)
        (0.125, 0.25)
    """

    rounds: int | None = None
    p: float = 2.0

    def __post_init__(self) -> None:
        found = self.rounds
        require(found is None or found >= 1, "Parameter `rounds` of fixed_horizon", "be at least 1", found)
        horizon_exponents(self.p)

    def gamma(self, k: int) -> float:
        return float(self._horizon() ** -horizon_exponents(self.p).gamma)

    def eta(self, k: int, default: float) -> float:
        return float(self._horizon() ** -horizon_exponents(self.p).eta)

    def over(self, rounds: int | None) -> FixedHorizon:
        filled = replace(self, rounds=self.rounds or rounds)
        filled._horizon()
        return filled

    def _horizon(self) -> int:
        if self.rounds is None:
            raise InvalidInput(
                "The schedule fixed_horizon should know its number of rounds. Found none. Give `rounds`."
            )
        return self.rounds


@SCHEDULES.register("doubling")
@dataclass(frozen=True)
class Doubling(Schedule):
    """Epoch j of 2^j T0 rounds uses Theorem 1's fixed horizon of its own length (Remark 2, arXiv:2603.12512).

    Each epoch starts again from x^0 with fresh momentum, which keeps the theorem: the last complete epoch
    holds at least a quarter of all rounds. `carry=True` goes on from the last iterate instead (practical,
    not covered) with γ0 / (j + 1), which bounds the growth of f - f* over all epochs.

    Args:
        first: Rounds T0 of the first epoch.
        carry: Whether an epoch goes on from the last iterate, not from x^0.

    Examples:
        >>> from byzopt.schedules import Doubling
        >>> schedule = Doubling(first=4)
        >>> [k for k in range(1, 20) if schedule.fresh(k)]  # epochs of 4, 8, 16 rounds
        [1, 5, 13]
    """

    first: int = 64
    carry: bool = False

    def __post_init__(self) -> None:
        require(self.first >= 1, "Parameter `first` of doubling", "be at least 1", self.first)

    def epoch(self, k: int) -> tuple[int, int]:
        """(epoch j from 0, rounds before it) of round k."""
        j = ((k - 1) // self.first + 1).bit_length() - 1
        return j, self.first * (2**j - 1)

    def gamma(self, k: int) -> float:
        j, _ = self.epoch(k)
        return float((self.first * 2**j) ** -0.75) / (j + 1 if self.carry else 1)

    def eta(self, k: int, default: float) -> float:
        return float((self.first * 2 ** self.epoch(k)[0]) ** -0.5)

    def fresh(self, k: int) -> bool:
        return k == self.epoch(k)[1] + 1

    def returns(self, k: int) -> bool:
        return self.fresh(k) and k > 1 and not self.carry
