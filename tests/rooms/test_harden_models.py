"""`harden` on models of other shapes: tiny, in half precision, copied, several at once, in a subgroup."""

from __future__ import annotations

import copy
import gc
import warnings
import weakref

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from byzopt import harden
from byzopt.distributed import RobustSGD
from byzopt.errors import InvalidInput
from tests.ranks import play_ranks

pytestmark = pytest.mark.slow  # many processes

N = 4


def network(width=6, dtype=torch.float32, **settings):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(width, 10), nn.Tanh(), nn.Linear(10, 2)).to(dtype)
    return DistributedDataParallel(module, bucket_cap_mb=0.0003, **settings)


def batch(rank, t=0, width=6):
    return torch.randn(8, width, generator=torch.Generator().manual_seed(100 * rank + t))


def gradient(model):
    return torch.cat([p.grad.reshape(-1) for p in model.parameters()])


def tiny(rank):
    """Fewer numbers than ranks: some hold no column."""
    out = []
    for rule in ("nnm >> rfa", "median", "norm_clipping"):
        torch.manual_seed(0)
        model = DistributedDataParallel(nn.Linear(1, 1))
        harden(model, rule, f=1)
        for t in range(3):
            model.zero_grad()
            factor = torch.nan if rank == 3 and t == 1 else 1.0
            (model(torch.ones(2, 1) * (rank + 1)).square().mean() * factor).backward()
        out.append(gradient(model))
    return out


def halves(rank):
    """Half precisions are exchanged as they are; squares of 1e30 are beyond float32."""
    out = {}
    for dtype in (torch.bfloat16, torch.float16):
        for rule in ("nnm >> rfa", "median"):
            model = network(dtype=dtype)
            guard = harden(model, rule, f=1)
            for t in range(2):
                model.zero_grad()
                loss = model(batch(rank, t).to(dtype)).float().square().mean()
                (loss * (1e30 if rank == 1 and t else 1.0)).backward()
            out[dtype, rule] = gradient(model).float(), guard.dropped
    return out


def both(rank):
    """Two hardened models in one loss, as of a generator and a critic, and a rank of NaN in one of them."""
    one, two = network(), network(width=2)
    guards = harden(one, "median", f=1), harden(two, "nnm >> rfa", f=1)
    for t in range(3):
        one.zero_grad()
        two.zero_grad()
        middle = one(batch(rank, t))
        middle = middle.detach() + 0 * middle if rank == 2 else middle
        two(middle * (torch.nan if rank == 2 else 1.0)).square().mean().backward()
    return gradient(one), gradient(two), [guard.dropped for guard in guards]


def subgroup(rank):
    """Ranks 1, 2 and 3 alone."""
    group = dist.new_group([1, 2, 3])
    if rank == 0:
        return None
    model = network(process_group=group)
    guard = harden(model, "median", f=1)
    model(batch(rank)).square().mean().mul(torch.nan if rank == 3 else 1.0).backward()
    return gradient(model), guard.dropped


def copied(rank):
    """A copy is not hardened, and says so; a hardened model is not kept alive by its hook."""
    model = network()
    guard = harden(model, "median", f=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        twin = copy.deepcopy(model)
    messages = [str(each.message) for each in caught]
    again = harden(twin, "median", f=1)
    for each in (model, twin):
        each(batch(rank)).square().mean().mul(-50.0 if rank == 0 else 1.0).backward()
    same = torch.equal(gradient(model), gradient(twin))
    dead = weakref.ref(model)
    del model, guard
    gc.collect()
    return messages, same, again.rounds, dead() is None


def compiled(rank):
    """Compiled inside and outside: what is compiled is the model, and the hook is DDP's."""
    out = []
    for outside in (False, True):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(6, 10), nn.BatchNorm1d(10), nn.Tanh(), nn.Linear(10, 2))
        model = DistributedDataParallel(module if outside else torch.compile(module, backend="aot_eager"))
        model = torch.compile(model, backend="aot_eager") if outside else model
        guard = harden(model, "nnm >> rfa", f=1)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
        for t in range(3):
            optimizer.zero_grad()
            model(batch(rank, t) * (torch.nan if rank == 0 else 1.0)).square().mean().backward()
            optimizer.step()
        ends = [v.double().reshape(-1) for v in module.state_dict().values()]
        out.append((torch.cat(ends), guard.dropped))
    return out


def optimizers(rank):
    """A robust optimizer on a hardened model would defend twice, and is refused."""
    model = network()
    harden(model, "median", f=1)
    with pytest.raises(InvalidInput) as error:
        RobustSGD(model, lr=0.1, rule="median", f=1)
    return str(error.value)


def unfrozen(rank):
    """A layer that was frozen when DDP was built learns on rank 2: nobody would average or defend that."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 2))
    module[0].requires_grad_(False)
    model = DistributedDataParallel(module)
    harden(model, "median", f=1)
    errors = []
    for t in range(3):
        model.zero_grad()
        module[0].weight.requires_grad_(t == 1 and rank == 2)
        try:
            model(batch(rank, t)).square().mean().backward()
        except InvalidInput as error:
            errors.append((t, str(error)))
    return errors


def everything(rank):
    plays = (unfrozen, tiny, halves, both, subgroup, copied, compiled, optimizers)
    return {play.__name__: play(rank) for play in plays}


@pytest.fixture(scope="module")
def played():
    return play_ranks(N, everything)


def test_a_layer_unfrozen_behind_the_back_of_ddp_is_told_on_all_ranks(played):
    for found in played:
        ((t, said),) = found["unfrozen"]
        assert t == 1
        assert "['0.weight'] unfrozen" in said


def test_fewer_numbers_than_ranks(played):
    for found in played:
        for gradient, other in zip(found["tiny"], played[0]["tiny"], strict=True):
            assert gradient.isfinite().all()
            assert torch.equal(gradient, other)


def test_half_precision(played):
    for found in played:
        for (dtype, _), (gradient, dropped) in found["halves"].items():
            assert gradient.isfinite().all()
            assert gradient.abs().max() < 10
            assert dropped == [0, int(dtype == torch.float16), 0, 0]  # 1e30 is no number of float16


def test_two_models_in_one_backward(played):
    for found in played:
        one, two, dropped = found["both"]
        assert one.isfinite().all()
        assert two.isfinite().all()
        assert dropped == [[0, 0, 3, 0]] * 2


def test_a_group_of_some_ranks(played):
    assert played[0]["subgroup"] is None
    for found in played[1:]:
        gradient, dropped = found["subgroup"]
        assert gradient.isfinite().all()
        assert dropped == [0, 0, 1]


def test_copies_warn_and_can_be_hardened(played):
    for found in played:
        messages, same, rounds, dead = found["copied"]
        assert any("harden it, too" in message for message in messages)
        assert same
        assert rounds == 1
        assert dead


def test_compiled_models(played):
    for found in played:
        for k in range(2):
            end, dropped = found["compiled"][k]
            assert dropped == [3, 0, 0, 0]
            assert end.isfinite().all()
            assert torch.equal(end, played[0]["compiled"][k][0])


def test_a_robust_optimizer_on_a_hardened_model_is_refused(played):
    assert all("harden_hook" in found["optimizers"] for found in played)
