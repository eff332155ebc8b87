"""All workers' samples in one store, and who owns which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from byzopt.errors import InvalidInput, require
from byzopt.tasks.base import Change, Relabel

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Pool:
    """Inputs `[N, ...]`, and places that point into them with a target each, owned by workers.

    Place p holds input `inputs[source[p]]` and target `targets[p]`; `shards[i]` are worker i's places.
    Relabelling adds places and copies no input.

    Args:
        inputs: All inputs, `[N, ...]`.
        targets: A target for each place, `[P, ...]`.
        source: The input of each place, `[P]` int64.
        shards: Each worker's places, int64.

    Examples:
        >>> import torch
        >>> from byzopt import Pool
        >>> shards = (torch.tensor([0, 1]), torch.tensor([2]))
        >>> pool = Pool(torch.randn(3, 4), torch.tensor([0, 1, 0]), torch.arange(3), shards)
        >>> len(pool.shards)
        2
    """

    inputs: Tensor
    targets: Tensor
    source: Tensor
    shards: tuple[Tensor, ...]

    @classmethod
    def dealt(cls, inputs: Tensor, targets: Tensor, shards: Sequence[Tensor]) -> Pool:
        """One data set dealt to workers by index tensors, as a partition's `split` gives them."""
        return cls(inputs, targets, torch.arange(len(inputs), device="cpu"), tuple(shards))

    @classmethod
    def of(cls, workers: Sequence[Pair]) -> Pool:
        """Every worker's own `(inputs [m_i, ...], targets [m_i, ...])`. Errors: see `check_samples`."""
        require(len(workers) >= 1, "`workers`", "hold a pair (inputs, targets) for each worker", "none")
        pairs = [check_samples(pair, f"Worker {i}'s data") for i, pair in enumerate(workers)]
        for part, what in ((0, "inputs"), (1, "targets")):
            kinds = sorted({f"{tuple(pair[part].shape[1:])} of {pair[part].dtype}" for pair in pairs})
            require(len(kinds) == 1, f"All workers' {what}", "have samples of one shape and dtype", kinds)
        sizes = [len(x) for x, _ in pairs]
        shards = torch.split(torch.arange(sum(sizes), device="cpu"), sizes)
        return cls.dealt(torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs]), shards)

    def to(self, device: torch.device, dtype: torch.dtype) -> Pool:
        """On a device, floating values in `dtype`. Places stay on the CPU."""
        return replace(
            self, inputs=cast(self.inputs, device, dtype), targets=cast(self.targets, device, dtype)
        )

    def at(self, places: Tensor) -> Pair:
        """Inputs and targets at `places` `[...]`."""
        device = self.inputs.device
        rows = self.inputs.index_select(0, self.source[places].flatten().to(device))
        return rows.view(*places.shape, *self.inputs.shape[1:]), self.targets[places.to(device)]

    def relabelled(self, workers: Sequence[int], relabel: Relabel, classes: int) -> Pool:
        """The same samples, these workers' with targets `relabel(targets, classes)`, taken once."""
        source, targets, shards = [self.source], [self.targets], list(self.shards)
        count = len(self.source)
        for i in workers:
            mine = shards[i]
            source.append(self.source[mine])
            targets.append(relabel(self.targets[mine.to(self.targets.device)], classes).to(self.targets))
            shards[i] = torch.arange(count, count + len(mine), device="cpu")
            count += len(mine)
        return replace(self, source=torch.cat(source), targets=torch.cat(targets), shards=tuple(shards))

    def poisoned(self, workers: Sequence[int], change: Change, classes: int) -> Pool:
        """These workers' samples as `change(inputs, targets, classes)` makes them, once, in copies."""
        inputs, targets, source, shards = [self.inputs], [self.targets], [self.source], list(self.shards)
        held, count = len(self.inputs), len(self.source)
        for i in workers:
            seen, labels = change(*self.at(shards[i]), classes)
            inputs.append(seen.to(self.inputs))
            targets.append(labels.to(self.targets))
            source.append(torch.arange(held, held + len(seen), device="cpu"))
            shards[i] = torch.arange(count, count + len(seen), device="cpu")
            held, count = held + len(seen), count + len(seen)
        return Pool(torch.cat(inputs), torch.cat(targets), torch.cat(source), tuple(shards))


def check_samples(pair: Any, what: str) -> Pair:
    """`pair` after checks: two tensors of equal length, not empty, finite. Errors: `InvalidInput`."""
    if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and all(isinstance(p, Tensor) for p in pair)):
        raise InvalidInput(f"{what} should be a pair of tensors (inputs, targets). Found {_kind(pair)}.")
    inputs, targets = pair
    require(inputs.ndim >= 1 and len(inputs) >= 1, what, "hold at least one sample", tuple(inputs.shape))
    sizes = f"{len(inputs)} inputs and {tuple(targets.shape)} targets"
    require(targets.ndim >= 1 and len(targets) == len(inputs), what, "have one target a sample", sizes)
    for part in (inputs, targets):
        require(bool(torch.isfinite(part).all()), what, "be finite", "NaN or Inf", "Clean the data first.")
    # What has no gradient stays the same object, so that tasks which share it are seen to.
    inputs, targets = (part.detach() if part.requires_grad else part for part in (inputs, targets))
    return inputs, targets


def cast(values: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """On `device`; floating values in `dtype`, integers as they are."""
    return values.to(device, dtype if values.is_floating_point() else values.dtype)


def _kind(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"({', '.join(type(part).__name__ for part in value)})"
    return type(value).__name__
