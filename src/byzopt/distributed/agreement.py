"""How ranks come to one conclusion before an exchange: headers are compared, errors are shared.

Whatever goes wrong on one rank before the vectors cross, all ranks raise the same error: a rank that cannot
take part says so in the place of its header, and its error's text follows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from math import inf
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from byzopt.distributed.communicator import Communicator
from byzopt.distributed.header import ABSENT, FAILED, Header
from byzopt.errors import ByzoptError, InvalidInput, TooManyFaults
from byzopt.escaping import one_line

T = TypeVar("T")
_KINDS = (TooManyFaults, InvalidInput, ByzoptError)  # of shared errors, the last for all others
_TEXT = 600  # bytes of an error's text that are sent


class HeaderSummary(NamedTuple):
    """What the headers of all ranks say: the largest magnitudes `sizes` `[n]` (float64, CPU) of their
    vectors, ∞ for those that do not count this round; why the header of a rank was `malformed`, by rank; the
    ranks that are `absent`; the most ranks that gave `equal` fingerprints other than 0; and what
    `parameters` each rank has (0: as the last step left them)."""

    sizes: Tensor
    malformed: dict[int, str]
    absent: frozenset[int]
    equal: int
    parameters: tuple[float, ...]


def exchange_headers(comm: Communicator, prepare: Callable[[], tuple[Header, T]]) -> tuple[HeaderSummary, T]:
    """`prepare()` on every rank, which gives its header and what else it has prepared; then the headers of
    all ranks, judged alike on every one of them.

    A malformed header (numbers that no such vector has) is its sender's fault: the vector that follows it
    counts as one that is not finite. A well-formed one that differs stops all ranks, because then nobody
    knows which of the two settings is the right one.

    Errors, the same on all ranks: what `prepare` raised on any rank; `InvalidInput` when vectors, rounds or
    plans differ, or do not serve; `TooManyFaults` when all headers are malformed.
    """
    local, prepared, error = _numbers(Header.failed()), None, None
    try:
        header, prepared = prepare()
        local = _numbers(header)
    except Exception as raised:
        error = raised
    headers = [Header(*line) for line in comm.all_gather(local).tolist()]
    if any(header.status == FAILED and not header.fault() for header in headers):
        raise_everywhere(comm, error)
    summary = summarised(comm.n, dict(enumerate(headers)), {})
    if error is not None:  # its header was changed on its way
        raise error
    return summary, prepared  # type: ignore[return-value]


def summarised(n: int, headers: Mapping[int, Header], missing: Mapping[int, str]) -> HeaderSummary:
    """What these headers say of n ranks; those that are `missing`, and why, count as malformed ones do.

    Errors: as `exchange_headers`.
    """
    reasons = {rank: header.fault() for rank, header in headers.items()}
    malformed = {rank: f"Its header is malformed: {why}" for rank, why in reasons.items() if why}
    malformed |= missing
    if len(malformed) == n:
        raise TooManyFaults(
            f"Some headers should be well-formed. Found none among {n} ranks: {malformed[0]}",
            sorted(malformed),
        )
    valid = {rank: header for rank, header in headers.items() if rank not in malformed}
    _require_alike(valid)
    absent = frozenset(rank for rank, header in valid.items() if header.status == ABSENT)
    counted = set(valid) - absent
    sizes = [valid[rank].size if rank in counted else inf for rank in range(n)]
    counts = Counter(header.fingerprint for header in valid.values() if header.fingerprint)
    parameters = tuple(valid[rank].parameters if rank in valid else 0.0 for rank in range(n))
    lengths = torch.tensor(sizes, dtype=torch.float64, device="cpu")
    return HeaderSummary(lengths, malformed, absent, max(counts.values(), default=0), parameters)


def share_error(comm: Communicator, work: Callable[[], T]) -> T:
    """`work()` on every rank; what it raises on any rank is raised on all. Costs a message of one number."""
    result, error = None, None
    try:
        result = work()
    except Exception as raised:
        error = raised
    failed = comm.all_gather(torch.tensor([float(error is not None)], dtype=torch.float64, device="cpu"))
    if failed.any():
        raise_everywhere(comm, error)
    return result  # type: ignore[return-value]


def _numbers(header: Header) -> Tensor:
    return torch.tensor(header, dtype=torch.float64, device="cpu")


def _require_alike(headers: dict[int, Header]) -> None:
    """Raise `InvalidInput` unless these headers agree in what must be the same on all ranks, and serve."""
    kinds = [header.agreed for header in headers.values()]
    usual = list(headers.values())[kinds.index(max(kinds, key=kinds.count))]
    odd = [rank for rank, header in headers.items() if header.agreed != usual.agreed]
    if odd:
        others = "; ".join(f"rank {rank} has {headers[rank]}" for rank in odd[:8])
        raise InvalidInput(
            f"All ranks should bring like vectors, in one round, with one rule and topology. Found {others}; "
            f"the others have {usual}. Start all ranks with the same script, model and settings."
        )
    if usual.kind < 0 or usual.dims != 1 or usual.d < 1:
        raise InvalidInput(
            f"Vectors should be [d] with d >= 1, of float16, bfloat16, float32 or float64. Found {usual}."
        )


def raise_everywhere(comm: Communicator, error: Exception | None) -> None:
    """Raise one error on all ranks, made from the `error` that each has, if any."""
    text = torch.frombuffer(bytearray(error_text(error, comm.n)), dtype=torch.uint8)
    texts = [line.numpy().tobytes() for line in comm.all_gather(text).cpu()]
    raise_shared(dict(enumerate(texts)), comm.n, error)


def error_text(error: Exception | None, n: int) -> bytes:
    """An error as bytes of a fixed length: its kind, the ranks that it blames, its text."""
    if error is None:
        return bytes(1 + n + _TEXT)
    blamed = set(getattr(error, "rows", ()))
    flags = bytes(rank in blamed for rank in range(n))
    words = one_line(str(error) or type(error).__name__).encode()[:_TEXT]
    return bytes([1 + _kind_of(error)]) + flags + words.ljust(_TEXT, b"\0")


def raise_shared(texts: Mapping[int, bytes], n: int, error: Exception | None) -> None:
    """Raise the same error on all ranks that have these `texts`, by rank; `error` is this rank's own."""
    failed = {rank: text for rank, text in texts.items() if text and 1 <= text[0] <= len(_KINDS)}
    if error is not None and len(failed) == n and len(set(failed.values())) == 1:
        raise error  # every rank has the same, and its own traceback
    if not failed:
        raise ByzoptError("Ranks that cannot take part should say why. Found none that does.") from error
    first = next(iter(failed.values()))
    why = one_line(first[1 + n :].rstrip(b"\0").decode(errors="replace"))
    ranks = ", ".join(map(str, failed))
    message = f"All ranks should be able to take part. Found rank {ranks} unable: {why}"
    if first[0] == 1:
        blamed = [rank for rank in range(n) if first[1 + rank : 2 + rank] == b"\1"]
        raise TooManyFaults(message, blamed) from error
    raise _KINDS[first[0] - 1](message) from error


def _kind_of(error: Exception) -> int:
    if isinstance(error, (TooManyFaults, InvalidInput)):
        return 0 if isinstance(error, TooManyFaults) else 1
    return 1 if isinstance(error, (TypeError, ValueError)) else 2
