"""`robust_all_reduce`: an all-reduce in which a robust rule stands in the place of the sum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from warnings import warn

import torch
from torch import Tensor

from byzopt.aggregators import Aggregator, rule_from
from byzopt.aggregators.core.filters import RoundContext, RoundRule
from byzopt.aggregators.core.surroundings import isolated, unreadable
from byzopt.distributed.agreement import HeaderSummary, exchange_headers, share_error
from byzopt.distributed.communicator import Communicator
from byzopt.distributed.deadline.rounds import exchange_rows, filtered_rows, rejoined_rows
from byzopt.distributed.deadline.transport import Behind, DeadlineTransport
from byzopt.distributed.diagnostics import RoundDiagnostics
from byzopt.distributed.header import Header, recipe_text
from byzopt.distributed.topologies import TOPOLOGIES, Exchange, Round, Topology, Watch, check_topology
from byzopt.errors import require


@isolated
def robust_all_reduce(
    vector: Tensor,
    rule: Aggregator | str,
    group: Any = None,
    topology: Topology = "sharded",
    *,
    f: int | None = None,
    t: int = 0,
    watch: Watch = None,
) -> Tensor:
    """`rule` of all ranks' vectors, on every rank: `[d] -> [d]`, in the vector's dtype and on its device.

    `group` is a process group (None: all ranks), one row each; `topology` as in `topologies`. It may be a
    `DeadlineTransport`: then all ranks decide by themselves, from the rows that have come in time; ranks that
    are missing count as not finite ones, and the `topology` is without effect. A rank that comes back so late
    that the others have dropped its rounds gets the answer of their latest one, with a warning, if that is of
    the same rule, shape, dtype and `t`; else `Behind`, on that rank alone. `f` fills what
    a rule given by name leaves out. `t` is the round for `watch`, which is called with this round's
    `RoundDiagnostics`; all ranks watch or none. Rules that draw lots take their round as `rule.at(t)`. Equal
    to `rule(rows)` on all rows to rounding; the same bits on every rank ("replicated": on equal machines).

    With NCCL the vector should be on the GPU, with gloo in main memory; elsewhere it is copied there and
    back. Cost: see `topologies`; one more exchange of nine numbers, in which ranks agree on what they bring.

    Errors, on all ranks alike and before any row is sent, also where only one rank has the mistake:
    `InvalidInput` for what is no dense vector, for vectors that differ in shape, dtype or round, for rules
    that are not known, that differ, or that do not suit n or the topology; `TooManyFaults`,
    which names the ranks, when more vectors than the rule tolerates are not finite, or come behind a
    malformed header, which is their senders' fault and costs them this round's vector; what a `watch` raises.

    Args:
        vector: This rank's, `[d]`.
        rule: What is done with all ranks' vectors, by name or as a recipe.
        group: Process group of the ranks; None: all.
        topology: "sharded", "server" or "replicated".
        f: Number of faulty ranks tolerated, where the rule does not say it.
        t: The round, for `watch`.
        watch: Called with the round's diagnostics; None: nobody watches.

    Returns:
        The aggregate, `[d]`, in the vector's dtype and on its device.

    Raises:
        InvalidInput: Vectors or rules that differ, a rule that does not suit n or the topology.
        TooManyFaults: More vectors than the rule tolerates are not finite or cannot be read.
        Behind: With a `DeadlineTransport`, on a rank that was away for too long to find its round.

    Examples:
        >>> import torch
        >>> import torch.distributed as dist
        >>> from byzopt.distributed import robust_all_reduce
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # torchrun has more
        >>> robust_all_reduce(torch.tensor([1.0, 2.0]), "median", f=0)
        tensor([1., 2.])
        >>> dist.destroy_process_group()
    """
    comm = group.comm if isinstance(group, DeadlineTransport) else Communicator(group)

    def prepare() -> tuple[Header, tuple[Tensor, Exchange]]:
        recipe = rule_from(rule, **({} if f is None else {"f": f}))
        exchange = Exchange(FixedRule(recipe), (), RoundContext(t, vector), {}, watch)
        return header_of(comm, vector, topology, exchange, recipe_text(recipe))

    if isinstance(group, DeadlineTransport):
        return _in_time(group, prepare).to(vector.device)
    summary, (vec, exchange) = exchange_headers(comm, prepare)
    return aggregate(comm, vec, topology, exchange, summary).out.to(vector.device)


def _in_time(
    transport: DeadlineTransport, prepare: Callable[[], tuple[Header, tuple[Tensor, Exchange]]]
) -> Tensor:
    """The aggregate of the vectors that come within the deadline."""

    def with_vector() -> tuple[Header, Tensor, Exchange]:
        header, (vec, exchange) = prepare()
        return header, vec, exchange

    before = transport.serial
    try:
        summary, rows, exchange = exchange_rows(transport, with_vector)
    except Behind:
        summary, rows, exchange = rejoined_rows(transport, with_vector)
        warn(
            f"Rank {transport.rank} was away from round {before + 1} to {transport.serial}: it has the "
            "answer of the last of these, and none of those before.",
            stacklevel=4,
        )
    done = filtered_rows(rows, summary, exchange)
    report(exchange.watch, done.diagnostics)
    return done.out


def header_of(
    comm: Communicator, vector: Tensor, topology: Topology, exchange: Exchange, plan: str
) -> tuple[Header, tuple[Tensor, Exchange]]:
    """What this rank tells the others before a round, and what it goes into the round with: its vector as
    the group's backend wants it. All ranks must share the `plan`.

    Errors: `InvalidInput` for what is no vector, and for a topology that cannot serve the filter.
    """
    require(isinstance(vector, Tensor), "The vector", "be a tensor [d]", type(vector).__name__)
    odd, remedy = unreadable(vector)
    require(not odd, "The vector", "be a dense tensor of real numbers", odd, remedy)
    check_topology(topology, exchange.filter, exchange.messages is not None)
    vec = vector.detach().resolve_neg().to(comm.device).contiguous()
    header = Header.of(vec, exchange.at.t, f"{topology} {plan} {exchange.watch is not None}")
    return header, (vec, exchange)


def aggregate(
    comm: Communicator, vec: Tensor, topology: Topology, exchange: Exchange, summary: HeaderSummary
) -> Round:
    """The aggregate of all ranks' vectors and the filter's next state, after headers were exchanged.

    Why a rank's header or message could not be read is added to `exchange.malformed`. Errors, on all ranks
    alike: as `robust_all_reduce`; what the watch raises on any of them.
    """
    require_distinct(summary.equal, comm.n, exchange)
    exchange = exchange._replace(absent=summary.absent)
    exchange.malformed.update(summary.malformed)
    if exchange.messages is not None:
        for rank in (~summary.sizes.isfinite()).nonzero().flatten().tolist():
            exchange.malformed.setdefault(rank, "Its message stands for numbers that are not finite.")
    unread = torch.tensor(list(exchange.malformed), dtype=torch.int64, device="cpu")
    sizes = summary.sizes.index_fill(0, unread, torch.inf)
    done = TOPOLOGIES[topology](comm, vec, sizes, exchange)
    if exchange.watch:
        share_error(comm, lambda: report(exchange.watch, done.diagnostics))
    return done


def report(watch: Watch, diagnostics: RoundDiagnostics | None) -> None:
    """Call the watch, where there is one and something to tell it."""
    if watch and diagnostics is not None:
        watch(diagnostics)


def require_distinct(
    equal: int,
    n: int,
    exchange: Exchange,
    what: str = "Gradients of the ranks",
    when: str = "the first step",
    remedy: str = "Pass the DistributedDataParallel model itself, RobustSGD(model, ...), not its parameters.",
) -> None:
    """Raise `InvalidInput` where `equal` of n gradients are one, to the last bit, and the honest ones may be
    among them: f liars that send something else do not hide it."""
    if equal < 2:
        return
    require(
        equal < n - tolerated(exchange, n),
        what,
        f"differ in {when}, for a rule to compare them",
        f"{equal} of {n} ranks with the same gradient to the last bit, as after an average over all ranks, "
        "in which faulty ones have their part already and against which no rule defends",
        f"{remedy} Where all ranks take the same data on purpose, say same_data=True.",
    )


def tolerated(exchange: Exchange, n: int) -> int:
    """How many of n ranks may be faulty: the rule's tolerance, less than half of them."""
    rule = exchange.rule
    return (n - 1) // 2 if rule is None else min(rule.tolerance(n), (n - 1) // 2)


@dataclass(frozen=True)
class FixedRule(RoundRule):
    """A rule that keeps the round that it was given by `rule.at`, unlike in `StatelessFilter`."""

    rule: Aggregator

    def init(self, x0: Tensor, n: int) -> tuple[()]:
        return ()

    def now(self, state: tuple[()], at: RoundContext) -> Aggregator:
        return self.rule

    def after(self, state: tuple[()], out: Tensor) -> tuple[()]:
        return ()
