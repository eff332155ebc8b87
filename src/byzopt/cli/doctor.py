"""`byzopt doctor`: what this machine has of what byzopt uses."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import Any

from byzopt.cli.parameters import AsJson

EXTRAS = {
    "dev": ("pytest", "hypothesis", "ruff", "mypy", "importlinter"),
    "ray": ("ray",),
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow",),
    "gpu-test": ("triton", "pytest"),
}


def command(
    as_json: AsJson = False,
) -> None:
    """Show versions, devices, threads, where independent runs go on the cores, which data sets are on disk.

    How runs are placed is measured when it has never been (a few seconds), and then kept in the cache.
    """
    machine = examined()
    if as_json:
        print(json.dumps(machine))
        return
    from rich.table import Table

    from byzopt.cli import terminal

    table = Table.grid(padding=(0, 2))
    for key, value in machine.items():
        lines = [f"{k}: {v}" for k, v in value.items()] if isinstance(value, dict) else value
        table.add_row(
            terminal.words(key, "bold"), "\n".join(lines) if isinstance(lines, list) else str(lines)
        )
    terminal.console().print(table, soft_wrap=True)


def examined() -> dict[str, Any]:
    """Versions, devices, threads, data and where they are looked for, optional extras."""
    from byzopt.experiments.store.environment import environment
    from byzopt.experiments.sweeps.cores import layout_rates
    from byzopt.kernels import gpu
    from byzopt.tasks import data
    from byzopt.tasks.data import store

    where = {
        name: str(path) if path else "not on disk; downloaded when needed"
        for name, path in data.available().items()
    }
    (processes, threads), rates = layout_rates()
    return environment() | {
        "kernels": kernels_here(),
        "kernels on a GPU": gpu.state(),
        "placement of independent runs": {"processes x threads": f"{processes} x {threads}"}
        | {f"rounds/s with {layout}": str(rate) for layout, rate in rates.items()},
        "data": {"digits": "part of scikit-learn"} | where,
        "data directories": [str(root) for root in store.roots()],
        "extras": {name: _state(modules) for name, modules in EXTRAS.items()},
    }


def kernels_here() -> str:
    """Whether rules run as compiled kernels here, for which vectors, and what making one takes."""
    import torch

    from byzopt import kernels
    from byzopt.kernels.jit import lanes

    if not kernels.kernels_available():
        return "none, for llvmlite cannot be imported or knows no code for this machine: plain torch, slower"
    if not kernels.supports(torch.zeros(1, 1, dtype=torch.float32, device="cpu")):
        return "switched off by BYZOPT_KERNELS: plain torch, slower"
    bits = 32 * lanes(torch.float32)
    return (
        f"llvmlite, vectors of {bits} bits; made in the first call for a number of rows up to 64, in under "
        "0.1 s, and once for all larger numbers"
    )


def _state(modules: tuple[str, ...]) -> str:
    missing = [name for name in modules if find_spec(name) is None]
    return f"missing {', '.join(missing)}" if missing else "installed"
