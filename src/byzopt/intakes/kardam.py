"""Kardam: a row is believed if it has not grown faster than most, and comes from nobody who just was."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, exp, inf, isnan, nan
from typing import ClassVar, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from byzopt.aggregators.core.base import BaseAggregator
from byzopt.errors import require
from byzopt.intakes.base import INTAKES, NOTHING, Arrival, AtServer, Intake, Taken, put
from byzopt.linalg import norm

Against: TypeAlias = Literal["own", "server"]
Damping: TypeAlias = Literal["inverse", "exponential", "none"]


class KardamState(NamedTuple):
    """Each worker's last row and its point, its coefficient (NaN: none yet), and whether it was heard; the
    last row that passed with the server's point then; who sent the last 2 f that passed (-1: nobody yet); how
    many were refused, by which filter, and how many in a row."""

    rows: tuple[Tensor, ...]
    points: tuple[Tensor, ...]
    growth: tuple[float, ...]
    heard: tuple[bool, ...]
    passed: Tensor
    x: Tensor
    recent: tuple[int, ...]
    steep: int
    frequent: int
    streak: int


@INTAKES.register("kardam")
@dataclass(frozen=True)
class Kardam(Intake):
    """A step along Λ(τ) r for each row that passes two filters; no rule combines anything.

    **Growth.** Each worker has the coefficient K_i = ‖r - r'‖/‖x - x'‖ of its last two rows and their points.
    A row passes if its own is at most the (n - f)/n quantile of those known. `against = "server"` compares
    with the last row that passed, as in the released example, and lets a row pass after n refusals in a row,
    as it does. **Frequency.** Of 2 f + 1 rows in succession that pass no two are from one worker, so that at
    least f + 1 are honest. Needs n > 3 f, without which f silent workers hold it up.

    **A worker's first row has no coefficient, and is not judged.** Neither do the filters bound how long a
    row is: a liar whose rows grow no faster than honest ones' passes.

    Λ(τ): 1/(1 + τ) ("inverse"), exp(-`decay` τ) ("exponential") or 1 ("none"). Source: Damaskinos et al.,
    ICML 2018 (arXiv:1802.07928), whose abstract and released example we had; that has no frequency filter,
    and the one here is made so that what the paper proves of it holds. A reconstruction.

    Args:
        damping: Λ: "inverse", "exponential" or "none".
        decay: Rate of the exponential damping, >= 0.
        against: What a row is compared with: the worker's "own" last one, or that which the "server" took.

    Examples:
        >>> import torch
        >>> from byzopt.intakes import Arrival, AtServer, Kardam
        >>> intake, x = Kardam(), torch.zeros(1)
        >>> state = intake.start(x, 4, 1)
        >>> taken, state = intake.take(state, Arrival(x + 1.0, 0, 1, x), AtServer(1, x, n=4, f=1))
        >>> taken.rows
        tensor([[0.5000]])
    """

    damping: Damping = "inverse"
    decay: float = 0.2
    against: Against = "own"
    uses_rule: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(self.decay >= 0, "Parameter `decay` of intake kardam", "be at least 0", self.decay)

    def check(self, n: int, f: int, rule: BaseAggregator) -> None:
        require(n > 3 * f, "The workers of intake kardam", "satisfy n > 3 f", f"f = {f} with n = {n}")

    def start(self, x0: Tensor, n: int, f: int) -> KardamState:
        nothing = (torch.zeros_like(x0),) * n
        parts = (nothing, nothing, (nan,) * n, (False,) * n, torch.zeros_like(x0), x0)
        return KardamState(*parts, (-1,) * (2 * f), 0, 0, 0)

    def take(self, state: KardamState, arrival: Arrival, at: AtServer) -> tuple[Taken, KardamState]:
        i = arrival.worker
        if not arrival.sound:
            return NOTHING, self._refused(state, "steep")
        own, first = self._growth(state, arrival), not state.heard[i]
        after = state._replace(
            rows=put(state.rows, i, arrival.row),
            points=put(state.points, i, arrival.point),
            growth=put(state.growth, i, own),
            heard=put(state.heard, i, True),
        )
        if not (first or self._slow(after, arrival, own, at)):
            return NOTHING, self._refused(after, "steep")
        if i in state.recent:
            return NOTHING, self._refused(after, "frequent")
        recent = (*after.recent, i)[len(after.recent) - 2 * at.f + 1 :] if at.f else ()
        after = after._replace(passed=arrival.row, x=at.x, recent=recent, streak=0)
        weight = self._weight(arrival.staleness)
        return Taken((arrival.row if weight == 1 else weight * arrival.row).unsqueeze(0)), after

    def _growth(self, state: KardamState, arrival: Arrival) -> float:
        """K_i with this row; the one before it where the worker stood at the same point as then."""
        i = arrival.worker
        moved = float(norm(arrival.point - state.points[i])) if state.heard[i] else 0.0
        return float(norm(arrival.row - state.rows[i])) / moved if moved else state.growth[i]

    def _slow(self, state: KardamState, arrival: Arrival, own: float, at: AtServer) -> bool:
        """Whether a row has grown no faster than most do."""
        known = sorted(growth for growth in state.growth if not isnan(growth))
        if self.against == "server":
            moved = float(norm(at.x - state.x))
            own = float(norm(arrival.row - state.passed)) / moved if moved else inf
            if state.streak >= at.n or not known:
                return True
        if isnan(own):
            return False
        return own <= known[ceil(len(known) * (at.n - at.f) / at.n) - 1]

    def _refused(self, state: KardamState, why: Literal["steep", "frequent"]) -> KardamState:
        counts = {why: getattr(state, why) + 1, "streak": state.streak + 1}
        return state._replace(**counts)

    def _weight(self, staleness: int) -> float:
        if self.damping == "inverse":
            return 1 / (1 + staleness)
        return exp(-self.decay * staleness) if self.damping == "exponential" else 1.0

    def report(self, state: KardamState) -> dict[str, float]:
        """`refused_rows`: rows so far that were left out; `frequent_rows`: those of them that came from a
        worker of whom another had just passed."""
        return {"refused_rows": float(state.steep + state.frequent), "frequent_rows": float(state.frequent)}
