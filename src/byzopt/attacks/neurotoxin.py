"""Neurotoxin: a backdoor in those coordinates that training moves least, so that it lasts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from byzopt import linalg
from byzopt.attacks.backdoor import Backdoor
from byzopt.attacks.base import ATTACKS, Remembering, View
from byzopt.cohort import Cohort
from byzopt.errors import require


class NeurotoxinState(NamedTuple):
    """The point at which workers were asked the last time, `[d]`."""

    last: Tensor


@ATTACKS.register("neurotoxin")
@dataclass(frozen=True)
class Neurotoxin(Backdoor, Remembering):
    """As `backdoor`, with 0 in the coordinates that the server's last step moved most; cut to `bound`.

    The message keeps the `keep` share of its coordinates, those with the least |x_t - x_{t-1}|, of which
    honest workers seldom make use and which they so seldom repair. In the first round nothing has moved, and
    all are kept. Ties: the first. `backdoor_success` is measured as for `backdoor`.

    Source: Zhang, Panda, Song, Yang, Mahoney, Mittal, Gonzalez, Ramchandran, ICML 2022 (arXiv:2206.10341),
    of which only the code was within reach (jhcknzzm/Federated-Learning-Backdoor: `grad_mask_cv` with a
    `gradmask_ratio` of 0.95 and `aggregate_all_layer`, `apply_PGD`). Where we differ: that code takes the
    gradient of the global model on clean samples of other workers in the place of the server's last step;
    the mask is put on each step of local training there, on the message here.

    Args:
        target: Label that images with the trigger get.
        size: Side of the trigger, in pixels.
        share: Share of a Byzantine worker's samples that get the trigger, in (0, 1].
        scale: Factor of the message; None: n/b.
        seed: Decides which samples get the trigger.
        keep: Share of the coordinates that the message keeps, in (0, 1]; at least one.
        bound: Largest length of the message; None: none.

    Raises:
        InvalidInput: As for `backdoor`.

    Examples:
        >>> from byzopt import Cohort, Digits, Neurotoxin, simulate
        >>> task = Digits(model="linear", batch=8).build(Cohort.of(6, 2), seed=0)
        >>> outcome = simulate(task, "median", lr=0.1, rounds=2, f=2, attack=Neurotoxin(target=7))
        >>> "backdoor_success" in outcome.metrics
        True
    """

    keep: float = 0.95
    bound: float | None = None
    indexed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.keep <= 1, "Parameter `keep` of neurotoxin", "lie in (0, 1]", self.keep)
        bounded = self.bound is None or self.bound > 0
        require(bounded, "Parameter `bound` of neurotoxin", "be positive", self.bound)

    def start(self, cohort: Cohort, x: Tensor) -> NeurotoxinState:
        return NeurotoxinState(x)

    def step(
        self, state: NeurotoxinState, view: View, generator: torch.Generator
    ) -> tuple[Tensor, NeurotoxinState]:
        rows = self.forge(view, generator) * self._mask(view.x - state.last).unsqueeze(-2)
        if self.bound is not None:
            lengths = linalg.norm(rows).unsqueeze(-1)
            rows = rows * torch.where(lengths > self.bound, self.bound / lengths, 1.0).to(rows.dtype)
        return rows, NeurotoxinState(view.x)

    def _mask(self, moved: Tensor) -> Tensor:
        """Which coordinates the message keeps, `[..., d]`, 1 or 0, by how far the last step moved each."""
        kept = max(1, int(self.keep * moved.shape[-1] + 1e-9))
        still = moved.abs().argsort(dim=-1, stable=True)[..., :kept]
        mask = torch.zeros_like(moved).scatter(-1, still, 1.0)
        return torch.where((moved != 0).any(dim=-1, keepdim=True), mask, 1.0)
