"""Compiled kernels at run time: LLVM code for this machine's vector unit, made in milliseconds by llvmlite.

No compiler is needed, nothing is cached on disk, and where llvmlite cannot be imported everything runs in
plain torch. Kernels work on column ranges and release the GIL: ranges run on as many threads as torch uses.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from math import isfinite
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from byzopt.kernels.team import run_all

PARALLEL = 1 << 20  # numbers below which one thread adds them before another would be at work
_PARTS = 32  # of the columns whose sums are taken apart, at most
_LINE = 64  # bytes of a line of the cache
_WORDS = {"off": (), "0": (), "no": (), "cpu": ("cpu",)}  # of BYZOPT_KERNELS; any other: all kernels
_state = {"on": _WORDS.get(os.environ.get("BYZOPT_KERNELS", "on").lower(), ("cpu", "gpu"))}

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"
NUMPY: dict[torch.dtype, Any] = {torch.float32: np.float32, torch.float64: np.float64}
T = TypeVar("T")
Run = Callable[..., None]
Emit = Callable[[Any, Any], None]  # (IR builder, function): writes the body


_addressof, _seen_from = ctypes.addressof, ctypes.c_char.from_buffer


def supports(rows: Tensor) -> bool:
    """Whether kernels can read `rows` `[n, d]` as they lie: on the CPU, float32 or float64, unit stride."""
    plain = rows.is_cpu and rows.dtype in NUMPY and rows.stride(1) == 1
    return plain and switched("cpu") and lanes(rows.dtype) > 0


def switched(place: str) -> bool:
    """Whether kernels for a `place`, cpu or gpu, are switched on."""
    return place in _state["on"]


@contextmanager
def disabled() -> Iterator[None]:
    """Plain torch only, while it lasts: the reference for the kernels."""
    before, _state["on"] = _state["on"], ()
    try:
        yield
    finally:
        _state["on"] = before


def kernels_available() -> bool:
    """Whether llvmlite is there and can compile for this machine."""
    return _machine() is not None


@cache
def lanes(dtype: torch.dtype) -> int:
    """How many numbers the widest vector register holds; 0 without llvmlite."""
    machine = _machine()
    return 0 if machine is None else machine.bits // (8 * dtype.itemsize)


class _Machine:
    """This machine as LLVM sees it."""

    def __init__(self) -> None:
        import llvmlite.binding as llvm

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self.llvm = llvm
        self.features = llvm.get_host_cpu_features()
        self.bits = 512 if self.features.get("avx512f") else 256
        self.target()

    def target(self) -> Any:
        """A code generator. Each engine owns one and frees it."""
        return self.llvm.Target.from_default_triple().create_target_machine(
            cpu=self.llvm.get_host_cpu_name(), features=self.features.flatten(), opt=3, jit=True
        )


@cache
def _machine() -> _Machine | None:
    try:
        return _Machine()
    except Exception:  # not installed, or no code generator for this machine: torch is as right, only slower
        return None


def compiled(name: str, arguments: str, emit: Emit) -> Run:
    """Machine code for the body that `emit` writes. `arguments`: p for a pointer, i for an int64.

    The code lives as long as the function that is returned.
    """
    import llvmlite.ir as ir

    machine = _machine()
    assert machine is not None, "kernels are asked for only where `usable`"
    kinds = {"p": (ir.IntType(8).as_pointer(), ctypes.c_void_p), "i": (ir.IntType(64), ctypes.c_int64)}
    module = ir.Module(name=name)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [kinds[a][0] for a in arguments]), name)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    emit(builder, function)
    builder.ret_void()
    engine = made_of(str(module), machine)
    engine.finalize_object()
    call = ctypes.CFUNCTYPE(None, *(kinds[a][1] for a in arguments))(engine.get_function_address(name))
    call.engine = engine  # type: ignore[attr-defined]  # keeps the code in memory
    return call


def made_of(text: str, machine: _Machine) -> Any:
    """An engine for the module that `text` is in LLVM's language, made good for this machine."""
    return machine.llvm.create_mcjit_compiler(*tuned(text, machine))


def tuned(text: str, machine: _Machine) -> tuple[Any, Any]:
    """The module after LLVM's passes, and the code generator that they were chosen for."""
    parsed, target = machine.llvm.parse_assembly(text), machine.target()
    parsed.verify()
    tuning = machine.llvm.create_pipeline_tuning_options(speed_level=2)
    machine.llvm.create_pass_builder(target, tuning).getModulePassManager().run(
        parsed, machine.llvm.create_pass_builder(target, tuning)
    )
    return parsed, target


def address(array: Any) -> int:
    """Where the numbers of a contiguous NumPy array lie. Four times faster than `array.ctypes.data`."""
    try:
        return _addressof(_seen_from(array))
    except (TypeError, ValueError):  # it is read-only, or empty
        return int(array.ctypes.data)


def aligned(count: int) -> Array:
    """Room for doubles that begins where a line of the cache does, so that no vector lies across two."""
    room = np.empty(count + _LINE // 8)
    first = -address(room) % _LINE // 8
    return room[first : first + count]


def all_finite(parts: Iterable[Array]) -> bool:
    """Whether all numbers in a few small arrays are finite."""
    return all(isfinite(number) for part in parts for number in part.tolist())


def parallel_for(d: int, work: int, step: int, run: Callable[[int, int], None]) -> None:
    """`run(start, stop)` over 0 .. d in pieces whose bounds are multiples of `step` (but for the end).

    `work` decides whether threads pay: numbers in all, times how much longer each takes than to be added.
    """
    pieces = torch.get_num_threads() if work >= PARALLEL else 1
    if pieces == 1:
        if d > 0:
            run(0, d)
        return
    width = max(1, -(-d // (pieces * step))) * step
    bounds = [(start, min(start + width, d)) for start in range(0, d, width)]
    run_all(len(bounds), lambda i: run(*bounds[i]), pieces)


def parts_of(d: int, work: int, step: int, run: Callable[[int, int], T]) -> list[T]:
    """`run(start, stop)` over the parts of 0 .. d, by as many threads as pay, and what it gives, in order:
    sums of that are the same on any number of threads."""
    bounds = parts(d, work, step)
    found: list[Any] = [None] * len(bounds)

    def some(first: int, last: int) -> None:
        for i in range(first, last):
            found[i] = run(*bounds[i])

    parallel_for(len(bounds), work, 1, some)
    return found


def parts(d: int, work: int, step: int, most: int = _PARTS) -> list[tuple[int, int]]:
    """Where parts of 0 .. d begin and end, at multiples of `step` but for the end: as many as the `work` is
    worth, on whichever machine."""
    count = max(1, min(most, work // (2 * PARALLEL)))
    width = max(1, -(-d // (count * step))) * step
    return [(start, min(start + width, d)) for start in range(0, d, width)]
