"""All nodes of a graph in one call beside a loop over nodes, written out as peers do it.

    python benchmarks/gossip.py              # under two minutes

100 honest nodes, 3 liars beside each of them, d = 10,000 in float32. The loops are ours, in torch, in the
manner of two releases, node after node: "all rows" stacks the rows of all nodes, those that a node does not
hear with weight 0 (arXiv:2410.10418); "neighbours" stacks those that it hears alone, which is the less work;
"one by one" clips every neighbour's difference by itself (arXiv:2202.01545, for the clipping mixers). What
they compute is compared before anything is timed. Cases alternate within a run; least times of as many
repetitions as fit, and their ratios. Writes docs/results/gossip.md and .json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from _peers_env import described, machine, table, write
from byzopt.cohort import Cohort
from byzopt.graphs import TOPOLOGIES, Network
from byzopt.mixers import MIXERS, Hearing
from byzopt.rng import stream

H, B, D = 100, 3, 10_000
GRAPHS = ("complete", "erdos_renyi", "torus")
NAMES = ("cs+", "gts", "he")


def summand(name: str, weights: Tensor, differences: Tensor, b: float) -> Tensor:
    """Σ of one node's differences `[m, d]`, as a node by itself takes it."""
    lengths = differences.norm(dim=1)
    order = lengths.argsort()
    so_far = weights[order].cumsum(0)
    total = so_far[-1]
    if name == "gts":
        stay = so_far <= total - b + 1e-6
        return (weights[order][stay, None] * differences[order][stay]).sum(dim=0)
    if name == "cs+":
        tau = lengths[order][(so_far < total - 2 * b - 1e-6).sum()]
    else:
        stay = so_far <= total - b + 1e-6
        tau = ((weights[order] * lengths[order].square())[stay].sum() / b).sqrt()
    short = torch.where((lengths > tau)[:, None], differences * (tau / lengths)[:, None], differences)
    return (weights[:, None] * short).sum(dim=0)


def clipped_one_by_one(name: str, differences: list[Tensor], b: int) -> Tensor:
    """The same for the clipping mixers, difference after difference."""
    lengths = [float(z.norm()) for z in differences]
    ranked = sorted(lengths)
    if name == "cs+":
        tau = ranked[len(ranked) - 2 * b - 1] if len(ranked) > 2 * b else 0.0
    else:
        tau = (sum(length**2 for length in ranked[: len(ranked) - b]) / b) ** 0.5
    return sum(
        (z * min(1.0, tau / length) for z, length in zip(differences, lengths, strict=True)), torch.zeros(())
    )


def loops(name: str, hearing: Hearing, alpha: float) -> dict[str, Callable[[], Tensor]]:
    """The three loops over nodes."""
    rows, weights = hearing.rows, hearing.edges.to(hearing.rows.dtype)
    everybody = torch.cat([rows, hearing.lies])
    heard = [weights[i].nonzero().flatten() for i in range(H)]

    def all_rows() -> Tensor:
        given = list(everybody)
        each = [summand(name, weights[i], torch.stack(given) - rows[i], B) for i in range(H)]
        return rows + alpha * torch.stack(each)

    def neighbours() -> Tensor:
        each = [summand(name, weights[i, js], everybody[js] - rows[i], B) for i, js in enumerate(heard)]
        return rows + alpha * torch.stack(each)

    def one_by_one() -> Tensor:
        each = [
            clipped_one_by_one(name, [everybody[j] - rows[i] for j in js], B) for i, js in enumerate(heard)
        ]
        return rows + alpha * torch.stack(each)

    found: dict[str, Callable[[], Tensor]] = {"all rows": all_rows, "neighbours": neighbours}
    return found | ({"one by one": one_by_one} if name != "gts" else {})


def measured(topology: str, name: str, seconds: float) -> dict[str, Any]:
    """Milliseconds of an exchange in one call and by each loop."""
    network = Network.of(TOPOLOGIES.build(topology), Cohort.of(H + B, B), attachment="everywhere")
    drawn = torch.randn(H + B, D, generator=stream(0, "gossip"))
    hearing = Hearing(network, B, drawn[:H], 3 * drawn[H:])
    mixer = MIXERS.build(name)
    alpha = mixer.step(network)

    def once() -> Tensor:
        return mixer.mix(Hearing(network, B, hearing.rows, hearing.lies))  # nothing kept from before

    cases = {"one call": once} | loops(name, hearing, alpha)
    answers = {case: call() for case, call in cases.items()}
    # Float32 sums of a hundred numbers of size one, times α below 1/20.
    assert all((answer - answers["one call"]).abs().max() < 1e-4 for answer in answers.values())
    times: dict[str, list[float]] = {case: [] for case in cases}
    ends = time.perf_counter() + seconds
    while len(times["one call"]) < 3 or time.perf_counter() < ends:
        for case, call in cases.items():
            began = time.perf_counter()
            call()
            times[case].append(1e3 * (time.perf_counter() - began))
    least = {case: min(found) for case, found in times.items()}
    degree = sum(network.degrees[:H]) / H
    return {"graph": topology, "mixer": name, "neighbours": degree, "ms": least}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each line")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found = []
    for topology in GRAPHS:
        for name in NAMES:
            found.append(measured(topology, name, given.seconds))
            print(found[-1], flush=True)
    others = ("all rows", "neighbours", "one by one")
    head = ["graph", "neighbours each", "mixer", "one call (ms)"]
    head += [f"loop, {case}: times as long" for case in others]
    rows = []
    for one in found:
        ms, first = one["ms"], one["ms"]["one call"]
        ratios = [ms[case] / first if case in ms else None for case in others]
        rows.append([one["graph"], one["neighbours"], f"`{one['mixer']}`", first, *ratios])
    on = machine()
    text = f"{described(on)}; {given.threads} used. {H} honest nodes and {B} liars beside each, d = {D:,}, "
    text += (
        "float32; least times of an exchange. `python benchmarks/gossip.py` makes this page, and says what "
    )
    text += "the loops are: the less a node hears, the less a loop over nodes has to do.\n"
    page = ["# All nodes in one call beside a loop over nodes\n", text, table(head, rows)]
    write("gossip", "\n".join(page), {"machine": on, "threads": given.threads, "lines": found})


if __name__ == "__main__":
    main()
