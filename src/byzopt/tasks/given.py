"""What a task of a user's own module is given, checked before the first gradient is taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from math import inf
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from byzopt.errors import InvalidInput, require, said
from byzopt.fields import check_kind
from byzopt.tasks import sampling
from byzopt.tasks.grads import Loss, sequence_cross_entropy
from byzopt.tasks.grads.losses import IGNORED, unwrap_loss
from byzopt.tasks.pool import Pair, Pool

SHOWN = 5  # targets that a message names


def check_numbers(wd: float, dtype: torch.dtype, seed: int) -> None:
    """Raise `InvalidInput` unless the settings of a task are what they should be."""
    check_kind("Parameter `wd`", wd, float)
    require(0 <= wd < inf, "Parameter `wd`", "be finite and at least 0", wd)
    known = any(dtype is one for one in (torch.float32, torch.float64))
    remedy = "Pass the dtype itself, as dtype=torch.float64." if isinstance(dtype, str) else ""
    require(known, "Parameter `dtype`", "be torch.float32 or torch.float64", said(dtype), remedy)
    check_kind("Parameter `seed`", seed, int)


def check_batch_setting(batch: Any, pool: Pool) -> None:
    """Raise `InvalidInput` unless a batch is 'full' or at most the samples of all workers together."""
    if not isinstance(batch, str) or batch != "full":
        whole = isinstance(batch, Integral) and not isinstance(batch, bool)
        require(whole, "Parameter `batch`", "be a whole number, or 'full'", said(batch))
        if len(pool.shards) > 1:  # one worker alone may be a client of a federation, with few samples of all
            sampling.check_batch(batch, sum(len(shard) for shard in pool.shards))


@contextmanager
def labels_told(module: nn.Module, loss: Loss, pool: Pool) -> Iterator[None]:
    """Where what is done in here is refused, labels out of range are told of instead, if there are any."""
    try:
        yield
    except InvalidInput:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            try:
                output = deepcopy(module).eval()(pool.at(pool.shards[0][:1])[0])
            except Exception:  # what is wrong with the module has been said
                output = None
        check_labels(loss, output, pool, {})
        raise


def check_labels(loss: Loss, output: Any, pool: Pool, sets: Mapping[str, Pair]) -> None:
    """Raise `InvalidInput` for labels of the workers or of the `sets` that outputs like this one do not have.

    Labels are looked at under losses that are known to take them; those that do not count are left out.
    """
    classes = _classes(loss, output)
    if classes is None:
        return
    ignored = getattr(loss, "ignore_index", IGNORED)
    if _wrong(pool.targets, classes, ignored).numel():
        for i, shard in enumerate(pool.shards):
            _refuse(f"Worker {i}'s", pool.targets[shard.to(pool.targets.device)], classes, ignored)
    for prefix, (_, targets) in sets.items():
        _refuse(f"The {prefix.removesuffix('_') or 'test'} set's", targets, classes, ignored)


def _classes(loss: Loss, output: Any) -> int | None:
    """How many labels such outputs have, under a loss that takes labels; None where that is not known."""
    if not isinstance(output, Tensor) or output.ndim < 2:
        return None
    if loss is sequence_cross_entropy:
        return output.shape[-1]
    known = unwrap_loss(loss) in (functional.cross_entropy, functional.nll_loss)
    return output.shape[1] if known or isinstance(loss, (nn.CrossEntropyLoss, nn.NLLLoss)) else None


def _wrong(targets: Tensor, classes: int, ignored: int) -> Tensor:
    if targets.is_floating_point():
        return targets[:0]
    return targets[((targets < 0) | (targets >= classes)) & (targets != ignored)]


def _refuse(whose: str, targets: Tensor, classes: int, ignored: int) -> None:
    wrong = sorted(set(_wrong(targets, classes, ignored).cpu().tolist()))
    listed = ", ".join(map(str, wrong[:SHOWN])) + (", ..." if len(wrong) > SHOWN else "")
    rule = f"lie in 0..{classes - 1}, as the module puts out {classes} scores"
    require(not wrong, f"{whose} targets", rule, listed, "Number classes from 0, or add outputs.")
