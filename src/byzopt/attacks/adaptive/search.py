"""From first guesses to the worst rows: line search, mixtures, steps along directions, evolution."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from byzopt.attacks.adaptive.scene import EXTRAS

Damage = Callable[[Tensor], Tensor]  # coefficients [K, b, p] to how much harm they do [K]; -inf: refused


class Best:
    """The candidates seen so far, the most harmful first."""

    def __init__(self, damage: Damage, first: Tensor) -> None:
        self.damage = damage
        self.coefficients, self.harm = first[:0], first.new_empty(0)
        self.add(first)

    def add(self, more: Tensor, keep: int = 32) -> None:
        """Tries more candidates `[K, b, p]`, and keeps the best of all."""
        harm = self.damage(more).nan_to_num(nan=-torch.inf, posinf=-torch.inf)
        coefficients, harm = torch.cat([self.coefficients, more]), torch.cat([self.harm, harm])
        order = harm.argsort(descending=True, stable=True)[:keep]
        self.coefficients, self.harm = coefficients[order], harm[order]

    def top(self, count: int) -> Tensor:
        """The `count` most harmful ones."""
        return self.coefficients[:count]


def refine(best: Best, rounds: int = 2) -> None:
    """Line search on strength, convex combinations of the leaders, steps along the extra directions."""
    for k in range(rounds):
        width = 0.5**k
        leaders = best.top(4)
        strengths = (1 - 0.5 * width, 1 - 0.2 * width, 1 + 0.25 * width, 1 + 0.8 * width)
        pairs = [(leaders[i] + leaders[j]) / 2 for i in range(len(leaders)) for j in range(i)]
        best.add(torch.cat([s * leaders[:3] for s in strengths] + [pair.unsqueeze(0) for pair in pairs]))
        steps = [s * width * way for s in (-0.5, 0.5) for way in _ways(best.top(1))]
        best.add(torch.cat([best.top(1) + step for step in steps]))


def evolve(best: Best, generator: torch.Generator, generations: int = 2, size: int = 32) -> None:
    """Children of the leaders: half of them moved by the difference of two others, half by lot; in half of
    them all faulty workers send the same row."""
    for g in range(generations):
        parents = best.top(12)
        chosen = parents[torch.arange(size, device="cpu") % min(8, len(parents))]
        one, other = (parents[_whole(size, len(parents), generator)] for _ in range(2))
        ways = _uniform((size, 1, 1), generator) * 1.2 * (one - other)
        scale = 0.3 * 0.7**g * chosen.abs().amax(dim=(-2, -1), keepdim=True).clamp_min(0.1)
        noise = torch.randn(chosen.shape, dtype=chosen.dtype, generator=generator, device=generator.device)
        noise = noise.to(chosen.device)
        noise[: size // 2] = noise[: size // 2, :1]
        noise = scale * noise * (_uniform(chosen.shape, generator) < 0.3)
        best.add(
            chosen + torch.where((torch.arange(size, device="cpu") % 2 == 0)[:, None, None], ways, noise)
        )


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    drawn = torch.rand(shape, dtype=torch.float64, generator=generator, device=generator.device)
    return drawn.cpu()


def _whole(count: int, below: int, generator: torch.Generator) -> Tensor:
    return (_uniform((count,), generator) * below).long().clamp_max(below - 1)


def _ways(leader: Tensor) -> list[Tensor]:
    """The extra directions, as coefficients for all faulty rows alike."""
    out = []
    for kind in range(EXTRAS):
        way = torch.zeros_like(leader)
        way[..., leader.shape[-1] - EXTRAS + kind] = 1.0
        out.append(way)
    return out
