"""Worker momentum of clipped gradients with noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor

from byzopt import linalg
from byzopt.errors import require
from byzopt.workers.base import ESTIMATORS, Estimator, Oracle
from byzopt.workers.momentum import WorkerMomentumState, moving_average

Per: TypeAlias = Literal["message", "sample"]


@ESTIMATORS.register("private_momentum")
@dataclass(frozen=True)
class PrivateMomentum(Estimator):
    """m <- (1 - η) m + η (s + ω), sent as it is, from m = 0: s clipped, then noise ω ~ N(0, (σ C/B)² I).

    With `per = "message"` s is clip_C of the minibatch's gradient and B = 1; with "sample" it is the mean
    over the minibatch's B samples of clip_C of each one's own gradient, to which a weight decay is added
    unclipped, as it depends on no sample. `clip = None` clips nothing and adds no noise: `momentum`, to the
    last bit. In a simulation noise comes from the run's seed. Source: Safe-DSHB, Allouah et al.,
    arXiv:2302.04787.

    Args:
        eta: Weight η of the new gradient, in (0, 1].
        clip: Length C to which gradients are clipped; None: they are not.
        noise: σ, the noise's standard deviation over C/B.
        per: What is clipped: each "message", or each "sample".

    Raises:
        InvalidInput: Noise without clipping.

    Examples:
        >>> import torch
        >>> from byzopt.workers import Oracle, PrivateMomentum
        >>> oracle = Oracle(1, grads=lambda x: x.expand(3, -1), full=None)
        >>> rows, state = PrivateMomentum(eta=1.0, clip=1.0).init(torch.tensor([3.0, 4.0]), oracle)
        >>> rows[0]
        tensor([0.6000, 0.8000])
    """

    eta: float = 0.1
    clip: float | None = 1.0
    noise: float = 0.0
    per: Per = "message"

    def __post_init__(self) -> None:
        require(0 < self.eta <= 1, "Parameter `eta`", "lie in (0, 1]", self.eta)
        check_noise(self.clip, self.noise)

    @property
    def noisy(self) -> bool:
        return self.noise > 0

    def init(self, x: Tensor, oracle: Oracle) -> tuple[Tensor, WorkerMomentumState]:
        m = self.eta * self._released(x, oracle)
        return m, WorkerMomentumState(m)

    def step(
        self, state: WorkerMomentumState, x: Tensor, oracle: Oracle
    ) -> tuple[Tensor, WorkerMomentumState]:
        m = moving_average(state.v, self._released(x, oracle), self.eta, "average")
        return m, WorkerMomentumState(m)

    def _released(self, x: Tensor, oracle: Oracle) -> Tensor:
        """What leaves the workers, `[n, d]`: clipped, with noise. All after it is made of this alone."""
        if self.clip is None:
            return oracle(x)
        if self.per == "sample":
            rows, counts = oracle.clipped(x, self.clip)
            unit: Tensor | float = self.clip / counts.to(rows).unsqueeze(-1)
        else:
            rows, unit = linalg.clip(oracle(x), self.clip), self.clip
        return rows + self.noise * unit * oracle.normal(rows) if self.noise else rows


def check_noise(clip: float | None, noise: float) -> None:
    """Raise `InvalidInput` unless both are in range, with a length to clip to where there is noise."""
    require(clip is None or clip > 0, "Parameter `clip`", "be positive, or left out", clip)
    require(noise >= 0, "The noise", "be at least 0", noise)
    bounded = clip is not None or noise == 0
    require(bounded, "Noise", "stand beside a `clip`, of which it is a multiple", f"{noise:g} without one")
