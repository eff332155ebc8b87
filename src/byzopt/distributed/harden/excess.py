"""What becomes of a step in which more ranks are faulty than the rule tolerates: the same on all ranks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple
from weakref import finalize

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from byzopt.distributed.communicator import Communicator
from byzopt.distributed.harden.scaling import at_work
from byzopt.distributed.harden.settings import Excess
from byzopt.errors import TooManyFaults


class Outcome(NamedTuple):
    """What all gradients are filled with, and what `backward` raises, if anything."""

    fill: float
    error: Exception | None


class ExcessPolicy:
    """Settings `excess` for the gradients of `parameters`.

    Gradients are zeros, and with "raise" the error is raised. Where any rank has a `GradScaler` at work
    (`scaler`, or any of its process where None is told) gradients are NaN and nothing is raised, since it is
    the scaler's business to skip the step and to lower the scale. An optimizer that steps all the same,
    because no scaler drives it, gets zeros with "skip", and is stopped with the error otherwise.
    """

    def __init__(
        self,
        comm: Communicator,
        excess: Excess,
        parameters: Iterable[Tensor],
        scaler: GradScaler | None = None,
    ) -> None:
        self.comm, self.excess, self.scaler = comm, excess, scaler
        self._own = {id(parameter) for parameter in parameters}
        self._guarding: Any = None

    def outcome(self, error: Exception) -> Outcome:
        """A collective for `TooManyFaults`, which all ranks have met; another error is raised as it is."""
        if not isinstance(error, TooManyFaults):
            return Outcome(torch.nan, error)
        if self._scaled():
            self._stop_steps(error)
            return Outcome(torch.nan, None)
        return Outcome(0.0, None if self.excess == "skip" else error)

    def of_buffers(self, error: TooManyFaults) -> Outcome | None:
        """What becomes of gradients that have an answer when buffers had too many faults, and all have gone
        back to earlier ones; None: nothing. A collective."""
        if self.excess == "skip":
            return None
        if self._scaled():
            self._stop_steps(error)
            return Outcome(torch.nan, None)
        return Outcome(0.0, error)

    def _scaled(self) -> bool:
        own = torch.tensor([float(at_work(self.scaler))], dtype=torch.float64, device="cpu")
        return bool(self.comm.all_gather(own).any())

    def clear(self) -> None:
        """A new step begins, or the guard is removed: what was wrong with the last one is past."""
        if self._guarding is not None:
            self._guarding()
            self._guarding = None

    def _stop_steps(self, error: TooManyFaults) -> None:
        self.clear()
        text = f"{error} {_NOT_DRIVEN}"
        before = partial(_before_step, self._own, None if self.excess == "skip" else text, error.rows)
        # Optimizers keep it for all of the process: it goes when the model, and so this policy, does.
        self._guarding = finalize(self, register_optimizer_step_pre_hook(before).remove)


_NOT_DRIVEN = (
    "A GradScaler of this process should have skipped this step, but this optimizer stepped without one. "
    "Where that scaler is not this model's, say which is: harden(model, ..., scaler=scaler), or one with "
    "enabled=False for none."
)


def _before_step(
    own: set[int], text: str | None, rows: Sequence[int], optimizer: Optimizer, args: Any, kwargs: Any
) -> None:
    """What an optimizer of the parameters `own` meets that steps on gradients that a scaler should have
    skipped: the error `text`, or zeros where it is None."""
    if getattr(optimizer, "found_inf", None) is not None:  # a scaler has told a fused optimizer
        return
    mine = [p for group in optimizer.param_groups for p in group["params"] if id(p) in own]
    if mine and text is not None:
        raise TooManyFaults(text, rows)
    for parameter in mine:
        if parameter.grad is not None:
            parameter.grad.zero_()
