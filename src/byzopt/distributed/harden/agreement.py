"""What went wrong on one rank is raised on all of them, by the same name and in the same words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

import torch

from byzopt import errors
from byzopt.distributed.communicator import Communicator
from byzopt.errors import ByzoptError, InvalidInput, TooManyFaults, require

LENGTH = 2048  # bytes of a message that travel
_KINDS: tuple[type[ByzoptError], ...] = (
    ByzoptError,
    InvalidInput,
    errors.UnknownName,
    errors.BadMessage,
    errors.MissingData,
    errors.MissingExtra,
    TooManyFaults,
)


class Trouble:
    """The first error that this rank has met since the last agreement, if any."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Errors raised inside are kept for the agreement, so that what others wait for is still sent."""
        try:
            yield
        except Exception as error:
            self.error = self.error or error


def agree(comm: Communicator, error: Exception | None) -> None:
    """A collective that raises on all ranks if any has an `error`: the one of the lowest such rank.

    Kinds of this library keep their class; others become `ByzoptError` and are told by name. On the ranks
    that had an error of their own it is the cause.
    """
    flags = comm.all_gather(torch.tensor([float(error is not None)], dtype=torch.float64, device="cpu"))
    if flags.any():
        raise_first(comm, flags.flatten().tolist(), error)


def raise_first(comm: Communicator, flags: list[float], error: Exception | None) -> None:
    """Raise the error of the lowest rank whose flag is not 0, on all ranks. A collective."""
    text = b"" if error is None else bytes([_kind(error)]) + _text(error).encode()[: LENGTH - 1]
    own = torch.frombuffer(bytearray(text.ljust(LENGTH, b"\0")), dtype=torch.uint8)
    told = comm.all_gather(own).cpu()
    rank = next(i for i, flag in enumerate(flags) if flag)
    alike = bool((told == told[rank]).all())
    kind, *letters = told[rank].tolist()
    words = bytes(letters).rstrip(b"\0").decode(errors="replace")
    what = _KINDS[min(kind, len(_KINDS) - 1)]
    raise what(words if alike else f"Rank {rank} could not go on, and so none does. {words}") from error


def _kind(error: Exception) -> int:
    return max((i for i, kind in enumerate(_KINDS) if isinstance(error, kind)), default=0)


def _text(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ByzoptError) else f"It met {type(error).__name__}: {text}"


def same(comm: Communicator, text: str, what: str, remedy: str) -> None:
    """A collective that raises `InvalidInput` on all ranks unless all have the same `text`."""
    digest = sha256(text.encode()).digest()
    told = comm.all_gather(torch.frombuffer(bytearray(digest), dtype=torch.uint8)).cpu().tolist()
    usual = max(told, key=told.count)
    odd = [rank for rank, each in enumerate(told) if each != usual]
    require(not odd, "Ranks", f"be alike in {what}", f"ranks {odd} that differ from the others", remedy)
