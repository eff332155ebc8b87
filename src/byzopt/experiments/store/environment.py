"""What a result was computed with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

PACKAGES = (
    "byzopt",
    "torch",
    "numpy",
    "scikit-learn",
    "msgspec",
    "typer",
    "rich",
    "matplotlib",
    "pyarrow",
    "llvmlite",
)


def environment() -> dict[str, Any]:
    """Versions, system, devices and threads; nothing that names the machine or its user."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: version_of(name) for name in PACKAGES},
        "devices": devices(),
        "threads": torch.get_num_threads(),
    }


def devices() -> list[str]:
    """What torch could compute on here."""
    cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ["cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else [])]


def version_of(name: str) -> str:
    """The version of an installed package; "not installed" where it is not."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
