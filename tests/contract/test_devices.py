"""What every rule and chain costs on an accelerator, counted on a pretend one: launches, waits, bytes."""

from __future__ import annotations

import pytest
import torch

from byzopt.aggregators import Bulyan, MeaMed, Phocas, rule_from
from byzopt.aggregators.core import inputs
from tests.pretend import PretendDevice
from tests.spellings import SPELLINGS, build, ties

N = 20


@pytest.fixture(autouse=True)
def readable(monkeypatch):
    """Rows on the pretend device are no plain tensors, and are let in all the same."""
    monkeypatch.setattr(inputs, "unreadable", lambda rows: ("", ""))


def built(spelling):
    for f in (3, 2, 1):
        try:
            rule = rule_from(spelling, f=f)
            rule.check(N)
            return rule
        except ValueError:
            continue
    raise AssertionError(spelling)


@pytest.mark.parametrize("spelling", [each for each in SPELLINGS if not ties(build(each))])
def test_answers_are_those_of_the_cpu(spelling):
    rows = torch.randn(N, 10_000, generator=torch.Generator().manual_seed(0))
    rule = built(spelling)
    with PretendDevice() as device:
        out = rule(device.put(rows))
    # Sums of float32 come in another order. Where two values of a column are all but equally near to its
    # centre, rounding decides which one counts: MeaMed and its like may differ by more in one column of 500.
    off = (out.inner - rule(rows)).abs() > 1e-5
    assert off.double().mean() <= (0.002 if isinstance(rule.last, (Bulyan, MeaMed, Phocas)) else 0)
