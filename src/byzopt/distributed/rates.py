"""The server's step with the learning rates of an optimizer's groups: several, changing, or 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from byzopt.errors import require
from byzopt.fields import check_kind
from byzopt.servers import ServerContext, Step


def rate_of(lr: Any) -> float:
    """The `lr` of a group as a number. Errors: `InvalidInput` for what is none."""
    number = lr.item() if isinstance(lr, Tensor) and lr.numel() == 1 else lr
    check_kind("The `lr` of the optimizer's parameter group", number, float)
    return float(number)


def has_rate(step: Step) -> bool:
    """Whether the step has a scale `lr`."""
    return hasattr(step, "lr")


def at_rate(step: Step, lr: float) -> Step:
    """The step with this `lr` > 0."""
    return cast(Step, replace(cast(Any, step), lr=lr)) if has_rate(step) else step


def check_rates(step: Step, rates: Sequence[float]) -> None:
    """Raise `InvalidInput` for rates that this step cannot have."""
    good = all(0 <= rate < torch.inf for rate in rates)
    require(good, "The learning rates of groups", "be finite and at least 0", str(list(rates)))
    several = len(set(rates)) > 1
    remedy = "Use one lr for all groups."
    what = f"The step {step.name!r}, whose lr is more than a scale,"
    require(step.scales or not several, what, "have one lr for all groups", str(list(rates)), remedy)


def stepped(step: Step, state: Any, g: Tensor, rates: Sequence[float], spans: Sequence[slice]) -> Any:
    """The state after the aggregate `g` `[d]` where group i, the columns `spans[i]`, has the rate `rates[i]`.

    A rate of 0 is a step of length zero: momentum goes on, the iterate stays. (A step whose lr is more than
    a scale keeps its whole state.)
    """
    distinct = set(rates)
    if not has_rate(step):
        return step.tell(state, g)
    if len(distinct) == 1 and 0 not in distinct:
        return at_rate(step, rates[0]).tell(state, g)
    if not step.scales:
        return state
    moved = {rate: at_rate(step, rate).tell(state, g) for rate in distinct | {1.0} if rate}
    x = step.ask(state).clone()
    for rate, span in zip(rates, spans, strict=True):
        if rate:
            x[span] = moved[rate].x[span]
    return moved[1.0]._replace(x=x)


def recentred(step: Step, state: Any, x: Tensor, site: ServerContext) -> Any:
    """The state with the iterate `x` `[d]` in the place of its own. A step whose state is more than an
    iterate and what `lr` scales starts afresh there."""
    moved = state._replace(x=x) if step.scales else step.init(x, site)
    return moved if torch.equal(step.ask(moved), x) else step.init(x, site)
