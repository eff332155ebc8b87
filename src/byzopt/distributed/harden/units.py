"""Rounds of FSDP's units: a reduction for each backward, in which every unit takes part when it is ready."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from byzopt.aggregators.core.surroundings import isolated
from byzopt.distributed.communicator import Communicator
from byzopt.distributed.harden.buffers import BufferSync
from byzopt.distributed.harden.excess import ExcessPolicy
from byzopt.distributed.harden.guard import Guard
from byzopt.distributed.harden.round import Round
from byzopt.distributed.harden.scaling import LossScale
from byzopt.distributed.harden.transfer import swap
from byzopt.distributed.header import max_magnitude
from byzopt.errors import InvalidInput, TooManyFaults

_engine: Any = torch.autograd.Variable._execution_engine


class Reduction:
    """The backward passes of a model, each unit of which decides for itself.

    A unit's round has a memory of its own. Errors are raised from `backward`, when FSDP has finished with it:
    until then the gradients of a unit without an answer are what `excess` says.
    """

    def __init__(self, model: Any, comm: Communicator, guard: Guard) -> None:
        self.model, self.comm, self.guard = model, comm, guard
        self.excess = ExcessPolicy(comm, guard.settings.excess, model.parameters())
        self.buffers = BufferSync(comm, model, guard.settings.buffers, guard.tolerance, set())
        self.scale = LossScale(guard.settings.scaler)
        self.memories: dict[str, Guard] = {}
        self.largest = ""  # the unit with the most numbers
        self._open = False
        self._errors: list[Exception] = []
        self._faulty: set[int] = set()

    def memory(self, name: str) -> Guard:
        """What a unit remembers. A watch looks at the largest unit, once a backward pass."""
        if name not in self.memories:
            watched = name == self.largest
            settings = self.guard.settings if watched else replace(self.guard.settings, watch=None)
            self.memories[name] = Guard(self.comm, settings)
        return self.memories[name]

    def begin(self) -> None:
        """The first unit of a backward pass has come."""
        if self._open:
            return
        self._open, self._errors, self._faulty = True, [], set()
        self.excess.clear()
        _engine.queue_callback(self.end)

    @isolated
    def decide(self, name: str, rows: Tensor, own: Sequence[Tensor], first: int, d: int) -> Tensor:
        """The answer `[b]` to the rows `[n, b]` of a unit's columns, or what stands in its place.

        `own` is this rank's own gradient of the unit, `d` the number of columns of all ranks.
        """
        memory = self.memory(name)
        done = memory.begin(d)
        for piece in own:
            done.saw(piece)
        try:
            early = done.add(rows, first)
            answer = early if done.decide() and early is not None else next(iter(_all(done)))
            memory.finished(done, [answer])
        except Exception as error:
            return rows.new_full(rows.shape[1:], self._failed(memory, done, error))
        self._faulty |= set(done.faulty)
        return answer

    def _failed(self, memory: Guard, done: Round, error: Exception) -> float:
        memory.failed(done, error)
        if isinstance(error, TooManyFaults):
            self._faulty |= set(error.rows)
        fill, left = self.excess.outcome(error)
        self._errors.append(left if left is not None else _Settled(str(error)))
        return fill

    def remember(self, name: str, gradient: Tensor) -> None:
        """Put this rank's momentum in the place of its gradient, if that is finite."""
        momentum = self.guard.momentum
        if momentum is not None and isfinite(max_magnitude(gradient)):
            momentum.update([name], [gradient], self.scale.now())

    def end(self) -> None:
        """Backward has ended: count, look at buffers, and raise what went wrong."""
        self._open = False
        guard = self.guard
        watched = self.memories.get(self.largest)
        guard.diagnostics = watched.diagnostics if watched is not None else None
        guard.rounds += 1
        guard.skipped += bool(self._errors)
        for rank in self._faulty:
            guard.dropped[rank] += 1
        error = next((each for each in self._errors if not isinstance(each, _Settled)), None)
        try:
            self.buffers.agree(torch.ones(self.comm.n, dtype=torch.bool, device="cpu"))
        except TooManyFaults as trouble:
            error = error or (None if guard.settings.excess == "skip" else trouble)
        if error is not None:
            raise error


class _Settled(Exception):
    """Too many faults in a unit, of which nothing is left to be raised."""


def _all(done: Round) -> list[Tensor]:
    """All answers: they are to be asked for to the end."""
    return list(done.answers())


@dataclass
class _Waiting:
    """A unit whose columns wait for the decision: rows, the answer's factor, and the answer if told early."""

    unit: Any
    rows: Tensor
    factor: float
    early: Tensor | None


