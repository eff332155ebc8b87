"""A rule as people write it, from the data that are stored of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from byzopt.aggregators import PRE_AGGREGATORS, RULES, rule_data, rule_from
from byzopt.errors import InvalidInput
from byzopt.own_files import KEY, is_reference


def rule_text(stages: Sequence[Any], f: int) -> str:
    """A rule as people write it: `nnm >> krum(extra=1)`, without what is its default at tolerance f.

    A stage that is not known here, because its plugin is not installed, has all of its parameters.
    """
    return " >> ".join(map(_stage, stages, [f] * len(stages)))


def _stage(stage: Any, f: int) -> str:
    if not isinstance(stage, Mapping) or not isinstance(stage.get("name"), str):
        return str(stage)
    name, source = stage["name"], stage.get(KEY)
    usual = _usual(name, f)
    if isinstance(source, Mapping) and "sha256" in source:
        name, usual = f"{name}@{short_hash(source)}", {KEY: source, **usual}
    changed = {key: value for key, value in stage.items() if key != "name" and value != usual.get(key, ...)}
    if "rule" in changed:
        inner = changed["rule"] if isinstance(changed["rule"], list) else [changed["rule"]]
        changed["rule"] = rule_text(inner, f)
    rest = ", ".join(f"{key}={value!r}" for key, value in changed.items())
    return f"{name}({rest})" if rest else str(name)


def _usual(name: str, f: int) -> Mapping[str, Any]:
    if is_reference(name):  # a part of a user's own, whose code is not run to show a run
        return {}
    known = name in RULES or name in PRE_AGGREGATORS
    for spelling in ([name], [name, "mean"]) if known else ():
        try:
            return rule_data(rule_from(spelling, f=f))[0]
        except InvalidInput:
            continue
    return {}


def short_hash(source: Mapping[str, Any]) -> str:
    """Enough of the hash of a part's code to tell it from another state of the same file."""
    return str(source["sha256"])[:8]
