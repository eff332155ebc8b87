"""Code of other packages in rules and stages: what it returns is checked before it is used.

Rules of this library return what they should, as the contract suites show, and are not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from byzopt.aggregators.core.traits import Traits
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.errors import BadAnswer, require


def checked_value(part: Traits, method: str, value: Any, shape: Sequence[int]) -> Tensor:
    """What `method` of `part`, which is code of another package, returned: in float64, on the CPU.

    Errors: `InvalidInput` where the value is no finite tensor of this shape.
    """
    what = f"`{method}` of {type(part).__name__}"
    tensor = isinstance(value, Tensor)
    kind = f"{value.dtype} {list(value.shape)}" if tensor else type(value).__name__
    fits = tensor and value.is_floating_point() and value.shape == tuple(shape)
    require(fits, what, f"return a float64 tensor {list(shape)}", kind)
    lost = int((~value.isfinite()).sum())
    require(lost == 0, what, "return finite numbers", f"NaN or Inf in {lost} of {value.numel()}")
    wide: Tensor = value.to("cpu", torch.float64)
    return wide


def checked_answer(rule: Any, answer: Any, shape: tuple[int, ...]) -> Tensor:
    """`answer` as it is. Errors: `BadAnswer` where it is no floating tensor of this shape; or where code of
    another package has made NaN or Inf of finite rows."""
    if not isinstance(answer, Tensor) or answer.shape != shape:
        kind = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        raise BadAnswer(f"The answer of {rule!r} should be a tensor {list(shape)}. Found {kind}.")
    if not answer.is_floating_point():
        raise BadAnswer(f"The answer of {rule!r} should be of floating numbers. Found {answer.dtype}.")
    if rule.foreign and not answer.isfinite().all():
        lost = f"NaN or Inf in {int((~answer.isfinite()).sum())} of {answer.numel()} numbers"
        raise BadAnswer(
            f"The answer of {rule!r} to finite rows should be finite. Found {lost}. "
            f"Look at its {', '.join(sorted(rule.foreign))}."
        )
    return answer


def reduced(rule: Any, mixed: Mixed) -> Tensor:
    """`rule.reduce(mixed)`, checked."""
    return checked_answer(rule, rule.reduce(mixed), mixed.rows.shape[1:])


def require_own_call(part: Traits, what: str) -> None:
    """Raise `InvalidInput` for a rule or stage of another package that replaces `__call__`: nobody calls the
    parts of a chain."""
    name = type(part).__name__
    fix = "Decide in `reduce`, `weights` or `columns` (a stage: in `mixing`)."
    require("__call__" not in part.foreign, what, "answer by what it decides", f"{name}.__call__", fix)
