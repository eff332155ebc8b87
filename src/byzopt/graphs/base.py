"""What a topology is: the edges among n nodes, as plain data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, TypeAlias

from byzopt.registry import Registry

Edges: TypeAlias = tuple[tuple[int, int], ...]


class Topology(ABC):
    """A recipe of undirected edges among n nodes.

    Examples:
        >>> from byzopt.graphs import TOPOLOGIES, Topology
        >>> isinstance(TOPOLOGIES.build("ring"), Topology)
        True
    """

    name: ClassVar[str]

    @abstractmethod
    def edges(self, n: int) -> Edges:
        """Pairs (i, j) of neighbours, i < j, each once, in ascending order.

        Errors: `InvalidInput` for a number of nodes that the topology does not have.
        """


def sorted_edges(pairs: set[tuple[int, int]]) -> Edges:
    """Pairs in either direction as the edges that they are."""
    return tuple(sorted({(min(pair), max(pair)) for pair in pairs}))


TOPOLOGIES: Registry[Topology] = Registry("topology", Topology)
