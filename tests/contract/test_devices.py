"""What every rule and chain costs on an accelerator, counted on a pretend one: launches, waits, bytes.

The budgets are those that docs/devices.md states, in its tables, for rows of 1e6 columns. Counted are rows of
10,000 columns: long enough for all that is done with long rows (float32 products, several spans of columns),
and short enough to be one block, as 1e6 are. So launches and waits are the same, and bytes grow with the rows
(a test asks it of 20,000; `benchmarks/device.py --count --columns 1000000` counts at 1e6).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from byzopt import kernels
from byzopt.aggregators import RULES, Bulyan, CoordinateRule, GeometricRule, MeaMed, Phocas, rule_from
from byzopt.aggregators.core.filters import RoundContext
from byzopt.aggregators.guards.guard import HistoryGuard
from byzopt.aggregators.guards.safeguard import Safeguard
from byzopt.theory.byzantine_epochs import Epoch
from tests.pretend import Counts, PretendDevice
from tests.spellings import build, every, ties

N, FEW, MANY = 20, 10_000, 20_000
SMALL = 300_000  # bytes of n x n numbers, of their spans and of the columns that decide on an order
GEOMETRIC = [name for name in RULES if issubclass(RULES[name], GeometricRule) and name != "boba"]
PAGE = Path(__file__).parents[2] / "docs" / "devices.md"


def budgets():
    """The tables of the page: what they are about, and three numbers."""
    cells = [line.strip("| \n").split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines()]
    rows = [each for each in cells if len(each) == 5 and each[1].isdigit()]
    return {each[0].replace("`", ""): tuple(map(float, each[1:4])) for each in rows}


def budget_of(spelling, rule):
    if "(rule=" in spelling:
        return next(numbers for name, numbers in budgets().items() if name.startswith("rules in a wrapper"))
    stages, last = spelling.rpartition(" >> ")[::2]
    known = budgets()
    if stages and last in ("lasa", "fedseca"):
        return known["chains that end in lasa or fedseca"]
    if "random_projection" in stages:
        return known["chains with random_projection"]
    if isinstance(rule.last, GeometricRule):
        return known["geometric rules and chains"]
    if stages:
        kind = "a coordinate rule" if rule.last.columnwise else "another rule"
        return known[f"chains that end in {kind}"]
    kind = "coordinate rules" if isinstance(rule, CoordinateRule) else "all others"
    return known.get(last, known[kind])


def built(spelling):
    """The rule with the largest f up to 3 that fits; what it searches for is cut short, and not counted."""
    for f in (3, 2, 1):
        rule = rule_from(spelling, f=f)
        try:
            rule.check(N)
        except ValueError:
            continue
        return short(rule)
    raise AssertionError(spelling)


def short(rule):
    if rule.stages:
        return type(rule)(rule.stages, short(rule.rule))
    return replace(rule, budget=5) if hasattr(rule, "budget") else rule


def some(d):
    return torch.randn(N, d, generator=torch.Generator().manual_seed(0))


def counted(rule, rows):
    with PretendDevice() as device:
        out = rule(device.put(rows))
    return out.inner, device.counts


def keeps_to_its_budget(spelling):
    """It does, and answers as on the CPU."""
    rule, rows = built(spelling), some(FEW)
    out, found = counted(rule, rows)
    launches, waits, times = budget_of(spelling, rule)
    assert found.launches <= launches, found.what
    assert found.syncs <= waits, found.waits
    assert found.bytes <= times * rows.nbytes + SMALL, found.bytes / rows.nbytes
    if ties(build(spelling)):
        return
    with kernels.disabled():  # nothing is compiled for one call
        expected = rule(rows)
    # Sums of float32 come in another order. Where two values of a column are all but equally near to its
    # centre, rounding decides which one counts: MeaMed and its like may differ by more in one column of 500.
    off = (out - expected).abs() > 1e-5
    assert off.double().mean() <= (0.002 if isinstance(rule.last, (Bulyan, MeaMed, Phocas)) else 0)


@every
def test_rules_keep_to_their_budgets_and_answer_as_on_the_cpu(spelling):
    keeps_to_its_budget(spelling)


WRAPPED = [
    f"{wrapper}(rule='{rule}')"
    for wrapper in ("foundation", "gas", "rlr", "fail_closed")
    for rule in ("bulyan", "flame", "median", "nnm >> rfa")
]


@pytest.mark.parametrize("spelling", WRAPPED)
def test_wrapped_rules_keep_to_their_budget_and_answer_as_on_the_cpu(spelling):
    keeps_to_its_budget(spelling)


@pytest.mark.parametrize("name", GEOMETRIC)
def test_a_projection_before_a_geometric_rule_keeps_to_the_budget_of_those(name):
    _, found = counted(built(f"random_projection >> {name}"), some(FEW))
    assert found.launches <= 24, found.what
    assert found.syncs <= 2, found.waits


@pytest.mark.parametrize("spelling", ["aksel", "median", "nnm >> krum"])
def test_many_short_sets_are_answered_in_one_transfer(spelling):
    rule, sets = built(spelling), some(6 * 50).view(N, 6, 50).transpose(0, 1).contiguous()
    with PretendDevice() as device:
        out = rule.batch(device.put(sets))
    assert device.counts.syncs == 1
    assert torch.equal(out.inner, rule.batch(sets))


@pytest.mark.parametrize("spelling", ["median", "krum", "nnm >> rfa", "clipping >> phocas", "flame"])
def test_longer_rows_cost_more_bytes_and_nothing_else(spelling):
    rule = built(spelling)
    (_, few), (_, many) = counted(rule, some(FEW)), counted(rule, some(MANY))
    # Which columns decide on an order is sent once for each length.
    assert few.launches - many.launches in (0, *range(-2, 3))
    assert few.waits == many.waits
    assert many.bytes <= 2 * few.bytes


ODD = {
    "a row with NaN": lambda rows: rows.index_fill_(0, torch.tensor([5]), torch.nan),
    "a row with an infinity": lambda rows: rows[7].fill_(torch.inf),
    "rows far away together": lambda rows: rows[:3].add_(1e4),
    "all rows nearly equal": lambda rows: rows.mul_(1e-3).add_(1),
}


@pytest.mark.parametrize("oddity", ODD)
@pytest.mark.parametrize(
    "spelling", ["median", "meamed", "sign_majority", "krum", "rfa", "nnm >> median", "flame"]
)
def test_odd_rows_cost_two_waits_more_at_most(spelling, oddity):
    """Which rows are not finite is one look, and which of those that are close are equal takes two."""
    rule, plain, odd = built(spelling), some(FEW), some(FEW)
    ODD[oddity](odd)
    (_, usual), (_, found) = counted(rule, plain), counted(rule, odd)
    assert found.syncs <= usual.syncs + 2, found.waits


PLAN = (Epoch(1000, 10.0, 0.1),)
GUARDS = {
    "ByzantineSGD": HistoryGuard(PLAN, 1.0, finder="medoid"),
    "ByzantineSGD without V": HistoryGuard(PLAN, None, f=3),
    "SafeguardSGD": Safeguard((100, 600), 1000, noise=1.0),
    "SafeguardSGD without V": Safeguard((100, 600), 1000, measured="pairs", f=3),
}


@pytest.mark.parametrize("name", GUARDS)
def test_guards_keep_to_their_budgets(name):
    guard, rows = GUARDS[name], some(MANY) / 300
    launches, waits, times = budgets()[name]
    with PretendDevice() as device:
        there, x = device.put(rows), device.put(torch.zeros(MANY))
        state = guard.init(x, N)
        for t in (1, 2, 3):
            device.counts = Counts()
            _, state = guard.step(state, there, RoundContext(t, x))
    found = device.counts
    assert found.launches <= launches, found.what
    assert found.syncs <= waits, found.waits
    assert found.bytes <= times * rows.nbytes, found.bytes / rows.nbytes
