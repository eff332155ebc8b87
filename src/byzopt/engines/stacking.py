"""Stacked states: those of several runs along a new first dimension, and one call for all equal parts.

A part (estimator, channel, attack, filter, step) that is written over trailing dimensions says so with
`batched = True`; then R runs whose recipe is equal are one call on tensors `[R, ...]`. Any other part is
called for one run after another. States may be any nested tuples of tensors and of equal plain values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from byzopt.errors import TooManyFaults
from byzopt.states import StructureError, map_leaves

Where = slice | Tensor
Who = tuple[int, ...]  # places of runs in their batch
PartCall = Callable[..., tuple[Any, Any]]  # (part, state, who, *args) -> (outputs, state)


class RoundLostError(Exception):
    """Runs that cannot finish the round, each with the reason: nothing has been changed for any run."""

    def __init__(self, reasons: dict[int, TooManyFaults]) -> None:
        super().__init__(str(reasons))
        self.reasons = reasons


def stack_states(states: Sequence[Any]) -> Any:
    """Equal structures side by side: tensors `[...]` become one `[R, ...]`. Errors: `StructureError` for
    states that differ in structure, in a shape, a dtype or a device, or in a plain value."""
    return map_leaves(_stacked, *states)


def select_runs(state: Any, where: int | Where) -> Any:
    """The runs at `where` of a stacked structure; at an integer one run's own, without the dimension."""
    return map_leaves(lambda leaf: leaf[where] if isinstance(leaf, Tensor) else leaf, state)


def copy_of_run(state: Any, r: int) -> Any:
    """Run r's part of a stacked structure in memory of its own, so that it outlives the batch cheaply."""
    return map_leaves(lambda leaf: leaf[r].clone() if isinstance(leaf, Tensor) else leaf, state)


@dataclass(frozen=True)
class PartGroup:
    """The runs `who` whose `part` is equal, at places `where` of `R`, and their states: stacked, or a tuple
    of single ones."""

    part: Any
    who: Who
    where: Where
    state: Any
    stacked: bool

    def apply(self, call: PartCall, args: tuple[Any, ...]) -> tuple[Any, PartGroup]:
        """`call(part, state, who, *args)` for these runs. Errors: `RoundLostError`."""
        if self.stacked:
            try:
                out, state = call(
                    self.part, self.state, self.who, *(select_runs(arg, self.where) for arg in args)
                )
                return out, replace(self, state=state)
            except TooManyFaults:
                pass  # one after another tells which run it is
        out, states = self._one_by_one(call, args)
        return out, replace(self, state=stack_states(states) if self.stacked else states)

    def of(self, r: int) -> Any:
        """Run r's own state."""
        k = self.who.index(r)
        return copy_of_run(self.state, k) if self.stacked else self.state[k]

    def _one_by_one(self, call: PartCall, args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
        outs, states, lost = [], [], {}
        for k, r in enumerate(self.who):
            before = select_runs(self.state, k) if self.stacked else self.state[k]
            try:
                out, state = call(self.part, before, r, *(select_runs(arg, r) for arg in args))
                outs.append(out)
                states.append(state)
            except TooManyFaults as error:
                lost[r] = error
        if lost:
            raise RoundLostError(lost)
        return _listed(outs), tuple(states)


PartGroups = tuple[PartGroup, ...]  # one kind of part of R runs


def group_parts(parts: Sequence[Any], states: Sequence[Any], able: Callable[[Any], bool]) -> PartGroups:
    """Groups of equal `parts`; their states are stacked where `able(part)` and they are alike."""
    kinds: list[tuple[Any, list[int]]] = []
    for r, part in enumerate(parts):
        for known, members in kinds:
            if known == part:
                members.append(r)
                break
        else:
            kinds.append((part, [r]))
    return tuple(_group(part, tuple(who), states, able(part)) for part, who in kinds)


def call_parts(groups: PartGroups, call: PartCall, *args: Any) -> tuple[Any, PartGroups]:
    """`call` for every group; its outputs in the order of the runs, and the groups after it.

    Outputs are a tensor `[R, ...]`, a number for each run (`tuple`), or a list of such outputs.
    Errors: `RoundLostError` for the runs in which a part raises `TooManyFaults`.
    """
    results: list[tuple[Any, PartGroup]] = []
    lost: dict[int, TooManyFaults] = {}
    for group in groups:
        try:
            results.append(group.apply(call, args))
        except RoundLostError as error:
            lost |= error.reasons
    if lost:
        raise RoundLostError(lost)
    outs, after = zip(*results, strict=True)
    return _merged(groups, outs), after


def state_of(groups: PartGroups, r: int) -> Any:
    """Run r's own state among the groups of its kind of part."""
    return next(group for group in groups if r in group.who).of(r)


def _group(part: Any, who: Who, states: Sequence[Any], able: bool) -> PartGroup:
    here = [states[r] for r in who]
    together = who == tuple(range(who[0], who[-1] + 1))
    where: Where = slice(who[0], who[-1] + 1) if together else torch.tensor(who, device="cpu")
    if able:
        try:
            return PartGroup(part, who, where, stack_states(here), True)
        except StructureError:
            pass
    return PartGroup(part, who, where, tuple(here), False)


def _listed(outs: Sequence[Any]) -> Any:
    """Single runs' outputs as those of a stacked call."""
    if isinstance(outs[0], list):
        return [_listed(part) for part in zip(*outs, strict=True)]
    return torch.stack(list(outs)) if isinstance(outs[0], Tensor) else tuple(outs)


def _merged(groups: PartGroups, outs: Sequence[Any]) -> Any:
    first, total = outs[0], sum(len(group.who) for group in groups)
    if isinstance(first, list):
        return [_merged(groups, part) for part in zip(*outs, strict=True)]
    if isinstance(first, Tensor):
        if len(groups) == 1:
            return first
        whole = first.new_empty(total, *first.shape[1:])
        for group, out in zip(groups, outs, strict=True):
            whole[group.where] = out
        return whole
    each: list[Any] = [None] * total
    for group, out in zip(groups, outs, strict=True):
        values = out if isinstance(out, tuple) else (out,) * len(group.who)
        for r, value in zip(group.who, values, strict=True):
            each[r] = value
    return tuple(each)


def _stacked(*leaves: Any) -> Any:
    first = leaves[0]
    for leaf in leaves:
        alike = type(leaf) is type(first)
        alike = alike and (_kind(leaf) == _kind(first) if isinstance(first, Tensor) else leaf == first)
        if not alike:
            raise StructureError(first, leaf)
    return torch.stack(leaves) if isinstance(first, Tensor) else first


def _kind(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.dtype, tensor.device
