"""What a rank that comes back takes over beside parameters: found by itself, named by the script, or told."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR, SequentialLR, StepLR
from torch.optim.swa_utils import AveragedModel

from byzopt import harden
from byzopt.distributed.harden.carried import carried, check_part, left_out
from byzopt.errors import InvalidInput
from tests.ranks import play_ranks

DEADLINE = 30.0  # seconds in which no healthy rank is late, whatever the load


class Heavy:
    """An optimizer that is none of torch's: the heavy ball."""

    def __init__(self, parameters):
        self.parameters = list(parameters)
        self.moved = [torch.zeros_like(p) for p in self.parameters]

    @torch.no_grad()
    def step(self):
        for p, v in zip(self.parameters, self.moved, strict=True):
            v.mul_(0.9).add_(p.grad)
            p.sub_(0.02 * v)

    def state_dict(self):
        return {"moved": [v.clone() for v in self.moved]}

    def load_state_dict(self, state):
        for v, w in zip(self.moved, state["moved"], strict=True):
            v.copy_(w)


def parameters_of(module):
    return dict(module.named_parameters())


def test_what_no_name_tells_apart_is_told_and_can_be_named():
    module = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    first, second = (LambdaLR(optimizer, lambda t: 1.0) for _ in range(2))
    third = StepLR(optimizer, 5)
    names = "SGD of weight", "StepLR of SGD of weight"
    assert tuple(carried(parameters_of(module), None, {})) == names
    assert left_out(parameters_of(module), None, {}) == [
        "2 objects that are each a LambdaLR of SGD of weight"
    ]
    found = carried(parameters_of(module), None, {"first": first, "second": second})
    assert tuple(found) == (*names, "first", "second")
    assert (found["first"], found["second"], found[names[1]]) == (first, second, third)
    assert not left_out(parameters_of(module), None, {"first": first, "second": second})
    # Of two, the one that is left has a name of its own.
    assert tuple(carried(parameters_of(module), None, {"first": first})) == (
        "LambdaLR of SGD of weight",
        *names,
        "first",
    )


def test_schedules_in_a_row_are_one():
    module = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    parts = [LambdaLR(optimizer, lambda t: 1.0) for _ in range(2)]
    whole = SequentialLR(optimizer, parts, [5])
    assert carried(parameters_of(module), None, {})["SequentialLR of SGD of weight"] is whole
    assert not left_out(parameters_of(module), None, {})


def test_averages_and_other_optimizers_are_told():
    module = nn.Linear(7, 5)
    told = left_out(parameters_of(module), None, {})
    assert told == ["an optimizer: none of torch.optim holds the parameters"]
    average = AveragedModel(module)
    assert left_out(parameters_of(module), None, {})[1:] == ["an AveragedModel"]
    assert not left_out(
        parameters_of(module), None, {"ema": average, "optimizer": Heavy(module.parameters())}
    )
    assert not any("Averaged" in each for each in left_out(parameters_of(nn.Linear(7, 6)), None, {}))


class Odd:
    def state_dict(self):
        return {"when": object()}

    def load_state_dict(self, state):
        raise AssertionError


def test_what_has_no_plain_state_is_refused():
    for part, found in ((torch.ones(2), "Found Tensor"), (Odd(), "object is no plain data")):
        with pytest.raises(InvalidInput, match=found):
            check_part("part", part)
    check_part("part", Heavy([]))


def damaged(rank, named, rounds):
    """Rounds with an average and an optimizer of one's own; in the fourth both and the parameters of rank 1
    are not what they should be."""
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 2)))
    guard = harden(model, "nnm >> rfa", f=1, deadline=DEADLINE)
    optimizer, average = Heavy(model.parameters()), AveragedModel(model.module)
    with pytest.raises(InvalidInput):
        guard.also(part=Odd())
    if named:
        guard.also(heavy=optimizer, ema=average)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        while guard.rounds < rounds:
            t = guard.rounds + 1
            if (rank, t) == (1, 4) and not guard.returned:
                with torch.no_grad():
                    for each in (*model.parameters(), *average.parameters(), *optimizer.moved):
                        each.add_(2.0**-10)
            model.zero_grad()
            x = torch.randn(8, 6, generator=torch.Generator().manual_seed(100 * rank + t))
            model(x).square().mean().backward()
            optimizer.step()
            average.update_parameters(model.module)
    said = [str(w.message) for w in caught]
    ends = [torch.cat([p.detach().reshape(-1) for p in each.parameters()]) for each in (model, average)]
    return torch.cat(ends), guard.returned, said


def both_ways(rank):
    return {"named": damaged(rank, True, 8), "not named": damaged(rank, False, 1)}


@pytest.mark.slow
def test_a_rank_that_comes_back_takes_over_what_the_script_has_named():
    results = play_ranks(4, both_ways)
    first = results[0]["named"][0]
    for rank, found in enumerate(results):
        end, returned, said = found["named"]
        assert torch.equal(end, first)
        assert returned == int(rank == 1)
        assert not any("would not take" in each for each in said)
        if rank == 1:
            assert "the states of ema, heavy of round 4" in " ".join(said)
        _, _, said = found["not named"]
        (told,) = (each for each in said if "would not take" in each)
        assert "an optimizer: none of torch.optim holds the parameters; an AveragedModel" in told
