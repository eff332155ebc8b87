"""What is known of a spec's graph before a run: its numbers, what theory warns of, and what it promises."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch

from byzopt.engines import Graph
from byzopt.errors import require
from byzopt.experiments.specs.spec import Spec
from byzopt.theory import gossip
from byzopt.theory.promise import Promise


class GraphFacts(NamedTuple):
    """Numbers of a graph by name, warnings in sentences, and the promise for a run's rounds."""

    numbers: dict[str, float]
    warnings: tuple[str, ...]
    promise: Promise


def graph_facts(spec: Spec) -> GraphFacts:
    """What is known of the graph of a spec that has one.

    Errors: `InvalidInput` for a spec that has none, and for a graph that is refused.
    """
    require(spec.graph is not None, "A spec", "have a graph", "none")
    graph = cast("Graph", spec.graph)
    network, mixer, b = graph.network(spec.cohort), graph.mixer, spec.f
    alpha, liars = mixer.step(network), network.liars_beside
    cohort = spec.cohort
    weights = network.weights[torch.tensor(cohort.honest, device="cpu")]
    delta = float(weights[:, list(cohort.byzantine)].sum(dim=1).max()) if cohort.byzantine else 0.0
    numbers = {
        "nodes": float(network.n),
        "edges": float(network.adjacency.sum()) / 2,
        "least_degree": float(min(network.degrees[i] for i in cohort.honest)),
        "byzantine_neighbours": float(liars),
        "mu2": network.connectivity,
        "mu_max": network.largest,
        "spectral_gap": network.gap,
        "alpha": alpha,
        "breakdown": gossip.breakdown(network.connectivity),
        "delta_max": delta,
    }
    if mixer.rho is not None:
        numbers |= {"rho": mixer.rho, "tolerated": float(gossip.tolerated(network.connectivity, mixer.rho))}
    unit = network.weighting == "unit"
    promise = gossip.gossip_promise(
        mixer.rho, b, alpha, network.connectivity, network.largest, liars, unit, spec.rounds
    )
    return GraphFacts(numbers, network.warnings(b), promise)
