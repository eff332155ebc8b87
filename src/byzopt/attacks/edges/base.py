"""What an attack on a graph is, and what it may see."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from byzopt.attacks.base import Attack, Knowledge, View
from byzopt.attacks.losses import OwnLoss
from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput
from byzopt.graphs import Network
from byzopt.registry import Registry


class EdgeView(View):
    """What an attack on edges sees in one exchange: a `View` of what nodes say, and the network.

    `x` is where the honest nodes stood on average before the round, `[d]`. `defence(lies)` takes lies
    `[b, H, d]` for single receivers and gives where the honest nodes would stand after the exchange,
    `[H, d]`: each node's answer depends on what that node hears alone.

    Args:
        t: The round, from 1.
        x: The honest nodes' mean before the round, `[d]`.
        rows: What all nodes would say if they were honest, `[n, d]`.
        cohort: Who is Byzantine.
        f: Number of Byzantine neighbours that each node tolerates.
        knows: What the attack declared that it reads.
        defence: Lies `[b, H, d]` to the honest nodes' places after the exchange, `[H, d]`.
        network: Who hears whom.
        losses: The loss of the Byzantine nodes' own data.

    Examples:
        >>> import torch
        >>> from byzopt import Cohort
        >>> from byzopt.attacks import EdgeView
        >>> from byzopt.graphs import Complete, Network
        >>> cohort, rows = Cohort.of(3, byzantine=1), torch.eye(3)
        >>> network = Network.of(Complete(), cohort)
        >>> view = EdgeView(1, rows[0], rows, cohort, 1, frozenset({"honest"}), lambda lies: lies[0], network)
        >>> view.towards(torch.zeros(2, 3)).shape
        torch.Size([1, 2, 3])
    """

    __slots__ = ("network",)

    def __init__(
        self,
        t: int,
        x: Tensor,
        rows: Tensor,
        cohort: Cohort,
        f: int,
        knows: frozenset[Knowledge],
        defence: Callable[[Tensor], Tensor],
        network: Network,
        losses: OwnLoss | None = None,
    ) -> None:
        super().__init__(t, x, rows, cohort, f, knows, defence, losses=losses)
        self.network = network

    def towards(self, rows: Tensor) -> Tensor:
        """Rows `[H, d]`, one for each receiver, from every Byzantine node: `[b, H, d]`."""
        return from_all(rows, self.b)


def from_all(rows: Tensor, b: int) -> Tensor:
    """Rows `[..., H, d]`, one for each receiver, from every one of b nodes: `[..., b, H, d]`."""
    return rows.unsqueeze(-3).expand(*rows.shape[:-2], b, *rows.shape[-2:])


class EdgeAttack(Attack):
    """A recipe that forges what Byzantine nodes tell each honest node of a graph.

    Stateless: it writes `forge_edges`. Where there is no graph there are no receivers, and it is refused.

    Examples:
        >>> from byzopt.attacks import EDGE_ATTACKS, EdgeAttack
        >>> isinstance(EDGE_ATTACKS.build("dissensus"), EdgeAttack)
        True
    """

    knows = frozenset({"honest", "defence"})

    @abstractmethod
    def forge_edges(self, view: EdgeView, generator: torch.Generator) -> Tensor:
        """Lies `[b, H, d]`, in any floating dtype: lie k to receiver i is that of `cohort.byzantine[k]` to
        `cohort.honest[i]`. Those between nodes that are no neighbours are not heard."""

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        raise InvalidInput(
            f"Attack {self.name!r} should have a graph, whose nodes it tells different things. Found a "
            "server. Add a table `graph` to the spec, or take another attack."
        )


EDGE_ATTACKS: Registry[EdgeAttack] = Registry("edge attack", EdgeAttack)
