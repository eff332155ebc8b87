"""Three ways for n ranks, a row each, to come to one aggregate; they differ in whom a rank has to trust.

| topology | sent by a rank | memory | whom a rank trusts |
| --- | --- | --- | --- |
| sharded | 2 d (n-1)/n | 2 d | every rank's arithmetic and links, no rank's data |
| replicated | d (n-1) | n d | nobody's: it has all rows and decides by itself |
| server | d (rank 0 takes in d (n-1)) | d; rank 0: n d | rank 0 |

Traffic in numbers of the vector's dtype. The n x n products and the nine numbers of the header come on top,
and where columns are sharded the n keys by whose order chains break ties.
Compressed messages go to all ranks or to rank 0 in the place of d numbers, and are read there (`messages`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from byzopt.aggregators.core.base import BaseAggregator
from byzopt.aggregators.core.filters import Filter, RoundContext, RoundRule
from byzopt.aggregators.core.foreign import reduced
from byzopt.aggregators.core.inputs import for_finite_rows, in_safe_range, restored
from byzopt.aggregators.core.suspicion import refuse_suspects, remoteness, suspects
from byzopt.distributed.agreement import share_error
from byzopt.distributed.communicator import Communicator
from byzopt.distributed.compressed import CompressedMessages
from byzopt.distributed.diagnostics import RoundDiagnostics, diagnose, diagnose_rows, scattered
from byzopt.distributed.header import max_magnitude
from byzopt.distributed.shard import ColumnShard
from byzopt.errors import ByzoptError, TooManyFaults, require

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
    absent: frozenset[int] = frozenset()

    @property
    def rule(self) -> BaseAggregator | None:
        """The pure rule that the filter is in this round, if it is one."""
        return self.filter.now(self.state, self.at) if isinstance(self.filter, RoundRule) else None


class Round(NamedTuple):
    """What came of a round: the aggregate `[d]`, the filter's next state, the diagnostics where watched."""

    out: Tensor
    state: Any
    diagnostics: RoundDiagnostics | None = None


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


def sharded(comm: Communicator, vec: Tensor, sizes: Tensor, exchange: Exchange) -> Round:
    """Rank r gets column block r of all rows, and answers it; n x n sums are shared; answers are joined.

    The whole weighing is done on every rank, from sums that are the same everywhere. Even where two machines
    round it differently all ranks end with the same vector, because each block comes from one rank.

    A rank that cannot answer its block answers NaN, so that all ranks see it in the whole and look for the
    reason together: vectors that are not what their headers say are dropped, and the round is taken again.
    """
    while True:
        block, d = comm.scatter_columns(vec), len(vec)
        piece, diagnostics, error = _answered(comm, block, d, sizes, exchange, vec.dtype)
        out = comm.gather_columns(piece, d, block if error is None else piece)
        if max_magnitude(out) < torch.inf and not _is_failed(comm, d, error):
            return Round(out, exchange.filter.after(exchange.state, out), diagnostics)  # type: ignore[attr-defined]
        lies = _contradicted(comm, comm.scatter_columns(vec), sizes)
        if not lies:
            share_error(comm, partial(_raise, error))
            raise ByzoptError("A rule's answer should be finite where its rows are. Found one that is not.")
        exchange.malformed.update(lies)
        sizes = sizes.index_fill(0, torch.tensor(list(lies), device="cpu"), torch.inf)


def _answered(
    comm: Communicator, block: Tensor, d: int, sizes: Tensor, exchange: Exchange, dtype: torch.dtype
) -> tuple[Tensor, RoundDiagnostics | None, Exception | None]:
    """The answer over this rank's columns and the diagnostics of whole rows, or NaN and why there is none.

    Errors, on all ranks alike: `TooManyFaults`, `InvalidInput`."""
    present = torch.tensor([rank not in exchange.absent for rank in range(comm.n)], device="cpu")
    n, finite = int(present.sum()), sizes.isfinite()
    rule = exchange.filter.now(exchange.state, exchange.at)  # type: ignore[attr-defined]
    rule.check(n)
    kept = present & finite
    ready = rule if kept.all() else _surviving(rule, present, finite)
    rows, near = (block, sizes) if kept.all() else (block[kept.to(block.device)], sizes[kept])
    rows, unit = in_safe_range(rows, float(near.max()), near.to(rows))
    shard = ColumnShard(rows, unit, comm, d, ordered=ready.by_value)
    if rule.fail_closed:
        suspected = suspects(finite[present], remoteness(shard, dtype))
        refuse_suspects(suspected, rule.tolerance(n), n)
    try:
        parts = (shard, finite[present], dtype)
        diagnostics = diagnose(exchange.at.t, ready, *parts) if exchange.watch else None
        piece = restored(reduced(ready, shard), unit, dtype)
    except Exception as raised:
        return block.new_full((block.shape[1],), torch.nan), None, raised
    return piece, _of_all(diagnostics, exchange.absent, comm.n), None


