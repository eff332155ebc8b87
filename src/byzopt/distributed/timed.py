"""An optimizer's rounds with a deadline: missing ranks are left out, and those that come back return."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol
from warnings import warn

import torch
from torch import Tensor

from byzopt.checkpoint import packed, unpacked
from byzopt.distributed.agreement import HeaderSummary
from byzopt.distributed.deadline import Behind, DeadlineTransport
from byzopt.distributed.deadline.rounds import exchange_rows, filtered_rows, read
from byzopt.distributed.flat import FlatParameters
from byzopt.distributed.harden.buffers import agreed
from byzopt.distributed.header import Header
from byzopt.distributed.optimizer_state import OptimizerState
from byzopt.distributed.parameters import Settlement, settled
from byzopt.distributed.rank_worker import Contribution, RankWorker
from byzopt.distributed.reduce import report, require_distinct, tolerated
from byzopt.methods import Method
from byzopt.states import freeze, thaw


class Stepping(Protocol):
    """What a round needs of a `RobustOptimizer`."""

    method: Method
    worker: RankWorker
    flat: FlatParameters
    progress: OptimizerState
    malformed: dict[int, str]
    _buffers: list[Tensor]

    def _absence(self) -> Contribution: ...
    def _settled(self, settlement: Settlement, mine: Contribution) -> Contribution: ...
    def _finish(self, mine: Contribution, g: Tensor, filter_state: Any) -> None: ...


def timed_round(
    optimizer: Stepping, transport: DeadlineTransport, contribute: Callable[[], Contribution]
) -> None:
    """One round, or all those that the others have made without this rank: then this rank's gradient is of
    another point, and is not sent.

    Errors: as `exchange_rows`.
    """
    try:
        if not _took_passed(optimizer, transport):
            summary, rows, mine = exchange_rows(transport, lambda: _with_vector(contribute()))
            _take(optimizer, transport, summary, rows, mine)
    except Behind:
        _recover(optimizer, transport)


def _took_passed(optimizer: Stepping, transport: DeadlineTransport) -> bool:
    """Make the steps of the rounds that were decided without this rank; whether there were any."""
    count = 0
    while (passed := transport.passed()) is not None:
        mine = optimizer._absence()
        summary, rows = read(passed, transport.n, mine.vec)
        _take(optimizer, transport, summary, rows, mine)
        count += 1
    return count > 0


def _take(
    optimizer: Stepping,
    transport: DeadlineTransport,
    summary: HeaderSummary,
    rows: Tensor,
    mine: Contribution,
) -> None:
    """Make the step of a round whose rows are here."""
    optimizer.malformed = mine.exchange.malformed
    try:
        require_distinct(summary.equal, transport.n, mine.exchange)
        settlement = settled(None, summary, mine)
        mine = optimizer._settled(settlement, mine)
        done = filtered_rows(rows, summary, mine.exchange)
        report(mine.exchange.watch, done.diagnostics)
        optimizer._finish(mine, done.out.to(mine.position.flat.device), done.state)
    finally:
        buffers = [buffer.detach().clone() for buffer in optimizer._buffers]
        transport.keep(partial(_snapshot, optimizer.progress, buffers))
    if settlement.away:
        _recover(optimizer, transport)


def _snapshot(progress: OptimizerState, buffers: Sequence[Tensor]) -> tuple[bytes, bytes]:
    """What all ranks have alike, and this rank's buffers, as bytes."""
    common = progress._replace(worker=None, wire=None, received=None, bits=0.0)
    return packed(_copied(freeze(common))), packed(tuple(buffers))


def _recover(optimizer: Stepping, transport: DeadlineTransport) -> None:
    """Take the state that most of the others have: iterate, step and filter as more than f of them agree, of
    buffers the coordinate median. Momentum is this rank's own, as it was."""
    worker, flat, old = optimizer.worker, optimizer.flat, optimizer.progress
    exchange = optimizer._absence().exchange
    common, each = transport.catch_up(tolerated(exchange, transport.n) + 1)
    template = worker.rehearsed(flat)._replace(worker=None, wire=None, received=None)
    frozen = OptimizerState(*unpacked(common))
    like = worker.begun(flat) if frozen.t == 0 else template
    state: OptimizerState = thaw(tuple(frozen), like)
    optimizer.progress = state._replace(worker=old.worker, wire=old.wire, bits=old.bits)
    flat.write(optimizer.method.step.ask(state.step))
    with torch.no_grad():
        for buffer, values in zip(optimizer._buffers, zip(*map(unpacked, each), strict=True), strict=False):
            buffer.copy_(agreed(torch.stack(values).reshape(len(values), -1)).view(buffer.shape))
    warn(
        f"Rank {transport.rank} was away from round {old.t + 1} to {state.t}: it has taken the parameters, "
        f"states and buffers on which {len(each)} other ranks agree, and goes on with its own momentum.",
        stacklevel=7,
    )


def _with_vector(mine: Contribution) -> tuple[Header, Tensor, Contribution]:
    return mine.header, mine.vec, mine


def _copied(state: Any) -> Any:
    """Plain data whose tensors hold nothing but themselves, in main memory."""
    if isinstance(state, tuple):
        return tuple(_copied(part) for part in state)
    return state.cpu().clone() if isinstance(state, Tensor) else state
