"""Which parameters a round starts from, where scripts have changed them between steps."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple
from warnings import warn

from torch import Tensor

from byzopt.distributed.agreement import HeaderSummary
from byzopt.distributed.communicator import Communicator
from byzopt.distributed.rank_worker import Contribution
from byzopt.distributed.reduce import tolerated
from byzopt.errors import require


class Settlement(NamedTuple):
    """The point `x` `[d]` that a rank has to move to, or whether it goes back to where the last step left it,
    or is `away` from where the others are and cannot be told; none of it where it stays."""

    x: Tensor | None = None
    reverted: bool = False
    away: bool = False


def settled(comm: Communicator | None, summary: HeaderSummary, mine: Contribution) -> Settlement:
    """Where the round starts: at the parameters that most ranks have, or at rank 0's where all have new ones.
    Without a `comm` (there are ranks that may not answer) nobody is told of them.

    Ranks that have others than the rest, up to the rule's tolerance, are taken for faulty: this warns of them
    on all ranks, and their vectors do not count. Errors, on all ranks: `InvalidInput` where more differ.
    """
    x, device = mine.exchange.at.x, mine.exchange.at.x.device
    if mine.position.rebuilt and comm is not None:
        return Settlement(comm.broadcast(x).to(device))
    n = len(summary.parameters)
    valid = [rank for rank in range(n) if rank not in summary.malformed]
    values = [summary.parameters[rank] for rank in valid]
    usual = Counter(values).most_common(1)[0][0]
    odd = [rank for rank in valid if summary.parameters[rank] != usual]
    if not odd:
        return Settlement()
    found = f"ranks {odd} with other parameters than the rest"
    remedy = "Load and change parameters on all ranks alike."
    good = len(odd) <= tolerated(mine.exchange, n)
    require(good, "Parameters that a script changes", "be changed alike on all ranks", found, remedy)
    warn(
        f"In round {mine.exchange.at.t} there are {found}. Their vectors do not count in it, and their "
        f"parameters are set to those of the others. {remedy}",
        stacklevel=6,
    )
    mine.exchange.malformed.update(dict.fromkeys(odd, "Its parameters are not those of the other ranks."))
    if usual == 0:
        return Settlement(reverted=mine.position.moved)
    if comm is None:
        return Settlement(away=mine.header.parameters != usual)
    return Settlement(comm.broadcast(x, valid[values.index(usual)]).to(device))
