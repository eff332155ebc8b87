"""A rule of one's own, as a plugin: once installed it has a name in specs and commands, like any other.

pip install -e examples/own_rule
byzopt list rules
byzopt run examples/own_rule/spec.toml
byzopt run mnist_path.toml --set rule="nnm >> ball"
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from byzopt.aggregators import RULES, GeometricRule, Geometry


@RULES.register("ball")
@dataclass(frozen=True)
class Ball(GeometricRule):
    """The mean of the n - f rows nearest to the row whose majority lies nearest around it. Needs 2 f < n."""

    f: int

    def weights(self, geometry: Geometry) -> Tensor:
        dists, m = geometry.sq_dists, geometry.m
        centre = dists.sort(dim=1).values[:, m // 2].argmin()
        kept = dists[centre].argsort(stable=True)[: m - self.f]
        return torch.zeros(m, dtype=torch.float64).index_fill(0, kept, 1 / len(kept))
