"""Whether Triton's kernels run where rows lie, and how they are launched there.

Triton comes with torch's wheels for CUDA and ROCm. Where it cannot be imported, the device is too old for it,
or a first kernel fails (it needs a C compiler for its launcher), plain torch does the work, and a warning
says so once.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any, TypeVar

import torch
from torch import Tensor

from byzopt.errors import require
from byzopt.kernels.jit import switched

_OLDEST = (7, 0)  # NVIDIA's compute capability that Triton asks for
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_PRECISIONS = ("float32", "tf32x3", "tf32")
_state = {"interpreted": False}
_failed: set[Any] = set()

Answer = TypeVar("Answer")


def runs_on(rows: Tensor) -> bool:
    """Whether kernels can read `rows` where they lie: on a GPU that Triton knows, in any layout."""
    if type(rows) is not Tensor or rows.dtype not in _DTYPES or not switched("gpu"):
        return False
    if rows.device.type == "cpu":
        return _state["interpreted"]
    return rows.is_cuda and _proved(rows.device.index or 0)


@contextmanager
def interpreted() -> Iterator[None]:
    """While it lasts Triton's interpreter runs the kernels, on CPU tensors: for tests, thousands of times
    slower.

    Errors: `InvalidInput` unless `TRITON_INTERPRET=1` was set before Triton was imported.
    """
    asked = os.environ.get("TRITON_INTERPRET") == "1" and find_spec("triton") is not None
    require(
        asked, "Triton's interpreter", "be asked for by TRITON_INTERPRET=1, with Triton installed", "neither"
    )
    before, _state["interpreted"] = _state["interpreted"], True
    try:
        yield
    finally:
        _state["interpreted"] = before


def interpreting() -> bool:
    """Whether kernels run on CPU tensors now."""
    return _state["interpreted"]


def precision() -> str:
    """How products of float32 rows are taken: float32, tf32x3 or tf32, as `BYZOPT_GPU_PRODUCTS` says.

    Errors: `InvalidInput` for any other word.
    """
    word = os.environ.get("BYZOPT_GPU_PRODUCTS", _PRECISIONS[0]).lower()
    require(word in _PRECISIONS, "BYZOPT_GPU_PRODUCTS", f"be one of {', '.join(_PRECISIONS)}", word)
    return word


def launch(kernel: Any, programs: int, rows: Tensor, *arguments: Any, **settings: Any) -> None:
    """Run `programs` of the kernel on the device of `rows`, in its current stream."""
    if programs:
        with torch.cuda.device(rows.device if rows.is_cuda else -1):  # Triton launches on the current one
            kernel[(programs,)](rows, *arguments, **settings, num_stages=2, enable_fp_fusion=False)


def attempted(key: Any, run: Callable[[], Answer]) -> Answer | None:
    """What `run` returns; None where Triton or the device cannot make its kernel, which is said once.

    A device that is at fault itself shows it again in plain torch.
    """
    if key in _failed:
        return None
    try:
        return run()
    except Exception as error:
        if interpreting() or isinstance(error, torch.OutOfMemoryError):
            raise
        _failed.add(key)
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        _tell(f"Triton could not make the kernel {key}: {reason[0]}")
        return None


def state() -> str:
    """Which kernels rows on a GPU are worked on with here, in a sentence."""
    if not switched("gpu"):
        return "switched off by BYZOPT_KERNELS: plain torch"
    if find_spec("triton") is None:
        return "none, for triton cannot be imported: plain torch"
    if not torch.cuda.is_available():
        return f"triton {_version()}, but no GPU that torch sees"
    reasons = {torch.cuda.get_device_name(i): _obstacle(i) for i in range(torch.cuda.device_count())}
    said = [f"{name}: {reason or 'in use'}" for name, reason in reasons.items()]
    return f"triton {_version()}; products in {precision()}; {'; '.join(said)}"


def _version() -> str:
    import triton

    return str(triton.__version__)


@cache
def _proved(device: int) -> bool:
    """Whether a first kernel runs on the device. Who records a graph has to have called a rule before."""
    reason = _obstacle(device)
    if reason:
        _tell(reason)
    return not reason


@cache
def _obstacle(device: int) -> str:
    if find_spec("triton") is None:
        return "triton cannot be imported"
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < _OLDEST:
        return f"Triton knows no GPU older than compute capability {'.'.join(map(str, _OLDEST))}"
    try:
        from byzopt.kernels.gpu.fixed import doubled

        place = torch.ones(1, dtype=torch.float32, device=torch.device("cuda", device))
        launch(doubled, 1, place)
        found = float(place)
    except Exception as error:  # no compiler, no driver, no memory: torch is as right, only slower
        return f"Triton's first kernel failed, with {type(error).__name__}: {error}"
    return "" if found == 2 else f"Triton's first kernel made {found} of 2"


def _tell(reason: str) -> None:
    warnings.warn(f"{reason}. Rows on this GPU are worked on in plain torch, slower.", stacklevel=2)
