"""What a searching attack tries first, as coefficients over the dictionary of a `Scene`."""

from __future__ import annotations

import torch
from torch import Tensor

from byzopt.attacks.adaptive.scene import EXTRAS, Scene

MEAN, TARGET, DEVIATION, SIGNED, WORST, LONG = range(EXTRAS)


def candidates(scene: Scene, b: int, last: Tensor, generator: torch.Generator) -> Tensor:
    """Coefficients `[K, b, h + 6]` of K first guesses for b faulty rows; those of `last` `[L, b, h + 6]` did
    most harm last time.

    Multiples of the reversed mean; rays against the aim; means of the honest rows that agree least with the
    aim; along the standard deviation, the worst values, principal components; copies of honest rows; random
    combinations; two groups; the last winners.
    """
    h = len(scene.honest)
    single = torch.cat(
        [
            *_reversed(scene, h),
            *(_ray(h, TARGET, s) for s in (0.5, 1.0, 2.0, 4.0, 8.0)),
            *(_ray(h, LONG, -s) for s in (0.5, 1.0, 2.0, 4.0, 8.0)),
            *(_ray(h, kind, s) for kind in (SIGNED, DEVIATION, WORST) for s in (-1.5, -0.7, 0.7, 1.5, 3.0)),
            *_hiding(scene, b),
            *_components(scene),
            _copies(h),
            _drawn(h, generator),
        ]
    )
    alike = single.unsqueeze(1).expand(-1, b, -1)
    again = torch.cat([last, torch.stack([scale * last[0] for scale in (0.7, 1.4)])])
    return torch.cat([alike, again, *_split(alike, b)])


def _reversed(scene: Scene, h: int) -> list[Tensor]:
    """Rows -k m: the mean's direction has length z in the dictionary."""
    length = float(torch.linalg.vector_norm(scene.mean))
    ratio = length / scene.spread if scene.spread else 0.0
    return [_ray(h, MEAN, -(1 + k) * ratio) for k in (0.02, 0.1, 0.3, 0.5, 1.0, 2.0, 4.0, 11.0)]


def _ray(h: int, kind: int, strength: float) -> Tensor:
    out = torch.zeros(1, h + EXTRAS, dtype=torch.float64, device="cpu")
    out[0, h + kind] = strength
    return out


def _hiding(scene: Scene, b: int) -> list[Tensor]:
    """Means of the 1, b, 2 b honest rows that agree least with the aim, as they are and stretched."""
    h = len(scene.honest)
    order = (scene.honest @ scene.aim).argsort()
    out = []
    for count in (1, b, 2 * b):
        some = torch.zeros(1, h + EXTRAS, dtype=torch.float64, device="cpu")
        some[0, order[: min(count, h)]] = 1 / min(count, h)
        out += [0.8 * some, some, 1.3 * some, 2.0 * some]
    return out


def _components(scene: Scene) -> list[Tensor]:
    """Two and four standard deviations along the two largest principal components, both ways."""
    away = scene.honest - scene.mean
    h = len(away)
    values, vectors = torch.linalg.eigh(away @ away.T)
    out = []
    for k in (h - 1, h - 2)[: min(2, h)]:
        weights = vectors[:, k] * (h**0.5 / values[k].clamp_min(1e-300).sqrt()) * (values[k] / h).sqrt()
        row = torch.cat([weights, torch.zeros(EXTRAS, dtype=torch.float64, device="cpu")]).unsqueeze(0)
        out += [s * row for s in (-2.0, -1.0, 1.0, 2.0)]
    return out


def _copies(h: int) -> Tensor:
    return torch.eye(h, h + EXTRAS, dtype=torch.float64, device="cpu")


def _drawn(h: int, generator: torch.Generator, count: int = 8) -> Tensor:
    drawn = torch.randn(count, h, dtype=torch.float64, generator=generator, device=generator.device).cpu()
    return torch.cat([drawn / h**0.5, torch.zeros(count, EXTRAS, dtype=torch.float64, device="cpu")], dim=1)


def _split(alike: Tensor, b: int) -> list[Tensor]:
    """The first candidates in pairs: half of the faulty send one row, half the other."""
    if b < 2:
        return []
    first, second = alike[:16].clone(), alike[:16].roll(5, dims=0)
    first[:, b // 2 :] = second[:, b // 2 :]
    return [first]
