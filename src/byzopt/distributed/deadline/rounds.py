"""Vectors, headers and errors over a `DeadlineTransport`: one round of a rule, as without a deadline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from byzopt.distributed.agreement import HeaderSummary, error_text, raise_shared, summarised
from byzopt.distributed.deadline.transport import DeadlineTransport, Rows
from byzopt.distributed.header import FAILED, Header
from byzopt.distributed.topologies import Exchange, Round, filtered
from byzopt.errors import TooManyFaults

T = TypeVar("T")
_HEADER = len(Header._fields) * 8  # bytes


def exchange_rows(
    transport: DeadlineTransport, prepare: Callable[[], tuple[Header, Tensor, T]]
) -> tuple[HeaderSummary, Tensor, T]:
    """`prepare()` on every rank, which gives its header, its vector `[d]` and what else it has prepared; then
    what the headers say, and all ranks' rows `[n, d]`, the same on all ranks.

    A rank that is missing counts as one whose header is malformed; its row is not to be read. Errors, on all
    ranks alike: as `agreement.exchange_headers`; those of `DeadlineTransport.exchange`.
    """
    try:
        header, vec, prepared = prepare()
        payload = packed(header, vec)
    except Exception as error:
        text = error_text(error, transport.n)
        raise_failed(transport.exchange(_numbers(Header.failed()) + text), transport.n, error)
        raise
    rows = transport.exchange(payload)
    return *read(rows, transport.n, vec), prepared


def rejoined_rows(
    transport: DeadlineTransport, prepare: Callable[[], tuple[Header, Tensor, T]]
) -> tuple[HeaderSummary, Tensor, T]:
    """As `exchange_rows`, of the latest round that the others have decided without this rank, whose own
    vector does not count. Its header has to say what most of theirs say.

    Errors, on this rank: those of `DeadlineTransport.rejoin`; as `read`.
    """
    header, vec, prepared = prepare()

    def fits(payloads: dict[int, Any]) -> bool:
        alike = [_header(payload).agreed == header.agreed for payload in payloads.values()]
        return 2 * sum(alike) > len(alike)

    return *read(transport.rejoin(fits), transport.n, vec), prepared


def packed(header: Header, vec: Tensor) -> bytes:
    """A header and a vector as bytes."""
    data = vec.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
    return _numbers(header) + data


def read(rows: Rows, n: int, like: Tensor) -> tuple[HeaderSummary, Tensor]:
    """What the headers say and the vectors `[n, d]`, of the dtype and length of `like` `[d]`.

    Errors: as `exchange_rows`.
    """
    raise_failed(rows, n, None)
    headers = {rank: _header(payload) for rank, payload in rows.payloads.items()}
    summary = summarised(n, headers, rows.missing)
    out = like.new_zeros(n, len(like))
    for rank, payload in rows.payloads.items():
        body = payload[_HEADER:]
        if len(body) == len(like) * like.element_size():
            out[rank] = torch.frombuffer(bytearray(body), dtype=like.dtype).to(like.device)
        else:
            summary.malformed.setdefault(rank, f"Its vector has {len(body)} bytes.")
    return summary, out


def filtered_rows(rows: Tensor, summary: HeaderSummary, exchange: Exchange) -> Round:
    """The filter's answer to the rows `[n, d]`. Errors: `TooManyFaults`, which says who was missing."""
    exchange.malformed.update(summary.malformed)
    try:
        return filtered(rows, exchange._replace(absent=summary.absent))
    except TooManyFaults as error:
        reasons = "".join(f" Rank {rank}: {why}" for rank, why in sorted(summary.malformed.items()))
        raise TooManyFaults(f"{error}{reasons}", error.rows) from None


def raise_failed(rows: Rows, n: int, error: Exception | None) -> None:
    """Raise on all ranks what kept one of them from taking part, if anything did."""
    headers = {rank: _header(payload) for rank, payload in rows.payloads.items()}
    failed = {
        rank: bytes(rows.payloads[rank][_HEADER:])
        for rank, header in headers.items()
        if header.fault() is None and header.status == FAILED
    }
    if failed:
        raise_shared(failed, n, error)


def _header(payload: bytes) -> Header:
    """The header that a payload begins with; a malformed one where it is too short."""
    numbers = np.frombuffer(bytes(payload[:_HEADER]).ljust(_HEADER, b"\xff"), dtype=np.float64)
    return Header(*numbers.tolist())


def _numbers(header: Header) -> bytes:
    return np.array(header, dtype=np.float64).tobytes()
