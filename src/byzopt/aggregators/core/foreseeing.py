"""What a rule with memory would do after each of many sets of rows: for attackers that search against it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import torch
from torch import Tensor

from byzopt.aggregators.core.expulsion import Expulsion
from byzopt.errors import ByzoptError
from byzopt.states import map_leaves

MOST_NUMBERS = 1 << 24  # in the rows and memories of one call: 128 megabytes in float64

Step = Callable[[Tensor], tuple[Tensor, Any]]  # rows to the answer and the state after it
Steps = Callable[[Any, Tensor], tuple[Tensor, Any]]  # the same for states side by side
Gone = Callable[[Any, int, int], Tensor]  # who of n workers so many such states have expelled
Told = Callable[[Any], Collection[Expulsion]]  # whom a state has expelled


class Foreseen(NamedTuple):
    """The `answers` `[K, d]` to K sets of rows, and who would be `expelled` after each, `[K, n]` on the CPU.

    Where rows are refused the answer is NaN, and nobody is left.

    Args:
        answers: `[K, d]`.
        expelled: `[K, n]` of bool, on the CPU.

    Examples:
        >>> import torch
        >>> from byzopt.aggregators import RoundContext
        >>> from byzopt.aggregators.guards.safeguard import Safeguard
        >>> guard, x = Safeguard((2,), rounds=9, limits_of=(3.0,)), torch.zeros(1)
        >>> sets = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 9.0]]).unsqueeze(-1)
        >>> guard.foresee(guard.init(x, 3), sets, RoundContext(1, x)).expelled[:, 2]
        tensor([False,  True])
    """

    answers: Tensor
    expelled: Tensor


def in_turn(step: Step, expelled: Told, rows: Tensor) -> Foreseen:
    """Foreseen by a step for each set of rows `[K, n, d]`."""
    answers = torch.full_like(rows[:, 0], torch.nan)
    gone = torch.ones(rows.shape[:2], dtype=torch.bool, device="cpu")
    for k, each in enumerate(rows):
        try:
            answer, after = step(each)
        except ByzoptError:
            continue
        answers[k], gone[k] = answer, _mask(expelled(after), rows.shape[1])
    return Foreseen(answers, gone)


def together(steps: Steps, gone: Gone, state: Any, rows: Tensor) -> Foreseen:
    """Foreseen by a step of many states at once, each beside its set of rows `[K, n, d]`.

    Errors: those of `steps`, which may be about one set of rows alone.
    """
    most = max(1, MOST_NUMBERS // (rows[0].numel() + _numbers(state)))
    parts = [_at_once(steps, gone, state, piece) for piece in torch.split(rows, most)]
    return Foreseen(*(torch.cat(each) for each in zip(*parts, strict=True)))


def _at_once(steps: Steps, gone: Gone, state: Any, rows: Tensor) -> Foreseen:
    count, n = rows.shape[:2]
    answers, after = steps(map_leaves(lambda leaf: _each(leaf, count), state), rows)
    return Foreseen(answers.to(rows), gone(after, count, n).cpu())


def masks(expelled: Told, states: Any, count: int, n: int) -> Tensor:
    """Who of n workers is expelled in each of so many states side by side, `[count, n]`."""
    return torch.stack([_mask(expelled(_of(states, k)), n) for k in range(count)])


def _each(leaf: Any, count: int) -> Any:
    """The same leaf for each of `count` states, in no memory of its own."""
    return leaf.expand(count, *leaf.shape) if isinstance(leaf, Tensor) else leaf


def _of(states: Any, k: int) -> Any:
    """The state of number k."""
    return map_leaves(lambda leaf: leaf[k] if isinstance(leaf, Tensor) else leaf, states)


def _mask(gone: Collection[Expulsion], n: int) -> Tensor:
    mask = torch.zeros(n, dtype=torch.bool, device="cpu")
    mask[[one.worker for one in gone]] = True
    return mask


def _numbers(state: Any) -> int:
    """How many numbers a state holds."""
    if isinstance(state, tuple):
        return sum(map(_numbers, state))
    return state.numel() if isinstance(state, Tensor) else 1
