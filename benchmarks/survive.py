"""Which defences survive a searched attack: candidates on digits with unlike data, by `byzopt stress`.

    python benchmarks/survive.py [--store DIR] [--minutes M] [--write]

Byz-NSGDM on scikit-learn's digits as the preset `byz-nsgdm/digits` has it (20 workers, lr 0.3, eta 0.1), 300
rounds, all samples with the honest workers. First a screening of all candidates on the hardest cells
(Dirichlet 0.1; 3 and 6 of 20 lie), seeds 0 and 1; then the best of them beside what used to be recommended,
on seeds that nobody looked at before.

All runs are stored as they end, and the same command goes on where it was stopped; after M minutes no further
run is begun. One thread. `--write` writes docs/results/survive.md and .json from what is stored, and runs
nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from _stressed import CELLS, Measurement, measured
from _survive_page import page

OUT = Path(__file__).parent.parent / "docs" / "results"
SEARCHED = ("searched: drift", "searched: cos")
CRUDE = ("ipm x10", "ipm x0.5", "alie", "mimic", "min-max", "sign flip", "label flip")
CANDIDATES = {  # by name: what is set in the spec
    "norm_clipping": ("rule=norm_clipping",),
    "normalise >> mean": ("rule=normalise >> mean",),
    "normalise >> nnm >> mean": ("rule=normalise >> nnm >> mean",),
    "rfa": ("rule=rfa",),
    "nnm >> trimmed_mean": ("rule=nnm >> trimmed_mean",),
    "normalise >> rfa": ("rule=normalise >> rfa",),
    "normalise >> capped_nnm >> mean": ("rule=normalise >> capped_nnm(cap=0.5) >> mean",),
    "normalise >> trimmed_mean": ("rule=normalise >> trimmed_mean",),
    "capped_nnm >> rfa": ("rule=capped_nnm(cap=0.5) >> rfa",),
    "arc >> rfa": ("rule=arc >> rfa",),
    "sign_majority": ("rule=sign_majority",),
    "nnm >> rfa": ("rule=nnm >> rfa",),
    "norm_clipping, eta 0.03": ("rule=norm_clipping", "method.eta=0.03"),
    "geometric_median": ("rule=geometric_median",),
    "centered_clipping": ("rule=centered_clipping",),
}
FINALISTS = ("norm_clipping", "normalise >> mean", "rfa", "nnm >> trimmed_mean")


def measurements() -> Iterator[Measurement]:
    """All that is to be measured, in order."""
    for cell in list(CELLS)[:2]:
        for candidate, settings in CANDIDATES.items():
            yield Measurement("screening", cell, candidate, settings, SEARCHED[:1], 0, 2)
    for cell in CELLS:
        for candidate in FINALISTS:
            every = (*SEARCHED, *CRUDE)
            yield Measurement("held out", cell, candidate, CANDIDATES[candidate], every, 10, 2)


def main() -> None:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--store", type=Path, default=Path("byzopt-survive"))
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    end = time.monotonic() + (0 if options.write else 60 * options.minutes)
    found: list[dict[str, Any]] = []
    for one in measurements():
        trials = measured(one, options.store, lambda: time.monotonic() >= end)
        found += trials
        said = ", ".join(f"{t['attack']} {100 * fmean(t['values']):.1f}" for t in trials)
        print(
            f"{one.stage}, {one.cell}, {one.candidate}: {said or 'not measured'}",
            flush=True,
        )
    if options.write:
        (OUT / "survive.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        (OUT / "survive.md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
