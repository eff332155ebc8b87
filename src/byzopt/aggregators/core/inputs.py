"""The policy for input, the same for all rules: shape, dtype, non-finite rows and extreme magnitudes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, frexp, isfinite, ldexp
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from byzopt import accelerator, kernels, linalg
from byzopt.aggregators.core.surroundings import unreadable
from byzopt.errors import InvalidInput, TooManyFaults, require

RowsLike: TypeAlias = (
    "Tensor | np.ndarray[Any, Any] | Sequence[Tensor] | Sequence[np.ndarray[Any, Any]]"
    " | Sequence[Sequence[float]]"
)

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_FAR = 1e140  # float64 rows longer than this many bulk lengths are shortened to it
_SAFE = 1e100  # float64 magnitudes up to here, and down to its inverse, have squares to spare


def as_rows(rows: RowsLike) -> Tensor:
    """`rows` as a tensor `[n, d]`; accepts a tensor, an array, or a sequence of n equal vectors."""
    if not isinstance(rows, Tensor):
        rows = _converted(rows)
    return _matrices(rows, 2, "Rows", "be one matrix [n, d]")


def laid_out(rows: Tensor) -> Tensor:
    """`rows` `[n, d]` as kernels can read them: a copy of those that they cannot, where it is no larger than
    the blocks that would be copied one by one, again for every pass."""
    dtype = linalg.compute_dtype(rows.dtype)
    fits = rows.numel() * dtype.itemsize <= linalg.PIECE_BYTES and rows.is_cpu and kernels.selects()
    return linalg.lined(rows.to(dtype)) if fits and not kernels.supports(rows) else rows


def as_sets(rows: Tensor) -> Tensor:
    """Sets of rows `[R, n, d]`, checked as `as_rows` does."""
    require(isinstance(rows, Tensor), "Sets of rows", "be a tensor [R, n, d]", type(rows).__name__)
    return _matrices(rows, 3, "Sets of rows", "be a tensor [R, n, d]")


def _matrices(rows: Tensor, dims: int, what: str, shape: str) -> Tensor:
    kind, remedy = unreadable(rows)
    require(not kind, what, "be a dense matrix of real numbers", kind, remedy)
    sizes = rows.shape
    if not (len(sizes) == dims and min(sizes) >= 1 and rows.dtype in _DTYPES):
        require(len(sizes) == dims, what, shape, f"shape {tuple(sizes)}")
        require(min(sizes) >= 1, what, "be non-empty in n and d", f"shape {tuple(sizes)}")
        floats, fix = "be float16, bfloat16, float32 or float64", "Convert them, for instance rows.float()."
        require(rows.dtype in _DTYPES, what, floats, rows.dtype, fix)
    plain = type(rows) is Tensor and not (rows.requires_grad or rows.is_neg())
    return rows if plain else rows.detach().resolve_neg()


def reiterable(rows: Any) -> RowsLike:
    """`rows` as they are, or as a list where they can be iterated over only once."""
    repeatable = isinstance(rows, (Tensor, np.ndarray, Sequence)) or not isinstance(rows, Iterable)
    given: RowsLike = rows if repeatable else list(rows)
    return given


def like(rows: RowsLike, out: Tensor) -> Any:
    """`out` as an array where `rows` are one, or a sequence of them; else as it is."""
    several = not isinstance(rows, (Tensor, np.ndarray))
    arrays = several and all(isinstance(row, np.ndarray) for row in rows)
    return out.numpy() if arrays or isinstance(rows, np.ndarray) else out


def _converted(rows: Any) -> Tensor:
    try:
        masked = isinstance(rows, np.ma.MaskedArray)
        require(not masked, "Rows", "be a dense matrix of real numbers", "a masked array", "Fill or drop it.")
        if isinstance(rows, np.ndarray):
            # torch wraps no negative strides; a copy has none.
            rows = rows if min(rows.strides, default=0) >= 0 else rows.copy()
            return torch.from_numpy(rows if rows.flags.writeable else np.asarray(_Unguarded(rows)))
        vectors = [row if isinstance(row, Tensor) else torch.tensor(row, device="cpu") for row in rows]
        require(len(vectors) > 0, "Rows", "be non-empty in n and d", "no rows")
        kinds = {(tuple(v.shape), v.dtype, v.device) for v in vectors}
        require(len(kinds) == 1, "All rows", "have one shape, dtype and device", sorted(map(str, kinds)))
        return torch.stack(vectors)
    except InvalidInput:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(f"Rows should be a matrix [n, d] or n equal vectors. Found: {error}.") from None


class _Unguarded:
    """Read-only memory for torch, which wraps none: nobody writes to rows, and a mapped file stays one."""

    def __init__(self, rows: np.ndarray[Any, Any]) -> None:
        place, _ = rows.__array_interface__["data"]
        self.rows = rows
        self.__array_interface__ = rows.__array_interface__ | {"data": (place, False)}


def admit(stage: Any, rows: Tensor) -> tuple[Any, Tensor, float]:
    """The finite rows in a safe range, their unit, and the stage with f lowered by the rows dropped.

    The result of the stage on the rows returned, times the unit, is the answer.
    """
    stage.check(rows.shape[0])
    if accelerator.holds(rows):
        return _admitted_there(stage, rows)
    low, high = map(float, torch.aminmax(rows))
    if not (isfinite(low) and isfinite(high)):
        finite = torch.isfinite(rows).all(dim=1)
        stage, rows = for_finite_rows(stage, finite), rows[finite]
        low, high = map(float, torch.aminmax(rows))
    return stage, *in_safe_range(rows, max(-low, high))


def _admitted_there(stage: Any, rows: Tensor) -> tuple[Any, Tensor, float]:
    """As `admit` for rows on an accelerator: the ends of each row tell everything, and are fetched once."""
    low, high = torch.stack(torch.aminmax(rows, dim=1)).cpu()
    finite, sizes = low.isfinite() & high.isfinite(), torch.maximum(-low, high)
    if not finite.all():
        stage, kept = for_finite_rows(stage, finite), finite.nonzero().flatten()
        rows, sizes = rows.index_select(0, kept.to(rows.device)), sizes[kept]
    return stage, *in_safe_range(rows, float(sizes.max()), sizes)


def for_finite_rows(stage: Any, finite: Tensor) -> Any:
    """The stage for the finite rows alone. Errors: `TooManyFaults` when more are lost than it tolerates."""
    n, bad = len(finite), (~finite).nonzero().flatten().tolist()
    f = stage.tolerance(n)
    if len(bad) > f:
        raise TooManyFaults(
            f"Non-finite rows should be at most f = {f} of {n}. Found {len(bad)}: workers {bad}. "
            "Raise f, or find out why these workers send NaN or Inf.",
            bad,
        )
    left = stage.restricted(finite)
    left.check(n - len(bad))
    return left


def in_safe_range(rows: Tensor, largest: float, sizes: Tensor | None = None) -> tuple[Tensor, float]:
    """Rows whose sums (and, in float64, squares) neither overflow nor vanish, and the unit they are in.

    `largest` is the greatest magnitude in `rows`, `sizes` `[n]` that of each. Rows near float32's end go to
    float64, where they are harmless. Float64 rows are divided by a power of two near the bulk's size when
    that is extreme.
    """
    if rows.dtype != torch.float64:
        end = torch.finfo(linalg.compute_dtype(rows.dtype)).max
        return (rows.double() if largest * 4 * rows.shape[0] > end else rows), 1.0
    sizes = rows.abs().amax(dim=1) if sizes is None else sizes
    bulk = float(sizes.sort().values[rows.shape[0] // 2]) or largest
    if bulk == 0 or (bulk > 1 / _SAFE and largest < _SAFE * min(1.0, bulk * _SAFE)):
        return rows, 1.0
    sizes = sizes.to(rows.device)
    unit = ldexp(1.0, max(frexp(bulk)[1] - 1, -1000))  # so that its inverse is finite too
    near = sizes <= _FAR * unit if _FAR * unit < float("inf") else torch.ones_like(sizes, dtype=torch.bool)
    scaled = torch.where(near.unsqueeze(1), rows, 0) / unit
    return scaled + torch.where(near.unsqueeze(1), 0, rows / sizes.unsqueeze(1) * _FAR), unit


def restored(out: Tensor, unit: float, dtype: torch.dtype) -> Tensor:
    """The answer in the units and dtype of the rows that came in: undoes `admit`."""
    if unit == 1 and out.dtype == dtype:
        return out
    end = torch.finfo(dtype).max  # an answer may be longer in one coordinate than every row
    return (out * unit).clamp(-end, end).to(dtype)


def fault_count(f: float, n: int) -> int:
    """A tolerance given at the call as a count, or as a float share of n below 1, rounded up to a count."""
    count = isinstance(f, (int, np.integer)) and not isinstance(f, bool) and f >= 0
    share = isinstance(f, float) and 0 <= f < 1
    rule = "be a whole number, at least 0, or a share of the rows as a float in [0, 1)"
    require(count or share, "The `f` of a call", rule, f)
    return int(f) if count else ceil(f * n - 1e-9)
