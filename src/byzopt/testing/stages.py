"""What every pre-aggregator promises: rows in, rows out, by a matrix that their geometry decides."""

from __future__ import annotations

from functools import partial

import torch

from byzopt.aggregators import PreAggregator
from byzopt.errors import ByzoptError
from byzopt.testing.checks import Requirement, holds, normal, refuses
from byzopt.testing.rules import DTYPES, MALFORMED, enough


def keeps_dtypes_and_inputs(stage: PreAggregator) -> None:
    """The mixed rows `[m, d]` have the dtype that came in, and the rows are not written to."""
    n = enough(stage)
    for dtype in DTYPES:
        rows = normal(n, 6, dtype=dtype)
        before = rows.clone()
        out = stage(rows)
        holds(out.dtype == dtype and out.shape == (stage.out(n), 6), f"{out.dtype} {list(out.shape)}")
        holds(out.isfinite().all(), "NaN or Inf in the answer to finite rows")
        holds(torch.equal(rows, before), f"rows of {dtype} that were written to")


def drops_rows_that_are_not_finite(stage: PreAggregator) -> None:
    """A row with NaN or Inf is dropped and leaves no row behind; the stage then runs with one fault less."""
    n = enough(stage)
    if stage.tolerance(n) == 0:
        return
    rows = normal(n, 6)
    rows[n // 2, 3] = float("nan")
    kept = rows[[i for i in range(n) if i != n // 2]]
    holds(torch.equal(stage(rows), stage.lowered(1)(kept)), "another answer than to the rows that are finite")


def refuses_malformed_rows(stage: PreAggregator) -> None:
    """What is no matrix of floating point numbers is refused with a named error."""
    for bad in MALFORMED:
        refuses(partial(stage, bad), (ByzoptError,), repr(bad)[:80])


def repeats_to_the_last_bit(stage: PreAggregator) -> None:
    """The same rows give the same answer, whatever the global seed is."""
    rows, before = normal(enough(stage), 6), torch.get_rng_state()
    try:
        torch.manual_seed(0)
        first = stage(rows)
        torch.manual_seed(1)
        holds(torch.equal(first, stage(rows)), "another answer under another global seed")
    finally:
        torch.set_rng_state(before)


def mixes_equal_rows_to_that_row(stage: PreAggregator) -> None:
    """Equal rows stay that row, up to rounding: every row of the mixing matrix sums to one."""
    row = normal(1, 6)
    out = stage(row.expand(enough(stage), 6))
    holds(torch.allclose(out, row.expand_as(out), rtol=1e-12), f"{out[0].tolist()} for {row[0].tolist()}")


def bounds_every_row(stage: PreAggregator) -> None:
    """No row that comes out is longer than the longest honest one, or than a length of its own, however long
    as many faulty rows are as its `breakdown` says."""
    n = enough(stage)
    f = stage.breakdown(n)
    rows = 1 + 0.3 * normal(n, 6)
    longest = []
    for value in (1e6, 1e15, 1e30):
        rows[:f] = value
        longest.append(float(stage(rows).norm(dim=1).max()))
    most = max(float(rows[f:].norm(dim=1).max()), longest[0])
    holds(max(longest) <= most * (1 + 1e-9), f"rows of length {max(longest):.3g}")
    if stage.scale_equivariant:
        holds(longest[0] <= 2 * float(rows[f:].norm(dim=1).max()), f"rows of length {longest[0]:.3g}")


def _bounds(stage: PreAggregator) -> str:
    return "" if stage.bounds else "It declares no bound on the length of rows."


def _affine(stage: PreAggregator) -> str:
    return "" if stage.affine else "It declares that it is not affine."


PROMISES = (
    Requirement(keeps_dtypes_and_inputs),
    Requirement(drops_rows_that_are_not_finite),
    Requirement(refuses_malformed_rows),
    Requirement(repeats_to_the_last_bit),
    Requirement(mixes_equal_rows_to_that_row, _affine),
    Requirement(bounds_every_row, _bounds),
)
