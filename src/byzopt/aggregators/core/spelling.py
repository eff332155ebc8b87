"""How a rule is written down: `"nnm >> krum"`, `"nnm(f=3) >> krum(f=3)"`, a table, or a list of those.

A wrapper names its rule in the same ways: `"fail_closed(rule='nnm >> krum')"`. A part of the user's own is
named by its file: `"nnm >> my_rules.py:Ball(f=3)"`, in quotes where the path has spaces.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

from byzopt.aggregators.core.aggregator import RULES, Aggregator
from byzopt.aggregators.core.chain import Chain
from byzopt.aggregators.core.pre_aggregator import PRE_AGGREGATORS
from byzopt.aggregators.core.stage import Stage
from byzopt.aggregators.core.wrapper import WRAPPERS, RuleWrapper
from byzopt.errors import InvalidInput, require, said, unknown
from byzopt.own_files import is_reference
from byzopt.registry import Registry, is_part, plain, resolved

S = TypeVar("S", bound=Stage)
_NAMES = (ast.Name, ast.Call, ast.BinOp)  # what stands where a text in quotes is meant


def rule_from(data: Any, **defaults: Any) -> Aggregator:
    """The rule or chain that `data` spells. `defaults` (for instance `f=3`) fill what it leaves out.

    Args:
        data: Text such as `nnm >> krum(extra=1)`, a table, a list of both, or a rule.
        defaults: Values of fields that the spelling leaves out, for instance `f=3`.

    Returns:
        The rule, or the chain.

    Raises:
        UnknownName: A name or a key that does not exist.
        InvalidInput: Anything else that spells no rule.

    Examples:
        >>> from byzopt import rule_from
        >>> rule_from("nnm >> trimmed_mean", f=3)
        NNM(f=3) >> TrimmedMean(f=3)
        >>> rule_from({"name": "krum", "f": 2})
        Krum(f=2, extra=0, power=2)
    """
    if isinstance(data, Aggregator):
        return data
    parts = stages_of(data) if isinstance(data, str) else data
    if isinstance(parts, Mapping) or is_part(parts):
        parts = [parts]
    if not isinstance(parts, Sequence) or not parts:
        raise InvalidInput(f"A rule should be a name, a table or a list of stages. Found {said(data)}.")
    *before, last = parts
    stages = [_recipe(PRE_AGGREGATORS, _known(stage, last=False), defaults) for stage in before]
    rule = _built(last, defaults)
    return Chain(stages, rule) if stages else rule


def rule_data(rule: Aggregator) -> list[dict[str, Any]]:
    """The plain list of stages that spells `rule`.

    Args:
        rule: A rule or chain.

    Returns:
        A table for each stage, the rule's last, as `rule_from` reads them.

    Examples:
        >>> from byzopt import NNM, Median, rule_data
        >>> rule_data(NNM(f=3) >> Median(f=3))
        [{'name': 'nnm', 'f': 3}, {'name': 'median', 'f': 3}]
    """
    stages: tuple[Stage, ...]
    stages = (*rule.stages, rule.rule) if isinstance(rule, Chain) else (rule,)
    return [_plain(stage) for stage in stages]


def _built(stage: Any, defaults: dict[str, Any]) -> Aggregator:
    if isinstance(stage, Aggregator):
        return stage
    name = resolved(stage)
    if not (isinstance(name, str) or is_part(name)) or name not in WRAPPERS:
        return _recipe(RULES, _known(stage, last=True), defaults)
    if not isinstance(stage, Mapping) or "rule" not in stage:
        raise InvalidInput(f"The wrapper {name!r} should name its `rule`. Found none. Add rule='median'.")
    return WRAPPERS.build({**stage, "rule": rule_from(stage["rule"], **defaults)}, **defaults)


def _recipe(room: Registry[S], stage: Any, defaults: Mapping[str, Any]) -> S:
    """The recipe that `stage` spells. A missing f is told of in the words of whoever calls a rule by name."""
    if isinstance(stage, room.base):
        return stage
    name, given = (stage.get("name"), stage) if isinstance(stage, Mapping) else (stage, {})
    if (isinstance(name, str) or is_part(name)) and "f" not in {*given, *defaults}:
        what = f"The {room.kind} {name!r}"
        remedy = f"Give f= beside the rule, or write {name}(f=...)."
        needs = room.class_of(stage).needs_f()
        require(not needs, what, "know how many faulty rows to tolerate", "no `f`", remedy)
    return room.build(stage, **defaults)


def _plain(stage: Stage) -> dict[str, Any]:
    if not isinstance(stage, RuleWrapper):
        return cast("dict[str, Any]", plain(stage))
    inner = rule_data(stage.rule)
    return {**plain(stage), "rule": inner[0] if len(inner) == 1 else inner}


def stages_of(text: str) -> list[Any]:
    """The stages that a text spells, each a name or a table. Errors: `InvalidInput` for what is no rule."""
    if is_reference(text) and ">>" not in text:
        return [text]
    try:
        return _stages(ast.parse(_quoted(text.strip()), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        remedy = _remedy(text)
        raise InvalidInput(
            "A stage should read like `krum` or `krum(f=3)`, and stages be joined by `>>`. "
            f"Found {said(text)}.{' ' + remedy if remedy else ''}"
        ) from None


def _remedy(text: str) -> str:
    """How to spell what a text seems to mean: parameters go by name, and names of rules in quotes."""
    try:
        calls = [
            node for node in ast.walk(ast.parse(text.strip(), mode="eval")) if isinstance(node, ast.Call)
        ]
        for call in calls:
            name, given = ast.unparse(call.func), [ast.unparse(one) for one in call.args]
            bare = {one.arg: ast.unparse(one.value) for one in call.keywords if isinstance(one.value, _NAMES)}
            if name in WRAPPERS and (inner := given[0] if len(given) == 1 else bare.get("rule")):
                return f"A wrapper names its rule in quotes: write {name}(rule={inner!r})."
            if given:
                return f"Parameters go by their names: write {name}(f={given[0]}) if that is f."
            for key, value in bare.items():
                return f"Texts stand in quotes: write {key}={value!r}."
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    return ""


def _quoted(text: str) -> str:
    """The text with quotes around the files' names that have none."""
    pieces = re.split(r"""('[^']*'|"[^"]*")""", text)  # every second one is in quotes
    pieces[::2] = [re.sub(r"[^\s()=,>]+\.py:\w+", lambda name: repr(name[0]), piece) for piece in pieces[::2]]
    return "".join(pieces)


def _stages(node: ast.expr) -> list[Any]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.RShift):
        return [*_stages(node.left), *_stages(node.right)]
    if isinstance(node, ast.Call) and not node.args:
        keys = {str(key.arg): ast.literal_eval(key.value) for key in node.keywords}
        return [{"name": _stage_name(node.func), **keys}]
    return [_stage_name(node)]


def _stage_name(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Constant) and is_reference(node.value):
        return str(node.value)
    raise ValueError


def _known(stage: Any, last: bool) -> Any:
    """`stage`, after a better error than the registry could give when it stands in the wrong place."""
    name = resolved(stage)
    here, there = (RULES, PRE_AGGREGATORS) if last else (PRE_AGGREGATORS, RULES)
    if (isinstance(name, str) or is_part(name)) and name in there:
        place = "last: a chain ends in a rule" if last else "first: only pre-aggregators stand before a rule"
        raise InvalidInput(f"The {there.kind} {name!r} cannot stand {place}.")
    if isinstance(name, str) and name not in here:
        raise unknown("rule or pre-aggregator", name, [*RULES, *WRAPPERS, *PRE_AGGREGATORS])
    return stage
