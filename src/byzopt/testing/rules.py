"""What every rule and every chain promises: one policy for bad rows, and an answer that is about the rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from byzopt.aggregators import Aggregator
from byzopt.errors import InvalidInput, TooManyFaults
from byzopt.testing.checks import Requirement, holds, normal, refuses

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
D = 6
MALFORMED: tuple[Any, ...] = (
    torch.zeros(3, device="cpu"),
    torch.zeros(2, 3, 4, device="cpu"),
    torch.zeros(0, 3, device="cpu"),
    torch.zeros(23, 0, device="cpu"),
    torch.zeros(23, D, dtype=torch.int64, device="cpu"),
    torch.zeros(23, D, dtype=torch.complex64, device="cpu"),
    [],
    [[1.0], [1.0, 2.0]],
    None,
    3.0,
    np.array([["a"]]),
)


def enough(part: Any, least: int = 23) -> int:
    """The smallest n >= `least` for which the part's `check` passes. Errors: `InvalidInput` for none."""
    for n in range(least, 4097):
        try:
            part.check(n)
        except InvalidInput:
            continue
        return n
    raise InvalidInput(f"`check` of {type(part).__name__} should pass for some n up to 4096. Found none.")


def keeps_dtype_shape_and_device(rule: Aggregator) -> None:
    """Rows `[n, d]` of float64, float32, bfloat16 or float16 give a finite `[d]` of the same dtype."""
    for dtype in DTYPES:
        out = rule(_rows(rule, dtype=dtype))
        holds(out.dtype == dtype and out.shape == (D,), f"{out.dtype} {list(out.shape)} for {dtype}")
        holds(out.isfinite().all(), f"NaN or Inf in the answer to finite rows of {dtype}")


def inputs_are_not_written_to(rule: Aggregator) -> None:
    """The rows are not written to, and the answer is no view of them."""
    for dtype in DTYPES:
        rows = _rows(rule, dtype=dtype)
        before = rows.clone()
        out = rule(rows)
        holds(torch.equal(rows, before), f"rows of {dtype} that were written to")
        answer = out.clone()
        rows.zero_()
        holds(torch.equal(out, answer), "an answer that changes with the rows")


def takes_arrays_and_lists(rule: Aggregator) -> None:
    """An array gives an array, a list of rows gives what the stacked tensor gives, read-only ones too."""
    rows = _rows(rule)
    expected = rule(rows)
    array = rows.numpy().copy()
    array.flags.writeable = False
    answer = rule(array)
    holds(isinstance(answer, np.ndarray), type(answer).__name__)
    holds(np.array_equal(answer, expected.numpy()), "another answer for an array")
    holds(torch.equal(rule(list(rows)), expected), "another answer for a list of rows")


def refuses_malformed_rows(rule: Aggregator) -> None:
    """What is no matrix of floating point numbers is `InvalidInput`."""
    for bad in MALFORMED:
        refuses(partial(rule, bad), (InvalidInput,), repr(bad)[:80])


def drops_rows_that_are_not_finite(rule: Aggregator) -> None:
    """Rows with NaN or Inf are dropped and counted against f: the rule runs as (n - k, f - k)."""
    n = enough(rule)
    k = min(2, rule.tolerance(n))
    rows, bad = _rows(rule), [3 * i + 1 for i in range(k)]
    for i, row in enumerate(bad):
        rows[row, i] = (float("nan"), float("inf"))[i]
    kept = rows[[i for i in range(n) if i not in bad]]
    expected = rule.lowered(k)(kept)
    holds(torch.equal(rule(rows), expected), "another answer than to the rows that are finite")


def names_too_many_bad_rows(rule: Aggregator) -> None:
    """More than f rows with NaN or Inf are `TooManyFaults`, which names them; so are all of them."""
    n = enough(rule)
    count = rule.tolerance(n) + 1
    rows = _rows(rule)
    rows[1 : 1 + count, 2] = float("nan")
    error = refuses(lambda: rule(rows), (TooManyFaults,), f"{count} rows with NaN")
    named = getattr(error, "rows", None)
    holds(named == tuple(range(1, 1 + count)), f"the rows {named}")
    refuses(lambda: rule(torch.full_like(rows, float("nan"))), (TooManyFaults,), "rows of NaN alone")


