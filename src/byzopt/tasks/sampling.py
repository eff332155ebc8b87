"""Minibatches: which of its own samples each worker looks at in a round, as a pure function of the round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from byzopt.errors import require
from byzopt.rng import stream
from byzopt.theory.privacy import Uses

AHEAD = 1 << 15  # places drawn at a time, and at most so many rounds
ROUNDS = 32


def check_batch(batch: int, samples: int) -> None:
    """Raise unless a worker's batch is at most all samples that there are."""
    rule = f"be at most all {samples:,} training samples"
    require(batch <= samples, "Parameter `batch`", rule, batch, "Lower it.")


class PoissonSample(NamedTuple):
    """What each worker took, every sample by itself with one probability.

    Args:
        places: Each worker's sample indices, int64, of any number, also of none.
        batch: How many these are on average, by which a worker divides their sum.
        t: The draw, from 1.

    Examples:
        >>> import torch
        >>> from byzopt import Sampler
        >>> sample = Sampler([torch.arange(40), torch.arange(40, 60)], batch=10, seed=0).poisson(1)
        >>> sample.batch, len(sample.places)
        (10, 2)
    """

    places: tuple[Tensor, ...]
    batch: int
    t: int


class Sampler:
    """Every worker walks through fresh permutations of its own shard, one after the other without end.

    Round t holds places (t-1) b .. t b - 1 of that walk, so a batch may straddle two epochs (or hold the
    shard several times) and no sample is ever left out. Worker i's permutation of epoch e hangs on
    `(seed, i, e)` only: rounds may be drawn in any order, and other workers' shards change nothing for it.

    `shards`: each worker's sample indices, int64, non-empty. `batch` b >= 1 samples a worker and round.
    `replacement=True` draws independent uniform samples instead.

    Args:
        shards: Each worker's sample indices, int64, none empty.
        batch: Samples b >= 1 a worker and round.
        seed: Of the permutations.
        replacement: Whether samples are drawn independently.

    Examples:
        >>> import torch
        >>> from byzopt import Sampler
        >>> sampler = Sampler([torch.arange(4), torch.arange(4, 8)], batch=2, seed=0)
        >>> seen = torch.cat([sampler.draw(1), sampler.draw(2)], dim=1)  # two rounds of half the shard
        >>> seen.sort(dim=1).values
        tensor([[0, 1, 2, 3],
                [4, 5, 6, 7]])
    """

    def __init__(self, shards: Sequence[Tensor], batch: int, seed: int, replacement: bool = False) -> None:
        require(batch >= 1, "The batch size", "be at least 1", batch)
        require(len(shards) >= 1, "The shards", "hold one for each worker", "none")
        empty = [i for i, shard in enumerate(shards) if not len(shard)]
        require(not empty, "Every worker", "own at least one sample", f"none for workers {empty}")
        self.shards, self.batch, self.seed, self.replacement = list(shards), batch, seed, replacement
        self._sizes = [len(shard) for shard in shards]
        self._size = torch.tensor(self._sizes, device="cpu").unsqueeze(1)
        self._pool, self._first = torch.cat(self.shards), self._size.cumsum(0) - self._size
        self._recent: list[dict[int, Tensor]] = [{} for _ in shards]
        self._span = max(1, min(ROUNDS, AHEAD // (len(shards) * batch)))
        self._drawn: tuple[int, Tensor] = (-1, torch.empty(0, device="cpu"))

    def over(self, shards: Sequence[Tensor]) -> Sampler:
        """The same sampler for other shards."""
        return Sampler(shards, self.batch, self.seed, self.replacement)

    def draw(self, t: int) -> Tensor:
        """Sample indices `[n, batch]` of round t >= 1; row i holds samples of worker i's shard."""
        require(t >= 1, "The round", "be at least 1", t)
        if self.replacement:
            return self._independent(t)
        # Rounds are drawn several at a time, for speed only.
        block, place = divmod(t - 1, self._span)
        if self._drawn[0] != block:
            first, last = block * self._span * self.batch, (block + 1) * self._span * self.batch
            walks = torch.stack([self._walk(i, first, last) for i in range(len(self.shards))])
            rounds = walks.view(len(self.shards), self._span, self.batch).transpose(0, 1)
            self._drawn = block, rounds.contiguous()
        return self._drawn[1][place]

    def poisson(self, t: int) -> PoissonSample:
        """What workers take in draw t >= 1 if each takes every sample of its shard by itself, with
        probability b over the shard's length. Errors: a shard of fewer than b samples."""
        require(t >= 1, "The round", "be at least 1", t)
        least = min(self._sizes)
        what, rule = "Poisson samples", f"be of at most the {least} samples that a worker has, on average"
        require(self.batch <= least, what, rule, f"batch = {self.batch}", "Lower it.")
        places = []
        for i, shard in enumerate(self.shards):
            generator = stream(self.seed, "sample", "poisson", i, t)
            drawn = torch.rand(len(shard), dtype=torch.float64, generator=generator, device="cpu")
            places.append(shard[drawn < self.batch / len(shard)])
        return PoissonSample(tuple(places), self.batch, t)

    def passes(self, workers: Sequence[int]) -> float:
        """Minibatches that hold as many samples as a shard, on average over `workers`."""
        return sum(self._sizes[i] for i in workers) / len(workers) / self.batch

    def uses(self, rounds: int, workers: Sequence[int]) -> Uses:
        """How often so many rounds use one sample of these workers: a walk meets it once in each pass."""
        least, most = (end(self._sizes[i] for i in workers) for end in (min, max))
        rate = self.batch / least if self.batch <= least else None
        if self.replacement or type(self) is not Sampler:
            return Uses(rounds, batch=self.batch, rate=rate, most=most)
        passes = -(-rounds * self.batch // least)
        whole = all(self._sizes[i] % self.batch == 0 for i in workers)
        # A batch that straddles two passes may hold a sample twice; a longer one than a pass, oftener.
        weight = float(passes if whole else 2 * passes) if self.batch <= least else None
        return Uses(rounds, min(rounds, passes), weight, self.batch, rate=rate, most=most)

    def _independent(self, t: int) -> Tensor:
        generator = stream(self.seed, "sample", "replacement", t)
        shape = (len(self.shards), self.batch)
        place = torch.rand(shape, dtype=torch.float64, generator=generator, device="cpu") * self._size
        return self._pool[self._first + place.long()]

    def _walk(self, i: int, first: int, last: int) -> Tensor:
        """Places `first` .. `last` - 1 of worker i's walk."""
        size = self._sizes[i]
        start = first // size
        walk = torch.cat([self._epoch(i, e) for e in range(start, (last - 1) // size + 1)])
        return walk[first - start * size : last - start * size]

    def _epoch(self, i: int, epoch: int) -> Tensor:
        """Worker i's permuted shard; the two latest epochs asked for are kept, for speed only."""
        recent = self._recent[i]
        if epoch not in recent:
            if len(recent) == 2:
                del recent[next(iter(recent))]
            generator = stream(self.seed, "sample", i, epoch)
            recent[epoch] = self.shards[i][torch.randperm(self._sizes[i], generator=generator, device="cpu")]
        return recent[epoch]
