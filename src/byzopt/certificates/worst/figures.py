"""How wrong an answer is, in three forms, for many sets of rows at once; the f faulty rows come first."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from byzopt.errors import unknown

Form: TypeAlias = Literal["squared", "linear", "turn"]
FORMS: tuple[Form, ...] = get_args(Form)
SAME_RATIO = 1e-6  # relative: what rounding leaves of a ratio of honest rows that are not rounding themselves
_TIGHT = 1e-8  # a spread below this part of the largest number may be rounding


def figures(form: Form, rows: Tensor, f: int, answers: Tensor) -> Tensor:
    """The errors `[R]` of `answers` `[R, d]` to sets of `rows` `[R, n, d]` in float64; larger is worse.

    With v̄ the mean of the honest rows: `squared` is ‖a - v̄‖²/mean‖v_i - v̄‖², `linear` is ‖a -
    v̄‖/mean‖v_i - v̄‖, and `turn` the angle between a and v̄ in degrees, 90 where either is zero. NaN
    where an answer is not finite, or where the honest rows agree to within rounding, so that no ratio
    means anything; a turn also where their mean is no more than that.
    """
    if form not in FORMS:
        raise unknown("form of error", form, list(FORMS))
    honest = rows[:, f:]
    mean = honest.mean(dim=1)
    lengths = torch.linalg.vector_norm(honest - mean.unsqueeze(1), dim=2)
    spread = lengths.square().mean(dim=1).sqrt()
    sound = spread > _TIGHT * honest.abs().amax(dim=(1, 2))
    if form == "turn":
        sound &= torch.linalg.vector_norm(mean, dim=1) > _TIGHT * honest.abs().amax(dim=(1, 2))
        across = (answers * mean).sum(dim=1)
        product = torch.linalg.vector_norm(answers, dim=1) * torch.linalg.vector_norm(mean, dim=1)
        cosine = torch.where(product > 0, across / product, torch.where(product == 0, 0.0, torch.nan))
        value = torch.rad2deg(cosine.clamp(-1, 1).acos())
    else:
        away = torch.linalg.vector_norm(answers - mean, dim=1)
        value = away / lengths.mean(dim=1) if form == "linear" else (away / spread).square()
    return torch.where(sound & answers.isfinite().all(dim=1), value, torch.nan)


def has_ratio(rows: Tensor, f: int, ratio: float) -> bool:
    """Whether the honest ones of one set of rows `[n, d]` differ as `ratio` says, and not by rounding."""
    honest = rows[f:]
    mean, largest = honest.mean(dim=0), float(honest.abs().max())
    clear = float(torch.linalg.vector_norm(mean)) > _TIGHT * largest
    return clear and abs(float(honest_ratio(rows.unsqueeze(0), f)[0]) - ratio) <= SAME_RATIO * ratio


def honest_ratio(rows: Tensor, f: int) -> Tensor:
    """How different honest rows are, `[R]`: mean‖v_i - v̄‖²/‖v̄‖² of sets of rows `[R, n, d]`."""
    honest = rows[:, f:]
    mean = honest.mean(dim=1)
    variance = (honest - mean.unsqueeze(1)).square().sum(dim=2).mean(dim=1)
    return variance / mean.square().sum(dim=1)
