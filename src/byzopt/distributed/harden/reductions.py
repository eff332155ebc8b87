"""Rounds of FSDP's units: a reduction for each backward, in which every unit takes part when it is ready."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from byzopt.aggregators.core.filters import RoundContext
from byzopt.aggregators.core.surroundings import isolated
from byzopt.distributed.communicator import Communicator
from byzopt.distributed.harden.abandoned import raise_behind
from byzopt.distributed.harden.agreement import Trouble
from byzopt.distributed.harden.buffers import BufferSync
from byzopt.distributed.harden.excess import ExcessPolicy
from byzopt.distributed.harden.guard import Guard
from byzopt.distributed.harden.passes import Passes
from byzopt.distributed.harden.round import Round
from byzopt.distributed.harden.scaling import LossScale
from byzopt.distributed.harden.seams import ENGINE
from byzopt.distributed.harden.units import Unit, has_early_readers
from byzopt.distributed.header import max_magnitude
from byzopt.errors import InvalidInput, TooManyFaults


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
        self.scale, self.swap = LossScale(settings.scaler), settings.swap
        self.passes, self._trouble = Passes({}, guard, settings, model.parameters()), Trouble()
        self._apart = Trouble()  # what of this rank others have not heard of
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
        self._trouble, self._apart = Trouble(), Trouble()
        self.excess.clear()
        if self.model._get_fsdp_state()._is_root is False:
            self._errors.append(
                InvalidInput(
                    "A model to harden should be the root of what fully_shard was called on: other units "
                    "average gradients. Found a part of it. Harden the outermost module."
                )
            )
        ENGINE.queue_callback(self.end)

    @isolated
    def decide(
        self,
        unit: Unit,
        rows: Tensor,
        own: Sequence[Tensor],
        unsound: AbstractSet[int],
        first: int,
        d: int,
        place: Tensor,
    ) -> None:
        """Put the answer to the rows `[n, b]` of a unit's columns in their `place` `[b]`, or what stands for
        it.

        `own` is this rank's own gradient of the unit, `unsound` are the ranks whose rows cannot be read, and
        `d` is the number of columns of all ranks.
        """
        memory = self.memory(unit)
        done = memory.begin(d)
        done.unsound |= unsound
        done.trouble.error = self._trouble.error
        for piece in own:
            done.saw(piece)
        try:
            done.add(rows, first, place)
            if not done.decide():
                list(done.answers())
            done.raise_own()
            memory.finished(done, [place])
        except Exception as error:
            place.fill_(self._failed(memory, done, error))
            return
        self._faulty |= set(done.faulty)

    def _failed(self, memory: Guard, done: Round, error: Exception) -> float:
        memory.failed(done, error)
        if error is done.trouble.error:
            self._apart.error = self._apart.error or error
        if isinstance(error, TooManyFaults):
            self._faulty |= set(error.rows)
        fill, left = self.excess.outcome(error)
        self._errors.append(left if left is not None else _Settled(str(error)))
        return fill

    def remember(self, unit: Unit, gradient: Tensor, ranks: int) -> None:
        """Put this rank's momentum in the place of its gradient, if that is finite."""
        momentum = self.guard.momentum
        if momentum is None:
            return
        with self._trouble.noted():
            self.passes.require_empty(unit.name, [each.sharded_param.grad for each in unit.parameters])
        if isfinite(max_magnitude(gradient)) and self._trouble.error is None:
            parts = unit.slices(gradient, ranks)
            momentum.update(list(parts), list(parts.values()), self.scale.now())

    def end(self) -> None:
        """Backward has ended: count, look at buffers, and raise what went wrong behind everybody else."""
        self._open = False
        self.passes.over()
        try:
            self._apart.shared(self.comm.everyone)
        except Exception as told:  # a rule has raised, perhaps on another rank alone
            self._errors.insert(0, told)
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

    def defer(
        self, unit: Unit, rows: Tensor, own: Sequence[Tensor], unsound: AbstractSet[int], factor: float
    ) -> None:
        """Take in a unit's rows `[n, b]`; the answer comes when backward has ended."""
        assert self._round is not None
        self._round.unsound |= unsound
        self._round.trouble.error = self._round.trouble.error or self._trouble.error
        for piece in own:
            self._round.saw(piece)
        place = torch.empty_like(rows[0])
        self._round.add(rows, self._first + self.comm.rank * rows.shape[1], place)
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
            done.raise_own()
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
        local = parameter.sharded_param.grad.to_local()
        local += torch.as_strided(gradient, size, stride, storage_offset=offset).to(local)
        offset += parameter.padded_sharded_param_size.numel()
