"""A topology with its nodes in their places: weights, Laplacians and the numbers that gossip depends on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from byzopt.cohort import Cohort
from byzopt.errors import require
from byzopt.graphs.base import Topology

Weighting: TypeAlias = Literal["unit", "metropolis"]
Attachment: TypeAlias = Literal["nodes", "everywhere"]


@dataclass(frozen=True)
class Network:
    """Nodes of a cohort on a graph, some of them Byzantine.

    `weights` `[n, n]` (float64, symmetric, zero diagonal) are w_ij > 0 where i hears j. The Laplacian is that
    of the honest nodes among themselves, Σ_j w_ij on its diagonal and -w_ij beside it, with eigenvalues
    0 < μ₂ <= ... <= μ_max; in the order of `cohort.honest`.

    Args:
        cohort: Who takes part, and who of them lies.
        adjacency: Who hears whom, a symmetric boolean tensor `[n, n]` with a zero diagonal.
        weighting: "unit": every edge weighs 1; "metropolis": 1/(1 + the larger degree of its two ends).

    Raises:
        InvalidInput: Honest nodes that are not connected by honest edges.

    Examples:
        >>> from byzopt import Cohort
        >>> from byzopt.graphs import Network, Ring
        >>> network = Network.of(Ring(), Cohort.of(16))
        >>> round(network.connectivity, 6), round(network.largest, 6), round(network.gap, 6)
        (0.152241, 4.0, 0.050747)
    """

    cohort: Cohort
    adjacency: Tensor
    weighting: Weighting = "unit"

    def __post_init__(self) -> None:
        n = self.cohort.n
        good = self.adjacency.shape == (n, n) and self.adjacency.dtype == torch.bool
        require(good, "An adjacency", f"be a boolean tensor [{n}, {n}]", str(list(self.adjacency.shape)))
        whole = bool((self.adjacency == self.adjacency.T).all()) and not bool(self.adjacency.diagonal().any())
        require(whole, "An adjacency", "be symmetric with a zero diagonal", "one that is not")
        apart = [self.cohort.honest[i] for i in _unreached(self.adjacency[self._honest][:, self._honest])]
        remedy = "Add edges between honest nodes, or let other nodes lie."
        found = f"no honest path from node {self.cohort.honest[0]} to {apart[:20]}"
        require(not apart, "Honest nodes", "be connected by edges among themselves", found, remedy)

    @classmethod
    def of(
        cls,
        topology: Topology,
        cohort: Cohort,
        weighting: Weighting = "unit",
        attachment: Attachment = "nodes",
    ) -> Network:
        """The network of a topology.

        With attachment "nodes" node i of the topology is worker i, liar or not. With "everywhere" the
        topology is that of the honest nodes alone, in ascending order, and every Byzantine node hears and is
        heard by each of them: then each honest node has all liars among its neighbours.
        """
        places = range(cohort.n) if attachment == "nodes" else cohort.honest
        adjacency = torch.zeros(cohort.n, cohort.n, dtype=torch.bool, device="cpu")
        for i, j in topology.edges(len(places)):
            adjacency[places[i], places[j]] = adjacency[places[j], places[i]] = True
        if attachment == "everywhere" and cohort.byzantine:
            liars = torch.tensor(cohort.byzantine, device="cpu")
            honest = torch.tensor(cohort.honest, device="cpu")
            adjacency[liars[:, None], honest] = True
            adjacency[honest[:, None], liars] = True
        return cls(cohort, adjacency, weighting)

    @property
    def n(self) -> int:
        """Number of nodes."""
        return self.cohort.n

    @cached_property
    def weights(self) -> Tensor:
        """w_ij `[n, n]`, float64."""
        if self.weighting == "unit":
            return self.adjacency.double()
        return metropolis(self.adjacency)

    def neighbours(self, i: int) -> tuple[int, ...]:
        """Whom node i hears, ascending."""
        return tuple(self.adjacency[i].nonzero().flatten().tolist())

    @cached_property
    def degrees(self) -> tuple[int, ...]:
        """How many neighbours each node has, liars among them."""
        return tuple(self.adjacency.sum(dim=1).tolist())

    @cached_property
    def liars_beside(self) -> int:
        """b = max over honest i of |N_i ∩ B|: what every node has to tolerate."""
        liars = torch.tensor(self.cohort.byzantine, dtype=torch.int64, device="cpu")
        return int(self.adjacency[self._honest][:, liars].sum(dim=1).max())

    @cached_property
    def laplacian(self) -> Tensor:
        """ℒ of the honest nodes among themselves, `[H, H]`."""
        weights = self.weights[self._honest][:, self._honest]
        laplacian: Tensor = weights.sum(dim=1).diag() - weights
        return laplacian

    @cached_property
    def spectrum(self) -> Tensor:
        """The eigenvalues of ℒ, ascending, `[H]`."""
        values: Tensor = torch.linalg.eigvalsh(self.laplacian)
        return values

    @property
    def connectivity(self) -> float:
        """μ₂ of ℒ, the algebraic connectivity; infinite for one honest node, which agrees with itself."""
        return float(self.spectrum[1]) if len(self.spectrum) > 1 else float("inf")

    @property
    def largest(self) -> float:
        """μ_max of ℒ."""
        return float(self.spectrum[-1])

    @cached_property
    def fiedler(self) -> Tensor:
        """The unit eigenvector of μ₂ `[H]`: where the graph comes apart most easily. Its first entry that is
        not 0 is positive; where μ₂ is a multiple eigenvalue it is one of several."""
        vector: Tensor = torch.linalg.eigh(self.laplacian)[1][:, min(1, len(self.spectrum) - 1)]
        sign = vector[vector.abs() > 1e-12][:1].sign()
        return vector * sign if len(sign) else vector

    @cached_property
    def gap(self) -> float:
        """The spectral gap of the honest nodes' Metropolis matrix W: 1 - |λ₂(W)|."""
        adjacency = self.adjacency[self._honest][:, self._honest]
        weights = metropolis(adjacency)
        sizes = torch.linalg.eigvalsh(weights + (1 - weights.sum(dim=1)).diag()).abs().sort().values
        return 1 - float(sizes[-2]) if len(sizes) > 1 else 1.0

    def frozen(self, b: int) -> tuple[int, ...]:
        """Honest nodes with at most 2b neighbours."""
        return tuple(i for i in self.cohort.honest if self.degrees[i] <= 2 * b)

    def warnings(self, b: int) -> tuple[str, ...]:
        """Where theory says that not everything can work for b tolerated neighbours: sentences."""
        told = []
        if b and (few := self.frozen(b)):
            told.append(
                f"node {few[0]} has {self.degrees[few[0]]} neighbours, no more than 2b = {2 * b}"
                f"{f' (as have {len(few) - 1} others)' if len(few) > 1 else ''}: cs+ never moves it, and "
                "rules that trim b on either side have nothing left"
            )
        if b and self.weighting == "unit" and self.connectivity <= 2 * b + 1e-9:
            told.append(
                f"the honest graph has μ₂ = {self.connectivity:.4g} <= 2b = {2 * b}: no rule is proved to "
                "bring its nodes together, and in general none can"
            )
        if self.liars_beside > b:
            told.append(
                f"an honest node has {self.liars_beside} Byzantine neighbours, and f = {b} are tolerated"
            )
        return tuple(told)

    @cached_property
    def _honest(self) -> Tensor:
        return torch.tensor(self.cohort.honest, device="cpu")


def metropolis(adjacency: Tensor) -> Tensor:
    """Metropolis weights `[n, n]` without the diagonal: 1/(1 + max(deg_i, deg_j)) on edges."""
    degrees = adjacency.sum(dim=1)
    return adjacency.double() / (1 + torch.maximum(degrees[:, None], degrees[None]))


def _unreached(adjacency: Tensor) -> list[int]:
    """Nodes that no path leads to from node 0."""
    reached = torch.zeros(len(adjacency), dtype=torch.bool, device="cpu")
    front = [0]
    while front:
        reached[front] = True
        front = (adjacency[front].any(dim=0) & ~reached).nonzero().flatten().tolist()
    return (~reached).nonzero().flatten().tolist()
