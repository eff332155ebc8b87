"""A module and a loss on a corner of the first batch: what a pass does besides computing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from byzopt.errors import InvalidInput
from byzopt.rng import seed_of, stream
from byzopt.tasks.grads.losses import termwise
from byzopt.tasks.grads.outputs import apart
from byzopt.tasks.grads.pure import Pure, slots, swapped
from byzopt.tasks.grads.randomness import lent_coins, lent_rng, states
from byzopt.tasks.grads.state import fresh, written

WORKERS, SAMPLES = 2, 3
SEEDS = [seed_of(0, "probe", i) for i in range(WORKERS)]
Batch = tuple[Tensor, Tensor]


class Mode(NamedTuple):
    """What a forward pass in one mode does besides computing.

    `draws` from torch's generators; `coins` from those of Python or NumPy; `writes` to these parts of module
    and loss; `apart`: the output for a sample hangs on that sample alone; `termwise`: the loss is a mean of
    known terms of one sample each.
    """

    draws: bool
    coins: bool
    writes: tuple[str, ...]
    apart: bool
    termwise: bool

    @property
    def cuts(self) -> bool:
        """Whether samples may go through the module in parts of a batch."""
        return self.apart and not (self.draws or self.coins)


class Corner:
    """A corner of a batch `[n, b, ...]`, near the module's own point `start` `[d]`, and what is seen there.

    `training`, `evaluation`: the module's behaviour; `example`: its output in evaluation mode;
    `sample_floats` counts what its layers put out for one sample. What is seen is noted in `pure`.

    Errors: `InvalidInput` for a module or a loss that does not work on the samples, or whose gradients go to
    parameters that the module does not register.
    """

    def __init__(self, pure: Pure, start: Tensor, sample: Batch, samples: int = SAMPLES) -> None:
        self.pure = pure
        if len(sample[0]) < WORKERS:  # how gradients are taken should not hang on how many workers there are
            sample = torch.cat([sample[0], sample[0].flip(1)]), torch.cat([sample[1], sample[1].flip(1)])
        contiguous = torch.contiguous_format  # so that equal numbers take equal paths through the kernels
        self.inputs, self.targets = (p[:WORKERS, :samples].clone(memory_format=contiguous) for p in sample)
        self.exact = start.device.type == "cpu"  # elsewhere sums may come in another order every time
        # Off the module's own point, where an output layer that starts at zero would hide what lies below it.
        noise = torch.randn(start.shape, generator=stream(0, "probe"), dtype=torch.float64, device="cpu")
        self.point = start + 0.02 * noise.to(start)
        self.others = _changed(self.inputs, self.targets, sample)
        pure.writes = ("unknown",)  # copies for every pass until it is known
        self.sample_floats = self._counted()
        self.training, self.evaluation = (self._mode(training) for training in (True, False))
        both = self.training, self.evaluation
        pure.writes = tuple(dict.fromkeys(name for mode in both for name in mode.writes))
        if pure.writes and self._caches():
            pure.writes = ()
            self.training, self.evaluation = (mode._replace(writes=()) for mode in both)
        pure.draws, pure.coins = (any(seen) for seen in zip(*((m.draws, m.coins) for m in both), strict=True))

    def doubled(self) -> Corner:
        """The same in float64."""
        other = copy(self)
        other.pure, other.point = self.pure.doubled(), self.point.double()
        other.inputs, other.targets, *others = (
            part.double() if part.is_floating_point() else part
            for part in (self.inputs, self.targets, *self.others)
        )
        other.others = others[0], others[1]
        return other

    def apart(self, output: Callable[[Tensor], Any]) -> bool:
        """Whether `output` for a sample hangs on that sample alone, as far as the corner shows."""
        return apart(output, self.inputs.flatten(0, 1), self.exact)

    def _mode(self, training: bool) -> Mode:
        seen, targets = self.inputs[0].clone(), self.targets[0].clone()
        self.pure.module.train(training)
        with lent_rng(SEEDS[0], self.point.device), lent_coins(SEEDS[0]), torch.enable_grad():
            before = states(self.point.device)
            with self._held() as (module, loss, parameters):
                output = self.example = module(seen)
                value = self._number(loss, output, targets, parameters)
                del value
                after = states(self.point.device)
                drawn = [any(written(*pair)) for pair in zip(before, after, strict=True)]
                left = (*self._left(module, parameters), *written(self.pure.loss, loss, "loss"))
        self.pure.spoils |= any(written((seen, targets), (self.inputs[0], self.targets[0])))
        alone = not any(drawn) and self.apart(self._output(training))
        return Mode(any(drawn[2:]), any(drawn[:2]), left, alone, termwise(self.pure.loss, output, targets))

    def _caches(self) -> bool:
        """Whether passes leave the same behind whatever samples, parameters and drawn numbers are, and then
        leave it alone, like an attention mask kept for the next pass. The module then keeps it."""
        kept = []
        for k in range(WORKERS):
            module, loss = fresh(self.pure.module, self.pure.loss)
            if not self._stable(module, loss, k):
                return False
            kept.append((module, loss))
        if any(written(kept[0], kept[1])) or not self._stable(*fresh(*kept[0]), 1, kept[0]):
            return False
        self.pure.module, self.pure.loss = kept[0]
        return True

    def _stable(self, module: nn.Module, loss: Any, k: int, before: Any = None) -> bool:
        """Call copies on worker k's samples at a point of its own, in both modes. Whether parameters are as
        they were and, where `before` is given, module and loss too."""
        views = self.pure.layout.views(self.point * (1 + k) + 0.01 * k)
        parameters = {name: view.clone() for name, view in views.items()}
        inside = swapped(module, slots(module, self.pure.layout), parameters)
        with lent_rng(SEEDS[k], self.point.device), lent_coins(SEEDS[k]), inside:
            for training in (True, False):
                module.train(training)
                loss(module(self.inputs[k].clone()), self.targets[k].clone())
        still = all(torch.equal(view, parameters[name]) for name, view in views.items())
        return still and not (before and any(written(before, (module, loss))))

    def _left(self, module: nn.Module, parameters: Mapping[str, Tensor]) -> Iterator[str]:
        """Names of what a pass changed in the module, and of parameters that it wrote to."""
        yield from written(self.pure.module, module)
        views = self.pure.layout.views(self.point)
        yield from (
            name for name, value in parameters.items() if not torch.equal(value.detach(), views[name])
        )

    @contextmanager
    def _held(self) -> Iterator[tuple[nn.Module, Any, dict[str, Tensor]]]:
        """Copies of module and loss at the point, with the parameters in them."""
        views = self.pure.layout.views(self.point)
        parameters = {name: view.clone().requires_grad_() for name, view in views.items()}
        with self.pure.held(parameters) as (module, loss):
            yield module, loss, parameters

    def _number(self, loss: Any, output: Any, targets: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """The loss, after checks."""
        try:
            value = loss(output, targets)
        except Exception as error:
            raise does_not_work(f"{type(error).__name__} in the loss: {line(error)}") from error
        if not isinstance(value, Tensor):
            raise does_not_work(f"a {type(value).__name__} from the loss, which no gradient can be taken of")
        if value.numel() != 1:
            raise does_not_work(f"a tensor {list(value.shape)} from the loss. Reduce it by mean")
        if value.is_complex() or not value.is_floating_point():
            raise does_not_work(f"a loss of {value.dtype}. It has to be a real number")
        if not value.requires_grad:
            raise does_not_work("a loss that hangs on no parameter: it was detached, or has no slope")
        others = _reached(value) - {id(p) for p in parameters.values()}
        if others:
            raise InvalidInput(
                "The loss should depend on no parameters but those that the module registers. Found "
                f"{len(others)} others, which would never move, and whose part would have no gradient. "
                "Register them; a penalty on the module's own goes into `wd`, or into what it puts out."
            )
        return value

    def _counted(self) -> int:
        """Numbers that the layers put out for one sample; the first pass of all."""
        total = 0

        def count(layer: nn.Module, inputs: Any, output: Any) -> None:
            nonlocal total
            total += output.numel() if isinstance(output, Tensor) else 0

        self.pure.module.eval()
        with lent_rng(0, self.point.device), lent_coins(0), self._held() as (module, _, _):
            for layer in module.modules():
                layer.register_forward_hook(count)
            try:
                module(self.inputs[0].clone())
            except Exception as error:
                shape = list(self.inputs[0].shape)
                reason = f"{type(error).__name__} in the module, given {shape}: {line(error)}"
                raise does_not_work(reason) from error
        return total // self.inputs.shape[1]

    def _output(self, training: bool) -> Callable[[Tensor], Any]:
        def output(samples: Tensor) -> Any:
            self.pure.module.train(training)
            with torch.no_grad(), self._held() as (module, _, _):
                return module(samples.clone())

        return output


def does_not_work(reason: str) -> InvalidInput:
    """The error for a module and a loss of which no gradient can be taken."""
    return InvalidInput(
        f"The module and the loss should give a scalar mean on one worker's batch. Found {reason}."
    )


def line(error: Exception) -> str:
    """The first line of an error of somebody else's."""
    return str(error).strip().partition("\n")[0].rstrip(".")


def _reached(value: Tensor) -> set[int]:
    """Ids of the `nn.Parameter`s that a value's graph ends in."""
    known, ahead, reached = set(), [value.grad_fn], set()
    while ahead:
        node = ahead.pop()
        if node is None or node in known:
            continue
        known.add(node)
        variable = getattr(node, "variable", None)
        reached |= {id(variable)} if isinstance(variable, nn.Parameter) else set()
        ahead += [parent for parent, _ in node.next_functions]
    return reached


def _changed(inputs: Tensor, targets: Tensor, sample: Batch) -> Batch:
    """The corner with other samples, of the same data, for its last worker."""
    few = inputs.shape[1]
    ends = tuple(part[-1, -few:] for part in sample)
    flips = tuple(part[0, :few].flip(0) for part in sample)
    wholes = inputs.clone(), targets.clone()
    chosen = next((pair for pair in (ends, flips) if not torch.equal(pair[0], inputs[-1])), None)
    if chosen is not None:
        wholes[0][-1], wholes[1][-1] = chosen
    elif inputs.is_floating_point():
        wholes[0][-1] *= 0.5
    return wholes
