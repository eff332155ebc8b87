"""Rounds of FSDP's units: a reduction for each backward, in which every unit takes part when it is ready."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from byzopt.aggregators.core.filters import RoundContext
from byzopt.aggregators.core.surroundings import isolated
from byzopt.distributed.communicator import Communicator
from byzopt.distributed.harden.bucket_hook import raise_behind
from byzopt.distributed.harden.buffers import BufferSync
from byzopt.distributed.harden.excess import ExcessPolicy
from byzopt.distributed.harden.guard import Guard
from byzopt.distributed.harden.round import Round
from byzopt.distributed.harden.scaling import LossScale
from byzopt.distributed.harden.transfer import swap
from byzopt.distributed.header import max_magnitude
from byzopt.errors import InvalidInput, TooManyFaults

_engine: Any = torch.autograd.Variable._execution_engine


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
        if not hasattr(parameter, "_unsharded_param"):
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


class Reduction:
    """The backward passes of a model, each unit of which decides for itself.

    A unit's round has a memory of its own. Errors are raised from `backward`, when FSDP has finished with it:
    until then the gradients of a unit without an answer are what `excess` says.
    """

    def __init__(self, model: Any, comm: Communicator, guard: Guard) -> None:
        self.model, self.comm, self.guard = model, comm, guard
        settings = guard.settings
        self.excess = ExcessPolicy(comm, settings.excess, model.parameters(), settings.scaler)
        guard.undo.append(self.excess.clear)
        self.buffers = BufferSync(comm, model, guard.settings.buffers, guard.tolerance, set())
        self.scale = LossScale(guard.settings.scaler)
        self.memories: dict[str, Guard] = {}
        self.largest = ""  # the unit with the most numbers
        self._open = False
        self._errors: list[Exception] = []
        self._faulty: set[int] = set()

    def memory(self, unit: Unit) -> Guard:
        """What is remembered of a unit, while the same parameters take part. A watch looks at the largest."""
        if unit.key not in self.memories:
            watched = unit.name == self.largest
            settings = self.guard.settings if watched else replace(self.guard.settings, watch=None)
            self.memories[unit.key] = Guard(self.comm, settings)
        return self.memories[unit.key]

    def begin(self) -> None:
        """The first unit of a backward pass has come."""
        if self._open:
            return
        self._open, self._errors, self._faulty = True, [], set()
        self.excess.clear()
        if self.model._get_fsdp_state()._is_root is False:
            self._errors.append(
                InvalidInput(
                    "A model to harden should be the root of what fully_shard was called on: other units "
                    "average gradients. Found a part of it. Harden the outermost module."
                )
            )
        _engine.queue_callback(self.end)

    @isolated
    def decide(
        self, unit: Unit, rows: Tensor, own: Sequence[Tensor], first: int, d: int, place: Tensor
    ) -> None:
        """Put the answer to the rows `[n, b]` of a unit's columns in their `place` `[b]`, or what stands for
        it.

        `own` is this rank's own gradient of the unit, `d` the number of columns of all ranks.
        """
        memory = self.memory(unit)
        done = memory.begin(d)
        for piece in own:
            done.saw(piece)
        try:
            done.add(rows, first, place)
            if not done.decide():
                list(done.answers())
            memory.finished(done, [place])
        except Exception as error:
            place.fill_(self._failed(memory, done, error))
            return
        self._faulty |= set(done.faulty)

    def _failed(self, memory: Guard, done: Round, error: Exception) -> float:
        memory.failed(done, error)
        if isinstance(error, TooManyFaults):
            self._faulty |= set(error.rows)
        fill, left = self.excess.outcome(error)
        self._errors.append(left if left is not None else _Settled(str(error)))
        return fill

    def remember(self, unit: Unit, gradient: Tensor, ranks: int) -> None:
        """Put this rank's momentum in the place of its gradient, if that is finite."""
        momentum = self.guard.momentum
        if momentum is not None and isfinite(max_magnitude(gradient)):
            parts = unit.slices(gradient, ranks)
            momentum.update(list(parts), list(parts.values()), self.scale.now())

    def end(self) -> None:
        """Backward has ended: count, look at buffers, and raise what went wrong behind everybody else."""
        self._open = False
        guard = self.guard
        watched = [each.diagnostics for each in self.memories.values() if each.diagnostics is not None]
        guard.diagnostics = max(watched, key=lambda each: each.t, default=None)
        guard.rounds += 1
        guard.skipped += bool(self._errors)
        for rank in self._faulty:
            guard.dropped[rank] += 1
        error = next((each for each in self._errors if not isinstance(each, _Settled)), None)
        try:
            self.buffers.agree(torch.ones(self.comm.n, dtype=torch.bool, device="cpu"))
        except TooManyFaults as trouble:
            left = self._of_buffers(trouble)
            error = error or left
        if error is not None:
            raise_behind(error)

    def _of_buffers(self, trouble: TooManyFaults) -> Exception | None:
        """What is to be raised after buffers went back; what was said about gradients holds for both."""
        self.guard.restored += 1
        outcome = None if self._errors else self.excess.of_buffers(trouble)
        if outcome is None:
            return None
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad.fill_(outcome.fill)
        return outcome.error


