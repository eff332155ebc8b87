"""One round as a searching attack sees it: what rows are made of, in few coordinates where that is exact."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

EXTRAS = 6  # directions beside the honest deviations
COLUMNS = 256  # coordinates of which a coordinate rule is tried


@dataclass(frozen=True)
class Scene:
    """Honest rows `[h, k]` and the dictionary's extra directions `[6, k]`, float64, in k coordinates.

    A forged row is mean + c · dictionary, with c `[h + 6]`: the first h entries weigh the honest deviations.
    The answer is to be turned away from `aim` `[judged]`: only the first `judged` coordinates are looked at,
    each of which stands for as many as `weights` `[judged]` says. `remembered` `[m, k]` is what the defence
    remembers in these coordinates.
    """

    honest: Tensor
    extras: Tensor
    aim: Tensor
    weights: Tensor
    spread: float  # the root of the honest variance, in all coordinates; the mean's length where that is 0
    remembered: Tensor

    @cached_property
    def mean(self) -> Tensor:
        """The honest mean `[k]`."""
        return self.honest.mean(dim=0)

    @cached_property
    def dictionary(self) -> Tensor:
        """Honest deviations, then the extras, `[h + 6, k]`."""
        return torch.cat([self.honest - self.mean, self.extras])

    def rows(self, coefficients: Tensor) -> Tensor:
        """Forged rows `[..., b, k]` of coefficients `[..., b, h + 6]`."""
        return self.mean + coefficients @ self.dictionary

    def rotated(self) -> Scene:
        """The same in an orthonormal basis of the span of all: at most h + 7 + m coordinates."""
        small = _compact(self._all())
        return self._with(small, torch.ones(small.shape[1], dtype=small.dtype, device="cpu"))

    def columns(self, chosen: Tensor, weights: Tensor) -> Scene:
        """The same rows in some coordinates, which are judged with these weights, and behind them an
        orthonormal basis of what is left: distances stay what they were."""
        rows = self._all()
        left = torch.ones(rows.shape[1], dtype=torch.bool, device="cpu")
        left[chosen] = False
        return self._with(torch.cat([rows[:, chosen], _compact(rows[:, left])], dim=1), weights)

    def cosines(self, answers: Tensor, least: float) -> Tensor:
        """Cosines `[...]` of answers `[..., k]` with the aim. An answer that is shorter than `least` spreads
        has no direction, and counts the less."""
        judged = answers[..., : len(self.aim)]
        aim = (self.aim.square() @ self.weights).sqrt().clamp_min(1e-300)
        cosines: Tensor = judged @ (self.weights * self.aim) / self._lengths(judged, least) / aim
        return cosines

    def distances(self, answers: Tensor) -> Tensor:
        """How far answers `[..., k]` are from the aim `[...]`."""
        away = answers[..., : len(self.aim)] - self.aim
        return (away.square() @ self.weights).sqrt()

    def opposed(self, answers: Tensor, least: float, sharp: float) -> Tensor:
        """The mean `[...]` over the honest rows of tanh(- `sharp` · cosine) of the answers `[..., k]` with
        them: near 1 where the answer points away from nearly all of them, by however little."""
        judged, rows = answers[..., : len(self.aim)], self.honest[:, : len(self.aim)]
        lengths = (rows.square() @ self.weights).sqrt().clamp_min(1e-300)
        cosines = (judged * self.weights) @ rows.T / self._lengths(judged, least).unsqueeze(-1) / lengths
        return torch.tanh(-sharp * cosines).mean(dim=-1)

    def _lengths(self, judged: Tensor, least: float) -> Tensor:
        lengths = (judged.square() @ self.weights).sqrt()
        return torch.where(lengths.isnan(), lengths, lengths.clamp_min(least * self.spread or 1e-300))

    def _all(self) -> Tensor:
        return torch.cat([self.honest, self.extras, self.aim.unsqueeze(0), self.remembered / self._scales])

    def _with(self, rows: Tensor, weights: Tensor) -> Scene:
        h = len(self.honest)
        honest, extras, aim, remembered = torch.split(rows, [h, EXTRAS, 1, len(self.remembered)])
        aim, remembered = aim[0, : len(weights)], remembered * self._scales
        return Scene(honest, extras, aim, weights, self.spread, remembered)

    @property
    def _scales(self) -> Tensor:
        """What is remembered may be far longer than rows, or shorter: over these scales `[m, 1]` it is as
        long and, in coordinates that are found for all together, rounded no worse."""
        lengths = torch.linalg.vector_norm(self.remembered, dim=1, keepdim=True)
        return torch.where(lengths > 0, lengths, 1.0) / (self.spread or 1.0)


def _compact(rows: Tensor) -> Tensor:
    """As many coordinates as there are rows, with the same inner products."""
    if rows.shape[1] <= len(rows):
        return rows
    scale = rows.abs().amax().clamp_min(torch.finfo(rows.dtype).tiny)
    values, vectors = torch.linalg.eigh((rows / scale) @ (rows / scale).T)
    small: Tensor = vectors * (values.clamp_min(0).sqrt() * scale)
    return small


def scene(honest: Tensor, long_mean: Tensor, aim: Tensor, remembered: Tensor | None = None) -> Scene:
    """The scene of a round with honest rows `[h, d]`, their long-run mean `[d]`, the aim `[d]`, and what the
    defence remembers `[m, d]`.

    The extras, all of the length of the honest spread z (of the mean, where honest rows do not differ): the
    mean, the target, the standard deviation of each coordinate, the same with the target's signs, the most
    opposed honest value of each coordinate (less the mean), the long-run mean.
    """
    honest = honest.double()
    mean = honest.mean(dim=0)
    away = honest - mean
    spread = float(away.square().sum(dim=1).mean().sqrt()) or float(torch.linalg.vector_norm(mean))
    deviation = away.square().mean(dim=0).sqrt()
    target = -aim.double()
    worst = torch.where(target > 0, away.amax(dim=0), away.amin(dim=0))
    kinds = (mean, target, deviation, deviation * target.sign(), worst, long_mean.double())
    extras = torch.stack([spread * unit(kind) for kind in kinds])
    known = honest[:0] if remembered is None else remembered.to(honest)
    return Scene(honest, extras, aim.double(), torch.ones_like(mean), spread, known)


def unit(row: Tensor) -> Tensor:
    """The row `[d]` scaled to length 1; zeros as they are."""
    length = torch.linalg.vector_norm(row)
    return row / length if float(length) else row
