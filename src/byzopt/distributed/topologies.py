"""Three ways for n ranks, a row each, to come to one aggregate; they differ in whom a rank has to trust.

| topology | sent by a rank | memory | whom a rank trusts |
| --- | --- | --- | --- |
| sharded | 2 d (n-1)/n | 2 d | every rank's arithmetic and links, no rank's data |
| replicated | d (n-1) | n d | nobody's: it has all rows and decides by itself |
| server | d (rank 0 takes in d (n-1)) | d; rank 0: n d | rank 0 |

Traffic in numbers of the vector's dtype. The n x n products and the seven numbers of the header come on top,
and where columns are sharded the n keys by whose order chains break ties.
Compressed messages go to all ranks or to rank 0 in the place of d numbers, and are read there (`messages`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from byzopt.aggregators.core.base import BaseAggregator
from byzopt.aggregators.core.filters import Filter, RoundContext, RoundRule
from byzopt.aggregators.core.inputs import ranged, restored, surviving
from byzopt.aggregators.core.suspicion import refuse_suspects, remoteness, suspects
from byzopt.distributed.communicator import Communicator
from byzopt.distributed.compressed import CompressedMessages
from byzopt.distributed.diagnostics import RoundDiagnostics, diagnose, diagnose_rows
from byzopt.distributed.shard import ColumnShard
from byzopt.errors import ByzoptError, InvalidInput, TooManyFaults, require

Topology: TypeAlias = Literal["sharded", "replicated", "server"]
Watch: TypeAlias = "Callable[[RoundDiagnostics], None] | None"


class Exchange(NamedTuple):
    """One round of a filter: its state and context, why the header or message of a rank was `malformed`
    (added as it is found), the `watch` that gets its diagnostics, and the compressed `messages`, if rows come
    so."""

    filter: Filter
    state: Any
    at: RoundContext
    malformed: dict[int, str]
    watch: Watch = None
    messages: CompressedMessages | None = None

    @property
    def rule(self) -> BaseAggregator | None:
        """The pure rule that the filter is in this round, if it is one."""
        return self.filter.now(self.state, self.at) if isinstance(self.filter, RoundRule) else None


def check_topology(topology: Topology, filter: Filter, compressed: bool = False) -> None:
    """Raise `InvalidInput` for a topology that is not known, or that cannot serve the filter or messages."""
    require(topology in TOPOLOGIES, "The topology", f"be one of {', '.join(TOPOLOGIES)}", repr(topology))
    rule: Any = getattr(filter, "rule", None)
    parted = isinstance(filter, RoundRule) and isinstance(rule, BaseAggregator) and rule.splits()
    require(
        topology != "sharded" or parted,
        "A rule in the sharded topology",
        "be one that can be given some columns at a time (its `splits` says so)",
        repr(rule or filter),
        'Use topology="replicated" or "server".',
    )
    what, expected = "Messages in the sharded topology", "be whole vectors, which can be cut into columns"
    good = topology != "sharded" or not compressed
    require(good, what, expected, "compressed ones", 'Use topology="server" or "replicated".')


def sharded(comm: Communicator, vec: Tensor, sizes: Tensor, exchange: Exchange) -> tuple[Tensor, Any]:
    """Rank r gets column block r of all rows, and answers it; n x n sums are shared; answers are joined.

    The whole weighing is done on every rank, from sums that are the same everywhere. Even where two machines
    round it differently all ranks end with the same vector, because each block comes from one rank.
    """
    rule, finite = exchange.filter.now(exchange.state, exchange.at), sizes.isfinite()  # type: ignore[attr-defined]
    rule.check(comm.n)
    ready = rule if finite.all() else surviving(rule, finite)
    block = comm.scatter_columns(vec)
    rows, near = (block, sizes) if finite.all() else (block[finite.to(block.device)], sizes[finite])
    rows, unit = ranged(rows, float(near.max()), near.to(rows))
    shard = ColumnShard(rows, unit, comm, len(vec), ordered=ready.by_value)
    if rule.fail_closed:
        suspected = suspects(finite, remoteness(shard, vec.dtype))
        refuse_suspects(suspected, rule.tolerance(comm.n), comm.n)
    if exchange.watch:
        exchange.watch(diagnose(exchange.at.t, ready, shard, finite, vec.dtype))
    piece = restored(ready.reduce(shard), unit, vec.dtype)
    out = comm.gather_columns(piece, len(vec), block)
    return out, exchange.filter.after(exchange.state, out)  # type: ignore[attr-defined]


def replicated(comm: Communicator, vec: Tensor, sizes: Tensor, exchange: Exchange) -> tuple[Tensor, Any]:
    """Every rank gets all rows and runs the filter itself."""
    return _filtered(comm.all_gather(_outgoing(vec, exchange)), exchange)


def server(comm: Communicator, vec: Tensor, sizes: Tensor, exchange: Exchange) -> tuple[Tensor, Any]:
    """Rank 0 gets all rows, runs the filter and sends the answer, or the reason why there is none.

    Only rank 0 keeps the filter's state; on the others it stays as it was.
    """
    rows = comm.gather(_outgoing(vec, exchange))
    out, state, error = vec, exchange.state, None
    if rows is not None:
        try:
            out, state = _filtered(rows, exchange)
        except Exception as raised:
            error = raised
    _share_error(comm, error)
    return comm.broadcast(out), state


def _outgoing(vec: Tensor, exchange: Exchange) -> Tensor:
    """What this rank sends: the vector itself, or its compressed message."""
    return vec if exchange.messages is None else exchange.messages.payload


def _filtered(rows: Tensor, exchange: Exchange) -> tuple[Tensor, Any]:
    if exchange.messages:
        rows = exchange.messages.read(rows, exchange.malformed)
    elif exchange.malformed:
        rows[list(exchange.malformed)] = torch.nan
    out, state = exchange.filter.step(exchange.state, rows, exchange.at)
    if exchange.watch:
        exchange.watch(diagnose_rows(exchange.at.t, exchange.rule, rows))
    return out, state


def _share_error(comm: Communicator, error: Exception | None) -> None:
    """Raise on all ranks the error that kept rank 0 from an answer: its kind and the ranks to blame are
    sent."""
    kinds = (TooManyFaults, InvalidInput, Exception)
    report = torch.zeros(1 + comm.n, dtype=torch.float64, device="cpu")
    if error is not None:
        report[0] = 1 + next(i for i, kind in enumerate(kinds) if isinstance(error, kind))
        report[[1 + i for i in getattr(error, "rows", ())]] = 1
    kind, *flags = comm.broadcast(report).tolist()
    if error is not None:
        raise error
    blamed = [rank for rank, flag in enumerate(flags) if flag]
    if kind == 1:
        raise TooManyFaults(
            f"Rows should be fit for the rule. Rank 0 found too many faults: workers {blamed}.", blamed
        )
    if kind:
        what = InvalidInput if kind == 2 else ByzoptError
        raise what("Rank 0 should answer. Found that it could not. Its own output says why.")


Aggregation = Callable[[Communicator, Tensor, Tensor, Exchange], tuple[Tensor, Any]]
TOPOLOGIES: dict[str, Aggregation] = {"sharded": sharded, "replicated": replicated, "server": server}
