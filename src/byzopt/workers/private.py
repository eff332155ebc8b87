"""Worker momentum of clipped gradients with noise."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from byzopt import linalg
from byzopt.errors import require
from byzopt.workers.base import ESTIMATORS, Estimator, Oracle
from byzopt.workers.momentum import moving_average

Per: TypeAlias = Literal["message", "sample"]
Sampling: TypeAlias = Literal["walk", "poisson"]


class PrivateState(NamedTuple):
    """v `[n, d]`: row i is worker i's momentum; how many of each one's gradients were not finite, `[n]`."""

    v: Tensor
    zeroed: Tensor


@ESTIMATORS.register("private_momentum")
@dataclass(frozen=True)
class PrivateMomentum(Estimator):
    """m <- (1 - η) m + η (s + ω), sent as it is, from m = 0: s clipped, then noise ω ~ N(0, (σ C/B)² I).

    With `per = "message"` s is clip_C of the minibatch's gradient and B = 1; with "sample" it is the mean
    over the minibatch's B samples of clip_C of each one's own gradient, to which a weight decay is added
    unclipped, as it depends on no sample. What is not finite no clipping bounds: it counts as zeros, and
    `zeroed_gradients` of the figures says how often a message did; of single samples a warning tells. `clip
    = None` clips nothing and adds no noise: `momentum`, to the last bit. In a simulation noise comes from
    the run's seed. Source: Safe-DSHB, Allouah et al., arXiv:2302.04787.

    Args:
        eta: Weight η of the new gradient, in (0, 1].
        clip: Length C to which gradients are clipped; None: they are not.
        noise: σ, the noise's standard deviation over C/B.
        per: What is clipped: each "message", or each "sample".
        sampling: Which samples: "walk", the round's minibatch, or "poisson", each of the worker's own by
            itself with probability B over their number; the sum is then divided by B.

    Raises:
        InvalidInput: Noise without clipping, a length or noise that is not finite, and Poisson samples
            without clipping them.

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
    sampling: Sampling = "walk"

    def __post_init__(self) -> None:
        require(0 < self.eta <= 1, "Parameter `eta`", "lie in (0, 1]", self.eta)
        check_noise(self.clip, self.noise)
        check_sampling(self.sampling, self.per, self.clip)

    @property
    def noisy(self) -> bool:
        return self.noise > 0

    def init(self, x: Tensor, oracle: Oracle) -> tuple[Tensor, PrivateState]:
        released, bad = self._released(x, oracle)
        m = self.eta * released
        return m, PrivateState(m, bad.to(torch.int64))

    def step(self, state: PrivateState, x: Tensor, oracle: Oracle) -> tuple[Tensor, PrivateState]:
        released, bad = self._released(x, oracle)
        m = moving_average(state.v, released, self.eta, "average")
        return m, PrivateState(m, state.zeroed + bad)

    def report(self, state: PrivateState) -> dict[str, float]:
        """`zeroed_gradients`: workers' gradients so far that were not finite and counted as zeros."""
        return {} if self.clip is None else {"zeroed_gradients": float(state.zeroed.sum())}

    def _released(self, x: Tensor, oracle: Oracle) -> tuple[Tensor, Tensor]:
        """What leaves the workers, `[n, d]`: clipped, with noise. All after it is made of this alone. And
        whose gradients were not finite, `[n]`."""
        if self.clip is None:
            rows = oracle(x)
            return rows, torch.zeros(rows.shape[:-1], dtype=torch.bool, device=rows.device)
        if self.per == "sample":
            rows, counts = oracle.clipped(x, self.clip, self.sampling == "poisson")
            unit: Tensor | float = self.clip / counts.to(rows).unsqueeze(-1)
            bad = torch.zeros(rows.shape[:-1], dtype=torch.bool, device=rows.device)
        else:
            (rows, bad), unit = linalg.clip_all(oracle(x), self.clip), self.clip
        return (rows + self.noise * unit * oracle.normal(rows) if self.noise else rows), bad


def check_noise(clip: float | None, noise: float) -> None:
    """Raise `InvalidInput` unless both are in range, with a length to clip to where there is noise."""
    require(clip is None or 0 < clip < inf, "Parameter `clip`", "be positive and finite, or left out", clip)
    require(0 <= noise < inf, "The noise", "be finite and at least 0", noise)
    bounded = clip is not None or noise == 0
    require(bounded, "Noise", "stand beside a `clip`, of which it is a multiple", f"{noise:g} without one")


def check_sampling(sampling: Sampling, per: Per, clip: float | None) -> None:
    """Raise `InvalidInput` for Poisson samples, of which there may be none, where single ones are not
    clipped and so have no sum to take the place of a mean."""
    good = sampling == "walk" or (per == "sample" and clip is not None)
    found = f"per = {per!r}, clip = {clip}"
    require(good, 'sampling = "poisson"', 'stand beside per = "sample" and a `clip`', found)
