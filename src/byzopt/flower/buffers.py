"""What clients' buffers become: a robust rule for floats, the lower median for counters and flags."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from byzopt.aggregators import Aggregator
from byzopt.flower.model import ModelArrays, Values


def combine_buffers(model: ModelArrays, replies: Sequence[Values], k: int, rule: Aggregator) -> Values:
    """The model's buffers from those of the clients that replied, of k that were asked.

    Floats of all buffers are one row a client for `rule`, a client that is lost being a faulty row. Integers
    and flags are not averaged: each becomes the lower median of the clients' values, a value that some client
    sent and that lies among the honest ones while less than half of the clients lie.
    """
    names = [name for name in model.names if name in model.buffers]
    if not names:
        return {}
    floats = [name for name in names if replies[0][name].dtype.kind == "f"]
    combined = {
        name: np.sort(np.stack([reply[name] for reply in replies]), axis=0)[(len(replies) - 1) // 2]
        for name in names
        if name not in floats
    }
    if floats:
        combined |= _floats(model, replies, floats, k, rule)
    return combined


def _floats(
    model: ModelArrays, replies: Sequence[Values], names: Sequence[str], k: int, rule: Aggregator
) -> Values:
    rows = torch.full(
        (k, sum(replies[0][name].size for name in names)), torch.nan, dtype=model.dtype, device="cpu"
    )
    for i, reply in enumerate(replies):
        whole = np.concatenate([reply[name].reshape(-1) for name in names])
        rows[i] = torch.from_numpy(whole.astype(str(model.dtype).removeprefix("torch.")))
    if not rows.shape[1]:
        return {name: replies[0][name] for name in names}
    flat = rule(rows).numpy()
    combined, start = {}, 0
    for name in names:
        like = replies[0][name]
        combined[name] = flat[start : start + like.size].reshape(like.shape).astype(like.dtype)
        start += like.size
    return combined
