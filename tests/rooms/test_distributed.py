"""The robust all-reduce: the same answer as the rule on all rows, on every rank, in every topology."""

from __future__ import annotations

import pytest
import torch

from byzopt.aggregators import PRE_AGGREGATORS, RULES, rule_from
from byzopt.distributed import robust_all_reduce
from byzopt.errors import InvalidInput
from tests.ranks import play_ranks
from tests.spellings import chains

N, F = 8, 1
BEFORE = ["", *(f"{stage} >> " for stage in PRE_AGGREGATORS), "nnm >> bucketing >> "]
# Clipping makes all lengths equal, and CGE then chooses among ties that rounding breaks.
TIES = {"clipping >> cge", "arc >> cge"}
TRUSTED = {name for name in RULES if rule_from(name, f=F).trusts}  # no stage may move their rows
SPELLINGS = [
    each for each in chains(*BEFORE) if not ("bucketing" in each and each.split(" >> ")[-1] in TRUSTED)
]
SPELLINGS = [spelling for spelling in SPELLINGS if spelling not in TIES]
SPELLINGS += [
    "dnc(coordinates=3, iterations=2)",
    "flame(noise=0.1)",
    "centered_clipping(start='zero', iterations=3)",
    "nnm >> centered_clipping(start='zero')",
    "random_projection(k=16) >> krum",
    "fail_closed(rule='nnm >> krum')",
    "weighted(rule='median', weights=(1, 2, 1, 2, 1, 2, 1, 2))",
]

# The quick test has every rule alone and behind NNM, and whatever has settings.
USUAL = [spelling for spelling in SPELLINGS if spelling.split(" >> ")[0] not in {*PRE_AGGREGATORS} - {"nnm"}]
USUAL = [spelling for spelling in USUAL if "bucketing" not in spelling]


def some_rows(d, dtype=torch.float64, n=N, seed=0, far=True):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, d, generator=generator, dtype=torch.float64) + 3
    if far:
        rows[-1] *= -50
    return rows.to(dtype)


def build(spelling, n=N):
    rule = rule_from(spelling, f=F)
    try:
        rule.check(n)
    except InvalidInput:
        rule = rule_from(spelling, f=0)
    return rule


def answers(rank, spellings, d, dtype, topology):
    rows = some_rows(d, dtype)
    out = {}
    for spelling in spellings:
        try:
            out[spelling] = robust_all_reduce(rows[rank].clone(), build(spelling), topology=topology)
        except InvalidInput as error:
            out[spelling] = str(error)
    return out


def whole(spelling, rows):
    try:
        return build(spelling)(rows)
    except InvalidInput as error:
        return str(error)


@pytest.mark.parametrize(
    "topology, d, dtype, spellings",
    [
        ("sharded", 53, torch.float64, USUAL),
        pytest.param("sharded", 5, torch.float64, SPELLINGS, marks=pytest.mark.slow),
        pytest.param("sharded", 5003, torch.float32, SPELLINGS, marks=pytest.mark.slow),
        pytest.param("replicated", 37, torch.float64, SPELLINGS, marks=pytest.mark.slow),
        pytest.param("server", 37, torch.float64, SPELLINGS, marks=pytest.mark.slow),
    ],
    ids=lambda given: f"{len(given)} rules" if isinstance(given, list) else str(given),
)
def test_every_rule_answers_as_on_all_rows(topology, d, dtype, spellings):
    rows = some_rows(d, dtype)
    results = play_ranks(N, answers, spellings, d, dtype, topology)
    for spelling in spellings:
        expected = whole(spelling, rows)
        if topology == "sharded" and not build(spelling).splits():
            assert all("some columns at a time" in result[spelling] for result in results), spelling
            continue
        for result in results:
            found = result[spelling]
            if isinstance(expected, str):
                assert isinstance(found, str), spelling
                continue
            assert found.dtype == dtype
            assert torch.equal(found, results[0][spelling]), spelling
            if spelling.endswith("normalise >> cge"):
                continue  # all rows are of one length: rounding decides which n - f it takes
            scale = float(expected.abs().max().clamp_min(1e-6))
            error = float((found.double() - expected.double()).abs().max()) / scale
            assert error <= (1e-9 if dtype == torch.float64 else 1e-5), (spelling, error)
