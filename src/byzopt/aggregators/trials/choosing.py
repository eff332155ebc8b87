"""Several rules, of whose answers the one is taken that does best on the loss that the server owns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from byzopt.aggregators.core.base import BaseAggregator
from byzopt.aggregators.core.filters import Filter, RoundContext, State
from byzopt.aggregators.trials.losses import ServerLoss, owned_loss, trial_losses
from byzopt.errors import TooManyFaults, require
from byzopt.rng import stream
from byzopt.schedules import Constant, Schedule

By = Literal["loss", "lot"]


class ChoiceState(NamedTuple):
    """The server's loss (None: drawn by lot), the number of rounds so far, how often each rule was taken, and
    every rule's own state."""

    loss: ServerLoss | None
    k: int
    taken: tuple[int, ...]
    rules: tuple[State, ...]


@dataclass(frozen=True)
class ChosenRule(Filter):
    """The answer of that one of `filters` for which the server's loss at x - γ_t answer is least.

    Ties: the first. Every rule remembers its own answers. A rule that has no answer to a round is left out
    of it; where none has, the round has none. With `by = "lot"` one is drawn each round, whatever it answers,
    and no loss is needed. Source: see `methods.Hybrid`.

    Args:
        filters: The rules, at least one.
        lr: Scale of the step that is tried: the server's own.
        schedule: Its factors by round.
        by: Whether rules are chosen by the server's "loss" or by "lot".
    """

    filters: tuple[Filter, ...]
    lr: float
    schedule: Schedule = Constant()
    by: By = "loss"

    def __post_init__(self) -> None:
        require(len(self.filters) >= 1, "Rules to choose among", "be at least one", len(self.filters))

    @property
    def needs_proxy(self) -> bool:
        return self.by == "loss"

    def init(self, x0: Tensor, n: int) -> ChoiceState:
        return self.begin(x0, n, None)

    def begin(self, x0: Tensor, n: int, proxy: ServerLoss | None) -> ChoiceState:
        loss = owned_loss(proxy, "A choice among rules by loss") if self.needs_proxy else None
        memories = tuple(one.begin(x0, n, proxy) for one in self.filters)
        return ChoiceState(loss, 0, (0,) * len(self.filters), memories)

    def step(self, state: ChoiceState, rows: Tensor, at: RoundContext) -> tuple[Tensor, ChoiceState]:
        answers, memories = dict[int, Tensor](), list(state.rules)
        refused: TooManyFaults | None = None
        for i in self._asked(at):
            try:
                answers[i], memories[i] = self.filters[i].step(state.rules[i], rows, at)
            except TooManyFaults as error:
                refused = refused or error
        if refused is not None and not answers:
            raise refused
        best = self._best(state, answers, at)
        taken = tuple(count + (i == best) for i, count in enumerate(state.taken))
        return answers[best], state._replace(k=state.k + 1, taken=taken, rules=tuple(memories))

    def preview(self, state: ChoiceState, rows: Tensor, at: RoundContext) -> Tensor:
        return self.step(state, rows, at)[0]

    def previews(self, state: ChoiceState, rows: Tensor, at: RoundContext) -> Tensor:
        asked = self._asked(at)
        try:
            answers = torch.stack([self.filters[i].previews(state.rules[i], rows, at) for i in asked], dim=1)
        except TooManyFaults:  # of some set alone, perhaps
            return super().previews(state, rows, at)
        losses = self._losses(state, answers.flatten(0, 1), at).view(answers.shape[:2])
        return answers[torch.arange(len(rows), device="cpu"), losses.argmin(dim=1)]

    def rule_of(self, state: ChoiceState, at: RoundContext) -> BaseAggregator | None:
        """One of this round that draws lots, if any does: attackers do not know these, nor which is drawn."""
        known = [self.filters[i].rule_of(state.rules[i], at) for i in self._asked(at)]
        return next((one for one in known if one is not None and (one.draws or self.by == "lot")), None)

    def report(self, state: ChoiceState) -> dict[str, float]:
        """`taken_1`, `taken_2`, ...: in how many rounds so far each rule's answer was taken."""
        return {f"taken_{i}": float(count) for i, count in enumerate(state.taken, start=1)}

    def _asked(self, at: RoundContext) -> list[int]:
        """Which rules answer this round."""
        if self.by == "loss":
            return list(range(len(self.filters)))
        generator = stream(at.seed, "hybrid", at.t)
        return [int(torch.randint(len(self.filters), (), generator=generator, device="cpu"))]

    def _best(self, state: ChoiceState, answers: dict[int, Tensor], at: RoundContext) -> int:
        losses = self._losses(state, torch.stack(list(answers.values())), at)
        return list(answers)[int(losses.argmin())]

    def _losses(self, state: ChoiceState, answers: Tensor, at: RoundContext) -> Tensor:
        """The server's loss after a step along each of the answers `[k, d]`; 0 where none is asked."""
        if state.loss is None:
            return torch.zeros(len(answers), dtype=torch.float64, device="cpu")
        return trial_losses(state.loss, at.x, answers, self.lr * self.schedule.gamma(state.k + 1))
