"""How long it takes to start: imports beyond torch, `byzopt --help`, and the first call of a compiled rule.

    python benchmarks/startup.py

Each figure is the median over fresh processes. Writes docs/results/startup.md and .json.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from _peers_env import described, machine, table, write

TURNS = 7
TORCH = "import torch"
CASES = {
    "import torch": [sys.executable, "-c", TORCH],
    "import torch, byzopt": [sys.executable, "-c", "import torch, byzopt"],
    "import torch; from byzopt import *rules*": [
        sys.executable,
        "-c",
        "import torch; from byzopt import NNM, RFA, Krum, Median, ModuleTask, simulate",
    ],
    "byzopt --help": [str(Path(sys.executable).with_name("byzopt")), "--help"],
    "byzopt list rules": [str(Path(sys.executable).with_name("byzopt")), "list", "rules"],
    "first Median() of 20 x 1e6, after import": [
        sys.executable,
        "-c",
        "import torch, time; from byzopt import Median; rows = torch.zeros(20, 1_000_000); "
        "began = time.perf_counter(); Median()(rows); print(time.perf_counter() - began)",
    ],
}


def once(command: list[str]) -> float:
    began = time.perf_counter()
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(out) if "perf_counter" in command[-1] else time.perf_counter() - began


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(TURNS):
        for name, command in CASES.items():
            times[name].append(once(command))
    found = {name: median(values) for name, values in times.items()}
    beyond = {name: found[name] - found["import torch"] for name in found if name.startswith("import torch")}
    rows = [[f"`{name}`", found[name], beyond.get(name)] for name in found]
    on = machine()
    page = "\n".join(
        [
            "# Starting\n",
            f"{described(on)}. Median seconds of {TURNS} fresh processes; "
            "`python benchmarks/startup.py` makes this page.\n",
            table(["what", "seconds", "beyond `import torch`"], rows),
        ]
    )
    write("startup", page, {"machine": on, "seconds": found})
    print(page)


if __name__ == "__main__":
    main()
