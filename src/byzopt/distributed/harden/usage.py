"""With a deadline: which parameters a pass has used, where DDP looks for unused ones.

DDP asks all ranks at the end of each pass, and waits for them. Here ranks tell it beside their rows, and all
draw the same conclusion: a parameter that nobody has used keeps the gradient that it had.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel


class Usage:
    """Which of the parameters (in the order of their names) have had a gradient since the last round.

    Where `model` does not look for unused parameters all count as used, and nothing is told.
    """

    def __init__(self, model: DistributedDataParallel, parameters: Mapping[str, Tensor]) -> None:
        looks = model.find_unused_parameters
        wanted = [p for p in parameters.values() if p.requires_grad] if looks else []
        self._parameters, self._used = wanted, torch.zeros(len(wanted), dtype=torch.uint8, device="cpu")
        watched: list[Any] = list(enumerate(wanted))
        self._hooks = [p.register_post_accumulate_grad_hook(partial(self._saw, k)) for k, p in watched]
        self._reducer: Any = model.reducer
        if looks:  # it asks this rank alone, then
            self._reducer._update_process_group(_alone())

    def __len__(self) -> int:
        return len(self._parameters)

    def _saw(self, k: int, parameter: Tensor) -> None:
        if parameter.grad is not None:
            self._used[k] = 1

    def own(self) -> Tensor:
        """What this rank tells, a byte a parameter."""
        return self._used

    def taken(self, told: Iterable[Tensor], answers: Mapping[int, Tensor]) -> None:
        """Give parameters the gradient that they have on all ranks, when DDP has finished: the answer, by
        `id`, where any of those who have `told` has used it; else what there was before."""
        rows = [row.ne(0) for row in told]
        anywhere = torch.stack(rows).any(dim=0) if rows else torch.zeros(len(self), device="cpu").bool()
        for parameter, here, there in zip(
            self._parameters, self._used.tolist(), anywhere.tolist(), strict=True
        ):
            if there and not here:
                parameter.grad = answers[id(parameter)].clone()
            elif here and not there:
                parameter.grad = None
        self.clear()

    def clear(self) -> None:
        """Begin to look anew."""
        self._used.zero_()

    def remove(self, group: Any) -> None:
        """Let DDP ask all ranks of its `group` again."""
        for hook in self._hooks:
            hook.remove()
        if self._hooks:
            self._reducer._update_process_group(group)


def _alone() -> Any:
    """A group of this rank."""
    return dist.new_group([dist.get_rank()], backend="gloo", use_local_synchronization=True)
