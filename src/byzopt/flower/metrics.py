"""Metrics that clients report: read with care, and combined by medians, which no single liar chooses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from statistics import median_low
from typing import Any, TypeAlias

from flwr.app import MetricRecord, RecordDict

from byzopt.flower.untrusted import BadReply

Metrics: TypeAlias = "dict[str, float | list[float]]"
MOST_METRICS, LONGEST_NAME = 32, 64  # of what `client_app` sends
MOST_FOREIGN = 10_000  # numbers in the metrics of a ClientApp of one's own; what is beyond is left out


def strict_metrics(record: Any, name: str) -> Metrics:
    """The finite numbers of a MetricRecord of `client_app`; none is as good as an empty one.

    Errors: `BadReply` for anything else.
    """
    if record is None:
        return {}
    if not isinstance(record, MetricRecord):
        raise BadReply(f"record {name!r} is a {type(record).__name__}")
    if len(record) > MOST_METRICS or any(len(key) > LONGEST_NAME for key in record):
        raise BadReply(f"more than {MOST_METRICS} metrics, or names beyond {LONGEST_NAME} letters")
    for key, value in record.items():
        if isinstance(value, (list, bool)) or not isfinite(value):
            raise BadReply(f"metric {key!r} is no finite number")
    return {key: float(value) for key, value in record.items()}


def lenient_metrics(records: Iterable[Any]) -> Metrics:
    """The finite numbers and lists of them in all MetricRecords of a ClientApp of one's own.

    What else there is says nothing against the arrays beside it, and is left out.
    """
    metrics: Metrics = {}
    room = MOST_FOREIGN
    for record in records:
        if not isinstance(record, MetricRecord):
            continue
        for key, value in record.items():
            numbers = value if isinstance(value, list) else [value]
            room -= max(1, len(numbers))
            if room >= 0 and all(_is_finite(number) for number in numbers):
                metrics[key] = (
                    [float(number) for number in numbers] if isinstance(value, list) else float(value)
                )
    return metrics


def medians(reports: Sequence[Mapping[str, float | list[float]]]) -> Metrics:
    """The medians of metrics that more than half of the clients report, lists place by place."""
    combined: Metrics = {}
    for name in sorted({name for report in reports for name in report}):
        values = [report[name] for report in reports if name in report]
        numbers = [value for value in values if not isinstance(value, list)]
        if 2 * len(numbers) > len(reports):
            combined[name] = median_low(numbers)
            continue
        lists = [value for value in values if isinstance(value, list)]
        length = median_low([len(value) for value in lists]) if lists else 0
        alike = [value for value in lists if len(value) == length]
        if 2 * len(alike) > len(reports):
            combined[name] = [median_low(place) for place in zip(*alike, strict=True)]
    return combined


def _is_finite(number: Any) -> bool:
    try:
        return not isinstance(number, bool) and isfinite(number)
    except (TypeError, OverflowError):
        return False


def consistent(contents: Sequence[RecordDict], weight: str) -> list[RecordDict]:
    """Those replies whose metrics are finite and have the names and lengths that most replies have, and whose
    `weight`, if any, is at least 0: for functions that take this for granted."""
    kinds = [_kind(content, weight) for content in contents]
    counts = Counter(kind for kind in kinds if kind is not None)
    usual = counts.most_common(1)[0][0] if counts else ()
    return [content for content, kind in zip(contents, kinds, strict=True) if kind == usual]


def _kind(content: RecordDict, weight: str) -> tuple[tuple[str, str, int], ...] | None:
    """Names and lengths of all metrics in a reply; None where one is not finite, or the weight negative."""
    kind = []
    for name, record in content.items():
        if isinstance(record, MetricRecord):
            for key, value in record.items():
                numbers = value if isinstance(value, list) else [value]
                if not all(_is_finite(number) for number in numbers):
                    return None
                if key == weight and min(numbers, default=0) < 0:
                    return None
                kind.append((name, key, len(numbers) if isinstance(value, list) else -1))
    return tuple(sorted(kind))
