"""Worker momentum: what a rank sends is an average of its own gradients of many steps.

Liars hide in the noise of honest gradients. Averaged over 1/(1 - β) steps the noise of an honest rank
shrinks, and a lie does not (Karimireddy, He, Jaggi, arXiv:2012.10333).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from byzopt.errors import require


class Momentum:
    """m <- β m + (1 - β) g for each parameter, from m = g in its first step; m goes in the place of g.

    Half precisions are averaged in float32. A gradient that is not finite leaves m as it was, and is sent as
    it is. `scale` is what the loss has been multiplied by, as `GradScaler` does: m is that of the gradient
    without it, so that a change of the scale changes nothing.
    """

    def __init__(self, beta: float) -> None:
        self.beta = beta
        self.held: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, names: Sequence[str], grads: Sequence[Tensor], scale: float = 1.0) -> None:
        """Put the momentum of these parameters in the place of their finite gradients."""
        for name, grad in zip(names, grads, strict=True):
            wide = torch.promote_types(grad.dtype, torch.float32)
            held = self.held.get(name)
            if held is None:
                self.held[name] = grad.to(wide) / scale
                continue
            held.lerp_(grad.to(wide) / scale if scale != 1 else grad.to(wide), 1 - self.beta)
            grad.copy_(held * scale if scale != 1 else held)

    def clear(self) -> None:
        """Start afresh."""
        self.held = {}

    def state_dict(self) -> dict[str, Tensor]:
        return {name: held.clone() for name, held in self.held.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Errors: `InvalidInput` for what is no dictionary of tensors."""
        tensors = isinstance(state, Mapping) and all(isinstance(each, Tensor) for each in state.values())
        require(tensors, "The momentum in a state", "be tensors by parameter", type(state).__name__)
        self.held = {str(name): held.clone() for name, held in state.items()}
