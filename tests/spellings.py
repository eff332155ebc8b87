"""Every registered rule, alone and behind pre-aggregators, and rows for them."""

from __future__ import annotations

import pytest
import torch

from byzopt.aggregators import PRE_AGGREGATORS, RULES, rule_from
from byzopt.errors import InvalidInput

N, F, D = 23, 2, 6
BEFORE = ["", "nnm >> ", "bucketing >> ", "nnm >> bucketing >> ", *(f"{p} >> " for p in PRE_AGGREGATORS)]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def build(spelling, f=F):
    return rule_from(spelling, f=f)


def meets(rule):
    """Whether a trusted row, if there is one, reaches the rule in its place: stages may not move it."""
    return not (rule.trusts and any(stage.positional for stage in rule.stages))


def chains(*before):
    """All rules behind each of these, but those that may not stand there."""
    return [each + name for each in before for name in RULES if may_stand(each + name)]


def may_stand(spelling):
    """Whether the rule is one for these stages: none may come before some, and some want rows unmixed."""
    try:
        build(spelling)
    except InvalidInput as error:
        assert "Found stages before it" in str(error) or "Found a stage that mixes rows" in str(error)  # noqa: PT017
        return False
    return True


PREFIXES = list(dict.fromkeys(BEFORE))
SPELLINGS = [each for each in chains(*PREFIXES) if meets(build(each))]
USUAL = ["", "nnm >> "]


def rare(spelling):
    """Whether a chain is left to the slow tests: each rule stands in the quick ones alone, behind NNM, and
    behind one of the other stages, in turn."""
    before, name = spelling.removesuffix(spelling.split(" >> ")[-1]), spelling.split(" >> ")[-1]
    if before in USUAL:
        return False
    others = [each for each in PREFIXES if each not in USUAL]
    return others[list(RULES).index(name) % len(others)] != before


def marked(spellings):
    """Parameters of a test for `spellings`, of which the rare ones are slow tests."""
    return [pytest.param(each, marks=pytest.mark.slow) if rare(each) else each for each in spellings]


def ties(rule):
    """Whether a stage makes rows tie, between which rounding then decides."""
    return bool(rule.stages) and rule.ties == "rounding"


def some_rows(seed=0, n=N, d=D, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def where(applies):
    """Parametrises a test over the spellings of rules that make its promise, and over no other."""
    return pytest.mark.parametrize("spelling", marked(each for each in SPELLINGS if applies(build(each))))


every = where(lambda rule: True)
