"""What FSDP reduces at a time, and what of it takes part in a backward pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor


class Unit:
    """What FSDP reduces at a time: a group of parameters, by the name of its module.

    `present` are the places of those that have a gradient in this backward pass: of them alone, one after the
    other, is a flat gradient made, and the next one may be made of others.
    """

    def __init__(self, name: str, group: Any) -> None:
        self.name, self.group, self.present = name, group, tuple[int, ...]()

    def watch(self) -> Callable[[], None]:
        """Take note of who has a gradient just before FSDP reduces; returns what undoes it."""
        group, reduce = self.group, self.group.post_backward

        def noted(*unused: Any) -> None:
            self.present = tuple(k for k, each in enumerate(group.fsdp_params) if self._has_gradient(each))
            reduce(*unused)

        group.post_backward = noted
        return partial(group.__dict__.pop, "post_backward", None)

    def _has_gradient(self, parameter: Any) -> bool:
        if not hasattr(parameter, "unsharded_param"):  # not gathered yet
            return False
        zeros = getattr(self.group, "reduce_scatter_unused_params", False)
        unsharded = parameter.unsharded_param
        held = parameter.unsharded_accumulated_grad is not None or unsharded.grad is not None
        return held or (zeros and unsharded.requires_grad)

    @property
    def key(self) -> str:
        """A name for this unit with those of its parameters that take part now."""
        return f"{self.name} {self.present}"

    @property
    def parameters(self) -> list[Any]:
        """FSDP's parameters that take part now."""
        return [self.group.fsdp_params[k] for k in self.present]

    def slices(self, flat: Tensor, ranks: int) -> dict[str, Tensor]:
        """Views `[ranks, w]` of a flat gradient, which holds the shards of so many ranks, by parameter."""
        widths = [each.padded_sharded_param_size.numel() for each in self.parameters]
        views = torch.split(flat.view(ranks, -1), widths, dim=1)
        return {f"{self.name} {k}": view for k, view in zip(self.present, views, strict=True)}


def has_early_readers(parameter: Any) -> bool:
    """Whether somebody reads a parameter's gradient as soon as FSDP has made it."""
    return bool(getattr(parameter.sharded_param, "_post_accumulate_grad_hooks", None))
