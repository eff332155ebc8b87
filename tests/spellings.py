"""Every registered rule, alone and behind pre-aggregators, and rows for them."""

from __future__ import annotations

import pytest
import torch

from byzopt.aggregators import PRE_AGGREGATORS, RULES, rule_from

N, F, D = 23, 2, 6
BEFORE = ["", "nnm >> ", "bucketing >> ", "nnm >> bucketing >> ", *(f"{p} >> " for p in PRE_AGGREGATORS)]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def build(spelling, f=F):
    return rule_from(spelling, f=f)


def meets(rule):
    """Whether a trusted row, if there is one, reaches the rule in its place: stages may not move it."""
    return not (rule.trusts and any(stage.positional for stage in rule.stages))


SPELLINGS = [
    before + name for before in dict.fromkeys(BEFORE) for name in RULES if meets(build(before + name))
]


def ties(rule):
    """Whether a stage makes rows tie, between which rounding then decides."""
    return bool(rule.stages) and rule.ties == "rounding"


def some_rows(seed=0, n=N, d=D, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def where(applies):
    """Parametrises a test over the spellings of rules that make its promise, and over no other."""
    return pytest.mark.parametrize("spelling", [each for each in SPELLINGS if applies(build(each))])


every = where(lambda rule: True)
