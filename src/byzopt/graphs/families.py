"""Topologies without chance: complete, ring, torus, chain, star, two worlds, dumbbell, lists of edges."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import isqrt

from byzopt.errors import require
from byzopt.graphs.base import TOPOLOGIES, Edges, Topology, sorted_edges


@TOPOLOGIES.register("complete")
@dataclass(frozen=True)
class Complete(Topology):
    """Everybody hears everybody: μ₂ = μ_max = n.

    Examples:
        >>> from byzopt.graphs import Complete
        >>> len(Complete().edges(16))
        120
    """

    def edges(self, n: int) -> Edges:
        return tuple(combinations(range(n), 2))


@TOPOLOGIES.register("ring")
@dataclass(frozen=True)
class Ring(Topology):
    """Node i hears i - 1 and i + 1, around: μ₂ = 2 - 2 cos(2π/n). Needs n >= 3.

    Examples:
        >>> from byzopt.graphs import Ring
        >>> Ring().edges(4)
        ((0, 1), (0, 3), (1, 2), (2, 3))
    """

    def edges(self, n: int) -> Edges:
        require(n >= 3, "A ring", "have at least 3 nodes", n)
        return sorted_edges({(i, (i + 1) % n) for i in range(n)})


@TOPOLOGIES.register("chain")
@dataclass(frozen=True)
class Chain(Topology):
    """Node i hears i - 1 and i + 1, with two ends: μ₂ = 2 - 2 cos(π/n).

    Examples:
        >>> from byzopt.graphs import Chain
        >>> Chain().edges(3)
        ((0, 1), (1, 2))
    """

    def edges(self, n: int) -> Edges:
        return tuple((i, i + 1) for i in range(n - 1))


@TOPOLOGIES.register("star")
@dataclass(frozen=True)
class Star(Topology):
    """Everybody hears node 0, and node 0 everybody: μ₂ = 1 for n >= 3.

    Examples:
        >>> from byzopt.graphs import Star
        >>> Star().edges(3)
        ((0, 1), (0, 2))
    """

    def edges(self, n: int) -> Edges:
        return tuple((0, i) for i in range(1, n))


@TOPOLOGIES.register("torus")
@dataclass(frozen=True)
class Torus(Topology):
    """A grid that closes in both directions; node r · columns + c stands in row r and column c.

    Args:
        rows: Number of rows, which divides n; None: the largest divisor of n up to its square root.

    Examples:
        >>> from byzopt.graphs import Torus
        >>> len(Torus().edges(16))
        32
    """

    rows: int | None = None

    def edges(self, n: int) -> Edges:
        rows = self.rows or max(r for r in range(1, isqrt(n) + 1) if n % r == 0)
        columns = n // rows
        good = rows >= 3 and columns >= 3 and rows * columns == n
        found = f"{rows} rows for {n} nodes"
        require(good, "A torus", "have at least 3 full rows and columns", found, "Take another n.")
        right = {
            (r * columns + c, r * columns + (c + 1) % columns) for r in range(rows) for c in range(columns)
        }
        down = {(r * columns + c, (r + 1) % rows * columns + c) for r in range(rows) for c in range(columns)}
        return sorted_edges(right | down)


@TOPOLOGIES.register("two_worlds")
@dataclass(frozen=True)
class TwoWorlds(Topology):
    """Two cliques of n/2 nodes; node i of the first hears nodes i, i + 1 .. i + k - 1 of the second, around.

    μ₂ = 2k for 2k <= n/2: as many liars as each node has neighbours in the other world part the two
    (Gaucher, Dieuleveut, Hendrikx, arXiv:2410.10418).

    Args:
        k: How many of the other world each node hears, from 1 to n/2.

    Examples:
        >>> from byzopt.graphs import TwoWorlds
        >>> len(TwoWorlds(k=8).edges(26))
        260
    """

    k: int = 1

    def edges(self, n: int) -> Edges:
        half = _half(n, "Two worlds")
        good = 1 <= self.k <= half
        require(good, "Parameter `k` of two_worlds", f"lie in 1..{half}, half the nodes", self.k)
        across = {(i, half + (i + j) % half) for i in range(half) for j in range(self.k)}
        return sorted_edges(_cliques(half) | across)


@TOPOLOGIES.register("dumbbell")
@dataclass(frozen=True)
class Dumbbell(Topology):
    """Two cliques of n/2 nodes and few bridges between them, no two at one node.

    The bottleneck of He, Karimireddy, Jaggi (arXiv:2202.01545).

    Args:
        bridges: Number of edges between the cliques, from 1 to n/2.

    Examples:
        >>> from byzopt.graphs import Dumbbell
        >>> len(Dumbbell().edges(20))
        91
    """

    bridges: int = 1

    def edges(self, n: int) -> Edges:
        half = _half(n, "A dumbbell")
        good = 1 <= self.bridges <= half
        require(good, "Parameter `bridges` of dumbbell", f"lie in 1..{half}, half the nodes", self.bridges)
        return sorted_edges(_cliques(half) | {(i, half + i) for i in range(self.bridges)})


@TOPOLOGIES.register("edges")
@dataclass(frozen=True)
class EdgeList(Topology):
    """The edges that are named, in either direction.

    Args:
        pairs: Pairs (i, j) of nodes 0 .. n - 1 that hear each other.

    Raises:
        InvalidInput: A pair that is no pair, names one node twice, or is given twice.

    Examples:
        >>> from byzopt.graphs import EdgeList
        >>> EdgeList(pairs=((1, 0), (1, 2))).edges(3)
        ((0, 1), (1, 2))
    """

    pairs: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "pairs", tuple(tuple(pair) for pair in self.pairs))
        for pair in self.pairs:
            whole = all(type(node) is int for node in pair)
            good = len(pair) == 2 and whole and pair[0] != pair[1]
            require(good, "An edge", "be a pair of two different nodes", list(pair))
        named = [(min(pair), max(pair)) for pair in self.pairs]
        twice = sorted({pair for pair in named if named.count(pair) > 1})
        require(not twice, "An edge", "be named once", [list(pair) for pair in twice])

    def edges(self, n: int) -> Edges:
        outside = [list(pair) for pair in self.pairs if not all(0 <= node < n for node in pair)]
        require(not outside, "Edges", f"be among nodes 0..{n - 1}", outside)
        return sorted_edges({(pair[0], pair[1]) for pair in self.pairs})


def _half(n: int, what: str) -> int:
    require(n >= 4 and n % 2 == 0, what, "have an even number of nodes, at least 4", n)
    return n // 2


def _cliques(half: int) -> set[tuple[int, int]]:
    first = set(combinations(range(half), 2))
    return first | {(half + i, half + j) for i, j in first}
