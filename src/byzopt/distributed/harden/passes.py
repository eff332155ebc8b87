"""With worker momentum: one synchronised backward pass a step. What a second one is, and that it is noticed.

Momentum averages what a pass leaves in the gradients. Where these hold the answer of an earlier pass already,
that answer would be averaged in as if it were this rank's own gradient: an error. Where they have been zeroed
between two passes of one step, as when a generator trains through a discriminator, both passes are averaged
in as if they were two steps: a warning, since a script may as well leave out a step on purpose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any
from warnings import warn
from weakref import finalize, ref

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from byzopt.distributed.harden.guard import Guard
from byzopt.distributed.harden.scaling import at_work
from byzopt.distributed.harden.settings import Settings
from byzopt.errors import InvalidInput

_REMEDY = (
    "Add up the losses of a step, take all its passes but the last one under no_sync(), or zero gradients "
    "between steps; freeze a model (requires_grad_(False)) through which others are trained."
)


class Passes:
    """The passes of a model. `parameters` by name are looked at before a pass adds to their gradients; `own`
    are all whose optimizers' steps count. Without momentum nothing is done."""

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        guard: Guard,
        settings: Settings,
        own: Iterable[Tensor] = (),
    ) -> None:
        self._scaler, self._parameters = settings.scaler, {n: ref(p) for n, p in parameters.items()}
        self._answered: set[str] = set()  # gradients that may hold an answer
        self._since = 0  # passes since an optimizer has begun a step
        self._stepped = self._warned = False
        self._counts = guard.momentum is not None
        if not self._counts:
            return
        here = ref(self)
        for name, parameter in parameters.items():
            if parameter.requires_grad:
                leaf: Any = parameter
                guard.undo.append(leaf.register_hook(partial(_looked, here, name)).remove)
        mine = {id(parameter) for parameter in (*parameters.values(), *own)}
        hook = register_optimizer_step_pre_hook(partial(_stepped, here, mine))
        # Optimizers keep it for all of the process: it goes when the guard, or the model, does.
        guard.undo.append(finalize(self, hook.remove))

    def check(self, names: Sequence[str]) -> None:
        """Raise `InvalidInput` where the gradients of these parameters, to which a pass has added, hold an
        answer from before."""
        for name in names:
            if name in self._answered:
                self.look(name)
        held = [name for name in names if name in self._answered]
        if held:
            raise _second(held[0])

    def look(self, name: str) -> None:
        """Take note of whether a gradient has been zeroed since it had an answer."""
        parameter = self._parameters[name]()
        if name in self._answered and (parameter is None or _is_empty(parameter.grad)):
            self._answered.discard(name)

    def require_empty(self, name: str, gradients: Iterable[Tensor | None]) -> None:
        """Raise `InvalidInput` where a unit's gradients hold anything, to which its answer would be added."""
        if not all(map(_is_empty, gradients)):
            raise _second(name)

    def over(self) -> None:
        """A pass has left its answer in the gradients."""
        if not self._counts:
            return
        self._answered = set(self._parameters)
        self._since += 1
        if self._since > 1 and self._stepped and not self._warned and not at_work(self._scaler):
            self._warned = True
            warn(
                "With momentum=, a step should have one synchronised backward pass. Found a second one since "
                f"an optimizer's last step, and both are averaged in, as if they were two steps. {_REMEDY}",
                stacklevel=2,
            )

    def step(self) -> None:
        """An optimizer of these parameters begins a step."""
        self._since, self._stepped = 0, True


def _is_empty(gradient: Any) -> bool:
    return gradient is None or not bool((gradient.to_local() if _is_sharded(gradient) else gradient).any())


def _is_sharded(gradient: Any) -> bool:
    return hasattr(gradient, "to_local")


def _looked(here: ref[Passes], name: str, gradient: Tensor) -> None:
    """Is called before a pass adds to a parameter's gradient."""
    passes = here()
    if passes is not None:
        passes.look(name)


def _stepped(here: ref[Passes], own: set[int], optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    passes = here()
    if passes is not None and any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
        passes.step()


def _second(name: str) -> InvalidInput:
    return InvalidInput(
        f"With momentum=, a step should have one synchronised backward pass. Found that the gradient of "
        f"{name!r} holds the answer of an earlier one, which would be averaged in. {_REMEDY}"
    )
