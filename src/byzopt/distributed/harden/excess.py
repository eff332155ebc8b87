"""What becomes of a step in which more ranks are faulty than the rule tolerates: the same on all ranks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from byzopt.distributed.communicator import Communicator
from byzopt.distributed.harden.scaling import scalers
from byzopt.distributed.harden.settings import Excess
from byzopt.errors import TooManyFaults


class Outcome(NamedTuple):
    """What all gradients are filled with, and what `backward` raises, if anything."""

    fill: float
    error: Exception | None


class ExcessPolicy:
    """Settings `excess` for the gradients of `parameters`.

    Gradients are zeros, and with "raise" the error is raised. Where any rank has a
    `GradScaler` at work gradients are NaN and nothing is raised, since it is the scaler's business to skip
    the step and to lower the scale; an optimizer that steps all the same is stopped with the error.
    """

    def __init__(self, comm: Communicator, excess: Excess, parameters: Iterable[Tensor]) -> None:
        self.comm, self.excess = comm, excess
        self._own = {id(parameter) for parameter in parameters}
        self._guarding: Any = None

    def outcome(self, error: Exception) -> Outcome:
        """A collective for `TooManyFaults`, which all ranks have met; another error is raised as it is."""
        if not isinstance(error, TooManyFaults):
            return Outcome(torch.nan, error)
        own = torch.tensor([float(bool(scalers()))], dtype=torch.float64, device="cpu")
        if self.comm.all_gather(own).any():
            self._stop_steps(error)
            return Outcome(torch.nan, None)
        return Outcome(0.0, None if self.excess == "skip" else error)

    def clear(self) -> None:
        """A new step begins: what was wrong with the last one is past."""
        if self._guarding is not None:
            self._guarding.remove()
            self._guarding = None

    def _stop_steps(self, error: TooManyFaults) -> None:
        def before(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            handled = getattr(optimizer, "found_inf", None) is not None  # a scaler has told a fused optimizer
            own = any(id(p) in self._own for group in optimizer.param_groups for p in group["params"])
            if own and not handled:
                raise TooManyFaults(str(error), error.rows)

        self.clear()
        self._guarding = register_optimizer_step_pre_hook(before)
