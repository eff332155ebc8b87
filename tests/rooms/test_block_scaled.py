"""Numbers as 8-bit codes in blocks: how far they are off, and what becomes of those that are not finite."""

from __future__ import annotations

import pytest
import torch

from byzopt.distributed.harden import block_scaled
from byzopt.distributed.harden.block_scaled import BLOCK, coded_size, decode, encoded
from byzopt.distributed.harden.narrowing import narrowed, travelling
from tests.reference import block_scaled as slow

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def back(values):
    """What arrives, and whether it is said to be finite."""
    into = torch.full_like(values, 7.0)
    return into, decode(encoded(values), into)


def wide(dtype):
    """What steps are in."""
    return torch.promote_types(dtype, torch.float32)


def ends(dtype):
    """The smallest normal number of the steps, and the relative rounding of steps and of what arrives."""
    info = torch.finfo(wide(dtype))
    return info.tiny, 8 * info.eps, torch.finfo(dtype).eps if dtype != wide(dtype) else 0.0


def samples(dtype):
    generator = torch.Generator().manual_seed(0)

    def normal(d):
        return torch.randn(d, generator=generator, dtype=torch.float64)

    end, small = torch.finfo(dtype).max, torch.finfo(dtype).smallest_normal
    yield from (normal(d) for d in (1, 2, 63, 64, 65, 1000))
    yield normal(5 * BLOCK) * torch.logspace(-30, 30, 5 * BLOCK, dtype=torch.float64)
    yield normal(500).sign() * end
    yield torch.linspace(-1, 1, 200, dtype=torch.float64) * end
    yield torch.linspace(-1, 1, 200, dtype=torch.float64) * small  # subnormal
    yield normal(100) * small * 100
    yield torch.zeros(70, dtype=torch.float64)
    yield torch.cat([torch.zeros(64, dtype=torch.float64), normal(64), torch.tensor([1e-3, 1e3])])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_number_is_off_by_half_a_step_at_most_and_never_grows(dtype):
    tiny, rounding, own = ends(dtype)
    for sample in samples(dtype):
        values = sample.clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max).to(dtype)
        arrived, finite = back(values)
        assert finite
        x, y = values.double(), arrived.double()
        step = torch.tensor(slow.steps(x.tolist(), tiny), dtype=torch.float64)
        # A code is the nearest to a quotient up to 127 that is off by some roundings of the step's dtype;
        # then what arrives is rounded to its own: by half of `own`, or at its subnormal numbers.
        rounded = (y.abs() + torch.finfo(dtype).smallest_normal) * own
        assert ((x - y).abs() <= step * (0.5 + 127 * rounding) + rounded).all()
        blocks = x.abs().split(BLOCK)
        largest = torch.cat([each.max().expand(len(each)) for each in blocks])
        off = torch.clamp(largest / 254 * (1 + 254 * rounding), min=tiny / 2)
        assert ((x - y).abs() <= off + rounded).all()
        assert (y.abs() <= torch.clamp(largest, min=tiny)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_it_is_its_slow_twin(dtype):
    tiny, rounding, _ = ends(dtype)
    for sample in samples(dtype):
        end = torch.finfo(dtype).max / 2  # at float64's own end the twin's product overflows
        values = sample.clamp(-end, end).to(dtype)
        x, arrived = values.double(), back(values)[0].double()
        step = torch.tensor(slow.steps(x.tolist(), tiny), dtype=torch.float64)
        twin = torch.tensor(slow.sent(x.tolist(), tiny), dtype=torch.float64)
        apart = (arrived / step - twin / step).abs()
        # Between two multiples the steps' rounding decides; elsewhere it is all the difference that there is.
        between = ((x / step).abs().frac() - 0.5).abs() <= 127 * rounding
        assert (apart <= torch.where(between, 1.0, 0.0) + 127 * rounding).all()
        assert between.double().mean() < 0.5


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", [0, 63, 64, 130])
def test_a_block_that_is_not_finite_stays_so_and_spoils_no_other(dtype, bad, place):
    values = torch.linspace(-3, 3, 131).to(dtype)
    clean = back(values)[0]
    values[place] = bad
    arrived, finite = back(values)
    assert not finite
    same = torch.arange(131) // BLOCK == place // BLOCK
    assert arrived[same].isnan().all()
    assert torch.equal(arrived[~same], clean[~same])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bytes_that_nobody_encoded_are_read_and_told_from_finite_ones(dtype):
    values = torch.linspace(1, 3, 200).to(dtype)
    kind = wide(dtype)
    most = torch.finfo(kind).max
    for step in (torch.nan, torch.inf, -torch.inf, most, -most, 0.0, -1.0, torch.finfo(kind).tiny):
        data = encoded(values)
        data[: 4 * kind.itemsize].view(kind)[2] = step
        into = torch.empty_like(values)
        assert decode(data, into) == bool(into.isfinite().all())
        assert into[:128].isfinite().all()
    for byte in range(256):
        into = torch.empty_like(values)
        data = torch.full((coded_size(200, dtype),), byte, dtype=torch.uint8)
        assert decode(data, into) == bool(into.isfinite().all())


def test_a_number_costs_little_more_than_a_byte_and_pieces_of_work_make_no_difference(monkeypatch):
    values = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    assert len(encoded(values)) == coded_size(1000, torch.float32) == 1000 + 16 * 4
    assert coded_size(0, torch.float32) == len(encoded(values[:0])) == 0
    whole = encoded(values)
    monkeypatch.setattr(block_scaled, "_CHUNK", 3 * BLOCK)
    assert torch.equal(encoded(values), whole)
    assert torch.equal(back(values)[0], back(values.clone())[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_the_bound_of_short_dtypes_is_that_of_the_guide(dtype):
    eps, worst = torch.finfo(dtype).eps, 0.0
    grid = torch.arange(1, 2, eps, dtype=torch.float64)
    for largest in grid[:: max(1, len(grid) // 32)].tolist():
        below = torch.cat([grid[grid <= largest], grid / 2])
        below = below[: len(below) // (BLOCK - 1) * (BLOCK - 1)].view(-1, BLOCK - 1)
        ends = torch.full((len(below), 1), largest, dtype=torch.float64)
        values = torch.cat([ends, below], dim=1).flatten().to(dtype)
        off = (back(values)[0].double() - values.double()).abs().max()
        worst = max(worst, float(off) / largest)
    # Half a step, then half a unit in the last place, of numbers up to the largest.
    assert 1 / 254 < worst <= 1 / 254 + eps / 2
    assert (1 / 254 + eps / 2) * 254 < (2 if dtype == torch.bfloat16 else 1.13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_what_is_finite_stays_finite_in_fewer_bytes(dtype):
    end, cpu = torch.finfo(torch.bfloat16).max, torch.device("cpu")
    most = torch.finfo(dtype).max
    values = torch.tensor([most, -most, 3.3899e38, -3.3899e38, 1.0, -0.0, 1e-40, 0.3], dtype=dtype)
    sent = narrowed(values, cpu, torch.bfloat16)
    assert sent.dtype == torch.bfloat16
    assert sent[:4].tolist() == [end, -end, end, -end]
    assert sent[4:].tolist() == values[4:].bfloat16().tolist()
    assert sent[5].signbit()
    # 2⁻⁸ of a normal number; half of the spacing of subnormal ones, 2⁻¹³³, of others.
    off = (sent[4:].double() - values[4:].double()).abs()
    assert bool((off <= (values[4:].double().abs() * 2**-8).clamp(min=2.0**-134)).all())
    bad = torch.tensor([float("inf"), -float("inf"), float("nan"), most], dtype=dtype)
    assert narrowed(bad, cpu, torch.bfloat16).isfinite().tolist() == [False, False, False, True]
    assert narrowed(values, cpu, dtype) is values
    assert travelling([dtype, torch.float16], torch.bfloat16) == torch.bfloat16
    assert travelling([torch.float16], torch.bfloat16) == torch.float16
