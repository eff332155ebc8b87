"""A script as one writes it for `DistributedDataParallel`, and what may go wrong in it on one rank.

A network of 9,000 parameters on scikit-learn's digits. Other wrappers change the few lines of `Script` that
differ with them. What is faulty are a rank's gradients, before anything reduces them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from byzopt import harden

FAULTY, STEPS, BATCH = 1, 60, 32
RULE = "nnm >> rfa"

# ---- what goes wrong ----

Forge = Callable[[Tensor, int], Tensor]  # of a gradient, in step t


def stale() -> Forge:
    held: list[Tensor] = []

    def forge(g: Tensor, t: int) -> Tensor:
        held[:] = held or [30 * g.clone()]
        return held[0]

    return forge


def flipped(g: Tensor, t: int) -> Tensor:
    """The highest bit of the exponent of every hundredth number, others in each step."""
    out = g.float()
    bits = (out.clone() if out is g else out).view(-1).view(torch.int32)
    bits[t % 100 :: 100] ^= 1 << 30
    return bits.view(torch.float32).view(g.shape).to(g)


FAULTS: dict[str, Callable[[], Forge]] = {
    "-10x": lambda: lambda g, t: -10 * g,
    "NaN once": lambda: lambda g, t: torch.full_like(g, torch.nan) if t == 20 else g,
    "NaN always": lambda: lambda g, t: torch.full_like(g, torch.nan),
    "1e30": lambda: lambda g, t: torch.full_like(g, 1e30),
    "flipped bits": lambda: flipped,
    "stale, 30x": stale,
}


class Forged(torch.autograd.Function):
    """A parameter as it is, and its gradient as a fault makes it."""

    @staticmethod
    def forward(ctx: Any, parameter: Tensor, forge: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.forge = forge
        return parameter.view_as(parameter)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.forge(grad), None


class Linear(nn.Linear):
    """A layer that may be broken. The fault is in the graph, and so with whatever wraps the layer."""

    forges: tuple[Callable[[Tensor], Tensor], ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        pair = (self.weight, self.bias)
        if self.forges:
            pair = tuple(Forged.apply(p, forge) for p, forge in zip(pair, self.forges, strict=True))
        return nn.functional.linear(x, *pair)


# ---- the script ----


@cache
def digits(rank: int, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """This rank's images and labels, and those of the test."""
    data = load_digits()
    images, labels = torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    test, own = order[:397], order[397:][rank::n]
    return images[own], labels[own], images[test], labels[test]


def network(norm: bool) -> nn.Sequential:
    torch.manual_seed(0)
    middle = [nn.BatchNorm1d(64)] if norm else []
    return nn.Sequential(Linear(64, 64), *middle, nn.ReLU(), Linear(64, 64), nn.ReLU(), Linear(64, 10))


@dataclass(frozen=True)
class Case:
    """What is asked of a script. Without a `rule` it is the plain one."""

    rule: str | None = None
    fault: str | None = None
    norm: bool = False  # BatchNorm, and a batch of NaN on rank 0
    scale: float = 0.0  # of the loss, by a GradScaler
    accumulate: int = 1
    clip: float = 0.0
    saved: bool = False  # half-way, and started again from what was saved
    momentum: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    deadline: float | None = None  # seconds, for a rank that is gone or late

    @property
    def f(self) -> int:
        return 0 if self.rule == "mean" else 1


class Script:
    """Trains by `run` on every rank. This one is for `DistributedDataParallel` and AdamW."""

    ranks = 4

    def __init__(self, case: Case) -> None:
        self.case, self.t, self.curve = case, 0, list[float]()
        self.rank, self.n = dist.get_rank(), dist.get_world_size()
        self.images, self.labels, self.test, self.truth = digits(self.rank, self.n)
        self.build()

    # What differs between wrappers.

    def wrap(self, module: nn.Module) -> Any:
        return DistributedDataParallel(module, bucket_cap_mb=0.01)  # several buckets, small as the model is

    def make_optimizer(self) -> Any:
        """AdamW with two groups, as most scripts have them."""
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim == 1]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others}]
        return torch.optim.AdamW(groups, lr=3e-3, betas=self.case.betas)

    def harden(self) -> Any:
        case = self.case
        settings: dict[str, Any] = {"f": case.f, "momentum": case.momentum, "deadline": case.deadline}
        return harden(self.model, case.rule, **settings) if case.rule else None

    def without_exchange(self) -> AbstractContextManager[Any]:
        return self.model.no_sync()

    def resume(self) -> None:
        """Start again from the checkpoint of rank 0, and from each rank's own state of its guard."""
        told = [(self.module.state_dict(), self.optimizer.state_dict())]
        dist.broadcast_object_list(told)
        own = self.guard.state_dict()
        self.build()
        self.module.load_state_dict(told[0][0])
        self.optimizer.load_state_dict(told[0][1])
        self.guard.load_state_dict(own)

    def after_step(self) -> None:
        """What follows the optimizer's step."""

    def attach(self) -> None:
        """Wrap the module, harden the model, make the optimizer."""
        self.model = self.wrap(self.module)
        self.guard = self.harden()
        self.optimizer = self.make_optimizer()

    # What does not.

    def build(self) -> None:
        self.module = network(self.case.norm)
        self.break_layers()
        self.attach()

    def break_layers(self) -> None:
        if self.case.fault and self.rank == FAULTY:
            for layer in self.module:
                if isinstance(layer, Linear):
                    layer.forges = tuple(self.forge() for _ in range(2))

    def forge(self) -> Callable[[Tensor], Tensor]:
        forge = FAULTS[str(self.case.fault)]()
        return lambda g: forge(g, self.t)

    def batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(self.images), (BATCH,), generator=generator)
        bad = self.case.norm and self.rank == 0 and self.t == 20
        return self.images[chosen] * (torch.nan if bad else 1.0), self.labels[chosen]

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(1_000_003 * self.rank + self.t)

    def steps(self) -> Iterator[int]:
        if self.case.deadline is None:
            yield from range(STEPS)
            return
        while self.guard.rounds < STEPS:  # a rank that comes back goes on where the others are
            yield self.guard.rounds

    def run(self) -> None:
        case = self.case
        scaler = torch.amp.GradScaler("cpu", init_scale=case.scale or 1.0, enabled=case.scale > 0)
        for t in self.steps():
            self.t = t
            if case.saved and self.t == STEPS // 2:
                self.resume()
            generator = self.generator()
            self.optimizer.zero_grad()
            for k in range(case.accumulate):
                images, labels = self.batch(generator)
                with nullcontext() if k == case.accumulate - 1 else self.without_exchange():
                    loss = nn.functional.cross_entropy(self.model(images), labels) / case.accumulate
                    scaler.scale(loss).backward()
            scaler.unscale_(self.optimizer)
            if case.clip:
                nn.utils.clip_grad_norm_(self.model.parameters(), case.clip)
            scaler.step(self.optimizer)
            scaler.update()
            self.after_step()
            if self.t % 10 == 9:
                self.curve.append(self.evaluated()[1])

    def evaluated(self) -> tuple[float, float]:
        """Accuracy in percent, and the loss, of this rank's model. All ranks ask at once."""
        self.module.eval()
        with torch.no_grad():
            out = self.module(self.test)
        self.module.train()
        loss = float(nn.functional.cross_entropy(out, self.truth))
        return 100 * float((out.argmax(dim=1) == self.truth).float().mean()), loss

    def parameters(self) -> Tensor:
        return torch.cat([p.detach().reshape(-1) for p in self.module.parameters()])
