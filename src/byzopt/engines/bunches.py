"""Runs side by side: states stacked along a new first dimension, and calls made once for all equal parts.

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

Where = slice | Tensor
Who = tuple[int, ...]  # places of runs in their batch
PartCall = Callable[..., tuple[Any, Any]]  # (part, state, who, *args) -> (outputs, state)


class MismatchError(Exception):
    """States that cannot stand side by side: they differ in shape, in structure or in a plain value."""


class RoundLostError(Exception):
    """Runs that cannot finish the round, each with the reason: nothing has been changed for any run."""

    def __init__(self, reasons: dict[int, TooManyFaults]) -> None:
        super().__init__(str(reasons))
        self.reasons = reasons


def stack_states(trees: Sequence[Any]) -> Any:
    """Equal structures side by side: tensors `[...]` become one `[R, ...]`. Errors: `MismatchError`."""
    first = trees[0]
    if isinstance(first, Tensor):
        if any(not isinstance(tree, Tensor) or _kind(tree) != _kind(first) for tree in trees):
            raise MismatchError
        return torch.stack(list(trees))
    if isinstance(first, tuple):
        if any(type(tree) is not type(first) or len(tree) != len(first) for tree in trees):
            raise MismatchError
        parts = [stack_states(part) for part in zip(*trees, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)
    if any(type(tree) is not type(first) or tree != first for tree in trees):
        raise MismatchError
    return first


def select_runs(tree: Any, where: int | Where) -> Any:
    """The runs at `where` of a stacked structure; at an integer one run's own, without the dimension."""
    if isinstance(tree, Tensor):
        return tree[where]
    if isinstance(tree, tuple):
        parts = [select_runs(part, where) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return tree


def copy_of_run(tree: Any, r: int) -> Any:
    """Run r's part of a stacked structure in memory of its own, so that it outlives the batch cheaply."""
    return _copied(select_runs(tree, r))


@dataclass(frozen=True)
class PartGroup:
    """The runs `who` whose `part` is equal, at places `where` of `R`, and their states: stacked, or a tuple
    of single ones."""

    part: Any
    who: Who
    where: Where
    state: Any
    stacked: bool

    def call(self, go: PartCall, args: tuple[Any, ...]) -> tuple[Any, PartGroup]:
        """`go(part, state, who, *args)` for these runs. Errors: `RoundLostError` for those that
        it raised for."""
        if self.stacked:
            try:
                out, state = go(
                    self.part, self.state, self.who, *(select_runs(arg, self.where) for arg in args)
                )
                return out, replace(self, state=state)
            except TooManyFaults:
                pass  # one after another tells which run it is
        out, states = self._one_by_one(go, args)
        return out, replace(self, state=stack_states(states) if self.stacked else states)

    def of(self, r: int) -> Any:
        """Run r's own state."""
        k = self.who.index(r)
        return copy_of_run(self.state, k) if self.stacked else self.state[k]

    def _one_by_one(self, go: PartCall, args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
        outs, states, lost = [], [], {}
        for k, r in enumerate(self.who):
            before = select_runs(self.state, k) if self.stacked else self.state[k]
            try:
                out, state = go(self.part, before, r, *(select_runs(arg, r) for arg in args))
                outs.append(out)
                states.append(state)
            except TooManyFaults as error:
                lost[r] = error
        if lost:
            raise RoundLostError(lost)
        return _listed(outs), tuple(states)


PartGroups = tuple[PartGroup, ...]  # one kind of part of R runs


def group_parts(parts: Sequence[Any], states: Sequence[Any], able: Callable[[Any], bool]) -> PartGroups:
    """Bunches of equal `parts`; their states are stacked where `able(part)` and they are alike."""
    kinds: list[tuple[Any, list[int]]] = []
    for r, part in enumerate(parts):
        for known, members in kinds:
            if known == part:
                members.append(r)
                break
        else:
            kinds.append((part, [r]))
    return tuple(_bunch(part, tuple(who), states, able(part)) for part, who in kinds)


def call_parts(slot: PartGroups, go: PartCall, *args: Any) -> tuple[Any, PartGroups]:
    """`go` for every bunch; its outputs in the order of the runs, and the slot after it.

    Outputs are a tensor `[R, ...]`, a number for each run (`tuple`), or a list of such outputs.
    Errors: `RoundLostError` for the runs in which a part raises `TooManyFaults`.
    """
    results: list[tuple[Any, PartGroup]] = []
    lost: dict[int, TooManyFaults] = {}
    for bunch in slot:
        try:
            results.append(bunch.call(go, args))
        except RoundLostError as error:
            lost |= error.reasons
    if lost:
        raise RoundLostError(lost)
    outs, after = zip(*results, strict=True)
    return _merged(slot, outs), after


def state_of(slot: PartGroups, r: int) -> Any:
    """Run r's own state in a slot."""
    return next(bunch for bunch in slot if r in bunch.who).of(r)


def _bunch(part: Any, who: Who, states: Sequence[Any], able: bool) -> PartGroup:
    here = [states[r] for r in who]
    together = who == tuple(range(who[0], who[-1] + 1))
    where: Where = slice(who[0], who[-1] + 1) if together else torch.tensor(who, device="cpu")
    if able:
        try:
            return PartGroup(part, who, where, stack_states(here), True)
        except MismatchError:
            pass
    return PartGroup(part, who, where, tuple(here), False)


def _listed(outs: Sequence[Any]) -> Any:
    """Single runs' outputs as those of a stacked call."""
    if isinstance(outs[0], list):
        return [_listed(part) for part in zip(*outs, strict=True)]
    return torch.stack(list(outs)) if isinstance(outs[0], Tensor) else tuple(outs)


def _merged(slot: PartGroups, outs: Sequence[Any]) -> Any:
    first, total = outs[0], sum(len(bunch.who) for bunch in slot)
    if isinstance(first, list):
        return [_merged(slot, part) for part in zip(*outs, strict=True)]
    if isinstance(first, Tensor):
        if len(slot) == 1:
            return first
        whole = first.new_empty(total, *first.shape[1:])
        for bunch, out in zip(slot, outs, strict=True):
            whole[bunch.where] = out
        return whole
    each: list[Any] = [None] * total
    for bunch, out in zip(slot, outs, strict=True):
        values = out if isinstance(out, tuple) else (out,) * len(bunch.who)
        for r, value in zip(bunch.who, values, strict=True):
            each[r] = value
    return tuple(each)


def _copied(tree: Any) -> Any:
    if isinstance(tree, Tensor):
        return tree.clone()
    if isinstance(tree, tuple):
        parts = [_copied(part) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return tree


def _kind(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.dtype, tensor.device
