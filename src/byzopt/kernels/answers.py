"""What becomes of the values of a column: one generator, which every back end turns into its own code.

It walks over the comparators of `networks`, which are plain data, and asks an `Arithmetic` for each
operation. A back end's values are whatever it calls values: those of LLVM, names in a Triton kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from byzopt.kernels.networks import Comparator, network


class RankWindow(NamedTuple):
    """What becomes of a column of m values: the centre is the mean of ranks first .. last - 1.

    With `around`, the answer is the mean of the `around` values nearest to the centre, ties to the smaller
    one; without, it is the centre itself.

    Args:
        first: First rank of the centre, from 0.
        last: Rank behind the last one.
        around: How many values nearest to the centre are averaged; None: the centre is the answer.

    Examples:
        >>> from byzopt import TrimmedMean
        >>> TrimmedMean(f=2).plan(10)
        RankWindow(first=2, last=8, around=None)
    """

    first: int
    last: int
    around: int | None = None


class Arithmetic(Protocol):
    """The operations that answers are made of, on the values of a back end."""

    def number(self, value: float) -> Any:
        """A value that holds one number."""

    def pair(self, a: Any, b: Any) -> tuple[Any, Any]:
        """The smaller of two values, and the larger one."""

    def plus(self, a: Any, b: Any) -> Any:
        """a + b."""

    def minus(self, a: Any, b: Any) -> Any:
        """a - b."""

    def over(self, a: Any, b: Any) -> Any:
        """a / b, rounded once."""

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a b + c, rounded once."""

    def above(self, a: Any, b: Any) -> Any:
        """Whether a > b."""

    def choose(self, condition: Any, a: Any, b: Any) -> Any:
        """a where the condition holds, else b."""


def column_answer(on: Arithmetic, values: Sequence[Any], plan: RankWindow, trace: Any) -> tuple[Any, Any]:
    """The plan's answer, and the trace with 0 x of all values and of the answer added: NaN where x is NaN or
    Inf."""
    wires, zero = list(values), on.number(0.0)
    for wire in wires:
        trace = on.fma(wire, zero, trace)
    for i, j, low, high in comparators(len(wires), plan):
        smaller, larger = on.pair(wires[i], wires[j])
        wires[i], wires[j] = smaller if low else wires[i], larger if high else wires[j]
    answer = _mean(on, wires[plan.first : plan.last])
    if plan.around is not None:
        answer = _mean_around(on, wires, answer, plan.around)
    return answer, on.fma(answer, zero, trace)


def comparators(m: int, plan: RankWindow) -> tuple[Comparator, ...]:
    """The network that puts what the plan needs of m values on its wires."""
    if plan.around is not None:
        return network(m, 0, m)
    return () if (plan.first, plan.last) == (0, m) else network(m, plan.first, plan.last)


def _mean(on: Arithmetic, values: Sequence[Any]) -> Any:
    total = values[0]
    for value in values[1:]:
        total = on.plus(total, value)
    return on.over(total, on.number(float(len(values))))


def _mean_around(on: Arithmetic, ordered: Sequence[Any], centre: Any, count: int) -> Any:
    """The mean of the window of `count` ordered values that lies nearest to the centre."""
    moved = [
        on.above(on.minus(centre, ordered[s]), on.minus(ordered[s + count], centre))
        for s in range(len(ordered) - count)
    ]
    total = on.number(0.0)
    for j, value in enumerate(ordered):
        if j >= count:
            value = on.choose(moved[j - count], value, on.number(0.0))
        if j < len(moved):
            value = on.choose(moved[j], on.number(0.0), value)
        total = on.plus(total, value)
    return on.over(total, on.number(float(count)))
