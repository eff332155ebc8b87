"""The peers' own environment, and a table and a machine to describe, for all benchmarks."""

from __future__ import annotations

import json
import platform
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"
DEFAULT = ROOT / ".venv-peers"
PEERS = ("byzfl==0.0.11", "byzpy==0.1.4")
NEEDED = ("torch", "numpy", "scipy", "cloudpickle", "flwr==1.42.0")  # what the peers' rules import


def peers_python(env: Path = DEFAULT) -> Path:
    """The interpreter of an environment that holds the peers; the first time it is made."""
    python, complete = env / "bin" / "python", env / "complete"
    if not complete.exists() or complete.read_text() != " ".join((*PEERS, *NEEDED)):
        if not python.exists():
            venv.create(env, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        pins = (ROOT / "constraints.txt").read_text().split()
        torch = next(pin for pin in pins if pin.startswith("torch=="))
        subprocess.run([*pip, torch], check=True)  # before anything asks for another build
        subprocess.run([*pip, *NEEDED], check=True)
        subprocess.run([*pip, "--no-deps", *PEERS], check=True)
        complete.write_text(" ".join((*PEERS, *NEEDED)))
    return python


def machine() -> dict[str, Any]:
    """What the figures were taken on; nothing that names the machine or its user."""
    import torch

    from byzopt import kernels
    from byzopt.kernels.jit import lanes

    model = platform.processor() or platform.machine()
    for line in (
        Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if Path("/proc/cpuinfo").exists()
        else ()
    ):
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    compiled = f"llvmlite, {32 * lanes(torch.float32)} bits" if kernels.kernels_available() else "none"
    return {
        "processor": model,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "kernels": compiled,
    }


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; floats with three digits, None as a dash."""
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    lines += [" | ".join(map(_cell, row)) for row in rows]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def write(name: str, page: str, found: Any) -> None:
    """docs/results/NAME.md and .json."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.md").write_text(page)
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


def described(found: dict[str, Any]) -> str:
    """A machine in a line."""
    return (
        f"{found['processor']}, {found['threads']} threads, torch {found['torch']}, "
        f"Python {found['python']}, kernels: {found['kernels']}"
    )


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)
