"""`robust_all_reduce`: an all-reduce in which a robust rule stands in the place of the sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from byzopt.aggregators import Aggregator, rule_from
from byzopt.aggregators.core.filters import At, RoundRule
from byzopt.aggregators.core.surroundings import undisturbed
from byzopt.distributed.header import meet, recipe_text
from byzopt.distributed.link import Link
from byzopt.distributed.topologies import WAYS, OnVerdict, Topology, Turn, check
from byzopt.errors import require


def robust_all_reduce(
    vector: Tensor,
    rule: Aggregator | str,
    group: Any = None,
    topology: Topology = "sharded",
    *,
    f: int | None = None,
    t: int = 0,
    watch: OnVerdict = None,
) -> Tensor:
    """`rule` of all ranks' vectors, on every rank: `[d] -> [d]`, in the vector's dtype and on its device.

    `group` is a process group (None: all ranks), one row each; `topology` as in `topologies`. `f` fills what
    a rule given by name leaves out. `t` is the round for `watch`, which is called with this round's
    `Verdict`; all ranks watch or none. Rules that draw lots take their round as `rule.at(t)`. Equal to
    `rule(rows)` on all rows to rounding; the same bits on every rank ("replicated": on equal machines).

    With NCCL the vector should be on the GPU, with gloo in main memory; elsewhere it is copied there and
    back. Cost: see `topologies`; one more exchange of seven numbers, in which ranks agree on what they bring.

    Errors, on all ranks alike and before any row is sent: `InvalidInput` for vectors that differ in shape,
    dtype or round, for rules that differ, for a rule that does not suit n or the topology; `TooManyFaults`,
    which names the ranks, when more vectors than the rule tolerates are not finite, or come behind a
    malformed header, which is their senders' fault and costs them this round's vector.
    """
    link, rule = Link(group), rule_from(rule, **({} if f is None else {"f": f}))
    still = Still(rule)
    return exchanged(link, vector, topology, Turn(still, (), At(t, vector), {}, watch), recipe_text(rule))[0]


@undisturbed
def exchanged(
    link: Link, vector: Tensor, topology: Topology, turn: Turn, plan: str, mark: float = 0.0
) -> tuple[Tensor, Any]:
    """The aggregate of all ranks' vectors and the filter's next state; all ranks must share the `plan`.

    `turn.malformed` is told why a rank's header or message could not be read, by rank. Where `mark` is not 0
    it stands for this rank's gradient, which must not be that of all honest ranks.
    """
    vec = vector.detach().to(link.device)
    sizes, malformed, equal = meet(link, vec, turn.at.t, f"{topology} {plan} {turn.tell is not None}", mark)
    check(topology, turn.filter, turn.mail is not None)
    _distinct(equal, link.n, turn)
    turn.malformed.update(malformed)
    out, state = WAYS[topology](link, vec.contiguous(), sizes, turn)
    return out.to(vector.device), state


def _distinct(equal: int, n: int, turn: Turn) -> None:
    """Raise `InvalidInput` where `equal` of n gradients are one, to the last bit, and the honest ones may be
    among them: f liars that send something else do not hide it."""
    if equal < 2:
        return
    rule = turn.rule
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
class Still(RoundRule):
    """A rule as it is in every round."""

    rule: Aggregator

    def init(self, x0: Tensor, n: int) -> tuple[()]:
        return ()

    def now(self, state: tuple[()], at: At) -> Aggregator:
        return self.rule

    def after(self, state: tuple[()], out: Tensor) -> tuple[()]:
        return ()