def stays_finite_on_finite_rows(rule: Aggregator) -> None:
    """Finite rows of any size give a finite answer: huge, tiny, equal, zero, collinear, in any dtype."""
    n = enough(rule)
    line = normal(n, 1, seed=2) * normal(1, D, seed=3)
    for dtype in DTYPES:
        info = torch.finfo(dtype)
        for name, rows in {
            "the largest": torch.full((n, D), info.max, dtype=torch.float64, device="cpu"),
            "the largest, of both signs": info.max * normal(n, D).sign(),
            "the smallest": torch.full((n, D), info.smallest_normal, dtype=torch.float64, device="cpu"),
            "zero": torch.zeros(n, D, dtype=torch.float64, device="cpu"),
            "collinear": line,
        }.items():
            out = rule(rows.to(dtype))
            holds(out.isfinite().all(), f"NaN or Inf for rows that are {name} of {dtype}")


def bounds_what_faulty_rows_do(rule: Aggregator) -> None:
    """With f huge rows among n the answer stays where the honest rows are."""
    n = enough(rule)
    f = rule.tolerance(n)
    for value in (1e6, 1e15, 1e30, 1e200):
        for signs in ((1.0, -1.0), (1.0, 1.0)):
            rows = 1 + 0.3 * _rows(rule)
            honest = rows[f:]
            rows[:f] = value * torch.tensor(signs, device="cpu").repeat(n)[:f].unsqueeze(1)
            away = float((rule(rows) - honest.mean(dim=0)).norm() / honest.norm(dim=1).max())
            holds(away <= 3.0, f"an error of {away:.3g} times the longest honest row, with rows of ±{value}")


def repeats_to_the_last_bit(rule: Aggregator) -> None:
    """The same rows give the same answer to the bit, whatever torch's global seed is."""
    rows, before = _rows(rule), torch.get_rng_state()
    try:
        torch.manual_seed(0)
        first = rule(rows)
        torch.manual_seed(1)
        holds(torch.equal(rule(rows), first), "another answer under another global seed")
    finally:
        torch.set_rng_state(before)


