"""Attacks that turn messages around: none, a worker's own negative, the negative of the honest ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from byzopt.attacks.base import ATTACKS, Attack, Knowledge, View


@ATTACKS.register("none")
@dataclass(frozen=True)
class NoAttack(Attack):
    """v_j: the Byzantine workers behave. With f > 0 declared this shows what the defence costs.

    Examples:
        >>> import torch
        >>> from byzopt import NoAttack
        >>> rows = torch.ones(3, 2)
        >>> bool((NoAttack()(rows, byzantine=1) == rows).all())
        True
    """

    knows: ClassVar[frozenset[Knowledge]] = frozenset({"own"})
    batched = True

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        return view.own


@ATTACKS.register("bit_flip")
@dataclass(frozen=True)
class BitFlip(Attack):
    """-v_j: minus the worker's own message (BF of arXiv:2603.12512).

    Examples:
        >>> import torch
        >>> from byzopt import BitFlip
        >>> rows = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
        >>> BitFlip()(rows, byzantine=1)[2]
        tensor([-5., -6.])
    """

    knows: ClassVar[frozenset[Knowledge]] = frozenset({"own"})
    batched = True

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        return -view.own


@ATTACKS.register("sign_flip")
@dataclass(frozen=True)
class SignFlip(Attack):
    """-scale m, m the mean of the honest rows: the same row from every Byzantine worker.

    Two attacks go by this name. `of="mean"` is the one of most libraries; `of="drawn"` sends minus scale
    times an honest row drawn uniformly for each Byzantine worker, as the released code of arXiv:2603.15144.
    Minus the worker's own message is `bit_flip`.

    Args:
        scale: Multiple that is sent reversed.
        of: Of what: the honest "mean", or an honest row that is "drawn".

    Examples:
        >>> import torch
        >>> from byzopt import SignFlip
        >>> rows = torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]])
        >>> SignFlip()(rows, byzantine=1)[2]
        tensor([-2., -3.])
    """

    scale: float = 1.0
    of: Literal["mean", "drawn"] = "mean"
    knows: ClassVar[frozenset[Knowledge]] = frozenset({"honest"})

    @property
    def batched(self) -> bool:
        return self.of == "mean"

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        honest = view.honest
        if self.of == "mean":
            return view.alike(-self.scale * honest.mean(dim=-2))
        drawn = torch.randint(len(honest), (view.b,), generator=generator, device=honest.device)
        return -self.scale * honest[drawn]
