"""Gossip over processes: neighbours only, to the bit what a simulation gives, and who dies or is late."""

from __future__ import annotations

import os
import signal
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from byzopt.aggregators import TrimmedMean, rule_from
from byzopt.attacks import Adversary, EdgeAttack, EdgeView
from byzopt.cohort import Cohort
from byzopt.distributed import GossipNode
from byzopt.engines import Graph, OnGraph, rounds_on_graph
from byzopt.errors import InvalidInput, TooManyFaults
from byzopt.graphs import Complete, Network, SmallWorld
from byzopt.methods import RobustGD
from byzopt.mixers import UBAR, ClippedGossip, ClippedOracle, CSPlus, Hearing, Mixer, Screen, mix_one
from byzopt.tasks import Quadratic
from tests.jobs import PATIENCE, Job
from tests.ranks import play_ranks

RANKS, LIAR, ROUNDS, LR = 6, 4, 5, 0.1
RING = SmallWorld(near=2, p=0.0)  # four neighbours each
MIXERS: dict[str, Mixer] = {
    "cs+": CSPlus(alpha=0.2),
    "he": ClippedGossip(alpha=0.2),
    "screen": Screen(own="beside"),
}


def lie(to: int, t: int) -> Tensor:
    """What the liar tells a neighbour in a round."""
    return torch.full((20,), 0.5 * to - t, dtype=torch.float64)


@dataclass(frozen=True)
class Told(EdgeAttack):
    """The same lies in a simulation."""

    def forge_edges(self, view: EdgeView, generator: torch.Generator) -> Tensor:
        return torch.stack([lie(i, view.t) for i in view.cohort.honest]).unsqueeze(0)


Told.name = "told"


def node_of(rank: int, mixer: str) -> list[Tensor]:
    """An honest rank: its gradient at its own point, its step, its neighbours' rows; or the liar."""
    task = Quadratic().build(Cohort.of(RANKS, [LIAR]), 0)
    node = GossipNode(Network.of(RING, Cohort.of(RANKS)), MIXERS[mixer], b=1, rule=TrimmedMean(f=1))
    x, seen = task.start(), []
    for t in range(1, ROUNDS + 1):
        if rank == LIAR:
            node.tell({to: lie(to, t) for to in node.neighbours})
            continue
        g = task.grads_at(x[None], task.draw(t), slice(rank, rank + 1))[0]
        x = node.mix(torch.add(x, g, alpha=-LR))
        seen.append(x)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("mixer", MIXERS)
def test_ranks_equal_the_simulation_to_the_bit(mixer: str) -> None:
    found = play_ranks(RANKS, node_of, mixer)
    cohort = Cohort.of(RANKS, [LIAR])
    task, graph = Quadratic().build(cohort, 0), Graph(RING, MIXERS[mixer], together=False)
    rule = "trimmed_mean" if mixer == "screen" else "mean"
    method = RobustGD().build(rule_from(rule, f=1), LR)
    run = OnGraph(task, method, graph, Adversary(Told(), cohort, 1), 1, 0)
    simulated = list(rounds_on_graph(run, run.begin(), ROUNDS))
    for k, rank in enumerate(cohort.honest):
        for t in range(ROUNDS):
            assert torch.equal(found[rank][t], simulated[t].nodes[k]), (rank, t)