def does_not_depend_on_the_order_of_workers(rule: Aggregator) -> None:
    """Workers in another order give the same answer, up to rounding, also where distances tie."""
    n = enough(rule)
    for seed in range(4):
        lattice = normal(n, 2, seed=100 + seed).round().clamp(-1, 1)
        for rows in (_rows(rule, seed), lattice) if rule.ties != "first" else (_rows(rule, seed),):
            order = torch.randperm(n, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")
            holds(torch.allclose(rule(rows[order]), rule(rows), rtol=1e-6, atol=1e-8), "another answer")


def scales_with_the_rows(rule: Aggregator) -> None:
    """Rows times c give the answer times c, over 24 powers of ten."""
    rows = _rows(rule, 6)
    expected = rule(rows)
    for scale in (1e-12, 1e-6, 1e-3, 1e3, 1e6, 1e12):
        out = rule(rows * scale) / scale
        holds(torch.allclose(out, expected, rtol=1e-8, atol=1e-9), f"{out.tolist()} at scale {scale}")


def moves_with_the_rows(rule: Aggregator) -> None:
    """Rows plus a vector give the answer plus that vector, at ten thousand times the rows' spread."""
    rows, offset = _rows(rule, 7), 1e4 * normal(1, D, seed=8)
    away = float((rule(rows + offset) - offset - rule(rows)).abs().max())
    holds(away <= 1e-6, f"a difference of {away:.3g}")


def gives_the_row_that_all_workers_send(rule: Aggregator) -> None:
    """Equal rows give that row, up to rounding in their dtype."""
    row = normal(1, D)
    for dtype in DTYPES:
        rows = row.expand(enough(rule), D).to(dtype)
        close = torch.allclose(rule(rows).double(), rows[0].double(), rtol=4 * torch.finfo(dtype).eps)
        holds(close, f"{rule(rows).tolist()} for {rows[0].tolist()}")


def answers_sets_of_rows_as_one_by_one(rule: Aggregator) -> None:
    """`batch` answers sets of rows `[R, n, d]` as calls for each set do, up to rounding."""
    sets = torch.stack([_rows(rule, seed) for seed in range(3)])
    expected = torch.stack([rule(rows) for rows in sets])
    holds(torch.allclose(rule.batch(sets), expected, rtol=1e-9, atol=1e-10), "other answers")


def explains_its_own_answer(rule: Aggregator) -> None:
    """`explain` reports the answer that a call gives, and one line for each row."""
    rows = _rows(rule)
    report = rule.explain(rows)
    holds(torch.equal(torch.as_tensor(report.aggregate), rule(rows)), "another answer")
    holds(len(report.weights) == len(rows), f"{len(report.weights)} weights for {len(rows)} rows")


def keeps_its_proved_coefficients(rule: Aggregator) -> None:
    """‖answer - mean of H‖² <= κ² times the mean of ‖row - mean of H‖² over H, for every H of n - f rows."""
    n, f = _few(rule)
    promised = rule.coefficients(n, f).squared
    if promised is None:
        return
    for seed in range(6):
        rows = normal(n, 2, seed=seed)
        rows[: f * (seed % 3)] *= 10.0 ** (seed % 4)
        answer = rule(rows)
        worst = max(_ratio(rows[list(honest)], answer) for honest in combinations(range(n), n - f))
        holds(worst <= promised * (1 + 1e-6) + 1e-9, f"{worst:.4g} where {promised:.4g} is promised")


def _ratio(honest: Tensor, answer: Tensor) -> float:
    centre = honest.mean(dim=0)
    spread = float((honest - centre).square().sum(dim=1).mean())
    return float((answer - centre).square().sum()) / spread if spread else 0.0


def _few(rule: Aggregator) -> tuple[int, int]:
    """The smallest n that the rule takes, and its f there; every subset of n - f rows can be listed."""
    n = enough(rule, 2 * rule.tolerance(23) + 1 if getattr(rule.last, "f", None) is not None else 7)
    return n, rule.tolerance(n)


def _rows(rule: Aggregator, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return normal(enough(rule), D, seed=seed, dtype=dtype)


def _unless(trait: str, why: str) -> Callable[[Aggregator], str]:
    """Leaves a promise out for a rule or chain that states `trait`; `not trait` for one that it has not."""

    def applies(rule: Aggregator) -> str:
        name = trait.removeprefix("not ")
        stated = bool(getattr(rule, name)) == (name == trait)
        return f"{'Not ' if name != trait else ''}`{name}`: {why}" if stated else ""

    return applies


def _unbounded(rule: Aggregator) -> str:
    if rule.trusts:
        return "`trusts`: its answer is bounded while its trusted rows are honest."
    n = enough(rule)
    bounded = rule.breakdown(n) >= rule.tolerance(n)
    return "" if bounded else "Its `breakdown` is below its f: faulty rows move its answer far."


PROMISES = (
    Requirement(keeps_dtype_shape_and_device),
    Requirement(inputs_are_not_written_to),
    Requirement(takes_arrays_and_lists),
    Requirement(refuses_malformed_rows),
    Requirement(drops_rows_that_are_not_finite),
    Requirement(names_too_many_bad_rows),
    Requirement(stays_finite_on_finite_rows),
    Requirement(bounds_what_faulty_rows_do, _unbounded),
    Requirement(repeats_to_the_last_bit),
    Requirement(
        does_not_depend_on_the_order_of_workers, _unless("positional", "a row's place means something.")
    ),
    Requirement(
        scales_with_the_rows, _unless("not scale_equivariant", "its answer has a length of its own.")
    ),
    Requirement(
        moves_with_the_rows, _unless("not translation_equivariant", "it looks at lengths or signs of rows.")
    ),
    Requirement(
        gives_the_row_that_all_workers_send,
        _unless("not scale_equivariant", "its answer has a length of its own."),
    ),
    Requirement(answers_sets_of_rows_as_one_by_one),
    Requirement(explains_its_own_answer),
    Requirement(
        keeps_its_proved_coefficients, _unless("trusts", "its coefficients hold for honest trusted rows.")
    ),
)
