"""One node by itself, as a rank of a process group mixes: from its own row and what its neighbours sent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from byzopt.aggregators.core.base import BaseAggregator
from byzopt.errors import require
from byzopt.graphs import Network
from byzopt.mixers.base import Hearing, Mixer
from byzopt.mixers.clipped import ClippedOracle


@dataclass(frozen=True)
class OneNode(Hearing):
    """What one node hears: `rows` `[1, d]` is its own, `lies` `[N, d]` its neighbours', in ascending order.

    To it they are all strangers; nothing here says who of them lies.

    Args:
        node: The node.
    """

    node: int = 0

    @property
    def names(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return (self.node,), (self.node, *self.network.neighbours(self.node))

    def _edges(self) -> Tensor:
        order = torch.tensor(self.names[1], device="cpu")
        return self.network.weights[self.node, order].unsqueeze(0).to(self.rows.device)


def mix_one(
    mixer: Mixer,
    network: Network,
    node: int,
    b: int,
    own: Tensor,
    heard: Tensor,
    rule: BaseAggregator | None = None,
) -> Tensor:
    """Where `node` stands after an exchange, `[d]`, from its own row `[d]` and its neighbours' `[N, d]`.

    A neighbour that sent nothing has a row of NaN, and is counted against b.

    Errors: `TooManyFaults` where that are more than b of them.
    """
    hearing = OneNode(network, b, own.unsqueeze(0), heard, rule=rule, node=node)
    return mixer.mix(hearing)[0]


def check_alone(mixer: Mixer) -> None:
    """Raise `InvalidInput` for a mixer that no node can apply by itself."""
    alone = not (mixer.judges or isinstance(mixer, ClippedOracle))
    remedy = "Take cs+, gts, he, clipped, nna or screen."
    require(alone, "A mixer of nodes by themselves", "need rows alone", repr(mixer.name), remedy)
