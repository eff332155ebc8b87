"""What `harden` keeps of plain scripts, what it bears, and what it costs beside them.

    python benchmarks/harden.py [--quick] [--only faults|time]

Every case runs in gloo processes on this machine, one thread each. Faults (`_harden_faults.py`): a small
network on scikit-learn's digits, AdamW, four ranks, one of them faulty, plain and hardened. Time
(`_harden_time.py`): multilayer perceptrons of d parameters, plain and hardened, a step of each in turn.
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
    options = parser.parse_args()
    for part, name, module in (
        ("faults", "harden", _harden_faults),
        ("time", "harden_time", _harden_time),
    ):
        if options.only in (None, part):
            found = module.measured(options.quick)
            if not options.quick:
                write(name, found, module.page(found))


def write(name: str, found: Any, page: str) -> None:
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
