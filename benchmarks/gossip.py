"""All nodes of a graph in one call beside a loop over nodes, written out as peers do it.

    python benchmarks/gossip.py [--env DIR]  # two minutes; the first time it installs the peers into DIR

100 honest nodes, 3 liars beside each of them, d = 10,000 in float32. The loops are ours, in torch, in the
manner of two releases, node after node: "all rows" stacks the rows of all nodes, those that a node does not
hear with weight 0 (arXiv:2410.10418); "neighbours" stacks those that it hears alone, which is the less work;
"one by one" clips every neighbour's difference by itself (arXiv:2202.01545, for the clipping mixers). What
they compute is compared before anything is timed. Cases alternate within a run; least times of as many
repetitions as fit, and their ratios. Writes docs/results/gossip.md and .json.

Two mixers are rules that peers have: `nna` is MoNNA of ByzPy and ByzFL, `screen` with the trimmed mean their
trimmed mean. There the loop over nodes calls the peers' own code, for each node on its row and those that it
hears, in a process of the peers' own environment (`_gossip_peers.py`); answers are compared.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from _peers_env import DEFAULT, described, machine, peers_python, table, write
from byzopt.aggregators import TrimmedMean
from byzopt.cohort import Cohort
from byzopt.graphs import TOPOLOGIES, Network
from byzopt.mixers import MIXERS, Hearing
from byzopt.rng import stream

H, B, D = 100, 3, 10_000
GRAPHS = ("complete", "erdos_renyi", "torus")
TURN = 0.1  # seconds of a case before the next one has its turn
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
    while time.perf_counter() < ends:
        for case, call in cases.items():
            turn = time.perf_counter() + TURN
            while not times[case] or time.perf_counter() < turn:
                began = time.perf_counter()
                call()
                times[case].append(1e3 * (time.perf_counter() - began))
    least = {case: min(found) for case, found in times.items()}
    degree = sum(network.degrees[:H]) / H
    return {"graph": topology, "mixer": name, "neighbours": degree, "ms": least}


def beside_peers(env: Path, seconds: float, threads: int) -> list[dict[str, Any]]:
    """Milliseconds of an exchange in one call and by loops over the peers' rules."""
    drawn, heard, ours = torch.randn(H + B, D, generator=stream(0, "gossip")), {}, {}
    drawn[H:] *= 3
    for topology in GRAPHS:
        network = Network.of(TOPOLOGIES.build(topology), Cohort.of(H + B, B), attachment="everywhere")
        hearing = Hearing(network, B, drawn[:H], drawn[H:], rule=TrimmedMean(f=B))
        heard[topology] = (hearing.edges > 0).numpy()
        for name in ("nna", "screen"):
            mixer, least, times = MIXERS.build(name), float("inf"), 0
            ends = time.perf_counter() + seconds
            while times < 3 or time.perf_counter() < ends:
                began = time.perf_counter()
                answer = mixer.mix(Hearing(network, B, hearing.rows, hearing.lies, rule=hearing.rule))
                least, times = min(least, 1e3 * (time.perf_counter() - began)), times + 1
            ours[name, topology] = (answer, least)
    with tempfile.TemporaryDirectory() as place:
        given, answers = Path(place) / "given.npz", Path(place) / "answers.npz"
        np.savez(given, rows=drawn.numpy(), b=B, **{f"heard|{key}": value for key, value in heard.items()})
        script = Path(__file__).with_name("_gossip_peers.py")
        call = [str(peers_python(env)), str(script), str(given), str(answers), str(seconds), str(threads)]
        told = json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout)
        theirs = dict(np.load(answers))
    lines = []
    for (name, topology), (answer, least) in ours.items():
        ms = {"one call": least}
        for peer in ("ByzPy", "ByzFL"):
            case = f"{peer}|{name}|{topology}"
            # Float32 means of a hundred numbers of size one to ten.
            assert np.abs(theirs[case] - answer.numpy()).max() < 1e-4, case
            ms[peer] = told[case]
        lines.append({"graph": topology, "mixer": name, "ms": ms})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="for each line")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--env", type=Path, default=DEFAULT)
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
    peers = beside_peers(given.env, given.seconds / 2, given.threads)
    print(peers)
    beside = [
        [one["graph"], f"`{one['mixer']}`", one["ms"]["one call"]]
        + [one["ms"][peer] / one["ms"]["one call"] for peer in ("ByzPy", "ByzFL")]
        for one in peers
    ]
    more = "\nA loop over nodes that calls the peers' own rules, MoNNA and the trimmed mean, in a process of "
    more += "theirs:\n"
    by_peer = table(
        ["graph", "mixer", "one call (ms)", "ByzPy: times as long", "ByzFL: times as long"], beside
    )
    page = ["# All nodes in one call beside a loop over nodes\n", text, table(head, rows), more, by_peer]
    data = {"machine": on, "threads": given.threads, "lines": found, "peers": peers}
    write("gossip", "\n".join(page), data)


if __name__ == "__main__":
    main()
