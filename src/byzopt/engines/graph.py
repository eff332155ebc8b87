"""The graph of a run as plain data: a table `graph` of a spec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from byzopt.aggregators import Mean
from byzopt.aggregators.core.base import BaseAggregator
from byzopt.attacks import Attack, EdgeAttack
from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput, require
from byzopt.graphs import Attachment, Network, Topology, Weighting
from byzopt.mixers import Mixer
from byzopt.mixers.local import check_alone

Order: TypeAlias = Literal["adapt_combine", "combine_adapt"]


@dataclass(frozen=True)
class Graph:
    """The graph of a run, and what its nodes make of what they hear. A table `graph` of a spec.

    Args:
        topology: Who hears whom.
        mixer: What honest nodes make of what they hear.
        liars: "nodes": Byzantine workers are nodes of the topology; "everywhere": the topology is that of the
            honest ones, and every Byzantine worker is a neighbour of all of them.
        weights: Of edges: "unit", or "metropolis".
        order: "adapt_combine": nodes step along their gradients and then mix; "combine_adapt": they mix, and
            step from there along the gradients at where they were.
        spread: Standard deviation of the coordinates by which nodes start apart, >= 0; 0: all at one point.
        apart: How far the first half of the honest nodes, in order, starts from the second in every
            coordinate, >= 0; on two worlds or a dumbbell these are its sides.
        together: Whether all nodes mix in one call; False: one after another, to the bit as ranks do.

    Raises:
        InvalidInput: A spread or distance that is negative.

    Examples:
        >>> from byzopt.engines import Graph
        >>> from byzopt.graphs import Ring
        >>> from byzopt.mixers import Gossip
        >>> Graph(Ring(), Gossip()).order
        'adapt_combine'
    """

    topology: Topology
    mixer: Mixer
    liars: Attachment = "nodes"
    weights: Weighting = "unit"
    order: Order = "adapt_combine"
    spread: float = 0.0
    together: bool = True
    apart: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("spread", self.spread), ("apart", self.apart)):
            require(value >= 0, f"Parameter `{name}` of a graph", "be at least 0", value)
        if not self.together:
            check_alone(self.mixer)

    def network(self, cohort: Cohort) -> Network:
        """The network of a cohort. Errors: `InvalidInput`."""
        return Network.of(self.topology, cohort, self.weights, self.liars)


def check_rule(graph: Graph, rule: BaseAggregator) -> None:
    """Raise `InvalidInput` for a rule that the mixer would pass over in silence."""
    good = graph.mixer.uses_rule or isinstance(rule, Mean)
    remedy = "Leave `rule` out, or take the mixer 'screen', which applies it."
    require(good, f"The rule of a run with mixer {graph.mixer.name!r}", "be the mean", repr(rule), remedy)


def check_server(attack: Attack) -> None:
    """Raise `InvalidInput` for an attack on edges where there are none."""
    if isinstance(attack, EdgeAttack):
        raise InvalidInput(
            f"Attack {attack.name!r} should have a graph, whose nodes it tells different things. Found a "
            "server. Add a table `graph`, or take another attack."
        )
