"""Launches, waits and bytes of rules on the pretend device of the tests, for `device.py`."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import torch

from _peers_env import ROOT
from byzopt import rule_from
from byzopt.aggregators import RULES
from byzopt.errors import InvalidInput

F = 3
MANY, SHORT = (300, 1000, 3000), 500  # rows of few columns, so that what is seen is the work on n x n numbers
DECIDING = ("krum", "multi_krum", "rfa", "centered_clipping", "geometric_median", "nnm >> krum", "nnm >> rfa")
CHAINS = ["nnm >> krum", "nnm >> rfa", "nnm >> median", "nnm >> trimmed_mean", "nnm >> geometric_median"]


def built(name: str, n: int = 20) -> Any:
    """The rule with f = 3, or the most that fits; None where there is none for n rows."""
    for f in (F, 2, 1):
        try:
            rule = rule_from(name, f=f)
            rule.check(n)
        except InvalidInput:
            continue
        return replace(rule, budget=20) if hasattr(rule, "budget") else rule
    return None


def counts(columns: int) -> list[dict[str, Any]]:
    """Launches, waits and bytes of a call of every rule and chain, on the pretend device."""
    sys.path.insert(0, str(ROOT))
    from tests.pretend import PretendDevice

    rows, lines = torch.randn(20, columns, generator=torch.Generator().manual_seed(0)), []
    with PretendDevice() as device:
        built("nnm >> krum")(device.put(rows))  # sends which columns decide an order, once
    for name in (*RULES, *CHAINS, *(f"nnm >> {name}" for name in RULES if f"nnm >> {name}" not in CHAINS)):
        rule: Any = built(name)
        if rule is None:  # one that may not stand behind NNM
            continue
        with PretendDevice() as device:
            rule(device.put(rows))
        found = device.counts
        line = {"rule": name, "launches": found.launches, "waits": found.syncs}
        lines.append(line | {"bytes, MB": found.bytes / 1e6, "bytes / rows": found.bytes / rows.nbytes})
    return lines


def many() -> list[dict[str, Any]]:
    """The same of rules that decide on hundreds of workers' n x n numbers, which most of the bytes are."""
    from tests.pretend import PretendDevice

    lines = []
    for n in MANY:
        rows = torch.randn(n, SHORT, generator=torch.Generator().manual_seed(n))
        for name in DECIDING:
            with PretendDevice() as device:
                rule_from(name, f=n // 5)(device.put(rows))
            found = device.counts
            line = {"rule": name, "n": n, "launches": found.launches, "waits": found.syncs}
            lines.append(line | {"bytes / n x n": found.bytes / (8 * n * n)})
    return lines
