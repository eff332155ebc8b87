"""FoundationFL: a rule on the rows and on copies of one of them, that which is furthest from all extremes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from byzopt import accelerator
from byzopt.aggregators.core.aggregator import Aggregator
from byzopt.aggregators.core.filters import Filter, StatelessFilter
from byzopt.aggregators.core.weighing import whole
from byzopt.aggregators.core.wrapper import WRAPPERS, RuleWrapper
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.errors import require


@WRAPPERS.register("foundation")
@dataclass(frozen=True)
class Foundation(RuleWrapper):
    """`rule` on the n rows and m = `copies` copies of row i* = argmax_i min(‖v_i - top‖, ‖v_i - bottom‖).

    `top` and `bottom` are the largest and the smallest value of each coordinate over all rows. `rule` is the
    trimmed mean or the median in the paper, which calls the copies synthetic updates of the server's.

    **The row that is copied may be a liar's**: two faulty rows at opposite ends and a third, half of whose
    coordinates lie at either end, make it the third. Then f + m of n + m rows are faulty, and that is what
    `rule` has to withstand: a trimmed mean that cuts off f rows, as in the paper, can be carried off, which
    is why the breakdown point stated here is m less than that of `rule` on n + m rows. Give the rule an `f`
    of its own, `foundation(rule='trimmed_mean(f=4)', copies=2)` for f = 2; the median withstands all that
    2 (f + m) < n + m allows.

    κ unproved here (the paper has a rate under assumptions on the loss). Equivariant as `rule` is. Rules with
    a place for each worker are refused. A rule with a memory starts each round afresh. Ties: the first.
    Cost: a few passes more.
    Source: Fang, Nabavirazavi, Liu, Sun, Iyengar, Yang, NDSS 2025 (arXiv:2501.17381). Of the paper only the
    abstract was within reach; the score and the default of 2 copies are those of a third party's code.

    Args:
        rule: The rule or chain that answers on n + m rows; its `f` is what it tolerates of those.
        copies: Number m of copies, at least 1.

    Raises:
        InvalidInput: A rule with a place for each worker, or one that cannot work on n + m rows.

    Examples:
        >>> import torch
        >>> from byzopt import Foundation, Median
        >>> rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [90.0, 90.0]])
        >>> Foundation(Median(f=1), copies=1)(rows)  # (2, 2) counts twice
        tensor([2., 2.])
    """

    columnwise = False
    ties = "first"
    by_value = False

    rule: Aggregator
    copies: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        alone = not (self.rule.by_worker or self.rule.sent_rows)
        what = "Parameter `rule` of Foundation"
        require(alone, what, "ask of no row whose it is", self.rule, "Name another rule.")
        require(self.copies >= 1, "Parameter `copies` of Foundation", "be at least 1", self.copies)

    def check(self, n: int) -> None:
        self.rule.check(n + self.copies)

    def breakdown(self, n: int) -> int:
        return max(self.rule.breakdown(n + self.copies) - self.copies, 0)

    def as_filter(self) -> Filter:
        return StatelessFilter(self)

    def splits(self) -> bool:
        return False

    def reduce(self, mixed: Mixed) -> Tensor:
        return self.rule.reduce(self._enlarged(mixed))

    def influence(self, mixed: Mixed) -> Tensor:
        return self.rule.influence(self._enlarged(mixed))

    def scores(self, mixed: Mixed) -> Tensor | None:
        return -self._away(mixed) * mixed.unit if mixed.mixing is None else None

    @property
    def measure(self) -> str:
        return "minus the distance to the nearer extreme"

    def _enlarged(self, mixed: Mixed) -> Mixed:
        """The rows and the copies of one."""
        chosen = int(self._away(mixed).argmax())
        rows = torch.eye(mixed.m, dtype=torch.float64, device="cpu")
        return mixed.then(torch.cat([rows, rows[chosen].expand(self.copies, -1)]), affine=True)

    def _away(self, mixed: Mixed) -> Tensor:
        """min(‖v_i - top‖, ‖v_i - bottom‖) of all rows, `[m]` float64."""
        rows = whole(mixed).rows
        ends = rows.amax(dim=0), rows.amin(dim=0)
        lengths = [torch.linalg.vector_norm(rows - end, dim=1, dtype=torch.float64) for end in ends]
        (found,) = accelerator.fetch(torch.minimum(*lengths))
        return found
