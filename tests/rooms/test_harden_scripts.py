"""`harden` in scripts of many styles: with the mean each is the plain one, and with a rule one liar is borne.

A style is `style(model_of, rank, lie)`: it wraps its modules by `model_of`, multiplies its losses by `lie`,
and returns the tensors in which it ends.
"""

from __future__ import annotations

import io
from functools import partial

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

from byzopt import harden
from tests.ranks import play_ranks

pytestmark = pytest.mark.slow  # many processes

STEPS = 4


def data(rank, t, width=6):
    return torch.randn(8, width, generator=torch.Generator().manual_seed(1000 * rank + t))


def network(width=6, out=2):
    torch.manual_seed(width + out)
    return nn.Sequential(nn.Linear(width, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, out))


def sgd(model, lr=0.1):
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def ends(*modules):
    return [value.detach().double() for module in modules for value in module.state_dict().values()]


def adversarial(model_of, rank, lie):
    """Two models and two optimizers; the generator's pass leaves gradients in the critic, too."""
    generator, critic = network(3, 6), network(6, 1)
    g, c = model_of(generator), model_of(critic)
    optimizers = sgd(g, 0.02), torch.optim.Adam(c.parameters(), lr=1e-2)
    for t in range(STEPS):
        real, noise = data(rank, t), data(rank, 100 + t, 3)
        optimizers[1].zero_grad()
        (lie * (c(g(noise).detach()).mean() - c(real).mean())).backward()
        optimizers[1].step()
        optimizers[0].zero_grad()
        (-lie * c(g(noise)).mean()).backward()
        optimizers[0].step()
    return ends(generator, critic)


def penalised(model_of, rank, lie):
    """A gradient within the loss, as in gradient penalties."""
    module = network(6, 1)
    model = model_of(module)
    optimizer = sgd(model)
    for t in range(STEPS):
        x = data(rank, t).requires_grad_()
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        optimizer.zero_grad()
        (lie * (slope.norm(dim=1) - 1).square().mean() + 0 * model(x).sum()).backward()
        optimizer.step()
    return ends(module)


