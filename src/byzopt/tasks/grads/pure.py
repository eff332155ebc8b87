"""A module and a loss as functions of parameters and samples, which no call changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy

from torch import Tensor, nn

from byzopt.layout import Layout
from byzopt.tasks.grads.losses import Loss
from byzopt.tasks.grads.state import fresh, reseed, unused


class Pure:
    """`module` and `loss` at parameters of one's choice.

    `draws`: from torch's generators; `coins`: from those of Python or NumPy; `spoils`: writes to its samples.
    `writes` names what a forward pass leaves behind. Where there is any, every pass gets copies of module and
    loss as they were given, so that what one worker's samples leave reaches no other and no later call.
    """

    def __init__(self, module: nn.Module, loss: Loss, layout: Layout) -> None:
        self.module, self.loss, self.layout = module, loss, layout
        self.draws = self.coins = self.spoils = False
        self.writes: tuple[str, ...] = ()
        self._slots = slots(module, layout)

    def doubled(self) -> Pure:
        """The same in float64, as far as module and loss can be."""
        module, loss = deepcopy(self.module), unused(self.loss)
        other = Pure(module.double(), loss.double() if isinstance(loss, nn.Module) else loss, self.layout)
        other.draws, other.coins, other.spoils = self.draws, self.coins, self.spoils
        other.writes = self.writes
        return other

    def given(self, *samples: Tensor) -> tuple[Tensor, ...]:
        """Inputs or targets as a pass may have them."""
        return tuple(part.clone() for part in samples) if self.spoils else samples

    @contextmanager
    def held(self, parameters: Mapping[str, Tensor], seed: int = 0) -> Iterator[tuple[nn.Module, Loss]]:
        """The module with these parameters, and the loss, for one pass; generators that they hold themselves
        start from `seed`."""
        module, loss = fresh(self.module, self.loss) if self.writes else (self.module, self.loss)
        if self.writes:
            reseed(module, seed)
            reseed(loss, seed)
        with swapped(module, self._slots, parameters):
            yield module, loss


Slots = list[tuple[str, str, str]]  # path of a layer, key of its parameter, name in the layout


def slots(module: nn.Module, layout: Layout) -> Slots:
    """Where the layout's parameters are used: tied ones in several layers, a layer placed twice once."""
    known = set(layout.names)
    names = {id(p): name for name, p in module.named_parameters() if name in known}
    return [
        (path, key, names[id(p)])
        for path, layer in module.named_modules()
        for key, p in layer._parameters.items()
        if id(p) in names
    ]


@contextmanager
def swapped(module: nn.Module, where: Slots, parameters: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, the module uses `parameters`; then its own again.

    `torch.func.functional_call` does the same, but loses the module's own where a layer is placed twice.
    """
    replaced = []
    try:
        for path, key, name in where:
            held = module.get_submodule(path)._parameters
            replaced.append((held, key, held[key]))
            held[key] = parameters[name]  # type: ignore[assignment]
        yield
    finally:
        for held, key, parameter in replaced:
            held[key] = parameter
