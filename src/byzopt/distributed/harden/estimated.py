"""Any estimator in the place of worker momentum: what a rank sends is what it makes of its own gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from byzopt.distributed.harden.momentum import Momentum
from byzopt.errors import InvalidInput, require
from byzopt.states import freeze, map_leaves, thaw
from byzopt.workers import Estimator, Oracle

_WHAT = "An estimator behind harden"
_SPLITS = (0, 2, 3, 6)  # places at which the probe cuts a vector in parts


class Estimated:
    """The messages of `estimator`, a parameter at a time, in the place of this rank's gradients.

    As in `Momentum` half precisions are taken in float32, and a gradient that is not finite is sent as it is
    and leaves the state alone. Rounds, by which a schedule goes, are counted by parameter.
    """

    def __init__(self, estimator: Estimator) -> None:
        self.estimator = estimator
        self.held: dict[str, tuple[int, Any]] = {}  # rounds, and the state after them

    @torch.no_grad()
    def update(self, names: Sequence[str], grads: Sequence[Tensor], scale: float = 1.0) -> None:
        """Put what the estimator sends in the place of these parameters' finite gradients."""
        for name, grad in zip(names, grads, strict=True):
            wide = grad.to(torch.promote_types(grad.dtype, torch.float32)).reshape(-1) / scale
            before, state = self.held.get(name, (0, None))
            sent, after = _sent(self.estimator, before + 1, state, wide)
            # A message may be a part of the state, and the gradient's memory belongs to the reduction.
            self.held[name] = before + 1, map_leaves(_kept, after)
            grad.copy_((sent[0] * scale).view(grad.shape))

    def clear(self) -> None:
        """Start afresh."""
        self.held = {}

    def state_dict(self) -> dict[str, Any]:
        return {name: (t, freeze(map_leaves(_kept, state))) for name, (t, state) in self.held.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Errors: `InvalidInput` for what is no state of this estimator."""
        pairs = isinstance(state, Mapping) and all(
            isinstance(each, (tuple, list)) and len(each) == 2 for each in state.values()
        )
        require(pairs, "The momentum in a state", "be an estimator's", type(state).__name__)
        self.held = {}
        for name, (t, frozen) in state.items():
            leaves = _tensors(frozen)
            size = leaves[0].shape[-1] if leaves and leaves[0].ndim else 1
            zeros = torch.zeros(size, dtype=leaves[0].dtype if leaves else None, device="cpu")
            like = _sent(self.estimator, 1, None, zeros)[1]
            self.held[str(name)] = int(t), _thawed(like, frozen)


def momentum_of(setting: float | Estimator) -> Momentum | Estimated | None:
    """What keeps a rank's averages; None without any."""
    if isinstance(setting, Estimator):
        return Estimated(setting)
    return Momentum(setting) if setting else None


def check_estimator(estimator: Estimator) -> None:
    """Raise `InvalidInput` for one that cannot do its work a parameter at a time, on one gradient a round.

    What it declares is read, and then it is tried on vectors of six numbers: it has to ask for one gradient
    a round, at the point where the model is, to send the same whether it sees a vector or its parts, and to
    look at nothing but gradients.
    """
    needs = sorted(estimator.needs)
    other = {"replay": "gradients at two points", "full": "full gradients", "points": "points of its own"}
    asked = [other.get(need, need) for need in needs]
    if estimator.samples > 1:
        asked.append(f"{estimator.samples} samples a round")
    if estimator.counts_absence:
        asked.append("rounds in which workers are absent")
    remedy = "Such methods are those of RobustOptimizer and LocalSteps."
    require(not asked, _WHAT, "ask for one gradient a round", f"{estimator}: {', '.join(asked)}", remedy)
    generator = torch.Generator(device="cpu").manual_seed(0)
    rows = torch.randn(4, _SPLITS[-1], generator=generator, dtype=torch.float64, device="cpu")
    whole = _tried(estimator, rows)
    parts = torch.cat([_tried(estimator, rows[:, a:b]) for a, b in pairwise(_SPLITS)], dim=1)
    apart = torch.allclose(whole, parts, rtol=1e-12, atol=0.0)
    found = f"{estimator}, which sends others for a vector than for its parts"
    require(apart, _WHAT, "serve each number by itself: gradients come in parts", found)
    moved = torch.allclose(whole, _tried(estimator, rows, 1.0), rtol=1e-12, atol=0.0)
    found = f"{estimator}, which looks at the parameters"
    require(moved, _WHAT, "look at gradients alone", found, "Leave weight decay to the optimizer.")


def _tried(estimator: Estimator, rows: Tensor, x: float = 0.0) -> Tensor:
    """What it sends for these gradients `[T, d]`, one after the other, at a point of this value."""
    sent, state = [], None
    for t, row in enumerate(rows, 1):
        try:
            message, state = _sent(estimator, t, state, row, x)
        except InvalidInput:
            raise
        except Exception as error:
            raise InvalidInput(
                f"{_WHAT} should take a gradient. Found {estimator}, which ends in {error!r}."
            ) from error
        fits = isinstance(message, Tensor) and message.shape == (1, len(row)) and message.dtype == row.dtype
        found = list(message.shape) if isinstance(message, Tensor) else type(message).__name__
        require(fits, _WHAT, f"send [1, {len(row)}] of {row.dtype}", f"{estimator}: {found}")
        sent.append(message[0].clone())
    return torch.stack(sent)


def _sent(estimator: Estimator, t: int, state: Any, grad: Tensor, x: float = 0.0) -> tuple[Tensor, Any]:
    """Its message `[1, d]` in round t, whose gradient is `grad` `[d]`, and the state after it."""
    point, calls = torch.full_like(grad, x), [0]

    def grads(at: Tensor) -> Tensor:
        calls[0] += 1
        return grad.unsqueeze(0).clone()

    oracle = Oracle(t, grads, _no_full)
    first = state is None
    message, after = estimator.init(point, oracle) if first else estimator.step(state, point, oracle)
    found = f"{estimator}, which asks for {calls[0]}"
    require(calls[0] == 1, _WHAT, "ask for one gradient a round", found, "Use RobustOptimizer.")
    return message, after


def _no_full(point: Tensor) -> Tensor:
    raise InvalidInput(
        f"{_WHAT} should ask for one gradient a round. Found one that asks for full gradients."
    )


def _kept(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


def _thawed(like: Any, frozen: Any) -> Any:
    try:
        return thaw(frozen, like)
    except InvalidInput as error:
        raise InvalidInput(
            "The momentum in a state should be that of the estimator of harden. Found another structure. "
            "Load the state of a guard with the same `momentum`, or None."
        ) from error


def _tensors(state: Any) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    return [leaf for part in state for leaf in _tensors(part)] if isinstance(state, (tuple, list)) else []
