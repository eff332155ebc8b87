"""What goes wrong on one rank before or while vectors cross ends on all ranks, with the same named error."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from byzopt.distributed import RobustSGD, robust_all_reduce
from byzopt.distributed.header import Header
from byzopt.errors import ByzoptError, InvalidInput, TooManyFaults
from tests.ranks import play_ranks

N, D = 4, 10
TOPOLOGIES = ("sharded", "replicated", "server")


def error_of(call):
    try:
        call()
    except ByzoptError as error:
        kind = next(k for k in (TooManyFaults, InvalidInput, ByzoptError) if isinstance(error, k))
        return kind.__name__, str(error)
    return "none", ""


def raising(kind):
    def watch(diagnostics):
        raise kind("the disk is full")

    return watch


def failing_reductions(rank, topology):
    row, odd = torch.full((D,), float(rank)), rank == 2
    mistakes = {
        "unknown rule": lambda: (row, "medain" if odd else "median", {}),
        "rule that is no rule": lambda: (row, 3 if odd else "median", {}),
        "bad f": lambda: (row, "krum", {"f": -1 if odd else 1}),
        "sparse": lambda: (row.to_sparse() if odd else row, "median", {}),
        "list": lambda: (row.tolist() if odd else row, "median", {}),
        "none": lambda: (None if odd else row, "median", {}),
        "complex": lambda: (row.to(torch.complex64) if odd else row, "median", {}),
        "meta": lambda: (row.to("meta") if odd else row, "median", {}),
        "another size": lambda: (row[:7] if odd else row, "median", {}),
        "round that is none": lambda: (row, "median", {"t": "one" if odd else 1}),
        "topology": lambda: (row, "median", {"topology": "ring" if odd else topology}),
        "watch that raises": lambda: (row, "median", {"watch": raising(OSError) if odd else lambda d: None}),
        "watch on one": lambda: (row, "median", {"watch": (lambda d: None) if odd else None}),
    }
    found = {}
    for name, mistake in mistakes.items():
        vector, rule, settings = mistake()
        found[name] = error_of(
            lambda v=vector, r=rule, s=settings: robust_all_reduce(v, r, **{"topology": topology, **s})
        )
    return found, robust_all_reduce(row, "median", topology=topology)  # the ranks are still in step


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_mistake_of_one_rank_is_the_same_error_on_all(topology):
    results = play_ranks(N, failing_reductions, topology)
    for found, out in results:
        assert torch.equal(out, torch.full((D,), 1.5))
        for name, (kind, message) in found.items():
            quiet = name == "watch that raises" and topology == "server"  # rank 0 alone is called
            assert (kind == "none") == quiet, name
            assert kind in ("InvalidInput", "none") or name == "watch that raises", name
            assert quiet or "rank 2" in message, name
            assert message == results[0][0][name][1], name
        assert "Did you mean 'median'" in found["unknown rule"][1]
        assert "tensor [d]. Found list" in found["list"][1]


def faulty_rank_zero(rank):
    def watch(diagnostics):
        if rank == 0:
            raise OSError("the disk is full")

    row = torch.full((D,), float(rank))
    return [
        error_of(lambda t=t: robust_all_reduce(row, "median", topology=t, watch=watch)) for t in TOPOLOGIES
    ]


def test_a_watch_that_raises_on_rank_0_stops_all_in_every_topology():
    for found in play_ranks(N, faulty_rank_zero):
        for kind, message in found:
            assert kind == "ByzoptError"
            assert "rank 0" in message
            assert "the disk is full" in message


def failing_optimizers(rank, topology):
    odd, found = rank == 1, {}
    x = nn.Parameter(torch.zeros(D))
    settings = {"rule": "median", "topology": topology}
    found["rule"] = error_of(
        lambda: RobustSGD([x], 0.1, **{**settings, "rule": "medain" if odd else "median"})
    )
    found["momentum"] = error_of(lambda: RobustSGD([x], 0.1, momentum=2.0 if odd else 0.9, **settings))
    found["no parameters"] = error_of(lambda: RobustSGD([] if odd else [x], 0.1, **settings))
    other = nn.Parameter(torch.zeros(D + 1))
    found["model"] = error_of(lambda: RobustSGD([other] if odd else [x], 0.1, **settings))
    found["frozen"] = error_of(
        lambda: RobustSGD([nn.Parameter(x.detach(), requires_grad=not odd)], 0.1, **settings)
    )
    optimizer = RobustSGD([x], 0.1, **settings)

    def closure():
        x.grad = torch.full((D,), 1.0 + rank)
        if odd:
            raise OSError("no more shards")
        return 0.0

    before = x.detach().clone()
    found["closure"] = error_of(lambda: optimizer.step(closure))
    optimizer.param_groups[0]["lr"] = -1.0 if odd else 0.1
    found["lr"] = error_of(optimizer.step)
    optimizer.param_groups[0]["lr"] = 0.2 if odd else 0.1
    found["another lr"] = error_of(optimizer.step)
    optimizer.param_groups[0]["lr"] = 0.1
    unmoved = torch.equal(x, before) and optimizer.rounds == 0
    x.grad = torch.full((D,), 1.0 + rank)
    optimizer.step()
    return found, unmoved, x.detach().clone()


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_mistake_in_one_optimizer_is_the_same_error_on_all(topology):
    results = play_ranks(N, failing_optimizers, topology)
    for found, unmoved, x in results:
        assert unmoved
        assert torch.allclose(x, torch.full((D,), -0.25))
        for name, (kind, message) in found.items():
            assert kind == ("ByzoptError" if name == "closure" else "InvalidInput"), name
            assert "rank 1" in message, (name, message)
            assert message == results[0][0][name][1], name


class SaysFinite:
    """A header that claims magnitudes of 3 whatever the vector holds, on the ranks named."""

    def __init__(self, rank, liars):
        self.true, self.lies = Header.of, rank in liars

    def __call__(self, vec, t, plan):
        header = self.true(vec, t, plan)
        return header._replace(size=3.0) if self.lies else header


def contradicting(rank, rule, value):
    row, found = torch.full((D,), float(rank)), []
    if rank == 3:
        row[D - 1] = value
    true = Header.of
    for liars in ((3,), (2, 3)):
        if rank in liars[:-1]:
            row[0] = torch.nan
        heard = []
        Header.of = SaysFinite(rank, liars)
        try:
            out = robust_all_reduce(row, rule, f=1, watch=heard.append)
            found.append((out, [diagnostics.dropped for diagnostics in heard]))
        except TooManyFaults as error:
            found.append((str(error), error.rows))
        Header.of = true
        row = row.nan_to_num(2.0, 2.0)
    return found, robust_all_reduce(torch.full((D,), float(rank)), "median")


RULES = ("trimmed_mean", "median", "mean", "nnm >> rfa", "nnm >> trimmed_mean")


def all_contradicting(rank):
    return {rule: contradicting(rank, rule, float("nan")) for rule in RULES}


@pytest.fixture(scope="module")
def contradicted():
    return play_ranks(N, all_contradicting)


@pytest.mark.parametrize("rule", RULES)
def test_a_vector_that_is_not_what_its_header_says_moves_nothing(rule, contradicted):
    results = [found[rule] for found in contradicted]
    for (one, two), after in results:
        if rule == "mean":  # tolerates none
            assert one[1] == (3,)
        else:
            assert torch.equal(one[0], results[0][0][0][0])
            assert 0 <= float(one[0].min()) <= float(one[0].max()) <= 2
            # To a rule that sorts each coordinate a NaN is an end, and cut off where it stands.
            assert one[1] == ([()] if rule in ("trimmed_mean", "median") else [(3,)])
        assert type(two[0]) is type(results[0][0][1][0])
        assert torch.equal(after, torch.full((D,), 1.5))
