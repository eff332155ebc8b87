"""What one says to `harden`, checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch.amp import GradScaler

from byzopt.aggregators import Aggregator, rule_from
from byzopt.aggregators.core.filters import Filter, RoundRule, check_unseen_data
from byzopt.distributed.deadline.transport import check_seconds
from byzopt.distributed.harden.estimated import check_estimator
from byzopt.distributed.harden.transfer import Transfer, swap, swap_coded
from byzopt.distributed.header import recipe_text
from byzopt.distributed.topologies import Watch, check_topology
from byzopt.errors import require
from byzopt.workers import Estimator

Buffers = Literal["median", "local", "refuse"]
Excess = Literal["raise", "skip"]
Scope = Literal["unit", "model"]
Wire = Literal["bf16", "int8"]


@dataclass(frozen=True)
class Settings:
    """See `harden`. `rule` is a recipe once `checked` has been called."""

    rule: Aggregator | str
    f: int | None = None
    momentum: float | Estimator = 0.0
    buffers: Buffers = "median"
    excess: Excess = "raise"
    wire: Wire | None = None
    watch: Watch = None
    scaler: GradScaler | None = None
    scope: Scope | None = None
    deadline: float | None = None

    def checked(self, n: int) -> Settings:
        """The same for n ranks, the rule read. Errors: `InvalidInput` for what is not allowed."""
        rule = rule_from(self.rule, **({} if self.f is None else {"f": self.f}))
        settings = replace(self, rule=rule)
        check_topology("sharded", settings.filter)
        check_unseen_data(settings.filter)
        rule.check(n)
        self._check_momentum()
        for name, allowed in (("buffers", Buffers), ("excess", Excess)):
            words, found = cast(Any, allowed).__args__, getattr(self, name)
            require(found in words, f"Parameter `{name}` of harden", f"be one of {', '.join(words)}", found)
        scopes = "be 'unit', 'model' or left out"
        require(
            self.scope in (None, "unit", "model"), "Parameter `scope` of harden", scopes, repr(self.scope)
        )
        wires = "be 'bf16', 'int8' or left out"
        require(self.wire in (None, "bf16", "int8"), "Parameter `wire` of harden", wires, repr(self.wire))
        require(self.watch is None or callable(self.watch), "A watch", "be callable", self.watch)
        if self.deadline is not None:
            check_seconds(self.deadline)
        scaler = self.scaler
        require(scaler is None or isinstance(scaler, GradScaler), "A scaler", "be a GradScaler", scaler)
        return settings

    def _check_momentum(self) -> None:
        momentum = self.momentum
        if isinstance(momentum, Estimator):
            check_estimator(momentum)
            return
        number = isinstance(momentum, (int, float)) and not isinstance(momentum, bool)
        what, rule = "Parameter `momentum` of harden", "lie in [0, 1), or be an Estimator"
        require(number and 0 <= momentum < 1, what, rule, repr(momentum))

    @property
    def filter(self) -> RoundRule:
        """The rule with its memory."""
        lifted: Filter = cast(Aggregator, self.rule).as_filter()
        return cast(RoundRule, lifted)

    @property
    def dtype(self) -> torch.dtype | None:
        """The dtype in which rules see columns, where that of the gradients is wider; None: as they are."""
        return torch.bfloat16 if self.wire == "bf16" else None

    @property
    def swap(self) -> Callable[..., Transfer]:
        """How columns travel between all pairs of ranks."""
        return swap_coded if self.wire == "int8" else swap

    @property
    def plan(self) -> str:
        """What all ranks must have said alike."""
        watched = self.watch is not None
        told = (self.rule, self.momentum, self.buffers, self.excess, self.wire, self.scope, watched)
        limit = () if self.deadline is None else (self.deadline,)
        return recipe_text((*told, *limit))
