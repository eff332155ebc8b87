"""Modules draw from global generators; here each worker and round lends them streams of its own."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class CannotGroupError(Exception):
    """The module has a part whose gradient does not split by worker; the message names it."""


@contextmanager
def lent_rng(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Inside, the global generators of the CPU and of `device` start from `seed`; then all is as before."""
    device = torch.device(device)
    cuda = []
    if device.type == "cuda":
        cuda = [torch.cuda.current_device() if device.index is None else device.index]
    with torch.random.fork_rng(devices=cuda):
        started(seed, device)
        yield


def started(seed: int, device: torch.device, coins: bool = False) -> None:
    """Start torch's global generators of the CPU and of `device` from `seed`; with `coins` also those of
    Python and NumPy."""
    for generator in _generators(device).values():
        generator.manual_seed(seed)
    if coins:
        random.seed(seed)
        np.random.seed(seed)


@contextmanager
def lent_coins(seed: int) -> Iterator[None]:
    """As `lent_rng`, for the global generators of Python and of NumPy."""
    states = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


@contextmanager
def drawing(seeds: Sequence[int], device: torch.device, together: bool, coins: bool) -> Iterator[None]:
    """Inside, n workers may draw from their `seeds`: `together` in one pass, or one after the other, each
    `started`; with `coins` also from Python and NumPy. Global generators are then as before."""
    with ExitStack() as stack:
        stack.enter_context(lent_rng(seeds[0], device))
        if coins:
            stack.enter_context(lent_coins(seeds[0]))
        if together and len(seeds) > 1:
            stack.enter_context(Apart(seeds, device))
        yield


def drawn(seed: int, device: torch.device) -> bool:
    """Whether torch's global generators moved since they were `started` from `seed`."""
    return any(
        not torch.equal(g.get_state(), torch.Generator(g.device).manual_seed(seed).get_state())
        for g in _generators(device).values()
    )


def states(device: torch.device) -> list[Any]:
    """The states of the global generators: of Python, of NumPy, then torch's."""
    return [random.getstate(), np.random.get_state(), *(g.get_state() for g in _generators(device).values())]


def _generators(device: torch.device) -> dict[str, torch.Generator]:
    known = {"cpu": torch.default_generator}
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        known["cuda"] = torch.cuda.default_generators[index]
    return known


# Operations that draw each number by itself, so that a worker's share of them is what it would draw alone.
_APART = frozenset(
    f"aten::{name}"
    for name in (
        "bernoulli", "bernoulli_", "rand", "rand_like", "uniform", "uniform_", "randn", "randn_like",
        "normal", "normal_", "exponential", "exponential_", "native_dropout", "rrelu_with_noise",
    )
)  # fmt: skip


class Apart(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While all workers' samples go through a module together, each worker's share of what is drawn comes
    from a stream of its own: the numbers that it would draw alone.

    Errors: `CannotGroupError` where what is drawn has no share for each worker, such as one coin for all.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._generators = _generators(device)
        self._states = {
            kind: [torch.Generator(generator.device).manual_seed(seed).get_state() for seed in seeds]
            for kind, generator in self._generators.items()
        }
        self._n = len(seeds)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler, which takes a second and is not used here

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        if func._schema.name not in _APART or kwargs.get("generator") is not None:
            return self._undrawn(func, args, kwargs)
        shares = list(zip(*(self._shares(arg) for arg in args), strict=True))
        where = args[0].device if isinstance(args[0], Tensor) else torch.device(kwargs.get("device") or "cpu")
        generator, states = self._generators[where.type], self._states[where.type]
        drawn = []
        for i, share in enumerate(shares):
            generator.set_state(states[i])
            drawn.append(func(*share, **kwargs))
            states[i] = generator.get_state()
        if func._schema.name.endswith("_"):
            return args[0]
        if isinstance(drawn[0], tuple):
            return tuple(torch.cat(parts) for parts in zip(*drawn, strict=True))
        return torch.cat(drawn)

    def _undrawn(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An operation that may draw and does not, such as attention without dropout."""
        before = [generator.get_state() for generator in self._generators.values()]
        result = func(*args, **kwargs)
        after = [generator.get_state() for generator in self._generators.values()]
        given = kwargs.get("generator") is not None
        if given or not all(torch.equal(a, b) for a, b in zip(before, after, strict=True)):
            raise CannotGroupError(f"it draws by {func._schema.name.removeprefix('aten::')}")
        return result

    def _shares(self, arg: Any) -> Sequence[Any]:
        sized = isinstance(arg, (list, tuple)) and all(isinstance(size, int) for size in arg)
        if not sized and not (isinstance(arg, Tensor) and arg.ndim):
            return [arg] * self._n
        length = (arg[0] if arg else 0) if sized else len(arg)
        if not length or length % self._n:
            raise CannotGroupError("it draws numbers that are not one or more for each sample")
        return [[length // self._n, *arg[1:]]] * self._n if sized else arg.chunk(self._n)
