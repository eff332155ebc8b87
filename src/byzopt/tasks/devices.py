"""Devices by name, refused in a line where this machine has none of that name."""

from __future__ import annotations

import torch

from byzopt.errors import InvalidInput, require


def device_of(name: torch.device | str) -> torch.device:
    """The device of that name. Errors: `InvalidInput` where there is none here that holds numbers."""
    remedy = 'Use device="cpu".'
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise InvalidInput(f"Parameter `device` should name a device. Found {name!r}. {remedy}") from None
    try:
        torch.zeros((), device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError):  # each backend has its own way to say so
        require(False, "Parameter `device`", "exist on this machine", repr(str(device)), remedy)
    try:
        torch.zeros((), dtype=torch.float64, device=device)
    except (RuntimeError, TypeError):  # Apple's MPS
        require(False, "Parameter `device`", "have float64", repr(str(device)), remedy)
    return device