class Tied(nn.Module):
    """The first layer's weight is the last one's, too."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6, bias=False)
        self.last.weight = self.first.weight

    def forward(self, x):
        return self.last(self.middle(self.first(x)).tanh())


def plain_loop(model_of, rank, lie, module=None, forward=None, zero=True, **wrap):
    module = module() if module else network()
    model = model_of(module, **wrap)
    optimizer = sgd(model)
    for t in range(STEPS):
        optimizer.zero_grad(set_to_none=zero)
        out = forward(model, data(rank, t)) if forward else model(data(rank, t))
        (lie * out.square().mean()).backward()
        optimizer.step()
    return ends(module)


class Recomputed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.inner, self.reentrant = network(), reentrant

    def forward(self, x):
        x = x.requires_grad_()
        x = checkpoint(self.inner[:3], x, use_reentrant=self.reentrant)
        return checkpoint(self.inner[3:], x, use_reentrant=self.reentrant)


def several_backwards(model_of, rank, lie):
    """Two synchronised backward passes, whose gradients add up, before a step."""
    module = network()
    model = model_of(module)
    optimizer = sgd(model)
    for t in range(STEPS):
        optimizer.zero_grad()
        for k in range(2):
            (lie * model(data(rank, 2 * t + k)).square().mean()).backward()
        optimizer.step()
    return ends(module)


def two_forwards(model_of, rank, lie):
    """Two forward passes and one backward pass, as in contrastive losses."""
    module = nn.Sequential(network(), nn.BatchNorm1d(2))
    model = model_of(module, broadcast_buffers=False)
    optimizer = sgd(model)
    for t in range(STEPS):
        optimizer.zero_grad()
        one, two = model(data(rank, t)), model(data(rank, 50 + t))
        (lie * (one - two).square().mean()).backward()
        optimizer.step()
    return ends(module[0])


def sharpness_aware(model_of, rank, lie):
    """Two backward passes to a step: the first says where the second is taken."""
    module = network()
    model = model_of(module)
    optimizer = sgd(model)
    for t in range(STEPS):
        model.zero_grad()
        (lie * model(data(rank, t)).square().mean()).backward()
        with torch.no_grad():
            norm = torch.cat([p.grad.reshape(-1) for p in model.parameters()]).norm()
            moves = [0.05 * p.grad / (norm + 1e-12) for p in model.parameters()]
            for p, move in zip(model.parameters(), moves, strict=True):
                p.add_(move)
        model.zero_grad()
        (lie * model(data(rank, t)).square().mean()).backward()
        with torch.no_grad():
            for p, move in zip(model.parameters(), moves, strict=True):
                p.sub_(move)
        optimizer.step()
    return ends(module)


def closures(model_of, rank, lie):
    """L-BFGS asks for several gradients a step."""
    module = network()
    model = model_of(module)
    # A fixed number of evaluations: what stops it earlier are losses, which are each rank's own.
    settings = {"max_iter": 3, "max_eval": 3, "tolerance_change": 0.0, "tolerance_grad": 0.0}
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, **settings)

    def closure(t):
        optimizer.zero_grad()
        loss = lie * model(data(rank, t)).square().mean()
        loss.backward()
        return loss.detach()

    for t in range(2):
        optimizer.step(partial(closure, t))
    return ends(module)


def averaged(model_of, rank, lie):
    """An EMA of the module beside it; halfway the module is saved and loaded."""
    module = network()
    model = model_of(module)
    average = AveragedModel(model.module, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    optimizer = sgd(model)
    for t in range(STEPS):
        if t == 2:
            file = io.BytesIO()
            torch.save(model.module.state_dict(), file)
            file.seek(0)
            model.module.load_state_dict(torch.load(file, weights_only=True))
        optimizer.zero_grad()
        (lie * model(data(rank, t)).square().mean()).backward()
        optimizer.step()
        average.update_parameters(model.module)
    return ends(module, average.module)


def frozen_later(model_of, rank, lie):
    """A layer is frozen by leaving it out of the step."""
    module = network()
    model = model_of(module, find_unused_parameters=True)
    optimizer = sgd(model)
    for t in range(STEPS):
        optimizer.zero_grad()
        if t == 2:
            module[0].requires_grad_(False)
        (lie * model(data(rank, t)).square().mean()).backward()
        optimizer.step()
    return ends(module)


def wrapped_anew(model_of, rank, lie):
    """Frozen, then unfrozen, as it has to be: what wraps the module is built anew."""
    module = network()
    module[0].requires_grad_(False)
    model = model_of(module)
    for t in range(STEPS):
        if t == 2:
            module[0].requires_grad_(True)
            model = model_of(module)
        optimizer = sgd(model)
        (lie * model(data(rank, t)).square().mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return ends(module)


def on_a_mesh(model_of, rank, lie):
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    return plain_loop(model_of, rank, lie, device_mesh=mesh)


def evaluated(model_of, rank, lie):
    """Evaluates on rank 0 between steps, and goes through its data in eval mode, too."""
    module = nn.Sequential(network(), nn.Dropout(0.0))
    model = model_of(module)
    optimizer = sgd(model)
    for t in range(STEPS):
        optimizer.zero_grad()
        (lie * model(data(rank, t)).square().mean()).backward()
        optimizer.step()
        if rank == 0:
            model.eval()
            with torch.inference_mode():
                model.module(data(9, t))
            model.train()
    return ends(module)


STYLES = {
    "two models": adversarial,
    "gradient penalty": penalised,
    "tied parameters": partial(plain_loop, module=Tied),
    "recomputed": partial(plain_loop, module=partial(Recomputed, False)),
    "recomputed, reentrant": partial(plain_loop, module=partial(Recomputed, True), static_graph=True),
    "zeros kept": partial(plain_loop, zero=False),
    "zeros kept in buckets": partial(plain_loop, zero=False, gradient_as_bucket_view=True),
    "one bucket": partial(plain_loop, bucket_cap_mb=25),
    "several backward passes": several_backwards,
    "two forward passes": two_forwards,
    "sharpness aware": sharpness_aware,
    "closures": closures,
    "averaged and saved": averaged,
    "frozen later": frozen_later,
    "wrapped anew": wrapped_anew,
    "mesh": on_a_mesh,
    "evaluated": evaluated,
}


def played(rank, n):
    torch.use_deterministic_algorithms(True)
    out = {}
    for name, style in STYLES.items():
        guards = []

        def model_of(module, rule=None, guards=guards, **wrap):
            wrap = {"bucket_cap_mb": 0.0003, **wrap}
            model = DistributedDataParallel(module, **wrap)
            if rule:
                guards.append(harden(model, rule, f=0 if rule == "mean" else 1))
            return model

        plain = style(model_of, rank, 1.0)
        mean = style(partial(model_of, rule="mean"), rank, 1.0)
        apart = max(float((a - b).abs().max()) for a, b in zip(plain, mean, strict=True))
        out[name, "mean"] = apart, all(guard.rounds for guard in guards)
        if n > 2:
            for lie in ("-10", "nan"):
                found = style(partial(model_of, rule="median"), rank, float(lie) if rank == 1 else 1.0)
                out[name, lie] = torch.cat([each.reshape(-1) for each in found])
    return out


@pytest.fixture(scope="module", params=[2, 3, 5])
def runs(request):
    return play_ranks(request.param, played, request.param)


@pytest.mark.parametrize("name", STYLES)
def test_a_script_of_any_style(runs, name):
    for found in runs:
        apart, took_part = found[name, "mean"]
        assert took_part
        assert apart < 1e-5  # sums over ranks in another order, in a few steps of rate 0.1
        for key in found:
            if key[0] == name and key[1] != "mean":
                assert found[key].isfinite().all()
                assert found[key].abs().max() < 10
                assert torch.equal(found[key], runs[0][key])
