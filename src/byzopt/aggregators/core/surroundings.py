"""Rules are isolated from what surrounds a call: autocast, default devices, torch.compile, transforms.

Whatever a rule is called within, it computes in its own precision, its small numbers on the CPU, and is no
part of a graph. What it cannot read as a matrix of numbers it refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad

F = TypeVar("F", bound=Callable[..., Any])
_NOTHING = nullcontext()
_KINDS = ("cpu", "cuda", "mps", "xpu")  # of devices with autocast


def isolated(door: F) -> F:
    """A decorator: the function runs without autocast, without torch.compile, and with the CPU as default
    device."""

    @wraps(door)
    def opened(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():  # in Python, with a break in the graph before and after
            disabled: Any = torch.compiler.disable
            return disabled(door)(*args, **kwargs)
        with neutral_context():
            return door(*args, **kwargs)

    return cast(F, opened)


def neutral_context() -> AbstractContextManager[Any]:
    """A context without autocast, in which the CPU is the default device."""
    # A default device is a mode on the stack of functions, or that of the default tensor type.
    moved = torch._C._len_torch_function_stack() > 0 or torch._C._get_default_device() != "cpu"
    away = moved and torch.empty(0).device.type != "cpu"
    if not (away or torch._C._is_any_autocast_enabled()):
        return _NOTHING
    kinds = [kind for kind in _KINDS if torch.is_autocast_enabled(kind)]
    stack = ExitStack()
    for kind in kinds:
        stack.enter_context(torch.autocast(kind, enabled=False))
    if away:
        stack.enter_context(torch.device("cpu"))
    return stack


def unreadable(rows: Tensor) -> tuple[str, str]:
    """What keeps `rows` from being read as a plain matrix of numbers, and what to do. Empty: nothing."""
    if _transformed(rows):
        return "a tensor inside a transform (vmap, grad, jvp)", _NO_TRANSFORM
    if rows.is_nested:
        return "a nested tensor", "Pad its rows to one length, or stack them."
    if rows.layout != torch.strided:
        return f"layout {rows.layout}", "Use rows.to_dense()."
    if rows.is_quantized:
        return "a quantized tensor", "Use rows.dequantize()."
    if type(rows).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        if rows.is_cpu or type(rows).__module__.partition(".")[0] == "torch":
            return f"a {type(rows).__name__}", "Give the plain tensor of its numbers."
    elif rows.is_meta:
        return "a tensor on the meta device, which holds no numbers", "Move the numbers to a device."
    if rows.is_complex():
        return f"{rows.dtype}", "Use torch.view_as_real(rows).flatten(1)."
    return "", ""


_NO_TRANSFORM = "For many sets of rows use rule.batch(rows); rules have no derivative."


def _transformed(rows: Tensor) -> bool:
    if torch._C._functorch.is_functorch_wrapped_tensor(rows):
        return True
    unpack: Any = forward_ad.unpack_dual
    return forward_ad._current_level >= 0 and unpack(rows).tangent is not None
