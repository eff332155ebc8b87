"""Headers that no rank of this program can have sent: their sender's fault, in every topology."""

from __future__ import annotations

from math import inf, nan

import pytest
import torch

from byzopt.distributed import RobustDM21, Suspicion, robust_all_reduce
from byzopt.distributed.header import Header
from byzopt.errors import InvalidInput, TooManyFaults
from tests.ranks import play_ranks

N = 4
TRUE = Header.of
GOOD = Header(2, 1, 10, 0, 7, 3.0)
# One field each, and the values that it cannot have. Negative rounds and infinite sizes can be.
BAD = {
    "kind": (99, inf, nan, -2, 1.5, 1e300),
    "dims": (-1, 0.5, nan, -inf, 1e9),
    "d": (-1, 2.5, nan, inf, 1e300),
    "t": (0.5, nan, inf, -1e300),
    "plan": (-1, 1.5, nan, 2.0**48, inf),
    "fingerprint": (-1, 0.5, nan, 2.0**48),
    "size": (-1, nan, -inf, 1e300),
}
CASES = [{field: value} for field, values in BAD.items() for value in values]
WAYS = ("sharded", "replicated", "server")


def test_what_no_rank_can_have_sent_is_known():
    assert GOOD.fault() is None
    assert GOOD._replace(t=-3, size=inf).fault() is None
    assert GOOD._replace(kind=-1, d=0, dims=0, size=0.0).fault() is None
    for case in CASES:
        assert f"`{next(iter(case))}`" in GOOD._replace(**case).fault()


def lying(rank, liars, changes):
    """Headers of these ranks are changed on their way out; the vectors behind them are sound."""

    def told(vec, t, plan):
        return TRUE(vec, t, plan)._replace(**changes if rank in liars else {})

    return told


def reduced(rank):
    row, found = torch.full((10,), float(rank)), []
    for topology in WAYS:
        for case in CASES:
            heard = []
            Header.of = lying(rank, (1,), case)
            out = robust_all_reduce(row, "trimmed_mean", f=1, topology=topology, watch=heard.append)
            found.append((out, [verdict.dropped for verdict in heard]))
        for liars in ((0, 1), range(N)):
            Header.of = lying(rank, liars, {"kind": 99})
            with pytest.raises(TooManyFaults) as error:
                robust_all_reduce(row, "trimmed_mean", f=1, topology=topology)
            found.append(error.value.rows)
        Header.of = lying(rank, (3,), {"d": 11.0})  # well-formed, and so perhaps a mistake
        with pytest.raises(InvalidInput, match="rank 3 has \\[11\\]"):
            robust_all_reduce(row, "trimmed_mean", f=1, topology=topology)
        Header.of = TRUE
        found.append(robust_all_reduce(row, "median", topology=topology))  # the ranks are still in step
    return found


def test_a_malformed_header_costs_its_sender_this_rounds_row_alone():
    for rank, found in enumerate(play_ranks(N, reduced)):
        for k, topology in enumerate(WAYS):
            per = len(CASES) + 3
            *rounds, two, all_of_them, after = found[k * per : (k + 1) * per]
            for (out, dropped), case in zip(rounds, CASES, strict=True):
                assert torch.equal(out, torch.full((10,), 5 / 3)), (topology, case)
                hears = topology != "server" or rank == 0
                assert dropped == ([(1,)] if hears else []), (topology, case)
            assert two == (0, 1)
            assert all_of_them == (0, 1, 2, 3)
            assert torch.equal(after, torch.full((10,), 1.5))


def optimized(rank, topology, bad):
    x, watch, said = torch.nn.Parameter(torch.zeros(6, dtype=torch.float64)), Suspicion(), []
    optimizer = RobustDM21([x], 0.1, rule="median", f=1, topology=topology, watch=watch)
    for t in range(1, 6):
        x.grad = x.detach() - torch.arange(6.0) + 0.1 * rank
        Header.of = lying(rank, (3,), {"kind": inf}) if t in bad else TRUE
        optimizer.step()
        said.append(dict(optimizer.malformed))
    Header.of = TRUE
    state = optimizer.progress
    remembered = None if state.received is None else state.received.server[3]
    return (
        x.detach().clone(),
        said,
        watch.ranks and watch.ranks[3].nonfinite_total,
        remembered,
        optimizer.progress.wire,
    )


@pytest.mark.parametrize("topology", ["server", "replicated"])
@pytest.mark.parametrize("bad", [(1,), (2, 4)])
def test_optimizers_say_whose_it_was_and_both_ends_of_its_channel_still_agree(topology, bad):
    found = play_ranks(N, optimized, topology, bad)
    for rank, (x, said, count, _, _) in enumerate(found):
        assert torch.equal(x, found[0][0])
        for t, names in enumerate(said, start=1):
            assert list(names) == ([3] if t in bad else [])
        if topology == "replicated" or rank == 0:
            assert count == len(bad)
    assert "`kind`" in found[0][1][bad[0] - 1][3]
    torch.testing.assert_close(found[0][3], found[3][4].worker[0], rtol=0, atol=0)
