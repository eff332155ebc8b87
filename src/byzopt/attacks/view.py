"""What an attack may see of a round: a read-only View, which refuses what the attack has not declared."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from byzopt.attacks.losses import OwnLoss, missing
from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput
from byzopt.linalg import compute_dtype

Knowledge = Literal["own", "honest", "defence", "loss"]


class View:
    """What an attack sees in one round. Reading what it did not declare in `knows` raises `InvalidInput`.

    Free to all: `t` round (from 1); `x` the point at which workers were asked, `[d]`, to be left as it is;
    `cohort`; `f` the server's declared tolerance; `b` and `like`. Own: what the Byzantine workers would send
    if honest, `[b, d]`. Honest: what the honest ones sent, `[h, d]`. Defence: the server's rule as it stands
    this round, a pure function to be searched against. Loss: that of the Byzantine workers' own data, and its
    gradient, at any points (`OwnLoss`).

    Where not everybody takes part, honest rows are those of the honest ones who do, lies of liars who do not
    reach nobody, and what such a liar would send is 0. Where no honest worker takes part, what the liars who
    do would send if honest stands for the honest rows. `filled`, for attacks that are `indexed`, there is a
    row for every honest worker: those who take part stand, in turn, for those who do not.

    Rows are handed out as copies in the dtype in which sums are taken (float32 for half precisions); what
    the attack answers is rounded to the messages' dtype once, when it is sent. For an attack that is
    `batched` there may be a leading dimension of R runs: `x` `[R, d]`, rows `[R, ., d]`.

    Args:
        t: The round, from 1.
        x: The point at which workers were asked, `[d]`.
        rows: What all workers would send if they were honest, `[n, d]`.
        cohort: Who is Byzantine.
        f: Number of faulty rows that the server tolerates.
        knows: What the attack declared that it reads: some of "own", "honest", "defence", "loss".
        defence: The server's rule of this round, `[n, d] -> [d]`.
        present: Who takes part, `[n]` of bool; None: everybody.
        filled: Whether `honest` has a row for absentees too.
        losses: The loss of the Byzantine workers' own data; None: there is no task.
        places: Whether rows are points, as those of a graph's nodes, and not directions.

    Raises:
        InvalidInput: On reading what is not in `knows`, and on asking for a loss where there is no task.

    Examples:
        >>> import torch
        >>> from byzopt import Cohort, View
        >>> rows = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
        >>> cohort = Cohort.of(3, byzantine=1)
        >>> view = View(1, torch.zeros(2), rows, cohort, f=1, knows=frozenset({"honest"}), defence=None)
        >>> view.honest.mean(0)
        tensor([2., 3.])
    """

    __slots__ = (
        "_defence",
        "_knows",
        "_losses",
        "_rows",
        "cohort",
        "f",
        "filled",
        "places",
        "present",
        "t",
        "x",
    )

    def __init__(
        self,
        t: int,
        x: Tensor,
        rows: Tensor,
        cohort: Cohort,
        f: int,
        knows: frozenset[Knowledge],
        defence: Callable[[Tensor], Tensor],
        present: Tensor | None = None,
        filled: bool = False,
        losses: OwnLoss | None = None,
        places: bool = False,
    ) -> None:
        self.t, self.x, self.cohort, self.f = t, x, cohort, f
        self.present, self.filled, self.places = present, filled, places
        self._rows, self._knows, self._defence, self._losses = rows, knows, defence, losses

    @property
    def own(self) -> Tensor:
        """The Byzantine workers' own honest messages, `[b, d]`; row j belongs to `cohort.byzantine[j]`."""
        self._declared("own")
        return self._wide(self.cohort.byzantine)

    @property
    def honest(self) -> Tensor:
        """The honest workers' messages, `[h, d]`; row j belongs to `cohort.honest[j]`."""
        self._declared("honest")
        here = self._here(self.cohort.honest) or self._here(self.cohort.byzantine)
        if self.filled:
            here = tuple(here[i % len(here)] for i in range(len(self.cohort.honest)))
        return self._wide(here)

    @property
    def defence(self) -> Callable[[Tensor], Tensor]:
        """The server's rule as a pure function `[n, d] -> [d]`. It raises what the rule raises."""
        self._declared("defence")
        return self._defence

    @property
    def loss(self) -> OwnLoss:
        """The loss of the Byzantine workers' own data: `view.loss(points)` is `[p]` at points `[p, d]`, and
        `view.loss.slopes(points)` its gradients `[p, d]`."""
        self._declared("loss")
        if self._losses is None:
            raise missing()
        return self._losses

    @property
    def b(self) -> int:
        """Number of Byzantine workers."""
        return len(self.cohort.byzantine)

    @property
    def like(self) -> Tensor:
        """An unfilled tensor `[b, d]`, compute dtype, on the messages' device: the shape of the answer."""
        *lead, _, d = self._rows.shape
        return self._rows.new_empty(*lead, self.b, d, dtype=compute_dtype(self._rows.dtype))

    def alike(self, row: Tensor) -> Tensor:
        """`row` `[d]` from every Byzantine worker, `[b, d]`."""
        return row.unsqueeze(-2).expand(*row.shape[:-1], self.b, row.shape[-1])

    def with_forged(self, forged: Tensor) -> Tensor:
        """All rows `[n, d]` as the server would see them with `forged` `[b, d]` in place."""
        self._declared("honest")
        return put(self._rows, self.cohort.byzantine, forged)

    def since(self, start: int, knows: frozenset[Knowledge]) -> View:
        """The same round for an attack inside another one, which may know less and began after `start`."""
        return self._for(knows, t=self.t - start)

    def owning(self, own: Tensor, knows: frozenset[Knowledge]) -> View:
        """The same round for an attack inside another one, with other own messages `[b, d]`."""
        return self._for(knows, _rows=put(self._rows, self.cohort.byzantine, own))

    def believing(
        self, honest: Tensor, knows: frozenset[Knowledge], defence: Callable[[Tensor], Tensor]
    ) -> View:
        """The same round for an attack inside another one, which takes `honest` `[h, d]` for the honest
        messages and `defence` for the server's rule, and sees no others."""
        rows = put(self._rows, self.cohort.honest, honest)
        return self._for(knows, _rows=rows, _defence=defence, present=None, filled=False)

    def _for(self, knows: frozenset[Knowledge], **changed: Any) -> View:
        """The same round with some attributes changed, for an attack that declares `knows`."""
        view = copy(self)
        for name, value in {"_knows": knows & self._knows, **changed}.items():
            setattr(view, name, value)
        return view

    def _here(self, workers: tuple[int, ...]) -> tuple[int, ...]:
        """Those of the workers who take part."""
        return workers if self.present is None else tuple(i for i in workers if self.present[i])

    def _wide(self, workers: tuple[int, ...]) -> Tensor:
        rows = self._rows.index_select(-2, _index(workers, self._rows.device))
        return rows.to(compute_dtype(rows.dtype))

    def _declared(self, what: Knowledge) -> None:
        if what not in self._knows:
            raise InvalidInput(
                f"This attack may read {sorted(self._knows) or 'nothing'}. Found a look at {what!r}. "
                f"Add {what!r} to its `knows`."
            )


def put(rows: Tensor, workers: tuple[int, ...], forged: Tensor) -> Tensor:
    """`rows` `[n, d]` with those of the `workers` replaced by `forged`, in the rows' dtype: what is finite
    and too large for that is the largest that it holds."""
    sent, largest = forged.to(rows.dtype), torch.finfo(rows.dtype).max
    if largest < torch.finfo(forged.dtype).max:
        sent = torch.where(forged.isfinite(), sent.clamp(-largest, largest), sent)
    return rows.index_copy(-2, _index(workers, rows.device), sent)


@lru_cache(maxsize=64)
def _index(workers: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(workers, device="cpu").to(device)
