"""Conditions on rows, as `attack=alie` or `lr>=0.1`."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

from byzopt.errors import InvalidInput, said, unknown
from byzopt.figures import in_percent

Row = dict[str, Any]


_CONDITION = re.compile(r"\s*([\w.-]+)\s*(!=|<=|>=|==|=|<|>)(.*)", re.DOTALL)


_TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def condition(text: str, known: Sequence[str], found_rows: Sequence[Row]) -> Callable[[Row], bool]:
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise InvalidInput(f"A condition should read `attack=alie` or `lr>=0.1`. Found {text!r}.")
    name, sign, wanted = match[1], match[2], match[3].strip()
    if name not in known:
        raise unknown("column", name, known)
    values = [value for row in found_rows if (value := row.get(name)) is not None]
    if values and not any(isinstance(v, str) or not is_number(v) for v in values) and not is_number(wanted):
        raise InvalidInput(f"A condition on `{name}` should name a number. Found {text!r}.")
    return lambda row: _holds(row.get(name), sign, wanted)


def doubtful_conditions(where: Sequence[str]) -> list[str]:
    """What is odd about conditions that can be tested all the same: a fraction given in percent."""
    matches = [match for match in map(_CONDITION.fullmatch, where) if match and is_number(match[3].strip())]
    flaws = ((match[0], in_percent(match[1], float(match[3]))) for match in matches)
    return [f"{said(text)}: {flaw}" for text, flaw in flaws if flaw]


def _holds(value: Any, sign: str, wanted: str) -> bool:
    if value is None:
        return False
    if is_number(value) and not isinstance(value, str):
        try:
            return _TESTS[sign](value, float(wanted))  # a whole number of any size is compared exactly
        except ValueError:
            return sign == "!="
    plain = value if isinstance(value, str) else json.dumps(value)
    return _TESTS[sign](plain, wanted.strip("\"'"))


def is_number(value: Any) -> bool:
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return False
        return True
    return isinstance(value, (int, float)) and not isinstance(value, bool)
