"""Numbers of any width in bits, one after the other in bytes."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from byzopt.errors import BadMessage

Whole: TypeAlias = npt.NDArray[np.uint64]
Real: TypeAlias = npt.NDArray[np.float64]
KINDS: dict[int, np.dtype[Any]] = {
    32: np.dtype(">f4"),
    64: np.dtype(">f8"),
}  # floats by width, the highest bit first


class Writer:
    """Collects numbers; `bytes` is them, filled up with zero bits to whole bytes."""

    def __init__(self) -> None:
        self.parts: list[npt.NDArray[np.uint8]] = []

    def whole(self, values: Any, width: int) -> None:
        """Unsigned numbers below 2^width, each in `width` bits, the highest first."""
        places = np.arange(width - 1, -1, -1, dtype=np.uint64)
        numbers = np.atleast_1d(np.asarray(values, dtype=np.uint64))
        self.parts.append(((numbers[:, None] >> places) & np.uint64(1)).astype(np.uint8).ravel())

    def real(self, values: Any, width: int) -> None:
        """Floats of 32 or 64 bits."""
        with np.errstate(over="ignore"):
            floats = np.atleast_1d(np.asarray(values)).astype(KINDS[width])
        self.parts.append(np.unpackbits(floats.view(np.uint8)))

    def bytes(self) -> bytes:
        """Everything so far."""
        return np.packbits(np.concatenate(self.parts)).tobytes()


class Reader:
    """Reads in order what `Writer` wrote. Errors: `BadMessage` for floats that are not finite."""

    def __init__(self, data: bytes) -> None:
        self.bits, self.at = np.unpackbits(np.frombuffer(data, dtype=np.uint8)), 0

    def whole(self, count: int, width: int) -> Whole:
        """`count` unsigned numbers of `width` bits."""
        part = self.bits[self.at : self.at + count * width].reshape(count, width).astype(np.uint64)
        self.at += count * width
        places = np.arange(width - 1, -1, -1, dtype=np.uint64)
        total: Whole = (part << places).sum(axis=1, dtype=np.uint64)
        return total

    def real(self, count: int, width: int) -> Real:
        """`count` finite floats of `width` bits."""
        part = self.bits[self.at : self.at + count * width]
        self.at += count * width
        values = np.packbits(part).view(KINDS[width])
        if not np.isfinite(values).all():
            raise BadMessage("A message should hold finite numbers. Found NaN or Inf.")
        wide: Real = values.astype(np.float64)
        return wide

    def end(self) -> None:
        """Errors: `BadMessage` where the rest is not zero."""
        if self.bits[self.at :].any():
            raise BadMessage("A message should be filled up with zero bits. Found others.")
