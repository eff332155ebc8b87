"""Replies as anyone on the network may have written them: read with care, or refused with a reason.

Nothing in a reply is evaluated or unpickled, no size that it claims is believed, and no more is read than the
model's own arrays take. NumPy's own reader is not used: it evaluates the header and allocates what it says.
"""

from __future__ import annotations

import re
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord
from torch import Tensor

from byzopt.flower.records import ARRAYS, METRICS
from byzopt.layout import Layout

MAGIC = b"\x93NUMPY\x01\x00"
HEADER = re.compile(rb"\{'descr': '([^']*)', 'fortran_order': (True|False), 'shape': \(([0-9, ]*)\), \} *\n")
MOST_METRICS, LONGEST_NAME, LONGEST_REASON = 32, 64, 200


class Refused(Exception):
    """Why a reply does not count, in a few words."""


class Reply(NamedTuple):
    """What a reply says: a row `[d]` and figures by name."""

    row: Tensor
    metrics: dict[str, float]


def decoded(message: Message, layout: Layout, dtype: torch.dtype) -> Reply:
    """The reply as a row in this layout and dtype. Errors: `Refused`, and nothing else whatever is sent."""
    try:
        records = _records(message)
        row = _row(records[ARRAYS], layout, np.dtype(str(dtype).removeprefix("torch.")))
        return Reply(row, figures(records.get(METRICS)))
    except Refused:
        raise
    except Exception as error:  # what nobody has thought of is a fault of the sender's, too
        raise Refused(f"unreadable: {brief(repr(error))}") from None


def measured(message: Message) -> dict[str, float]:
    """The figures in a reply to `evaluate`. Errors: `Refused`."""
    try:
        if message.has_error():
            raise Refused(_told(message))
        return figures(dict(message.content).get(METRICS))
    except Refused:
        raise
    except Exception as error:
        raise Refused(f"unreadable: {brief(repr(error))}") from None


def figures(record: Any) -> dict[str, float]:
    """The finite numbers of a MetricRecord by name; none is as good as an empty one. Errors: `Refused`."""
    if record is None:
        return {}
    if not isinstance(record, MetricRecord):
        raise Refused(f"record {METRICS!r} is a {type(record).__name__}")
    if len(record) > MOST_METRICS or any(len(name) > LONGEST_NAME for name in record):
        raise Refused(f"more than {MOST_METRICS} metrics, or names beyond {LONGEST_NAME} letters")
    for name, value in record.items():
        if isinstance(value, (list, bool)) or not isfinite(value):
            raise Refused(f"metric {name!r} is no finite number")
    return {name: float(value) for name, value in record.items()}


def brief(text: str) -> str:
    """A text from outside, in one line of bounded length."""
    line = " ".join(text[: 4 * LONGEST_REASON].split())
    return line if len(line) <= LONGEST_REASON else line[: LONGEST_REASON - 1] + "…"


def _records(message: Message) -> dict[str, Any]:
    if message.has_error():
        raise Refused(_told(message))
    records = dict(message.content)
    if ARRAYS not in records or not set(records) <= {ARRAYS, METRICS}:
        raise Refused(f"records {brief(str(sorted(records)))} in place of {ARRAYS!r} and {METRICS!r}")
    if not isinstance(records[ARRAYS], ArrayRecord):
        raise Refused(f"record {ARRAYS!r} is a {type(records[ARRAYS]).__name__}")
    return records


def _told(message: Message) -> str:
    return f"error {int(message.error.code)}: {brief(str(message.error.reason or 'no reason given'))}"


def _row(arrays: ArrayRecord, layout: Layout, dtype: np.dtype[Any]) -> Tensor:
    if set(arrays) != set(layout.names):
        odd = sorted(set(arrays) ^ set(layout.names))
        raise Refused(f"keys differ from the model's in {brief(str(odd))}")
    parts = [
        _values(name, arrays[name], shape, dtype)
        for name, shape in zip(layout.names, layout.shapes, strict=True)
    ]
    row = torch.from_numpy(np.concatenate(parts))
    if not row.isfinite().all():
        raise Refused("NaN or Inf")
    return row


def _values(name: str, array: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """One array's numbers, flat, after everything that it says of itself has been checked."""
    size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    data = array.data
    if array.stype != "numpy.ndarray" or not isinstance(data, bytes) or not data.startswith(MAGIC):
        raise Refused(f"array {name!r} is not in NumPy's format 1.0")
    start = len(MAGIC) + 2 + int.from_bytes(data[len(MAGIC) : len(MAGIC) + 2], "little")
    header = HEADER.fullmatch(data, len(MAGIC) + 2, start) if start <= 4096 else None
    if header is None:
        raise Refused(f"array {name!r} has no valid header")
    kind, order, written = header.groups()
    if kind.decode("ascii") != dtype.str or array.dtype != dtype.name:
        raise Refused(f"array {name!r} has dtype {brief(str(array.dtype))} in place of {dtype.name}")
    claimed = tuple(int(part) for part in written.split(b",") if part.strip())
    if claimed != shape or tuple(array.shape) != shape:
        raise Refused(f"array {name!r} has shape {brief(str(claimed))} in place of {shape}")
    if len(data) - start != size:
        raise Refused(f"array {name!r} holds {len(data) - start} bytes in place of {size}")
    flat = np.frombuffer(data, dtype, offset=start)
    return flat.reshape(shape, order="F").reshape(-1) if order == b"True" else flat
