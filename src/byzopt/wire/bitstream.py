"""Numbers of any width in bits, one after the other in bytes."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from byzopt.errors import BadMessage

Integers: TypeAlias = npt.NDArray[np.uint64]
Floats: TypeAlias = npt.NDArray[np.float64]
FLOAT_TYPES: dict[int, np.dtype[Any]] = {
    32: np.dtype(">f4"),
    64: np.dtype(">f8"),
}  # by width, the highest bit first


class BitWriter:
    """Collects numbers. `length` counts their bits; `bytes` fills them up with zero bits to whole bytes.

    Examples:
        >>> from byzopt.wire import BitReader, BitWriter
        >>> writer = BitWriter()
        >>> writer.integers([5, 2], width=3)
        >>> writer.floats([0.5], width=32)
        >>> writer.length, len(writer.bytes())
        (38, 5)
        >>> reader = BitReader(writer.bytes())
        >>> reader.integers(2, width=3).tolist(), reader.floats(1, width=32).tolist()
        ([5, 2], [0.5])
    """

    def __init__(self) -> None:
        self._parts: list[npt.NDArray[np.uint8]] = []
        self.length = 0

    def integers(self, values: Any, width: int) -> None:
        """Append unsigned numbers below 2^width, each in `width` bits, the highest first."""
        places = np.arange(width - 1, -1, -1, dtype=np.uint64)
        numbers = np.atleast_1d(np.asarray(values, dtype=np.uint64))
        self._append(((numbers[:, None] >> places) & np.uint64(1)).astype(np.uint8).ravel())

    def floats(self, values: Any, width: int) -> None:
        """Append floats of 32 or 64 bits."""
        with np.errstate(over="ignore"):
            numbers = np.atleast_1d(np.asarray(values)).astype(FLOAT_TYPES[width])
        self._append(np.unpackbits(numbers.view(np.uint8)))

    def bytes(self) -> bytes:
        """Everything so far."""
        return np.packbits(np.concatenate(self._parts)).tobytes() if self._parts else b""

    def _append(self, bits: npt.NDArray[np.uint8]) -> None:
        self._parts.append(bits)
        self.length += len(bits)


class BitReader:
    """Reads in order what `BitWriter` wrote; `position` counts the bits read.

    Args:
        data: The bytes of a message.

    Raises:
        BadMessage: Floats that are not finite, and more numbers than the message holds.

    Examples:
        >>> from byzopt.wire import BitReader
        >>> BitReader(bytes([0b10100000])).integers(1, width=3).tolist()
        [5]
    """

    def __init__(self, data: bytes) -> None:
        self._bits, self.position = np.unpackbits(np.frombuffer(data, dtype=np.uint8)), 0

    def integers(self, count: int, width: int) -> Integers:
        """The next `count` unsigned numbers of `width` bits."""
        bits = self._next(count, width).reshape(int(count), width).astype(np.uint64)
        places = np.arange(width - 1, -1, -1, dtype=np.uint64)
        numbers: Integers = (bits << places).sum(axis=1, dtype=np.uint64)
        return numbers

    def floats(self, count: int, width: int) -> Floats:
        """The next `count` floats of `width` bits, all finite."""
        values = np.packbits(self._next(count, width)).view(FLOAT_TYPES[width])
        if not np.isfinite(values).all():
            raise BadMessage("A message should hold finite numbers. Found NaN or Inf.")
        wide: Floats = values.astype(np.float64)
        return wide

    def finish(self) -> None:
        """Errors: `BadMessage` where the rest is not zero."""
        if self._bits[self.position :].any():
            raise BadMessage("A message should be filled up with zero bits. Found others.")

    def _next(self, count: int, width: int) -> npt.NDArray[np.uint8]:
        count, left = int(count), len(self._bits) - self.position
        if not 0 <= count * width <= left:  # before anything of that size is made
            raise BadMessage(
                f"A message should hold {count} numbers of {width} bits more. Found {left} bits."
            )
        self.position += count * width
        return self._bits[self.position - count * width : self.position]
