"""A pretend accelerator: tensors that claim another device, and a count of what that device would have to do.

The numbers lie on the CPU, so that answers are true ones; but no operation may mix them with CPU tensors, and
each is counted. The mode has to be on: it sees factory calls (`torch.zeros(..., device=...)`) too.

Launches: operations that read or write numbers; not views, and not memory that is only taken. Syncs: whatever
makes the host wait for the device, which is a look at a number, a copy to the CPU, or an operation whose
result has a shape that the numbers decide. Bytes: what an operation reads, each tensor once, and writes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")  # nothing real: what it is asked to compute outside the mode fails
_MEMORY = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided")
_LOOKS = ("_local_scalar_dense", "equal", "is_nonzero", "allclose")
_SHAPED_BY_NUMBERS = ("nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount")
_GATHERS = ("index_select", "gather", "index", "embedding")  # read only what they give


class PretendTensor(Tensor):
    """Numbers on the CPU (`inner`) that claim to lie on `DEVICE`."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner, requires_grad=False):
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
            requires_grad=requires_grad,
        )
        made.inner = inner
        return made

    def __repr__(self):
        return f"PretendTensor({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} on a pretend device that is off")


@dataclass
class Counts:
    """What the device did: `what` has the operations by name, `waits` those that made the host wait."""

    launches: int = 0
    bytes: int = 0
    what: Counter = field(default_factory=Counter)
    waits: list[str] = field(default_factory=list)

    @property
    def syncs(self):
        return len(self.waits)


class PretendDevice(TorchDispatchMode):
    """While it is on, tensors can be put on the device by `put`, and `counts` grow."""

    def __init__(self):
        super().__init__()
        self.counts = Counts()

    def put(self, tensor):
        """`tensor` on the device; the copy is not counted."""
        return PretendTensor(tensor.detach().clone(), tensor.requires_grad)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        given = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
        here = [each for each in given if isinstance(each, PretendTensor)]
        wanted = None if kwargs.get("device") is None else torch.device(kwargs["device"]).type
        if not here and wanted != DEVICE.type:
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        moves = name in ("_to_copy", "copy_")
        alien = [
            each for each in given if not isinstance(each, PretendTensor) and (each.ndim or name == "copy_")
        ]
        assert moves or not (here and alien), f"{func} mixes devices: {[tuple(each.shape) for each in alien]}"
        if torch.Tag.inplace_view in func.tags:
            with no_dispatch():  # changes the claims, on the real meta device
                func(*args, **kwargs)
            func(*_inner(args), **_inner(kwargs))
            return args[0]
        if "device" in kwargs:
            kwargs["device"] = None if wanted is None else torch.device("cpu")
        leaves = wanted == "cpu" or (name == "copy_" and not isinstance(args[0], PretendTensor))
        out = func(*_inner(args), **_inner(kwargs))
        self._count(func, name, here, out, leaves)
        if leaves:
            return args[0] if name == "copy_" else out
        same = {id(each.inner): each for each in here}
        return tree_map(lambda each: _outer(each, same), out)

    def _count(self, func, name, here, out, leaves):
        results = [each for each in tree_flatten(out)[0] if isinstance(each, Tensor)]
        if name in _LOOKS or leaves or name in _SHAPED_BY_NUMBERS or _masked(name, here):
            self.counts.waits.append(str(func))
        if func.is_view or name in ("detach", "_unsafe_view", "lift_fresh", *_MEMORY):
            return
        self.counts.launches += name != "_local_scalar_dense"
        self.counts.what[name] += 1
        written = _size(results)
        self.counts.bytes += written + (written if name in _GATHERS else _size([each.inner for each in here]))


def _inner(tree):
    return tree_map(lambda each: each.inner if isinstance(each, PretendTensor) else each, tree)


def _outer(value, same):
    if not isinstance(value, Tensor):
        return value
    return same[id(value)] if id(value) in same else PretendTensor(value)


def _masked(name, here):
    """Indexing by true and false gives as many rows as there are true ones."""
    return name in ("index", "index_put_") and any(each.dtype == torch.bool for each in here[1:])


def _size(tensors):
    """Bytes of the memory that tensors lie in, each place once."""
    places = {
        (t.untyped_storage().data_ptr(), t.storage_offset(), t.numel() * t.element_size()) for t in tensors
    }
    return sum(size for _, _, size in places)
