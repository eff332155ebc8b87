"""Gradients of any module: all workers in one `vmap`, or one worker after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.func import grad, vmap

from byzopt.tasks.grads.pure import Pure
from byzopt.tasks.grads.randomness import started


class Looped:
    """One forward and one backward pass for each worker: the yardstick of the other ways."""

    def __init__(self, pure: Pure) -> None:
        self.pure, self.module = pure, pure.module

    def fill(
        self, rows: Tensor, x: Tensor, inputs: Tensor, targets: Tensor, most: int, seeds: Sequence[int]
    ) -> None:
        """Write into `rows` `[n, d]` the gradients at `x` `[d]` on `inputs`, `targets` `[n, b, ...]`.

        A worker's samples always go through together, whatever `most` says. Worker i draws from `seeds[i]`.
        """
        self.fill_at(rows, x.expand(len(rows), -1), inputs, targets, most, seeds)

    def fill_at(
        self, rows: Tensor, points: Tensor, inputs: Tensor, targets: Tensor, most: int, seeds: Sequence[int]
    ) -> None:
        """As `fill`, worker i at its own `points[i]`: `[n, d]`."""
        layout = self.pure.layout
        for row, x, seen, true, seed in zip(rows, points, inputs, targets, seeds, strict=True):
            # Copies, so that a module that writes to its parameters writes to nobody's point.
            leaves = {k: p.clone().requires_grad_() for k, p in layout.views(x.detach()).items()}
            started(seed, x.device, self.pure.coins)
            # Backwards inside, for modules that compute parts of the forward pass again.
            with self.pure.held(leaves, seed) as (module, loss):
                seen, true = self.pure.given(seen, true)
                value = loss(module(seen), true)
                slopes = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
            for place, slope in zip(layout.views(row).values(), slopes, strict=True):
                place.copy_(slope.to_dense() if slope.is_sparse else slope)


class Vmapped:
    """`vmap` over workers of the gradient."""

    def __init__(self, pure: Pure) -> None:
        self.pure, self.module = pure, pure.module

    def fill(
        self, rows: Tensor, x: Tensor, inputs: Tensor, targets: Tensor, most: int, seeds: Sequence[int]
    ) -> None:
        """As `Looped.fill`; what is drawn is seen to by `Apart`."""
        self._fill(rows, x, None, inputs, targets)

    def fill_at(
        self, rows: Tensor, points: Tensor, inputs: Tensor, targets: Tensor, most: int, seeds: Sequence[int]
    ) -> None:
        """As `fill`, worker i at its own `points[i]`: `[n, d]`."""
        self._fill(rows, points, 0, inputs, targets)

    def _fill(self, rows: Tensor, x: Tensor, of_points: int | None, inputs: Tensor, targets: Tensor) -> None:
        def value(x: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
            with self.pure.held(self.pure.layout.views(x)) as (module, loss):
                return loss(module(inputs), targets)

        per_worker: Callable[..., Tensor] = vmap(grad(value), (of_points, 0, 0), randomness="different")
        rows.copy_(per_worker(x, *self.pure.given(inputs, targets)))
