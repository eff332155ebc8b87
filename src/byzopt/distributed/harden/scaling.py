"""Whether a `GradScaler` is at work: to it a gradient that is not finite means a scale that was too high."""

from __future__ import annotations

import gc
from weakref import ref

from torch.amp import GradScaler

from byzopt.distributed.living import living
from byzopt.errors import InvalidInput

_found: list[ref[GradScaler]] = []


def scalers(anew: bool = False) -> list[GradScaler]:
    """The enabled scalers of this process that anybody holds: looked for `anew`, or where none is known,
    which takes a moment."""
    if anew or not _alive():
        _found[:] = [ref(each) for each in living(GradScaler)]
        if _alive():
            gc.collect()  # a training that is over may have left one in a circle of references
    return _alive()


def _alive() -> list[GradScaler]:
    return [each for known in _found if (each := known()) is not None and each.is_enabled()]


def at_work(scaler: GradScaler | None) -> bool:
    """Whether `scaler` is enabled, or any of this process where None is known to be the model's."""
    return bool(scalers()) if scaler is None else scaler.is_enabled()


class LossScale:
    """What losses are multiplied by: the scale of `scaler`, or of the one enabled scaler that there is in
    the first step."""

    def __init__(self, scaler: GradScaler | None) -> None:
        self._scaler, self._looked = scaler, scaler is not None

    def now(self) -> float:
        """Errors: `InvalidInput` where there are several scalers, and none was given."""
        if not self._looked:
            found = scalers(anew=True)
            if len(found) > 1:
                raise InvalidInput(
                    "With momentum, the scale of losses should be known. Found several GradScalers. Say "
                    "which is this model's: harden(model, ..., scaler=scaler)."
                )
            self._scaler, self._looked = found[0] if found else None, True
        scaler = self._scaler
        return float(scaler.get_scale()) if scaler is not None and scaler.is_enabled() else 1.0
