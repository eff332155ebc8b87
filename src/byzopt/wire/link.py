"""What both ends of the wire know of a round."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from byzopt.layout import Layout
from byzopt.rng import coin, stream


class Link(NamedTuple):
    """Round `t` from 1, the run's seed (one for each of several runs), names of coordinates, last aggregate.

    `last` `[d]` is None in round 1. `way` is "up" or "down", which draw from different streams. Randomness is
    drawn for all workers at once from one stream per round: a process that plays one worker draws the same
    numbers and takes its row: `only=(i, n)` says that rows `[1, d]` are those of worker i of n alone.

    Args:
        t: The round, from 1.
        seed: The run's, or one for each of several runs.
        layout: Names and shapes of the tensors that a row is made of.
        last: The aggregate of the round before, `[d]`; None in round 1.
        way: Direction, "up" or "down"; each draws from a stream of its own.
        only: (i, n) where rows `[1, d]` are those of worker i of n alone.
        present: Who takes part, `[n]` of bool on the CPU; None: everybody.
        x: Where workers were asked, `[d]`; None where an engine does not say.
        shared: Whether all workers draw the same numbers, those of worker 0.

    Examples:
        >>> import torch
        >>> from byzopt.layout import Layout
        >>> from byzopt.wire import Link
        >>> link = Link(t=1, seed=0, layout=Layout.flat(4))
        >>> alone = link._replace(only=(2, 3))  # worker 2 draws what it would draw beside the others
        >>> bool((link.uniform(torch.zeros(3, 4))[2:] == alone.uniform(torch.zeros(1, 4))).all())
        True
    """

    t: int
    seed: int | tuple[int, ...]
    layout: Layout
    last: Tensor | None = None
    way: str = "up"
    only: tuple[int, int] | None = None
    present: Tensor | None = None
    x: Tensor | None = None
    shared: bool = False

    @property
    def first(self) -> bool:
        """Whether nothing has crossed the wire before."""
        return self.t == 1

    def uniform(self, rows: Tensor) -> Tensor:
        """Uniform numbers in [0, 1) in the shape, dtype and device of `rows` `[..., n, d]`."""
        if isinstance(self.seed, int):
            return self._drawn(self.seed, rows)
        return torch.stack([self._drawn(seed, rows[r]) for r, seed in enumerate(self.seed)])

    def normal(self, rows: Tensor) -> Tensor:
        """Standard normal numbers, as `uniform` draws others."""
        if isinstance(self.seed, int):
            return self._drawn(self.seed, rows, torch.randn, "noise")
        return torch.stack(
            [self._drawn(seed, rows[r], torch.randn, "noise") for r, seed in enumerate(self.seed)]
        )

    def coin(self, p: float) -> bool:
        """The round's common coin: 1 with probability p. All workers and the server see the same one."""
        assert isinstance(self.seed, int)  # parts that toss it are called for one run at a time
        return coin(self.seed, self.t, p)

    def _drawn(
        self, seed: int, rows: Tensor, draw: Callable[..., Tensor] = torch.rand, purpose: str = "wire"
    ) -> Tensor:
        generator = stream(seed, purpose, self.way, self.t, device=rows.device)
        wide = torch.float64 if rows.dtype == torch.float64 else torch.float32
        i, n = self.only or (0, len(rows))
        drawn = draw((n, *rows.shape[1:]), dtype=wide, generator=generator, device=rows.device)
        drawn = drawn[:1].expand_as(drawn) if self.shared else drawn
        return drawn if self.only is None else drawn[i : i + 1]
