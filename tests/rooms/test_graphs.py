"""Topologies, their spectral numbers, and what is refused or warned of."""

from __future__ import annotations

from math import cos, pi

import pytest
import torch

from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput
from byzopt.graphs import (
    TOPOLOGIES,
    Complete,
    Dumbbell,
    EdgeList,
    ErdosRenyi,
    Network,
    Ring,
    SmallWorld,
    Star,
    Topology,
    Torus,
    TwoWorlds,
)

# Edges, μ₂, μ_max and the gap of Metropolis weights; six printed decimals.
TABLE = [
    (Complete(), 16, 120, 16, 16, 1),
    (Ring(), 16, 16, 0.152241, 4, 0.050747),
    (Torus(), 16, 32, 2, 8, 0.4),
    (TwoWorlds(k=8), 26, 260, 16, 24.907042, 0.761905),
    (Dumbbell(), 20, 91, 0.169048, 11.830952, 0.015368),
]


def network(topology: Topology, n: int, byzantine: object = 0, attachment: str = "nodes") -> Network:
    return Network.of(topology, Cohort.of(n, byzantine), attachment=attachment)  # type: ignore[arg-type]


@pytest.mark.parametrize(("topology", "n", "edges", "mu2", "largest", "gap"), TABLE)
def test_the_table_of_graphs(
    topology: Topology, n: int, edges: int, mu2: float, largest: float, gap: float
) -> None:
    found = network(topology, n)
    assert len(topology.edges(n)) == edges == int(found.adjacency.sum()) // 2
    assert (found.connectivity, found.largest, found.gap) == pytest.approx((mu2, largest, gap), abs=5e-7)


@pytest.mark.parametrize("n", [3, 7, 16, 41])
def test_known_spectra_at_any_size(n: int) -> None:
    spectra = {
        "ring": 2 - 2 * cos(2 * pi / n),
        "chain": 2 - 2 * cos(pi / n),
        "complete": n,
        "star": 1,
    }
    for name, mu2 in spectra.items():
        assert network(TOPOLOGIES.build(name), n).connectivity == pytest.approx(mu2, abs=1e-10)


@pytest.mark.parametrize(("half", "k"), [(5, 1), (5, 2), (9, 4), (13, 6)])
def test_two_worlds_have_connectivity_2k(half: int, k: int) -> None:
    assert network(TwoWorlds(k=k), 2 * half).connectivity == pytest.approx(2 * k, abs=1e-10)


@pytest.mark.parametrize("name", [name for name in TOPOLOGIES if name != "edges"])
def test_edges_are_pairs_in_order_and_the_same_again(name: str) -> None:
    topology = TOPOLOGIES.build(name)
    edges = topology.edges(16)
    assert edges == topology.edges(16)
    assert list(edges) == sorted(set(edges))
    assert all(0 <= i < j < 16 for i, j in edges)


def test_random_graphs_depend_on_their_own_seed_alone() -> None:
    torch.manual_seed(0)
    first = ErdosRenyi(p=0.4).edges(12)
    torch.manual_seed(1)
    assert first == ErdosRenyi(p=0.4).edges(12)
    assert first != ErdosRenyi(p=0.4, seed=1).edges(12)
    # Edges that are moved stay edges: none is lost, none is doubled.
    assert len(SmallWorld(near=2, p=1.0).edges(12)) == 24


def test_edge_lists_are_checked() -> None:
    assert EdgeList(pairs=((2, 1), (0, 1))).edges(3) == ((0, 1), (1, 2))
    assert TOPOLOGIES.build({"name": "edges", "pairs": [[0, 1]]}) == EdgeList(pairs=((0, 1),))
    for pairs in (((0, 0),), ((0, 1), (1, 0)), ((0, 1, 2),)):
        with pytest.raises(InvalidInput):
            EdgeList(pairs=pairs)
    with pytest.raises(InvalidInput, match=r"among nodes 0\.\.2"):
        EdgeList(pairs=((0, 3),)).edges(3)


@pytest.mark.parametrize(
    ("topology", "n"), [(Ring(), 2), (Torus(), 10), (Torus(rows=2), 8), (TwoWorlds(), 7), (Dumbbell(9), 16)]
)
def test_sizes_that_a_topology_does_not_have(topology: Topology, n: int) -> None:
    with pytest.raises(InvalidInput):
        topology.edges(n)


def test_a_disconnected_honest_part_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"no honest path from node 1 to \[2, 3\]"):
        network(Star(), 4, byzantine=[0])  # the centre lies
    with pytest.raises(InvalidInput, match="connected"):
        network(EdgeList(pairs=((0, 1), (2, 3))), 4)
    assert network(Ring(), 5, byzantine=[2]).connectivity == pytest.approx(
        2 - 2 * cos(pi / 4)
    )  # a chain is left


def test_liars_may_stand_beside_the_graph_of_the_honest() -> None:
    beside = network(TwoWorlds(k=8), 29, byzantine=3, attachment="everywhere")
    alone = network(TwoWorlds(k=8), 26)
    assert torch.equal(beside.laplacian, alone.laplacian)
    assert beside.liars_beside == 3
    assert beside.degrees[:26] == tuple(degree + 3 for degree in alone.degrees)
    assert not beside.adjacency[26:, 26:].any()


def test_tolerated_neighbours_are_counted_where_they_are_most() -> None:
    assert network(SmallWorld(near=2, p=0.0), 9, byzantine=[0, 2]).liars_beside == 2  # both beside node 1
    assert network(Ring(), 8, byzantine=[0]).liars_beside == 1


def test_warnings_where_theory_says_that_nothing_can_work() -> None:
    assert network(Complete(), 16).warnings(2) == ()
    few, cut = network(Ring(), 16).warnings(1)
    assert "2 neighbours, no more than 2b = 2" in few
    assert "μ₂ = 0.1522 <= 2b = 2" in cut
    assert len(network(TwoWorlds(k=2), 20).warnings(2)) == 1  # μ₂ = 4 = 2b exactly
    assert "3 Byzantine neighbours" in network(Complete(), 16, byzantine=3).warnings(2)[0]
    assert network(Ring(), 16).warnings(0) == ()  # without liars every connected graph will do


def test_the_fiedler_vector_parts_the_worlds() -> None:
    vector = network(TwoWorlds(k=1), 12).fiedler
    assert vector[:6].sub(vector[0]).abs().max() < 1e-12
    assert vector[6:].add(vector[0]).abs().max() < 1e-12


def test_metropolis_weights_are_doubly_stochastic_with_the_diagonal() -> None:
    found = Network.of(Star(), Cohort.of(5), "metropolis")
    assert torch.equal(found.weights, found.weights.T)
    assert found.weights[0, 1] == 1 / 5
    assert (found.weights.sum(dim=1) <= 1).all()
