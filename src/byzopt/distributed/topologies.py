"""Three ways for n ranks, a row each, to come to one aggregate; they differ in whom a rank has to trust.

| topology | sent by a rank | memory | whom a rank trusts |
| --- | --- | --- | --- |
| sharded | 2 d (n-1)/n | 2 d | every rank's arithmetic and links, no rank's data |
| replicated | d (n-1) | n d | nobody's: it has all rows and decides by itself |
| server | d (rank 0 takes in d (n-1)) | d; rank 0: n d | rank 0 |

Traffic in numbers of the vector's dtype. The n x n products and the seven numbers of the header come on top,
and where columns are sharded the n keys by whose order chains break ties.
Compressed messages go to all ranks or to rank 0 in the place of d numbers, and are read there (`mail`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from byzopt.aggregators import Aggregator
from byzopt.aggregators.core.filters import At, Filter, RoundRule
from byzopt.aggregators.core.inputs import ranged, restored, surviving
from byzopt.aggregators.core.suspicion import refuse, remoteness, suspects
from byzopt.distributed.link import Link
from byzopt.distributed.mail import Mail
from byzopt.distributed.shard import Shard
from byzopt.distributed.verdict import Verdict, judged, judged_whole
from byzopt.errors import ByzoptError, InvalidInput, TooManyFaults, require

Topology: TypeAlias = Literal["sharded", "replicated", "server"]
OnVerdict: TypeAlias = "Callable[[Verdict], None] | None"


class Turn(NamedTuple):
    """One round of a filter, what could not be read of it by rank (told as it is found), who wants to hear of
    its verdict, and the messages that rows have to be read from, if they come compressed."""

    filter: Filter
    state: Any
    at: At
    malformed: dict[int, str]
    tell: OnVerdict = None
    mail: Mail | None = None

    @property
    def rule(self) -> Aggregator | None:
        """The pure rule that the filter is in this round, if it is one."""
        return self.filter.now(self.state, self.at) if isinstance(self.filter, RoundRule) else None


def check(topology: Topology, filter: Filter, compressed: bool = False) -> None:
    """Raise `InvalidInput` for a topology that is not known, or that cannot serve the filter or messages."""
    require(topology in WAYS, "The topology", f"be one of {', '.join(WAYS)}", repr(topology))
    rule: Any = getattr(filter, "rule", None)
    parted = isinstance(filter, RoundRule) and isinstance(rule, Aggregator) and rule.splits()
    require(
        topology != "sharded" or parted,
        "A rule in the sharded topology",
        "be one that can be given some columns at a time (its `splits` says so)",
        repr(rule or filter),
        'Use topology="replicated" or "server".',
    )
    what, rule = "Messages in the sharded topology", "be whole vectors, which can be cut into columns"
    good = topology != "sharded" or not compressed
    require(good, what, rule, "compressed ones", 'Use topology="server" or "replicated".')


def sharded(link: Link, vec: Tensor, sizes: Tensor, turn: Turn) -> tuple[Tensor, Any]:
    """Rank r gets column block r of all rows, and answers it; n x n sums are shared; answers are joined.

    The whole weighing is done on every rank, from sums that are the same everywhere. Even where two machines
    round it differently all ranks end with the same vector, because each block comes from one rank.
    """
    rule, finite = turn.filter.now(turn.state, turn.at), sizes.isfinite()  # type: ignore[attr-defined]
    rule.check(link.n)
    ready = rule if finite.all() else surviving(rule, finite)
    block = link.dealt(vec)
    rows, near = (block, sizes) if finite.all() else (block[finite.to(block.device)], sizes[finite])
    rows, unit = ranged(rows, float(near.max()), near.to(rows))
    shard = Shard(rows, unit, link, len(vec), ordered=ready.by_value)
    if rule.fail_closed:
        found = suspects(finite, remoteness(shard, vec.dtype))
        refuse(found, rule.tolerance(link.n), link.n)
    if turn.tell:
        turn.tell(judged(turn.at.t, ready, shard, finite, vec.dtype))
    piece = restored(ready.reduce(shard), unit, vec.dtype)
    out = link.joined(piece, len(vec), block)
    return out, turn.filter.after(turn.state, out)  # type: ignore[attr-defined]


def replicated(link: Link, vec: Tensor, sizes: Tensor, turn: Turn) -> tuple[Tensor, Any]:
    """Every rank gets all rows and runs the filter itself."""
    return _whole(link.everyone(_said(vec, turn)), turn)


def server(link: Link, vec: Tensor, sizes: Tensor, turn: Turn) -> tuple[Tensor, Any]:
    """Rank 0 gets all rows, runs the filter and sends the answer, or the reason why there is none.

    Only rank 0 keeps the filter's state; on the others it stays as it was.
    """
    rows = link.at_first(_said(vec, turn))
    out, state, trouble = vec, turn.state, None
    if rows is not None:
        try:
            out, state = _whole(rows, turn)
        except Exception as error:
            trouble = error
    _agree(link, trouble)
    return link.from_first(out), state


def _said(vec: Tensor, turn: Turn) -> Tensor:
    """What crosses: the vector itself, or this rank's message."""
    return vec if turn.mail is None else turn.mail.own


def _whole(rows: Tensor, turn: Turn) -> tuple[Tensor, Any]:
    if turn.mail:
        rows = turn.mail.read(rows, turn.malformed)
    elif turn.malformed:
        rows[list(turn.malformed)] = torch.nan
    out, state = turn.filter.step(turn.state, rows, turn.at)
    if turn.tell:
        turn.tell(judged_whole(turn.at.t, turn.rule, rows))
    return out, state


def _agree(link: Link, trouble: Exception | None) -> None:
    """Raise on all ranks what kept rank 0 from an answer; sent are its kind and flags for those to blame."""
    kinds = (TooManyFaults, InvalidInput, Exception)
    told = torch.zeros(1 + link.n, dtype=torch.float64, device="cpu")
    if trouble is not None:
        told[0] = 1 + next(i for i, kind in enumerate(kinds) if isinstance(trouble, kind))
        told[[1 + i for i in getattr(trouble, "rows", ())]] = 1
    kind, *flags = link.from_first(told).tolist()
    if trouble is not None:
        raise trouble
    blamed = [rank for rank, flag in enumerate(flags) if flag]
    if kind == 1:
        raise TooManyFaults(
            f"Rows should be fit for the rule. Rank 0 found too many faults: workers {blamed}.", blamed
        )
    if kind:
        what = InvalidInput if kind == 2 else ByzoptError
        raise what("Rank 0 should answer. Found that it could not. Its own output says why.")


Way = Callable[[Link, Tensor, Tensor, Turn], tuple[Tensor, Any]]
WAYS: dict[str, Way] = {"sharded": sharded, "replicated": replicated, "server": server}
