"""Workers weighed by what a trial step along their rows gains on the loss that the server owns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from byzopt.aggregators.core.aggregator import Aggregator
from byzopt.aggregators.core.filters import Filter, RoundContext
from byzopt.aggregators.core.present import PresentRows, PresentState
from byzopt.aggregators.mean import Mean
from byzopt.aggregators.trials.losses import ServerLoss, owned_loss, trial_losses
from byzopt.errors import InvalidInput, require
from byzopt.schedules import Constant, Schedule

FALLBACK = 0.001  # the weight of a round in which nobody's row gains anything: the authors' code
Otherwise = Literal["all", "none"]


class TrustState(NamedTuple):
    """The server's loss, the number of rounds so far, everybody's trust `[n]` (float64, of sum 1), how many
    rows passed last, in how many rounds none gained anything, and the rule's own state."""

    loss: ServerLoss
    k: int
    trust: Tensor
    passed: int
    blind: int
    rule: PresentState


@dataclass(frozen=True)
class TrialTrust(Filter):
    """The rule on m ω_i v_i of the m workers who pass, ω being their trust, made to sum to 1.

    A row passes if the server's loss at x - γ_t v_i is below that at x; what it gains there, as a share of
    all gains, goes into its worker's trust with weight `beta`. With the mean for `rule` this is Σ ω_i v_i.
    Who does not pass is a missing row to the rule; where it has no answer to so few, the answer is 0 and the
    round counts as idle. Rows that are not finite gain nothing. If no row gains
    anything, all finite rows pass with the trust that they have, or with `otherwise = "none"` none does, and
    the answer is 0. Source: see `methods.Bant`.

    Args:
        rule: What combines those who pass.
        lr: Scale of the trial step: the server's own.
        schedule: Its factors by round.
        beta: β in (0, 1], the weight of this round in the trust.
        otherwise: Who passes where no row gains anything.
    """

    rule: Aggregator
    lr: float
    schedule: Schedule = Constant()
    beta: float = 0.5
    otherwise: Otherwise = "all"
    needs_proxy = True

    def __post_init__(self) -> None:
        require(0 < self.beta <= 1, "Parameter `beta` of trial-based trust", "lie in (0, 1]", self.beta)
        _ = self._inner

    def init(self, x0: Tensor, n: int) -> TrustState:
        return self.begin(x0, n, None)

    def begin(self, x0: Tensor, n: int, proxy: ServerLoss | None) -> TrustState:
        loss = owned_loss(proxy, "Trial-based trust")
        trust = torch.full((n,), 1 / n, dtype=torch.float64, device="cpu")
        return TrustState(loss, 0, trust, n, 0, self._inner.init(x0, n))

    def step(self, state: TrustState, rows: Tensor, at: RoundContext) -> tuple[Tensor, TrustState]:
        weights, after = self._trusted(state, rows, self._losses(state, rows, at), at)
        g, memory = self._combined(state.rule, rows, weights, at)
        return g, after._replace(rule=memory)

    def preview(self, state: TrustState, rows: Tensor, at: RoundContext) -> Tensor:
        return self.previews(state, rows.unsqueeze(0), at)[0]

    def previews(self, state: TrustState, rows: Tensor, at: RoundContext) -> Tensor:
        K, n, d = rows.shape
        losses = self._losses(state, rows.reshape(K * n, d), at)
        answers = []
        for some, tried in zip(rows, losses[1:].view(K, n), strict=True):
            weights, _ = self._trusted(state, some, torch.cat([losses[:1], tried]), at)
            answers.append(self._combined(state.rule, some, weights, at)[0])
        return torch.stack(answers)

    def report(self, state: TrustState) -> dict[str, float]:
        """`passed_rows`: how many rows passed last; `most_trusted`: the largest share of trust;
        `blind_rounds`: rounds so far in which no row gained anything on the server's loss."""
        counts = {"passed_rows": float(state.passed), "blind_rounds": float(state.blind)}
        return self._inner.report(state.rule) | counts | {"most_trusted": float(state.trust.max())}

    @property
    def _inner(self) -> PresentRows:
        return PresentRows(self.rule.as_filter())

    def _losses(self, state: TrustState, rows: Tensor, at: RoundContext) -> Tensor:
        """The server's loss at x, and behind it at x - γ v for every row `[k, d]`."""
        length = self.lr * self.schedule.gamma(state.k + 1)
        return trial_losses(state.loss, at.x, torch.cat([torch.zeros_like(rows[:1]), rows]), length)

    def _trusted(
        self, state: TrustState, rows: Tensor, losses: Tensor, at: RoundContext
    ) -> tuple[Tensor, TrustState]:
        """The weights `[n]` of this round's rows, 0 for those that do not pass, and the state after it."""
        here = rows.isfinite().all(dim=1).cpu()
        here = here if at.present is None else here & at.present
        gains = losses[0] - losses[1:]
        gains = torch.where(here & gains.isfinite(), gains, 0.0).clamp_min(0)
        blind = not bool((gains > 0).any())
        beta, share = self.beta, gains
        if blind:
            everybody = here.double() if self.otherwise == "all" else torch.zeros_like(gains)
            beta, share = FALLBACK, everybody
        if total := float(share.sum()):
            share = share / total
            trust = state.trust.lerp(share, beta)
        else:  # nobody is believed in this round
            trust = state.trust
        weights = torch.where(share > 0, trust, 0.0)
        weights = weights / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)
        passed = int((share > 0).sum())
        return weights, state._replace(k=state.k + 1, trust=trust, passed=passed, blind=state.blind + blind)

    def _combined(
        self, memory: PresentState, rows: Tensor, weights: Tensor, at: RoundContext
    ) -> tuple[Tensor, PresentState]:
        """The rule on the rows with weight, scaled so that their mean is the weighted sum; its next state."""
        passing = weights > 0
        if type(self.rule) is Mean:  # trust is all that counts
            return weights[passing].to(rows) @ rows[passing.to(rows.device)], memory
        scaled = rows * (weights * passing.sum()).to(rows).unsqueeze(1)
        try:
            return self._inner.step(memory, scaled, at._replace(present=passing))
        except InvalidInput:  # it works on n rows, as was seen at the start, but not on so few
            return torch.zeros_like(rows[0]), memory._replace(idle=memory.idle + 1)
