"""Hundreds of rows on a device: what looks at all n x n numbers is done there."""

import numpy as np
import pytest
import torch

from byzopt.aggregators import rule_from
from byzopt.aggregators.numerics import distances
from byzopt.aggregators.numerics.distances import Distances
from byzopt.aggregators.numerics.distances_there import DistancesThere, distances_by
from byzopt.aggregators.numerics.products import WHOLE
from tests.pretend import PretendDevice

N = WHOLE + 44
RULES = ["krum", "multi_krum", "rfa", "centered_clipping(tau=3)", "nnm >> krum", "nnm >> rfa", "medoid"]
RULES += ["geometric_median", "nnm >> median", "krum(power=1)"]
LEAVES_THE_HOST_ALONE = ["krum", "multi_krum", "rfa", "centered_clipping(tau=3)", "nnm >> krum", "nnm >> rfa"]


def drawn(n=N, d=300):
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(n))
    rows[: n // 6] += 1
    return rows


def built(name, n=N):
    return rule_from(name, f=n // 5) if "centered" not in name else rule_from(name)


def answered(name, rows):
    with PretendDevice() as device:
        out = built(name, len(rows))(device.put(rows))
        return out.inner, device.counts


@pytest.mark.parametrize("name", RULES)
def test_answers_are_those_of_the_cpu(name):
    rows = drawn()
    found, counts = answered(name, rows)
    # Float32 sums in another order: of N numbers below 5, rounded N times at most.
    assert torch.allclose(found, built(name)(rows), atol=5 * N * torch.finfo(torch.float32).eps)
    # Each of some steps fetches a number a row; none loops over rows.
    assert counts.launches <= 100
    assert counts.syncs <= 16


@pytest.mark.parametrize("name", LEAVES_THE_HOST_ALONE)
def test_the_host_goes_through_no_matrix(name, monkeypatch):
    def refused(*given):
        raise AssertionError("the host works on all n x n numbers")

    monkeypatch.setattr(distances, "by_rows", refused)
    answered(name, drawn())


def test_more_rows_need_no_more_launches_nor_waits():
    fewer, more = (answered("nnm >> krum", drawn(n))[1] for n in (N, 2 * N))
    assert (fewer.launches, fewer.syncs) == (more.launches, more.syncs)


def both(gram):
    here, there = Distances(gram), DistancesThere(torch.from_numpy(gram), gram)
    assert type(distances_by(torch.from_numpy(gram), gram)) is DistancesThere
    return here, there


def test_distances_and_their_order_are_those_of_the_host_to_the_bit():
    rows = drawn(d=40).double()
    rows[3], rows[N // 2] = rows[7], 0
    here, there = both((rows @ rows.T).numpy())
    assert np.array_equal(here.ranked, there.ranked)
    for rank in (0, 1, N // 2, N - 1):
        assert np.array_equal(here.reach(rank), there.reach(rank))
    for count in (1, 2, N // 2, N):
        assert np.array_equal(here.nearest_shares(count), there.nearest_shares(count))
    assert here.close() == there.close() == [(7, 3)]
    order = np.random.default_rng(0).permutation(N)
    assert np.array_equal(here.taken(order).ranked, there.taken(order).ranked)
    assert here.middle() == there.middle()


def test_rows_of_whole_numbers_are_mixed_as_on_the_host_and_twins_stay_equal():
    rows = torch.randint(-3, 4, (N, 20), generator=torch.Generator().manual_seed(1)).double()
    here, there = both((rows @ rows.T).numpy())
    shares = here.nearest_shares(N // 2)
    shares[5] = shares[9]
    one, other = here.mixed(shares), there.mixed(shares)
    # Sums of whole numbers are exact; shares are not, and are rounded thrice.
    assert np.abs(one.gram - other.gram).max() <= 1e-12 * np.abs(one.gram).max()
    assert other.squared[5, 9] == 0
    assert np.array_equal(other.gram[5], other.gram[9])


def test_equal_rows_stay_equal():
    rows = drawn()
    rows[11] = rows[200]
    found, _ = answered("krum", rows)
    assert torch.equal(found, built("krum")(rows))
