"""Honest rows with other signs, as many of each as they had."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from byzopt.attacks.base import ATTACKS, Attack, Knowledge, View
from byzopt.attacks.moments import direction


@ATTACKS.register("turned_signs")
@dataclass(frozen=True)
class TurnedSigns(Attack):
    """|v_i| with other signs: as many positive, zero and negative values as the honest row v_i has, set so
    that the row points against an aim as far as that allows.

    The zeros stay where they are. Of the other places those with the largest aim_j |v_ij| get the negative
    signs. Length and shares of signs are those of an honest row to the last bit, so that rules that go by
    these (`signguard`) have nothing to see. (A network's rows have zeros where nothing fired; no mixture of
    rows and no noise has these.) All liars send the same: the honest row whose shares are nearest to the
    median shares, so that the largest group of like rows is around them.

    The aim is the honest mean m, or with `against = "shrink"` m/‖m‖ - x/‖x‖, as `autobyz` has it: uphill,
    and the model x towards 0. Source: ours; the idea, to imitate shares of signs, is that of `sign_shares`.

    Args:
        against: What the rows point against: "mean" or "shrink".

    Examples:
        >>> import torch
        >>> from byzopt import TurnedSigns
        >>> rows = torch.tensor([[3.0, 2.0, -1.0, 0.0], [3.0, 2.0, -1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
        >>> TurnedSigns()(rows, byzantine=1)[2]
        tensor([-3.,  2.,  1.,  0.])
    """

    against: Literal["mean", "shrink"] = "mean"
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"honest"})

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        honest = view.honest
        aim = honest.mean(dim=0)
        if self.against == "shrink":
            aim = direction(aim) - direction(view.x.to(aim))
        shares = torch.stack([(honest > 0).sum(dim=1), (honest < 0).sum(dim=1)], dim=1).double()
        away = (shares - shares.median(dim=0).values).abs().sum(dim=1)
        return view.alike(turned(honest[int(away.argmin())], aim))


def turned(row: Tensor, aim: Tensor) -> Tensor:
    """The row `[d]` with as many signs of each kind, against the aim `[d]`."""
    negative, some = int((row < 0).sum()), (row != 0).nonzero().squeeze(1)
    order = some[(aim[some] * row[some].abs()).argsort(descending=True, stable=True)]
    out = row.abs()
    out[order[:negative]] *= -1
    return out