def test_nodes_one_by_one_agree_with_all_in_one_call() -> None:
    network = Network.of(RING, Cohort.of(RANKS))
    rows = torch.randn(RANKS, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for mixer in MIXERS.values():
        together = mixer.mix(Hearing(network, 1, rows, rows[:0], rule=TrimmedMean(f=1)))
        for i in range(RANKS):
            alone = mix_one(
                mixer, network, i, 1, rows[i], rows[list(network.neighbours(i))], TrimmedMean(f=1)
            )
            assert (alone - together[i]).abs().max() < 1e-14


def test_a_neighbour_without_a_row_is_counted_and_more_than_b_are_too_many() -> None:
    network = Network.of(RING, Cohort.of(RANKS))
    rows = torch.randn(4, 3, dtype=torch.float64)
    rows[2] = torch.nan  # of neighbours 1, 2, 4 and 5 of node 0
    mixed = mix_one(CSPlus(alpha=0.2), network, 0, 1, torch.zeros(3, dtype=torch.float64), rows)
    left = rows[[0, 1, 3]].sum(dim=0) * 0.2  # b - 1 = 0 are left to clip
    assert (mixed - left).abs().max() < 1e-15
    rows[0] = torch.inf
    with pytest.raises(TooManyFaults, match=r"from \[1, 4\] at node 0"):
        mix_one(CSPlus(alpha=0.2), network, 0, 1, torch.zeros(3, dtype=torch.float64), rows)


def test_mixers_that_need_more_than_rows_are_refused() -> None:
    for mixer in (UBAR(), ClippedOracle()):
        with pytest.raises(InvalidInput, match="need rows alone"):
            Graph(RING, mixer, together=False)


# Who dies, and who is late.


def mortal(rank: int, deadline: float) -> dict[str, Any]:
    """Rank 4 kills itself in round 3, when its rows of round 2 are heard; rank 1 sleeps through round 5."""
    store = dist.distributed_c10d._get_default_store()
    node = GossipNode(Network.of(RING, Cohort.of(RANKS)), CSPlus(alpha=0.2), b=2, deadline=deadline)
    x = torch.full((4,), float(rank), dtype=torch.float64)
    missing = []
    for t in range(1, 8):
        if (rank, t) == (4, 3):
            store.wait([f"{beside} heard" for beside in node.neighbours])
            os.kill(os.getpid(), signal.SIGKILL)
        if (rank, t) == (1, 5):
            time.sleep(1.5 * deadline)
        x = node.mix(x)
        missing.append(dict(node.missing))
        if t == 2:
            store.set(f"{rank} heard", "yes")
    node.close()
    return {"x": x, "missing": missing}


def start(rank: int, place: str, play: Callable[..., Any], deadline: float) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(Path(place, "store")), RANKS)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS, timeout=timedelta(seconds=60))
    torch.save(play(rank, deadline), Path(place, f"{rank}.pt"))
    os._exit(0)  # a barrier would wait for the dead


@pytest.mark.slow
def test_a_killed_neighbour_costs_one_row_and_a_late_one_its_round() -> None:
    """Nothing here depends on the clock but that a rank which sleeps 1.5 deadlines is late for somebody."""
    with tempfile.TemporaryDirectory() as place:
        context = mp.get_context("fork")
        ranks = [context.Process(target=start, args=(rank, place, mortal, 6.0)) for rank in range(RANKS)]
        for one in ranks:
            one.start()
        for one in ranks:
            one.join(120)
        assert [one.exitcode for one in ranks] == [0, 0, 0, 0, -signal.SIGKILL, 0]
        ends = {rank: torch.load(Path(place, f"{rank}.pt")) for rank in range(RANKS) if rank != 4}
    network = Network.of(RING, Cohort.of(RANKS))
    for rank, end in ends.items():
        for t, missing in enumerate(end["missing"], start=1):
            gone = 4 in network.neighbours(rank) and t >= 3
            assert (missing.get(4) is not None) == gone, (rank, t, missing)
            assert set(missing) <= {1, 4}
        assert end["x"].isfinite().all()
    beside = [end["missing"][4] for rank, end in ends.items() if 1 in network.neighbours(rank)]
    assert any("not heard within 6 s" in missing.get(1, "") for missing in beside)
    assert all(1 not in end["missing"][3] for end in ends.values())


# Who was away for long.

AWAY = 1


def returning(rank: int, place: Path) -> tuple[int, list[str]]:
    """One node begins when the others have made so many rounds that its own are not kept any more; all go on
    until each has heard all others in one round."""
    node = GossipNode(Network.of(Complete(), Cohort.of(4)), CSPlus(alpha=0.1), b=1, deadline=0.3)
    x, end = torch.full((4,), float(rank), dtype=torch.float64), time.monotonic() + PATIENCE
    while rank == AWAY and len(list(place.glob("* far"))) < 3:
        time.sleep(0.01)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        while len(list(place.glob("* heard"))) < 4 and time.monotonic() < end:
            try:
                x = node.mix(x)
            except TooManyFaults:  # a machine under load may be late, too
                continue
            if node.t > 20:
                (place / f"{rank} far").touch()
                if not node.missing:
                    (place / f"{rank} heard").touch()
    return len(list(place.glob("* heard"))), [str(each.message) for each in told]


@pytest.mark.slow
def test_a_node_that_was_away_for_long_goes_on_in_the_round_of_its_neighbours() -> None:
    with Job(4, returning) as job:
        results = job.results(range(4))
    assert [results[rank][0] for rank in range(4)] == [4] * 4
    assert any("Node 1 was away after round 0" in text for text in results[AWAY][1])
