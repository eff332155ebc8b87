"""The peers' half of `gossip.py`, run by the interpreter of the peers' own environment, without byzopt.

    python benchmarks/_gossip_peers.py inputs.npz answers.npz SECONDS THREADS

Inputs: `rows` [H + B, d]; `heard|GRAPH` for every graph, a matrix [H, H + B] of who hears whom; `b`. Every
node by itself applies the peer's rule to its own row and those it hears. Prints least milliseconds of all
nodes by peer, mixer and graph; answers hold where nodes then stand.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import _unused  # noqa: F401


def rules(b: int) -> dict[tuple[str, str], Callable[[torch.Tensor], Any]]:
    """(peer, mixer) to what a node does with its own row and those it hears, `[m, d]`, its own first."""
    import byzfl
    from byzpy.aggregators.coordinate_wise.trimmed_mean import CoordinateWiseTrimmedMean
    from byzpy.aggregators.geometric_wise.monna import MoNNA

    return {
        ("ByzPy", "nna"): lambda v: MoNNA(b, reference_index=0).aggregate(list(v)),
        ("ByzFL", "nna"): lambda v: byzfl.MoNNA(b, idx=0)(v),
        ("ByzPy", "screen"): lambda v: CoordinateWiseTrimmedMean(f=b).aggregate(list(v)),
        ("ByzFL", "screen"): lambda v: byzfl.TrMean(b)(v),
    }


def main() -> None:
    given, answers, seconds, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    data = np.load(given)
    rows, found, ms = torch.from_numpy(data["rows"]), {}, {}
    for (peer, mixer), rule in rules(int(data["b"])).items():
        for name in data.files:
            if not name.startswith("heard|"):
                continue
            heard = torch.from_numpy(data[name])
            near = [torch.cat([torch.tensor([i]), row.nonzero().flatten()]) for i, row in enumerate(heard)]
            case, least = f"{peer}|{mixer}|{name.removeprefix('heard|')}", float("inf")
            ends, times = time.perf_counter() + float(seconds), 0
            while times < 3 or time.perf_counter() < ends:
                began = time.perf_counter()
                each = [torch.as_tensor(rule(rows[own])) for own in near]
                least, times = min(least, 1e3 * (time.perf_counter() - began)), times + 1
            found[case], ms[case] = torch.stack(each).numpy(), least
    np.savez(answers, **found)
    print(json.dumps(ms))


if __name__ == "__main__":
    main()
