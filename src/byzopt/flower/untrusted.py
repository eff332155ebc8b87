"""Arrays and texts as anyone on the network may have written them: read with care, or refused with a reason.

Nothing is evaluated or unpickled, no size that a sender claims is believed, and no more is read than the
model's own arrays take. NumPy's own reader is not used: it evaluates the header and allocates what it says.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import numpy as np
from flwr.app import Array, Message

MAGIC = b"\x93NUMPY\x01\x00"
HEADER = re.compile(rb"\{'descr': '([^']*)', 'fortran_order': (True|False), 'shape': \(([0-9, ]*)\), \} *\n")
LONGEST_REASON = 200


class BadReply(Exception):
    """Why a reply does not count, in a few words."""


def records_of(message: Message) -> dict[str, Any]:
    """The records of a reply by name. Errors: `BadReply` for an error in the place of content."""
    if message.has_error():
        reason = shortened(str(message.error.reason or "no reason given"))
        raise BadReply(f"error {int(message.error.code)}: {reason}")
    return dict(message.content)


def check_names(arrays: Collection[str], wanted: Collection[str]) -> None:
    """Errors: `BadReply` unless the arrays are named as in the model."""
    if set(arrays) != set(wanted):
        differing = sorted(set(arrays) ^ set(wanted))
        raise BadReply(f"keys differ from the model's in {shortened(str(differing))}")


def read_numbers(name: str, array: Array, shape: tuple[int, ...], dtypes: tuple[str, ...]) -> Any:
    """One array's numbers, a flat NumPy array of one of `dtypes` (names, of which the first is the expected
    one), after everything that the array says of itself has been checked. Errors: `BadReply`."""
    data = array.data
    if array.stype != "numpy.ndarray" or not isinstance(data, bytes) or not data.startswith(MAGIC):
        raise BadReply(f"array {name!r} is not in NumPy's format 1.0")
    start = len(MAGIC) + 2 + int.from_bytes(data[len(MAGIC) : len(MAGIC) + 2], "little")
    header = HEADER.fullmatch(data, len(MAGIC) + 2, start) if start <= 4096 else None
    if header is None:
        raise BadReply(f"array {name!r} has no valid header")
    description, order, dimensions = header.groups()
    known = {np.dtype(each).str: np.dtype(each) for each in dtypes}
    dtype = known.get(description.decode("ascii"))
    if dtype is None or array.dtype != dtype.name:
        raise BadReply(f"array {name!r} has dtype {shortened(str(array.dtype))} in place of {dtypes[0]}")
    claimed = tuple(int(part) for part in dimensions.split(b",") if part.strip())
    if claimed != shape or tuple(array.shape) != shape:
        raise BadReply(f"array {name!r} has shape {shortened(str(claimed))} in place of {shape}")
    size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if len(data) - start != size:
        raise BadReply(f"array {name!r} holds {len(data) - start} bytes in place of {size}")
    flat = np.frombuffer(data, dtype, offset=start)
    return flat.reshape(shape, order="F").reshape(-1) if order == b"True" else flat


def shortened(text: str) -> str:
    """A text from outside, in one line of bounded length."""
    line = " ".join(text[: 4 * LONGEST_REASON].split())
    return line if len(line) <= LONGEST_REASON else line[: LONGEST_REASON - 1] + "…"
