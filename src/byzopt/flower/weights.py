"""Replies of ClientApps that train and return weights: read with care, or refused with a reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from torch import Tensor

from byzopt.flower.metrics import Metrics, lenient_metrics
from byzopt.flower.model import FLOATS, INTEGERS, ModelArrays, Values
from byzopt.flower.records import BYZOPT
from byzopt.flower.untrusted import BadReply, check_names, read_numbers, records_of, shortened

MARKED = (
    "is of a ClientApp by `client_app`, which answers RobustStrategy: RobustFedAvg is for ClientApps that "
    "train and return weights"
)


class WeightsReply(NamedTuple):
    """What a reply says: parameters `[d]`, buffers, metrics, and how much the client claims to count."""

    x: Tensor
    buffers: Values
    metrics: Metrics
    weight: float
    content: RecordDict


@dataclass(frozen=True)
class WeightsDecoder:
    """Reads replies with this model's arrays, under the record `key` or any other if it is the only one.

    `weighted_by` is the metric that must say how much the client counts; None: all count alike.
    """

    model: ModelArrays
    key: str
    weighted_by: str | None = None

    def __call__(self, message: Message) -> WeightsReply:
        """Errors: `BadReply`, and nothing else whatever is sent."""
        try:
            records = records_of(message)
            if BYZOPT in records:
                raise BadReply(MARKED)
            values = self._values(self._arrays(records))
            x = self.model.vector(values)
            buffers = {name: values[name] for name in self.model.buffers}
            if not x.isfinite().all() or not all(np.isfinite(each).all() for each in buffers.values()):
                raise BadReply("NaN or Inf")
            metrics = lenient_metrics(records.values())
            return WeightsReply(x, buffers, metrics, self._weight(metrics), message.content)
        except BadReply:
            raise
        except Exception as error:  # what nobody has thought of is a fault of the sender's, too
            raise BadReply(f"unreadable: {shortened(repr(error))}") from None

    def _arrays(self, records: dict[str, Any]) -> ArrayRecord:
        arrays = {name: record for name, record in records.items() if isinstance(record, ArrayRecord)}
        if self.key in arrays:
            return arrays[self.key]
        if len(arrays) != 1:
            raise BadReply(f"{len(arrays)} ArrayRecords, none of them {self.key!r}, in place of one")
        return next(iter(arrays.values()))

    def _values(self, arrays: ArrayRecord) -> Values:
        model = self.model
        check_names(arrays, model.names)
        values = {}
        for name, shape, dtype in zip(model.names, model.shapes, model.dtypes, strict=True):
            if name in model.constants:
                continue
            numbers = read_numbers(name, arrays[name], shape, _family(dtype)).reshape(shape)
            with np.errstate(over="ignore"):
                values[name] = numbers.astype(dtype) if name in model.buffers else numbers
            if dtype in INTEGERS and not (values[name] == numbers).all():
                raise BadReply(f"array {name!r} holds numbers beyond {dtype}")
        return values

    def _weight(self, metrics: Metrics) -> float:
        if self.weighted_by is None:
            return 1.0
        weight = metrics.get(self.weighted_by)
        if weight is None or isinstance(weight, list) or weight < 0:
            raise BadReply(f"metric {self.weighted_by!r} is no finite number of at least 0")
        return weight


def decode_metrics(message: Message) -> Metrics:
    """The metrics in a reply to `evaluate`. Errors: `BadReply`."""
    try:
        records = records_of(message)
        if not any(isinstance(record, MetricRecord) for record in records.values()):
            raise BadReply("holds no MetricRecord")
        return lenient_metrics(records.values())
    except BadReply:
        raise
    except Exception as error:
        raise BadReply(f"unreadable: {shortened(repr(error))}") from None


def _family(dtype: str) -> tuple[str, ...]:
    """The dtypes in which a client may return an array: `dtype` first, then others of its kind."""
    kinds = next((kinds for kinds in (FLOATS, INTEGERS) if dtype in kinds), (dtype,))
    return (dtype, *(kind for kind in kinds if kind != dtype))
