"""What stands where FSDP's units reduce: the columns cross, and the rule answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from byzopt.distributed.harden.narrowing import narrowed, travelling
from byzopt.distributed.harden.reductions import ModelReduction, Reduction
from byzopt.distributed.harden.units import Unit


class UnitReduceScatter:
    """Stands where FSDP scatters a unit's sums: the columns cross, and the rule answers."""

    def __init__(self, unit: Unit, reduction: Reduction) -> None:
        self.unit, self.reduction = unit, reduction

    def allocate(self, size: Sequence[Any], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    @torch.no_grad()
    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: Any, op: Any, async_op: bool = False
    ) -> None:
        reduction, comm = self.reduction, self.reduction.comm
        reduction.begin()
        reduction.remember(self.unit, input_tensor, comm.n)
        dtype = travelling([input_tensor.dtype], reduction.guard.settings.dtype)
        sent = narrowed(input_tensor, comm.device, dtype)
        rows = sent.new_empty(comm.n, len(output_tensor))
        arrival = reduction.swap(comm, list(sent.view(comm.n, -1)), list(rows))
        arrival.wait()
        factor = _factor(self.unit.group, group, input_tensor, comm.n)
        seen = [input_tensor] if sent is input_tensor else [input_tensor, sent]
        if isinstance(reduction, ModelReduction):
            reduction.defer(self.unit, rows, seen, arrival.unsound, factor[0] / factor[1])
            output_tensor.zero_()
            return
        first = comm.rank * rows.shape[1]
        place = output_tensor if output_tensor.dtype == rows.dtype else torch.empty_like(rows[0])
        reduction.decide(self.unit, rows, seen, arrival.unsound, first, input_tensor.numel(), place)
        if place is not output_tensor:
            output_tensor.copy_(place)
        if factor[0] != 1:
            output_tensor.mul_(factor[0])


class ReplicaHook:
    """Stands in the place of HSDP's all-reduce: `reduced` `[s]` is this replica's gradient in its shard."""

    def __init__(self, unit: Unit, reduction: Reduction) -> None:
        self.unit, self.reduction = unit, reduction

    @torch.no_grad()
    def __call__(self, reduced: Tensor) -> None:
        reduction, comm = self.reduction, self.reduction.comm
        reduction.begin()
        reduction.remember(self.unit, reduced, 1)
        dtype = travelling([reduced.dtype], reduction.guard.settings.dtype)
        sent = narrowed(reduced, comm.device, dtype).contiguous()
        spans = comm.columns(len(sent))
        parts, first = [sent[a:b] for a, b in spans], spans[comm.rank][0]
        own = parts[comm.rank]
        rows = sent.new_empty(comm.n, len(own))
        arrival = reduction.swap(comm, parts, list(rows))
        arrival.wait()
        seen = [reduced] if sent is reduced else [reduced, sent]
        reduction.decide(self.unit, rows, seen, arrival.unsound, first, len(sent), own)
        reduction.swap(comm, [own] * comm.n, parts).wait()
        if sent is not reduced:
            reduced.copy_(sent)
        if self.unit.group.gradient_divide_factor is not None:
            reduced.mul_(comm.n)


def _factor(unit: Any, group: Any, gradient: Tensor, n: int) -> tuple[float, float]:
    """What the answer to the rows as FSDP hands them over is to be multiplied by so that FSDP's own division
    behind it gives what it gives for a mean; and by what FSDP divides then."""
    from torch.distributed.fsdp._fully_shard import _fsdp_collectives as collectives

    divide: Any = collectives._get_gradient_divide_factors
    factor = unit.gradient_divide_factor
    force = getattr(unit, "force_sum_reduction_for_comms", False)
    known = divide(group, None, gradient.dtype, gradient.device.type, factor, force)
    before, after = known[0] or 1.0, known[1] or 1.0
    return before * after * n / (n if factor is None else factor), after