def _surviving(rule: BaseAggregator, present: Tensor, finite: Tensor) -> Any:
    """`rule` for the rows of ranks that are present and finite; errors name ranks."""
    try:
        return rule if finite[present].all() else for_finite_rows(rule, finite[present])
    except TooManyFaults as error:
        raise _of_ranks(error, present.nonzero().flatten().tolist()) from None


def _contradicted(comm: Communicator, block: Tensor, sizes: Tensor) -> dict[int, str]:
    """The ranks whose vectors are not of the size that their headers say, and what is wrong."""
    own = block.abs().amax(dim=1) if block.shape[1] else block.new_zeros(comm.n)
    everywhere = comm.all_gather(own.double().cpu().nan_to_num(torch.inf, torch.inf)).cpu()
    true = everywhere.amax(dim=0)
    return {
        rank: f"Its header says that its largest magnitude is {said:g}. Found {found:g}."
        for rank, (said, found) in enumerate(zip(sizes.tolist(), true.tolist(), strict=True))
        if said < torch.inf and said != found
    }


def replicated(comm: Communicator, vec: Tensor, sizes: Tensor, exchange: Exchange) -> Round:
    """Every rank gets all rows and runs the filter itself."""
    return filtered(comm.all_gather(_outgoing(vec, exchange)), exchange)


def server(comm: Communicator, vec: Tensor, sizes: Tensor, exchange: Exchange) -> Round:
    """Rank 0 gets all rows, runs the filter and sends the answer, or the reason why there is none.

    Only rank 0 keeps the filter's state; on the others it stays as it was.
    """
    rows = comm.gather(_outgoing(vec, exchange))
    done = share_error(comm, lambda: Round(vec, exchange.state) if rows is None else filtered(rows, exchange))
    return done._replace(out=comm.broadcast(done.out))


def _outgoing(vec: Tensor, exchange: Exchange) -> Tensor:
    """What this rank sends: the vector itself, or its compressed message."""
    return vec if exchange.messages is None else exchange.messages.payload


def filtered(rows: Tensor, exchange: Exchange) -> Round:
    """The filter on all ranks' rows or messages, on a rank that has them all."""
    if exchange.messages:
        rows = exchange.messages.read(rows, exchange.malformed)
    elif exchange.malformed:
        rows[list(exchange.malformed)] = torch.nan
    n, present = len(rows), [rank for rank in range(len(rows)) if rank not in exchange.absent]
    if len(present) < n:
        what, remedy = "A filter that remembers workers", "Give all ranks as many batches."
        require(
            isinstance(exchange.filter, RoundRule), what, "hear all ranks", sorted(exchange.absent), remedy
        )
        rows = rows[present]
    try:
        out, state = exchange.filter.step(exchange.state, rows, exchange.at)
    except TooManyFaults as error:
        raise _of_ranks(error, present) from None
    diagnostics = diagnose_rows(exchange.at.t, exchange.rule, rows) if exchange.watch else None
    return Round(out, state, _of_all(diagnostics, exchange.absent, n))


def _of_all(diagnostics: RoundDiagnostics | None, absent: frozenset[int], n: int) -> RoundDiagnostics | None:
    return diagnostics if diagnostics is None or not absent else scattered(diagnostics, absent, n)


def _of_ranks(error: TooManyFaults, ranks: list[int]) -> TooManyFaults:
    """`error`, about the rows of these `ranks`, as one about the ranks themselves."""
    blamed = [ranks[row] for row in error.rows]
    if blamed == list(error.rows):
        return error
    return TooManyFaults(f"{error} Rows are those of the ranks {ranks}.", blamed)


def _is_failed(comm: Communicator, d: int, error: Exception | None) -> bool:
    """Whether a rank has no answer whose columns are none, so that no NaN shows it. A collective if some rank
    has no columns."""
    first, end = comm.columns(d)[-1]
    if first < end:
        return False
    failed = torch.tensor([float(error is not None)], dtype=torch.float64, device="cpu")
    return bool(comm.all_gather(failed).any())


def _raise(error: Exception | None) -> None:
    """Raise what kept this rank from its answer, if anything did."""
    if error is not None:
        raise error


Aggregation = Callable[[Communicator, Tensor, Tensor, Exchange], Round]
TOPOLOGIES: dict[str, Aggregation] = {"sharded": sharded, "replicated": replicated, "server": server}
