"""What `harden` keeps of plain scripts, what it bears, and what it costs beside them.

    python benchmarks/harden.py [--quick] [--only faults|time] [--rows DDP,FSDP2] [--columns -10x,,1e30]
        [--case NAME]

Every case runs in gloo processes on this machine, one thread each. Faults (`_harden_faults.py`): a small
network on scikit-learn's digits, AdamW, one rank faulty, plain and hardened under each wrapper; Lightning and
Accelerate where they are installed (extra `frameworks`). Time (`_harden_time.py`): multilayer perceptrons of
d parameters, plain and hardened, a step of each in turn, in the cases whose name contains NAME ("DDP, 4,
1e7", "FSDP2, memory", ...); the others stay as they were stored.
Writes docs/results/harden.md, docs/results/harden_time.md, and the JSON files beside them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import _harden_faults
import _harden_time

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the smallest sizes, nothing written")
    parser.add_argument("--only", choices=["faults", "time"])
    parser.add_argument("--rows", default=",".join([*_harden_faults.ROWS, "momentum"]))
    parser.add_argument("--columns", default=",,".join(_harden_faults.COLUMNS), help="separated by ,,")
    parser.add_argument("--case", default="", help="the times of which cases")
    options = parser.parse_args()
    if options.only != "time":
        stored = RESULTS / "harden.json"
        before = json.loads(stored.read_text(encoding="utf-8")) if stored.exists() else {}
        for found in _harden_faults.measured(
            options.quick, before, options.rows.split(","), options.columns.split(",,")
        ):
            if not options.quick:
                write("harden", found, _harden_faults.page(found))
    if options.only != "faults":
        stored = RESULTS / "harden_time.json"
        before = json.loads(stored.read_text(encoding="utf-8")) if options.case and stored.exists() else None
        found = _harden_time.measured(options.quick, options.case, before)
        if not options.quick:
            write("harden_time", found, _harden_time.page(found))


def write(name: str, found: Any, page: str) -> None:
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
