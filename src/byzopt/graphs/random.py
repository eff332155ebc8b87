"""Topologies that are drawn once, from a seed of their own: the same graph in every run that names it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import torch

from byzopt.errors import require
from byzopt.graphs.base import TOPOLOGIES, Edges, Topology, sorted_edges
from byzopt.rng import stream


@TOPOLOGIES.register("erdos_renyi")
@dataclass(frozen=True)
class ErdosRenyi(Topology):
    """Each pair is an edge with probability p, independently.

    Args:
        p: Probability of an edge, in (0, 1].
        seed: Of the graph, apart from the run's.

    Examples:
        >>> from byzopt.graphs import ErdosRenyi
        >>> ErdosRenyi(p=0.5).edges(10) == ErdosRenyi(p=0.5).edges(10) != ErdosRenyi(p=0.5, seed=1).edges(10)
        True
    """

    p: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        require(0 < self.p <= 1, "Parameter `p` of erdos_renyi", "lie in (0, 1]", self.p)
        require(self.seed >= 0, "Parameter `seed` of erdos_renyi", "be at least 0", self.seed)

    def edges(self, n: int) -> Edges:
        pairs = list(combinations(range(n), 2))
        generator = stream(self.seed, "graph", "erdos_renyi", n)
        drawn = torch.rand(len(pairs), dtype=torch.float64, generator=generator, device="cpu").tolist()
        return tuple(pair for pair, lot in zip(pairs, drawn, strict=True) if lot < self.p)


@TOPOLOGIES.register("small_world")
@dataclass(frozen=True)
class SmallWorld(Topology):
    """A ring in which each node hears `near` neighbours on either side, some edges moved elsewhere.

    Each edge (i, j) keeps its end i; with probability p its other end is drawn anew among the nodes that i
    does not hear (Watts and Strogatz, Nature 1998).

    Args:
        near: Neighbours on either side before any edge is moved, 1 <= near and 2 near < n.
        p: Probability that an edge is moved, in [0, 1].
        seed: Of the graph, apart from the run's.

    Examples:
        >>> from byzopt.graphs import Ring, SmallWorld
        >>> SmallWorld(near=1, p=0.0).edges(8) == Ring().edges(8), len(SmallWorld(near=2).edges(20))
        (True, 40)
    """

    near: int = 2
    p: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.near >= 1, "Parameter `near` of small_world", "be at least 1", self.near)
        require(0 <= self.p <= 1, "Parameter `p` of small_world", "lie in [0, 1]", self.p)
        require(self.seed >= 0, "Parameter `seed` of small_world", "be at least 0", self.seed)

    def edges(self, n: int) -> Edges:
        require(2 * self.near < n, "Parameter `near` of small_world", f"satisfy 2 near < n = {n}", self.near)
        generator = stream(self.seed, "graph", "small_world", n)
        hears: list[set[int]] = [set() for _ in range(n)]

        def join(i: int, j: int) -> None:
            hears[i].add(j)
            hears[j].add(i)

        ring = [(i, (i + step) % n) for step in range(1, self.near + 1) for i in range(n)]
        for i, j in ring:
            join(i, j)
        for i, j in ring:
            move, where = torch.rand(2, dtype=torch.float64, generator=generator, device="cpu").tolist()
            others = sorted(set(range(n)) - hears[i] - {i})
            if move < self.p and others:
                hears[i].remove(j)
                hears[j].remove(i)
                join(i, others[int(where * len(others))])
        return sorted_edges({(i, j) for i in range(n) for j in hears[i]})
