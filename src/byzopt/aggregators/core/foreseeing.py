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

# State, rows `[n, d]`, and how many rounds ahead: the answer and the state after it. Or the same of states
# side by side and rows `[K, n, d]`.
Step = Callable[[Any, Tensor, int], tuple[Tensor, Any]]
Gone = Callable[[Any, int, int], Tensor]  # who of n workers so many such states have expelled
Told = Callable[[Any], Collection[Expulsion]]  # whom a state has expelled


class Foreseen(NamedTuple):
    """The `answers` `[K, d]` to K sets of rows, and who would be `expelled` after each, `[K, n]` on the CPU.

    Where rows are refused the answer is NaN, and all are taken for expelled.

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


def in_turn(step: Step, expelled: Told, state: Any, rows: Tensor, rounds: int = 1) -> Foreseen:
    """Foreseen by steps for each set of rows `[K, n, d]`."""
    answers = torch.full_like(rows[:, 0], torch.nan)
    gone = torch.ones(rows.shape[:2], dtype=torch.bool, device="cpu")
    for k, each in enumerate(rows):
        try:
            answer, after = _steps(step, state, each, rounds)
        except ByzoptError:
            continue
        answers[k], gone[k] = answer, _mask(expelled(after), rows.shape[1])
    return Foreseen(answers, gone)


def together(step: Step, gone: Gone, state: Any, rows: Tensor, rounds: int = 1) -> Foreseen:
    """Foreseen by steps of many states at once, each beside its set of rows `[K, n, d]`.

    Errors: those of `step`, which may be about one set of rows alone.
    """
    most = max(1, MOST_NUMBERS // (rows[0].numel() + _numbers(state)))
    parts = [_at_once(step, gone, state, piece, rounds) for piece in torch.split(rows, most)]
    return Foreseen(*(torch.cat(each) for each in zip(*parts, strict=True)))


def _at_once(step: Step, gone: Gone, state: Any, rows: Tensor, rounds: int) -> Foreseen:
    count, n = rows.shape[:2]
    states = map_leaves(lambda leaf: _each(leaf, count), state)
    answers, after = _steps(step, states, rows, rounds)
    return Foreseen(answers.to(rows), gone(after, count, n).cpu())


def _steps(step: Step, state: Any, rows: Tensor, rounds: int) -> tuple[Tensor, Any]:
    """The answer of the first of so many rounds with the same rows, and the state after them."""
    answer, after = step(state, rows, 0)
    for later in range(1, rounds):
        _, after = step(after, rows, later)
    return answer, after


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
