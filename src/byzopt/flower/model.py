"""A whole model as arrays: parameters as one vector, buffers (running statistics, counters) apart from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from torch import Tensor, nn

from byzopt.errors import ByzoptError, InvalidInput, require
from byzopt.layout import Layout

FLOATS = ("float32", "float64", "float16")
INTEGERS = ("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8")
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # batch norm's, as PyTorch calls them

Buffers: TypeAlias = "nn.Module | Iterable[str] | None"
Values: TypeAlias = "dict[str, np.ndarray[Any, Any]]"  # arrays by name, in their own shape and dtype


@dataclass(frozen=True)
class ModelArrays:
    """The arrays of a model: parameters, buffers, and constants, which are float arrays with infinite entries
    (attention masks): what clients return for these is not looked at.

    Rows of parameters, and float buffers, are computed with in `dtype`: float64 where any float array is,
    else float32. Arrays go out in the dtypes in which they came.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    buffers: frozenset[str]
    constants: frozenset[str] = frozenset()

    @classmethod
    def of(cls, arrays: ArrayRecord, buffers: Buffers = None) -> ModelArrays:
        """What trusted arrays hold. `buffers`: see `RobustFedAvg`.

        Errors: `InvalidInput` for a dtype that is neither float, integer nor bool, for NaN, for names of
        buffers that are not there, and where no parameter is left.
        """
        values = {name: arrays[name].numpy() for name in arrays}
        for name, value in values.items():
            known = value.dtype.name in (*FLOATS, *INTEGERS, "bool") and value.dtype.isnative
            remedy = "Convert it (bfloat16 to float32, say), or leave it out of the model's arrays."
            require(known, f"Array {name!r}", "be float, integer or bool", str(value.dtype), remedy)
        floats = {name: value for name, value in values.items() if value.dtype.kind == "f"}
        broken = [name for name, value in floats.items() if np.isnan(value).any()]
        require(not broken, "A model to begin with", "hold no NaN", f"some in {broken[:8]}")
        constants = {name for name, value in floats.items() if not np.isfinite(value).all()}
        measured = ((set(values) - set(floats)) | _named(values, buffers)) - constants
        kept_apart = measured | constants
        what = "The arrays of a model"
        require(bool(set(values) - kept_apart), what, "hold parameters", f"none among {sorted(values)[:8]}")
        shapes = tuple(tuple(value.shape) for value in values.values())
        dtypes = tuple(value.dtype.name for value in values.values())
        return cls(tuple(values), shapes, dtypes, frozenset(measured), frozenset(constants))

    @property
    def layout(self) -> Layout:
        """Names and shapes of the parameters, in the order of the arrays."""
        apart = self.buffers | self.constants
        pairs = [(n, s) for n, s in zip(self.names, self.shapes, strict=True) if n not in apart]
        return Layout(tuple(n for n, _ in pairs), tuple(s for _, s in pairs))

    @property
    def dtype(self) -> torch.dtype:
        """In what parameters are computed with."""
        return torch.float64 if "float64" in self.dtypes else torch.float32

    def values_of(self, arrays: ArrayRecord) -> Values:
        """Trusted arrays by name, in the model's dtypes; counters that come as fractions are rounded.

        Errors: `InvalidInput` where they have other names or shapes than this model's.
        """
        values = {name: arrays[name].numpy() for name in arrays}
        wanted = dict(zip(self.names, self.shapes, strict=True))
        different = sorted(
            n for n in {*values, *wanted} if n not in values or values[n].shape != wanted.get(n)
        )
        require(
            not different, "The arrays of a later round", "be those of round 1", f"others in {different[:8]}"
        )
        return {
            name: (np.rint(values[name]) if dtype in INTEGERS else values[name]).astype(dtype)
            for name, dtype in zip(self.names, self.dtypes, strict=True)
        }

    def vector(self, values: Mapping[str, np.ndarray[Any, Any]]) -> Tensor:
        """The parameters among these values as one vector `[d]`."""
        kind = str(self.dtype).removeprefix("torch.")
        with np.errstate(over="ignore"):  # what does not fit is Inf, which whoever asks looks for
            parts = [values[name].reshape(-1).astype(kind) for name in self.layout.names]
        return torch.from_numpy(np.concatenate(parts))

    def apart(self, values: Values) -> Values:
        """The buffers and constants among these values."""
        return {name: values[name] for name in self.buffers | self.constants}

    def arrays(self, x: Tensor, apart: Values) -> ArrayRecord:
        """Parameters `x` `[d]`, buffers and constants as arrays, in the order and dtypes in which they came.

        Errors: `ByzoptError` for a parameter beyond what its dtype holds.
        """
        views = self.layout.views(x)
        record = {}
        for name, dtype in zip(self.names, self.dtypes, strict=True):
            value = views[name].numpy() if name in views else apart[name]
            with np.errstate(over="ignore"):
                value = np.array(value, dtype=dtype)
            if name in views and not np.isfinite(value).all():
                raise ByzoptError(
                    f"Parameter {name!r} should fit {dtype}. Found a value beyond it. "
                    "Lower the server's learning rate, or send the model as float32."
                )
            record[name] = Array(value)
        return ArrayRecord(record)


def _named(values: Mapping[str, Any], buffers: Buffers) -> set[str]:
    """The arrays that `buffers` names: a module's, patterns, or (None) batch norm's as PyTorch names them."""
    if buffers is None:
        return {name for name in values if name.rsplit(".", 1)[-1] in STATISTICS}
    if isinstance(buffers, nn.Module):
        kept = set(buffers.state_dict()) - {name for name, _ in buffers.named_parameters()}
        remedy = "Give the module whose state_dict the arrays are."
        what = "The module in `buffers`"
        require(kept <= set(values), what, "have the model's names", sorted(kept - set(values))[:8], remedy)
        return kept
    if isinstance(buffers, str):
        raise InvalidInput(
            f"Parameter `buffers` should be a module or names. Found {buffers!r}. Write a list."
        )
    names: set[str] = set()
    for pattern in buffers:
        matching = {name for name in values if fnmatchcase(name, pattern)}
        remedy = f"The arrays are {', '.join(list(values)[:20])}."
        require(bool(matching), "Parameter `buffers`", "name arrays of the model", pattern, remedy)
        names |= matching
    return names