class ModelReduction(Reduction):
    """The backward passes of a model that decides once, when all units have come."""

    def begin(self) -> None:
        if not self._open:
            self._round, self._first, self._waiting = (
                self.memory(self.largest).begin(self._d()),
                0,
                list[_Waiting](),
            )
        super().begin()

    def _d(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)

    def defer(self, unit: Any, rows: Tensor, own: Sequence[Tensor], rank: int, factor: float) -> None:
        """Take in a unit's rows `[n, b]`; the answer comes when backward has ended."""
        for piece in own:
            self._round.saw(piece)
        early = self._round.add(rows, self._first + rank * rows.shape[1])
        self._first += rows.numel()
        self._waiting.append(_Waiting(unit, rows, factor, early))

    @isolated
    def end(self) -> None:
        memory, done = self.memory(self.largest), self._round
        try:
            early = [waiting.early for waiting in self._waiting if waiting.early is not None]
            answers = early if done.decide() else _all(done)
            memory.finished(done, answers)
            self._faulty |= set(done.faulty)
        except Exception as error:
            fill = self._failed(memory, done, error)
            answers = [waiting.rows.new_full(waiting.rows.shape[1:], fill) for waiting in self._waiting]
        for waiting, answer in zip(self._waiting, answers, strict=True):
            _accumulate(waiting.unit, answer * waiting.factor)
        self._waiting = []
        super().end()


def _accumulate(unit: Any, gradient: Tensor) -> None:
    """Add a unit's flat sharded gradient to those that FSDP made of zeros."""
    offset = 0
    for parameter in unit.fsdp_params:
        held = parameter.sharded_param.grad
        if held is None:
            continue
        size, stride = parameter.sharded_size, parameter.contiguous_sharded_stride
        local = held._local_tensor
        local += torch.as_strided(gradient, size, stride, storage_offset=offset).to(local)
        offset += parameter.padded_sharded_param_size.numel()
    if offset != len(gradient):
        raise InvalidInput(
            "With scope='model' every parameter of a unit should have a gradient in each backward pass. "
            f"Found {len(gradient)} numbers for {offset}. Say scope='unit', or let unused parameters have "
            "zeros: model.set_reduce_scatter_unused_params(True)."
        )


class UnitReduceScatter:
    """Stands where FSDP scatters a unit's sums: the columns cross, and the rule answers."""

    def __init__(self, name: str, unit: Any, reduction: Reduction) -> None:
        self.name, self.unit, self.reduction = name, unit, reduction

    def allocate(self, size: Sequence[Any], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    @torch.no_grad()
    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: Any, op: Any, async_op: bool = False
    ) -> None:
        reduction, comm = self.reduction, self.reduction.comm
        reduction.begin()
        reduction.remember(self.name, input_tensor)
        sent = input_tensor.to(comm.device, _travelling(input_tensor, reduction.guard.settings.dtype))
        rows = sent.new_empty(comm.n, len(output_tensor))
        swap(comm, list(sent.view(comm.n, -1)), list(rows)).wait()
        factor = _factor(self.unit, group, input_tensor, comm.n)
        seen = [input_tensor] if sent is input_tensor else [input_tensor, sent]
        if isinstance(reduction, ModelReduction):
            reduction.defer(self.unit, rows, seen, comm.rank, factor[0] / factor[1])
            output_tensor.zero_()
            return
        first = comm.rank * rows.shape[1]
        answer = reduction.decide(self.name, rows, seen, first, input_tensor.numel())
        output_tensor.copy_(answer.mul(factor[0]) if factor[0] != 1 else answer)


class ReplicaHook:
    """Stands in the place of HSDP's all-reduce: `reduced` `[s]` is this replica's gradient in its shard."""

    def __init__(self, name: str, unit: Any, reduction: Reduction) -> None:
        self.name, self.unit, self.reduction = name, unit, reduction

    @torch.no_grad()
    def __call__(self, reduced: Tensor) -> None:
        reduction, comm = self.reduction, self.reduction.comm
        reduction.begin()
        reduction.remember(self.name, reduced)
        sent = reduced.to(comm.device, _travelling(reduced, reduction.guard.settings.dtype))
        spans = comm.columns(len(sent))
        start, stop = spans[comm.rank]
        rows = sent.new_empty(comm.n, stop - start)
        swap(comm, [sent[a:b].contiguous() for a, b in spans], list(rows)).wait()
        seen = [reduced] if sent is reduced else [reduced, sent]
        piece = reduction.decide(self.name, rows, seen, start, len(sent))
        whole = [sent.new_empty(b - a) for a, b in spans]
        swap(comm, [piece] * comm.n, whole).wait()
        divided = self.unit.gradient_divide_factor
        reduced.copy_(torch.cat(whole) * (comm.n if divided is not None else 1))


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
