"""A reproduction on a device: the tasks that gain from a GPU go there."""

from __future__ import annotations

from dataclasses import fields, replace

import torch

from byzopt.reproductions.reproduction import Part, Reproduction
from byzopt.tasks import TASKS


def on_device(reproduction: Reproduction, device: str | None = None) -> Reproduction:
    """The same with every part that trains a module on `device`; None: on a GPU if there is one.

    What has no `device`, as the quartic, stays on the CPU. A run on another device is another run.
    """
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if chosen == "cpu":
        return reproduction
    return replace(reproduction, parts=tuple(_placed(part, chosen) for part in reproduction.parts))


def _placed(part: Part, device: str) -> Part:
    first = part.sweep.specs()[0].task
    if "device" not in {one.name for one in fields(TASKS[first.name])}:  # type: ignore[arg-type]
        return part
    task = part.spec.get("task", {})
    named = {"name": task} if isinstance(task, str) else dict(task)
    return replace(part, spec={**part.spec, "task": named | {"device": device}})
