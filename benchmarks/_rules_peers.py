"""The peers' half of `rules.py`: answers one request a line on standard input, in the peers' environment.

A request is `{"rows": FILE, "f": f}` (new inputs) or `{"peer": P, "rule": R, "save": FILE or null}`; the
answer is `{"ms": time}`, or `{"error": text}`. Nothing of byzopt is imported.
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

Call = Callable[[Any, int], Any]  # rows as the peer likes them, f


def byzfl() -> dict[str, Call]:
    """ByzFL on one tensor [n, d]."""
    import byzfl as bf

    def gm8(v: Any) -> Any:
        return bf.GeometricMedian(nu=0.1, T=8)(v)

    return {
        "mean": lambda v, f: bf.Average()(v),
        "median": lambda v, f: bf.Median()(v),
        "trimmed_mean": lambda v, f: bf.TrMean(f)(v),
        "meamed": lambda v, f: bf.Meamed(f)(v),
        "krum": lambda v, f: bf.Krum(f)(v),
        "multi_krum": lambda v, f: bf.MultiKrum(f)(v),
        "rfa": lambda v, f: gm8(v),
        "centered_clipping": lambda v, f: bf.CenteredClipping(L=3, tau=100.0)(v),
        "mda": lambda v, f: bf.MDA(f)(v),
        "nnm >> krum": lambda v, f: bf.Krum(f)(bf.NNM(f)(v)),
        "nnm >> rfa": lambda v, f: gm8(bf.NNM(f)(v)),
        "nnm >> median": lambda v, f: bf.Median()(bf.NNM(f)(v)),
        "nnm >> trimmed_mean": lambda v, f: bf.TrMean(f)(bf.NNM(f)(v)),
    }


def byzpy() -> dict[str, Call]:
    """ByzPy on a list of n tensors."""
    from byzpy import pre_aggregators as pre
    from byzpy.aggregators import coordinate_wise as co
    from byzpy.aggregators import geometric_wise as ge
    from byzpy.aggregators.geometric_wise.geometric_median import GeometricMedian
    from byzpy.aggregators.geometric_wise.krum import Krum, MultiKrum
    from byzpy.aggregators.norm_wise.center_clipping import CenteredClipping

    def nnm(v: Any, f: int) -> Any:
        return pre.NearestNeighborMixing(f).pre_aggregate(v)

    clip, trimmed = CenteredClipping, co.CoordinateWiseTrimmedMean
    return {
        "median": lambda v, f: co.CoordinateWiseMedian().aggregate(v),
        "trimmed_mean": lambda v, f: trimmed(f).aggregate(v),
        "meamed": lambda v, f: co.MeanOfMedians(f).aggregate(v),
        "krum": lambda v, f: Krum(f).aggregate(v),
        "multi_krum": lambda v, f: MultiKrum(f, len(v) - f).aggregate(v),
        "geometric_median": lambda v, f: GeometricMedian().aggregate(v),
        "centered_clipping": lambda v, f: clip(c_tau=100.0, M=3, init="zero").aggregate(v),
        "mda": lambda v, f: ge.MinimumDiameterAveraging(f).aggregate(v),
        "nnm >> krum": lambda v, f: Krum(f).aggregate(nnm(v, f)),
        "nnm >> geometric_median": lambda v, f: GeometricMedian().aggregate(nnm(v, f)),
        "nnm >> median": lambda v, f: co.CoordinateWiseMedian().aggregate(nnm(v, f)),
        "nnm >> trimmed_mean": lambda v, f: trimmed(f).aggregate(nnm(v, f)),
    }


def flower() -> dict[str, Call]:
    """Flower's helpers on a list of (arrays of one client, its sample count)."""
    from flwr.server.strategy import aggregate as fl

    def one(results: Any) -> Any:
        return results[0]

    return {
        "mean": lambda v, f: one(fl.aggregate(v)),
        "median": lambda v, f: one(fl.aggregate_median(v)),
        "trimmed_mean": lambda v, f: one(fl.aggregate_trimmed_avg(v, f / len(v) + 1e-9)),
        "krum": lambda v, f: one(fl.aggregate_krum(v, f, 0)),
        "multi_krum": lambda v, f: one(fl.aggregate_krum(v, f, len(v) - f)),
    }


LIKE: dict[str, Callable[[Any], Any]] = {
    "ByzFL": lambda rows: torch.from_numpy(rows),
    "ByzPy": lambda rows: list(torch.from_numpy(rows)),
    "Flower": lambda rows: [([row], 1) for row in rows],
}


def main() -> None:
    tables = {"ByzFL": byzfl(), "ByzPy": byzpy(), "Flower": flower()}
    known = {peer: sorted(table) for peer, table in tables.items()}
    print(json.dumps({"rules": known, "threads": torch.get_num_threads()}), flush=True)
    rows, f = np.zeros((1, 1), dtype=np.float32), 0
    for line in sys.stdin:
        request = json.loads(line)
        if "rows" in request:
            rows, f = np.load(request["rows"]), request["f"]
            print(json.dumps({}), flush=True)
            continue
        given = LIKE[request["peer"]](rows.copy())
        try:
            began = time.perf_counter()
            out = tables[request["peer"]][request["rule"]](given, f)
            found: dict[str, Any] = {"ms": (time.perf_counter() - began) * 1e3}
            if request["save"]:
                np.save(request["save"], np.asarray(out))
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"[:200]}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
