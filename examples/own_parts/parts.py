"""A task and an attack of one's own in a file, without a package.

byzopt run examples/own_parts/spec.toml
byzopt list examples/own_parts/parts.py
"""

from dataclasses import dataclass

import torch
from torch import nn

from byzopt import Attack, ModuleTask, Task


def two_moons(cohort, seed, samples: int = 64, noise: float = 0.1) -> Task:
    """Two half circles, told apart by a small network; every worker has samples of its own."""
    generator = torch.Generator().manual_seed(seed)
    workers = []
    for _ in range(cohort.n):
        labels = torch.arange(samples) % 2
        angles = torch.pi * torch.rand(samples, generator=generator)
        side = 1 - 2 * labels
        moons = torch.stack([side * angles.cos() + labels, side * angles.sin() + 0.5 * labels], dim=1)
        workers.append((moons + noise * torch.randn(samples, 2, generator=generator), labels))
    model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))
    return ModuleTask(model, nn.functional.cross_entropy, workers, batch=16, byzantine=cohort.byzantine)


two_moons.tested = False  # its figures are not those of held-out samples: a sweep may tune on them


@dataclass(frozen=True)
class Opposite(Attack):
    """The honest mean, turned round and `scale` times as long."""

    scale: float = 2.0

    def forge(self, view, generator):
        return view.alike(-self.scale * view.honest.mean(dim=0))
