"""Faults that a node can be started with, as a mod around the ClientApp: node_config `faulty="NAME"`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message


def faults(message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
    name = context.node_config.get("faulty")
    if name == "crashes":
        raise RuntimeError("out of order")
    reply = call_next(message, context)
    if name is None or "arrays" not in reply.content:
        return reply
    if name == "boasts":
        reply.content["metrics"]["num-examples"] = 10**12
    sent = {key: array.numpy() for key, array in message.content["arrays"].items()}
    trained = {key: array.numpy() for key, array in reply.content["arrays"].items()}
    forged = {key: forge(name, sent[key], value) for key, value in trained.items()}
    reply.content["arrays"] = ArrayRecord({key: Array(np.asarray(value)) for key, value in forged.items()})
    return reply


def forge(name: str, sent: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """One array as the faulty node returns it."""
    if name == "lies" or name == "boasts":  # ten times the training of the others, backwards
        return (sent - 10.0 * (trained.astype(float) - sent)).astype(trained.dtype)
    if name == "nan":
        return np.full_like(trained, np.nan if trained.dtype.kind == "f" else 0)
    if name == "another_model":
        return np.zeros((*trained.shape, 2), trained.dtype)
    raise ValueError(f"unknown fault {name!r}")
