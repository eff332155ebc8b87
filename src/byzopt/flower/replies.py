"""Replies of `client_app`: a row and metrics, marked as such, or refused with a reason."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message
from torch import Tensor

from byzopt.flower.metrics import Metrics, strict_metrics
from byzopt.flower.records import ARRAYS, BYZOPT, GRADIENTS, METRICS, PROTOCOL
from byzopt.flower.untrusted import BadReply, check_names, read_numbers, records_of, shortened
from byzopt.layout import Layout

UNMARKED = (
    "carries no mark of byzopt, and may hold trained weights: its ClientApp is not one of `client_app`. "
    "Use RobustFedAvg for ClientApps that train and return weights"
)


class GradientReply(NamedTuple):
    """What a reply says: a row `[d]` and metrics by name."""

    row: Tensor
    metrics: Metrics


def decode_gradient(message: Message, layout: Layout, dtype: torch.dtype) -> GradientReply:
    """The reply as a row in this layout and dtype. Errors: `BadReply`, and nothing else whatever is sent."""
    try:
        records = records_of(message)
        _check_mark(records)
        _check_records(records)
        row = _row(records[ARRAYS], layout, np.dtype(str(dtype).removeprefix("torch.")))
        return GradientReply(row, strict_metrics(records.get(METRICS), METRICS))
    except BadReply:
        raise
    except Exception as error:  # what nobody has thought of is a fault of the sender's, too
        raise BadReply(f"unreadable: {shortened(repr(error))}") from None


def decode_evaluation(message: Message) -> Metrics:
    """The metrics in a reply of `client_app` to `evaluate`. Errors: `BadReply`."""
    try:
        return strict_metrics(records_of(message).get(METRICS), METRICS)
    except BadReply:
        raise
    except Exception as error:
        raise BadReply(f"unreadable: {shortened(repr(error))}") from None


def _check_mark(records: dict[str, Any]) -> None:
    mark = records.get(BYZOPT)
    if not isinstance(mark, ConfigRecord):
        raise BadReply(UNMARKED)
    version, content = mark.get("protocol"), mark.get("content")
    if version != PROTOCOL:
        spoken = shortened(repr(version))
        raise BadReply(
            f"speaks version {spoken} of byzopt's protocol in place of {PROTOCOL}: use one release"
        )
    if content != GRADIENTS:
        raise BadReply(f"holds {shortened(repr(content))} in place of {GRADIENTS!r}")


def _check_records(records: dict[str, Any]) -> None:
    if ARRAYS not in records or not set(records) <= {ARRAYS, METRICS, BYZOPT}:
        raise BadReply(f"records {shortened(str(sorted(records)))} in place of {ARRAYS!r} and {METRICS!r}")
    if not isinstance(records[ARRAYS], ArrayRecord):
        raise BadReply(f"record {ARRAYS!r} is a {type(records[ARRAYS]).__name__}")


def _row(arrays: ArrayRecord, layout: Layout, dtype: np.dtype[Any]) -> Tensor:
    check_names(arrays, layout.names)
    pairs = zip(layout.names, layout.shapes, strict=True)
    parts = [read_numbers(name, arrays[name], shape, (dtype.name,)) for name, shape in pairs]
    row = torch.from_numpy(np.concatenate(parts))
    if not row.isfinite().all():
        raise BadReply("NaN or Inf")
    return row
