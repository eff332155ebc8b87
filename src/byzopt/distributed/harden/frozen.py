"""Parameters that DDP does not know of, because they were frozen when it was built."""

from __future__ import annotations

from torch.nn.parallel import DistributedDataParallel

from byzopt.errors import require


class Frozen:
    """What stays frozen in a model: DDP would leave gradients of these to each rank, and no rule see them."""

    def __init__(self, model: DistributedDataParallel) -> None:
        apart, named = model.parameters_to_ignore, model.module.named_parameters()
        self._kept = [(name, p) for name, p in named if name not in apart and not p.requires_grad]

    def check(self) -> None:
        """Raise `InvalidInput` for parameters that have been unfrozen since."""
        found = [name for name, parameter in self._kept if parameter.requires_grad]
        require(
            not found,
            "Parameters that were frozen when DistributedDataParallel was built",
            "stay so: it does not know of their gradients, which no rule sees",
            f"{found[:3]} unfrozen",
            "Unfreeze them before, or build it anew and harden it.",
        )