class _Settled(Exception):
    """Too many faults in a unit, of which nothing is left to be raised."""


@dataclass
class _Waiting:
    """A unit whose columns wait for the decision: its key and parameters, the answer's place and factor."""

    key: str
    parameters: list[Any]
    place: Tensor
    factor: float


class ModelReduction(Reduction):
    """The backward passes of a model that decides once, when all units have come."""

    def __init__(self, model: Any, comm: Communicator, guard: Guard) -> None:
        super().__init__(model, comm, guard)
        self.whole = Guard(comm, guard.settings)
        self.memories["all units"] = self.whole
        self._layout: tuple[str, ...] = ()

    def begin(self) -> None:
        if not self._open:
            self._round: Round | None = self.whole.begin(self._d())
            self._first, self._waiting = 0, list[_Waiting]()
        super().begin()

    def _d(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)

    def defer(self, unit: Unit, rows: Tensor, own: Sequence[Tensor], rank: int, factor: float) -> None:
        """Take in a unit's rows `[n, b]`; the answer comes when backward has ended."""
        assert self._round is not None
        for piece in own:
            self._round.saw(piece)
        place = torch.empty_like(rows[0])
        self._round.add(rows, self._first + rank * rows.shape[1], place)
        self._first += rows.numel()
        self._waiting.append(_Waiting(unit.key, unit.parameters, place, factor))
        with self._round.trouble.noted():
            if any(map(has_early_readers, unit.parameters)):
                raise InvalidInput(
                    "With scope='model' gradients should be read after backward. Found a hook behind those "
                    f"of the unit {unit.name!r}, which sees zeros. Say scope='unit'."
                )

    @isolated
    def end(self) -> None:
        waiting, self._waiting = self._waiting, []
        try:
            self._answer(waiting)
            for each in waiting:
                _accumulate(each.parameters, each.place.mul_(each.factor) if each.factor != 1 else each.place)
        finally:
            self._round = None  # and the rows with it
            super().end()

    def _answer(self, waiting: Sequence[_Waiting]) -> None:
        """Put the answers in their places."""
        memory, done = self.whole, self._round
        assert done is not None
        layout = tuple(each.key for each in waiting)
        if layout != self._layout:  # memory is by columns, and columns are others now
            memory.forget_layout()
            done.state = memory.filter.init(torch.zeros(0, device="cpu"), self.comm.n)
            done.rule = done.filter.now(done.state, RoundContext(done.t, torch.empty(0, device="cpu")))
            self._layout = layout
        try:
            if not done.decide():
                list(done.answers())
            memory.finished(done, done.places)
        except Exception as error:
            fill = self._failed(memory, done, error)
            for each in waiting:
                each.place.fill_(fill)
            return
        self._faulty |= set(done.faulty)


def _accumulate(parameters: Sequence[Any], gradient: Tensor) -> None:
    """Add a unit's flat sharded gradient to those that FSDP made of zeros."""
    offset = 0
    for parameter in parameters:
        size, stride = parameter.sharded_size, parameter.contiguous_sharded_stride
        local = parameter.sharded_param.grad._local_tensor
        local += torch.as_strided(gradient, size, stride, storage_offset=offset).to(local)
        offset += parameter.padded_sharded_param_size.numel()


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
        sent = input_tensor.to(comm.device, _travelling(input_tensor, reduction.guard.settings.dtype))
        rows = sent.new_empty(comm.n, len(output_tensor))
        swap(comm, list(sent.view(comm.n, -1)), list(rows)).wait()
        factor = _factor(self.unit.group, group, input_tensor, comm.n)
        seen = [input_tensor] if sent is input_tensor else [input_tensor, sent]
        if isinstance(reduction, ModelReduction):
            reduction.defer(self.unit, rows, seen, comm.rank, factor[0] / factor[1])
            output_tensor.zero_()
            return
        first = comm.rank * rows.shape[1]
        place = output_tensor if output_tensor.dtype == rows.dtype else torch.empty_like(rows[0])
        reduction.decide(self.unit, rows, seen, first, input_tensor.numel(), place)
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
        sent = reduced.to(comm.device, _travelling(reduced, reduction.guard.settings.dtype)).contiguous()
        spans = comm.columns(len(sent))
        parts, first = [sent[a:b] for a, b in spans], spans[comm.rank][0]
        own = parts[comm.rank]
        rows = sent.new_empty(comm.n, len(own))
        swap(comm, parts, list(rows)).wait()
        seen = [reduced] if sent is reduced else [reduced, sent]
        reduction.decide(self.unit, rows, seen, first, len(sent), own)
        swap(comm, [own] * comm.n, parts).wait()
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


def _travelling(gradient: Tensor, wire: torch.dtype | None) -> torch.dtype:
    return wire if wire is not None and wire.itemsize < gradient.dtype.itemsize else gradient.dtype
