"""Three attacks called mimic: honest at first and then reversed; the copy of the most telling honest
worker; the copy of a fixed one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from byzopt.attacks.base import ATTACKS, Attack, Knowledge, Remembering, View
from byzopt.attacks.moments import direction
from byzopt.cohort import Cohort
from byzopt.errors import require
from byzopt.linalg import compute_dtype


@ATTACKS.register("mimic")
@dataclass(frozen=True)
class Mimic(Attack):
    """The own message for `rounds` rounds, then -scale m, m the mean of the honest rows.

    Source: Mimic as arXiv:2603.12512 states it. Its released character LM is honest for 49 rounds; its MNIST
    script has `mimic_variance(warmup=1)` in this place.

    Args:
        rounds: Number of honest rounds.
        scale: Multiple of the honest mean that is sent reversed afterwards.

    Examples:
        >>> import torch
        >>> from byzopt import Mimic
        >>> rows = torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]])
        >>> Mimic(rounds=50)(rows, byzantine=1, t=51)[2]
        tensor([-4., -6.])
    """

    rounds: int = 50
    scale: float = 2.0

    batched = True

    def __post_init__(self) -> None:
        require(self.rounds >= 0, "Parameter `rounds` of mimic", "be at least 0", self.rounds)

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        if view.t <= self.rounds:
            return view.own
        return view.alike(-self.scale * view.honest.mean(dim=-2))


class MimicState(NamedTuple):
    """Running mean `mu` `[d]`, direction `z` `[d]`, position `target` `[]` among the honest workers."""

    mu: Tensor
    z: Tensor
    target: Tensor


@ATTACKS.register("mimic_variance")
@dataclass(frozen=True)
class MimicVariance(Remembering):
    """The message of the honest worker i* that stands out most in the direction z of largest variance.

    In rounds t = 1 .. warmup, one step of Oja's rule each, m the mean of the honest rows v_i:

        mu <- ((t-1) mu + m)/t,   w = Σ (v_i - mu) <v_i - mu, z>,
        z <- (t-1) z + w/‖w‖, normalised,   i* = argmax <v_i, z>,

    with z drawn from N(0, I) before. From then on i* stays. Ties: the first honest worker.
    Source: Karimireddy, He, Jaggi, ICLR 2022 (arXiv:2006.09365), online form of their released code;
    with warmup = 1 the Mimic of the released MNIST script of arXiv:2603.12512.

    Args:
        warmup: Number of rounds in which the direction is learned; the worker is fixed after them.

    Examples:
        >>> import torch
        >>> from byzopt import MimicVariance
        >>> rows = torch.tensor([[0.0, 1.0], [0.0, -1.0], [9.0, 0.0], [0.0, 0.0]])
        >>> MimicVariance()(rows, byzantine=1)[3] in rows[:3]
        True
    """

    warmup: int = 1
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"honest"})

    def __post_init__(self) -> None:
        require(self.warmup >= 1, "Parameter `warmup` of mimic_variance", "be at least 1", self.warmup)

    def start(self, cohort: Cohort, x: Tensor) -> MimicState:
        zeros = torch.zeros_like(x, dtype=compute_dtype(x.dtype))
        return MimicState(zeros, zeros, torch.zeros((), dtype=torch.long, device=x.device))

    def step(self, state: MimicState, view: View, generator: torch.Generator) -> tuple[Tensor, MimicState]:
        honest, t = view.honest, view.t
        if t <= self.warmup:
            mu = state.mu + (honest.mean(dim=-2) - state.mu) / t
            first = torch.randn(mu.shape, generator=generator, dtype=mu.dtype, device=mu.device)
            offsets = honest - mu
            pull = (offsets @ (first if t == 1 else state.z)) @ offsets
            z = direction((t - 1) * state.z + direction(pull))
            # A stable sort, because argmax does not promise the first among ties.
            state = MimicState(mu, z, (honest @ z).argsort(descending=True, stable=True)[0])
        return view.alike(honest.index_select(0, state.target.reshape(1))[0]), state


@ATTACKS.register("mimic_index")
@dataclass(frozen=True)
class MimicIndex(Attack):
    """The message of one fixed honest worker, `index`-th of the honest ones in ascending order, from 0.

    It gives this worker's data 1 + b times their weight. Source: Karimireddy, He, Jaggi, ICLR 2022.

    Args:
        index: Which of the honest workers is copied, in ascending order from 0.

    Examples:
        >>> import torch
        >>> from byzopt import MimicIndex
        >>> rows = torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]])
        >>> MimicIndex(index=1)(rows, byzantine=1)[2]
        tensor([3., 4.])
    """

    index: int = 0
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"honest"})
    indexed: ClassVar[bool] = True
    batched = True

    def __post_init__(self) -> None:
        require(self.index >= 0, "Parameter `index` of mimic_index", "be at least 0", self.index)

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        h = len(view.cohort.honest)
        require(self.index < h, "Parameter `index` of mimic_index", f"lie in 0..{h - 1}", self.index)
        return view.alike(view.honest[..., self.index, :])
