"""A rank whose script ends in an error while its process lives on: what the others hear of it."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from byzopt import harden
from byzopt.errors import TooManyFaults
from tests.halves import Halves
from tests.jobs import Job

pytestmark = pytest.mark.slow  # many processes

N, ODD = 3, 1
DEADLINE = 30.0  # seconds in which no healthy rank is late, whatever the load


def network(**settings):
    return DistributedDataParallel(Halves(), bucket_cap_mb=0.3, **settings)


def sample(rank):
    return torch.randn(4, 300, generator=torch.Generator().manual_seed(rank))


def stay(place, rank):
    """Live on until all ranks have ended."""
    (place / f"{rank} ended").touch()
    while not all((place / f"{each} ended").exists() for each in range(N)):
        time.sleep(0.01)


def error_of(step):
    try:
        step()
    except (Exception, KeyboardInterrupt) as error:
        return type(error).__name__, str(error)
    return None


def one(model, rank, raises=False):
    model.zero_grad()
    model(sample(rank), raises).square().mean().backward()


def leaving(rank, place, way, settings, wrap, rounds=3):
    """Rounds, in or before the last but one of which one rank's script ends; the errors of the last two."""
    model = network(**wrap)
    guard = harden(model, "nnm >> rfa", f=0, **settings)
    caught = way != "nobody catches it"

    def trained():
        with guard if caught else nullcontext():
            for _ in range(rounds):
                one(model, rank)
            if rank == ODD and way == "interrupted":
                raise KeyboardInterrupt
            if rank == ODD and way != "backward":
                raise ValueError("a sample that nobody can read")
            one(model, rank, rank == ODD)

    def ended():
        try:
            trained()
        except Exception:
            if not caught:
                sys.excepthook(*sys.exc_info())
            raise

    errors = [error_of(ended)]
    if rounds:  # else DDP's own collective would wait for a pass of the rank that has left
        errors.append(error_of(lambda: one(model, rank)))
    stay(place, rank)
    return errors


@pytest.mark.parametrize(
    ("settings", "wrap", "rounds"),
    [
        ({}, {}, 3),
        ({"wire": "int8", "momentum": 0.9}, {}, 3),
        ({}, {"find_unused_parameters": True}, 3),
        ({}, {"static_graph": True}, 3),
        # Before DDP has built its buckets anew, for which it waits for all ranks by itself.
        ({}, {}, 0),
        ({}, {}, 1),
        ({}, {"static_graph": True}, 2),
    ],
)
def test_the_others_hear_whose_script_has_ended_and_why_in_every_round(settings, wrap, rounds):
    with Job(N, leaving, "with", settings, wrap, rounds) as job:
        results = job.results(range(N))
    for rank, errors in results.items():
        if rank == ODD:
            assert errors[0] == ("ValueError", "a sample that nobody can read")
            assert not rounds or "should be used no more" in errors[1][1]
            continue
        for kind, message in errors:
            assert kind == "ByzoptError"
            assert f"Found rank {ODD} unable: Its training has ended in ValueError: a sample" in message


def test_an_interrupted_rank_is_heard_of():
    with Job(N, leaving, "interrupted", {}, {}) as job:
        results = job.results(range(N))
    assert results[ODD][0] == ("KeyboardInterrupt", "")
    for rank in set(range(N)) - {ODD}:
        assert f"Found rank {ODD} unable: Its training has ended in KeyboardInterrupt" in results[rank][0][1]


@pytest.mark.parametrize("wrap", [{}, {"find_unused_parameters": True}])
def test_a_backward_that_raises_is_heard_of_in_its_round_and_in_the_next(wrap):
    with Job(N, leaving, "backward", {}, wrap) as job:
        results = job.results(range(N))
    assert results[ODD][0] == ("RuntimeError", "its own")
    for rank in set(range(N)) - {ODD}:
        first, second = results[rank]
        assert f"Found rank {ODD} unable: Its backward pass ended" in first[1]
        assert f"Found rank {ODD} unable: Its training has ended in RuntimeError: its own" in second[1]


def test_an_error_that_nobody_catches_is_heard_of_without_a_context():
    with Job(N, leaving, "nobody catches it", {}, {}) as job:
        results = job.results(range(N))
    for rank in set(range(N)) - {ODD}:
        _, message = results[rank][0]
        assert "Its training has ended in ValueError: a sample" in message


def with_deadline(rank, place):
    """Six rounds, before the third of which one rank's script ends."""
    model = network()
    guard = harden(model, "median", f=1, deadline=DEADLINE)

    def trained():
        with guard:
            while guard.rounds < 6:
                if rank == ODD and guard.rounds == 2:
                    raise ValueError("a sample that nobody can read")
                one(model, rank)

    error = error_of(trained)
    stay(place, rank)
    return error, list(guard.missing)


def test_with_a_deadline_nobody_waits_for_it():
    with Job(N, with_deadline) as job:
        results = job.results(range(N))
    assert results[ODD][0] == ("ValueError", "a sample that nobody can read")
    for rank in set(range(N)) - {ODD}:
        assert results[rank] == (None, [4 if each == ODD else 0 for each in range(N)])


def alike(rank, place):
    """Errors that all ranks meet: each its own at once, and one of a round."""
    model = network()
    guard = harden(model, "median", f=1)

    def own():
        with guard:
            raise KeyError("on every rank")

    first = error_of(own), guard._left is not None
    model = network()
    guard = harden(model, "median", f=1)

    def shared():
        with guard:
            model(sample(rank) * (torch.nan if rank < 2 else 1.0)).sum().backward()

    try:
        shared()
        second = None
    except TooManyFaults as error:
        second = list(error.rows), guard._left is not None
    one(model, rank)  # all ranks may go on
    return first, second, guard.rounds


def test_what_all_ranks_meet_alike_keeps_nobody():
    with Job(N, alike) as job:
        results = job.results(range(N))
    for found in results.values():
        assert found == ((("KeyError", "'on every rank'"), True), ([0, 1], False), 2)
