"""Exchanges of `LocalSteps` with a deadline: missing ranks are left out, and those that come back return."""

from __future__ import annotations

from typing import Any, Protocol
from warnings import warn

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from byzopt.aggregators.core.filters import RoundRule
from byzopt.checkpoint import packed, unpacked
from byzopt.distributed.agreement import HeaderSummary
from byzopt.distributed.communicator import Communicator
from byzopt.distributed.deadline import Behind, DeadlineTransport
from byzopt.distributed.deadline.consensus import ranks_of
from byzopt.distributed.deadline.rounds import exchange_rows, filtered_rows, read
from byzopt.distributed.deadline.transport import check_seconds
from byzopt.distributed.flat import FlatParameters
from byzopt.distributed.harden.carried import copied
from byzopt.distributed.harden.settings import Buffers
from byzopt.distributed.header import Header
from byzopt.distributed.reduce import report
from byzopt.distributed.topologies import Exchange
from byzopt.errors import TooManyFaults, require
from byzopt.states import freeze, thaw


class Exchanging(Protocol):
    """What an exchange needs of `LocalSteps`."""

    comm: Communicator
    filter: RoundRule
    flat: FlatParameters
    outer: Optimizer
    point: Tensor
    tolerated: int
    rounds: int
    returned: int
    missing: list[int]
    _state: Any

    def _told(self) -> tuple[Header, tuple[Tensor, Exchange]]: ...
    def _require_distinct(self, summary: HeaderSummary, exchange: Exchange) -> None: ...
    def _settle(
        self, outcome: tuple[Tensor, Any] | TooManyFaults, faulty: set[int], spoilt: bool, hard: bool
    ) -> None: ...


def check_timed(model: nn.Module, deadline: float | None, buffers: Buffers) -> None:
    """Raise `InvalidInput` for what is no deadline, and for buffers that all ranks would have to compare."""
    if deadline is None:
        return
    check_seconds(deadline)
    free = buffers == "local" or not any(True for _ in model.buffers())
    what, found, remedy = "Buffers with a deadline", f"buffers={buffers!r}", "Say buffers='local'."
    require(free, what, "be left to each rank", found, remedy)


def timed_sync(local: Exchanging, transport: DeadlineTransport) -> None:
    """One exchange, or all those that the others have made without this rank: then its pseudo-gradient is of
    another point, and is not sent.

    Errors: as `exchange_rows`; `TooManyFaults` where the rule does not bear those that are left out.
    """
    try:
        if not _took_passed(local, transport):
            summary, rows, (vec, exchange) = exchange_rows(transport, lambda: _with_vector(local))
            _take(local, transport, summary, rows, vec, exchange)
    except Behind:
        _recover(local, transport)


def _with_vector(local: Exchanging) -> tuple[Header, Tensor, tuple[Tensor, Exchange]]:
    header, (vec, exchange) = local._told()
    return header, vec, (vec, exchange)


def _took_passed(local: Exchanging, transport: DeadlineTransport) -> bool:
    """Make the exchanges that were decided without this rank; whether there were any."""
    count = 0
    while (passed := transport.passed()) is not None:
        _, (vec, exchange) = local._told()
        _take(local, transport, *read(passed, transport.n, vec), vec, exchange)
        count += 1
    return count > 0


def _take(
    local: Exchanging,
    transport: DeadlineTransport,
    summary: HeaderSummary,
    rows: Tensor,
    vec: Tensor,
    exchange: Exchange,
) -> None:
    """Make the outer step of an exchange whose rows are here."""
    missing = set(range(transport.n)) - set(ranks_of(transport.members, transport.n))
    outcome: tuple[Tensor, Any] | TooManyFaults
    try:
        local._require_distinct(summary, exchange)
        done = filtered_rows(rows, summary, exchange)
        report(exchange.watch, done.diagnostics)
        outcome = done.out.to(local.point.device), done.state
    except TooManyFaults as error:
        outcome = error
    local.rounds += 1
    for rank in missing:
        local.missing[rank] += 1
    faulty = {*summary.malformed, *(~summary.sizes.isfinite()).nonzero().flatten().tolist()}
    spoilt = not bool(vec.isfinite().all())
    try:
        local._settle(outcome, faulty, spoilt, hard=len(missing) > local.tolerated)
    finally:
        common = packed(copied(_state_of(local)))
        transport.keep(lambda: (common, b""))


def _state_of(local: Exchanging) -> dict[str, Any]:
    """What all ranks have alike."""
    memory, outer = freeze(local._state), local.outer.state_dict()
    return {"point": local.point, "outer": outer, "memory": memory, "rounds": local.rounds}


def _recover(local: Exchanging, transport: DeadlineTransport) -> None:
    """Take the point and the states that more than f of the others have."""
    before = local.rounds
    common, each = transport.catch_up(local.tolerated + 1)
    state = unpacked(common)
    begun = local.filter.after(local._state, torch.zeros_like(local.point.detach()))
    local._state = thaw(state["memory"], begun if state["rounds"] else local._state)
    local.rounds = state["rounds"]
    local.returned += 1
    local.point.copy_(state["point"])
    local.outer.load_state_dict(state["outer"])
    local.flat.write(local.point)
    warn(
        f"Rank {transport.rank} was away from exchange {before + 1} to {local.rounds}: it goes on from the "
        f"point and the outer optimizer on which {len(each)} other ranks agree.",
        stacklevel=5,
    )
