"""`robust_all_reduce`: an all-reduce in which a robust rule stands in the place of the sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from byzopt.aggregators import Aggregator, rule_from
from byzopt.aggregators.core.filters import RoundContext, RoundRule
from byzopt.aggregators.core.surroundings import undisturbed
from byzopt.distributed.communicator import Communicator
from byzopt.distributed.header import exchange_headers, recipe_text
from byzopt.distributed.topologies import TOPOLOGIES, Exchange, Topology, Watch, check_topology
from byzopt.errors import require


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

    `group` is a process group (None: all ranks), one row each; `topology` as in `topologies`. `f` fills what
    a rule given by name leaves out. `t` is the round for `watch`, which is called with this round's
    `RoundDiagnostics`; all ranks watch or none. Rules that draw lots take their round as `rule.at(t)`. Equal
    to `rule(rows)` on all rows to rounding; the same bits on every rank ("replicated": on equal machines).

    With NCCL the vector should be on the GPU, with gloo in main memory; elsewhere it is copied there and
    back. Cost: see `topologies`; one more exchange of seven numbers, in which ranks agree on what they bring.

    Errors, on all ranks alike and before any row is sent: `InvalidInput` for vectors that differ in shape,
    dtype or round, for rules that differ, for a rule that does not suit n or the topology; `TooManyFaults`,
    which names the ranks, when more vectors than the rule tolerates are not finite, or come behind a
    malformed header, which is their senders' fault and costs them this round's vector.
    """
    comm, rule = Communicator(group), rule_from(rule, **({} if f is None else {"f": f}))
    fixed = FixedRule(rule)
    return aggregate_round(
        comm, vector, topology, Exchange(fixed, (), RoundContext(t, vector), {}, watch), recipe_text(rule)
    )[0]


@undisturbed
def aggregate_round(
    comm: Communicator,
    vector: Tensor,
    topology: Topology,
    exchange: Exchange,
    plan: str,
    fingerprint: float = 0.0,
) -> tuple[Tensor, Any]:
    """The aggregate of all ranks' vectors and the filter's next state; all ranks must share the `plan`.

    Why a rank's header or message could not be read is added to `exchange.malformed`. Where `fingerprint` is
    not 0 it stands for this rank's gradient, which must not be that of all honest ranks.
    """
    vec = vector.detach().to(comm.device)
    sizes, malformed, equal = exchange_headers(
        comm, vec, exchange.at.t, f"{topology} {plan} {exchange.watch is not None}", fingerprint
    )
    check_topology(topology, exchange.filter, exchange.messages is not None)
    _require_distinct(equal, comm.n, exchange)
    exchange.malformed.update(malformed)
    if exchange.messages is not None:
        for rank in (~sizes.isfinite()).nonzero().flatten().tolist():
            exchange.malformed.setdefault(rank, "Its message stands for numbers that are not finite.")
    out, state = TOPOLOGIES[topology](comm, vec.contiguous(), sizes, exchange)
    return out.to(vector.device), state


def _require_distinct(equal: int, n: int, exchange: Exchange) -> None:
    """Raise `InvalidInput` where `equal` of n gradients are one, to the last bit, and the honest ones may be
    among them: f liars that send something else do not hide it."""
    if equal < 2:
        return
    rule = exchange.rule
    f = min(rule.tolerance(n), (n - 1) // 2) if rule is not None else (n - 1) // 2
    require(
        equal < n - f,
        "Gradients of the ranks",
        "differ in the first step, for a rule to compare them",
        f"{equal} of {n} ranks with the same gradient to the last bit, as after an average over all ranks, "
        "in which faulty ones have their part already and against which no rule defends",
        "Pass the DistributedDataParallel model itself, RobustSGD(model, ...), not its parameters. Where all "
        "ranks take the same data on purpose, say same_data=True.",
    )


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
