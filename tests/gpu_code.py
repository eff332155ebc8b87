"""Machine code of the GPU kernels, made without a GPU: how many registers it takes, and what it spills."""

from __future__ import annotations

import re
import subprocess
import tempfile
from importlib import import_module
from pathlib import Path

from byzopt.kernels import RankWindow

NUMBERS = (
    "stride_n",
    "stride_d",
    "stride_p",
    "stride_o",
    "pivot",
    "n",
    "d",
    "span",
    "first",
    "last",
    "around",
)
TYPES = dict.fromkeys(NUMBERS, "i32")
EVEN = ("rows", "mixing", "out", "spoilt", "sums", "stride_n", "d")  # addresses and sizes that 16 divides


def made(target: str) -> dict[str, tuple[int, int]]:
    """For each of some kernels: the registers of a thread, and the bytes or registers that are spilt."""
    columns = import_module("byzopt.kernels.gpu.columns")
    products = import_module("byzopt.kernels.gpu.products")
    fixed = import_module("byzopt.kernels.gpu.fixed")
    tall = import_module("byzopt.kernels.gpu.tall")
    around, trimmed, warp = RankWindow(11, 13, 18), RankWindow(8, 40), 64 if "gfx" in target else 32
    wide = {"stride_d": 1, "BLOCK": columns.block_of(24)}
    blocks = {
        "stride_d": 1,
        "stride_p": 1,
        "ABOUT": True,
        "PARTS": 2,
        "HARDWARE": "ieee" if "gfx" in target else "tf32",
        "N": 32,
        "BLOCK": 64,
    }
    return {
        "means around the median of 24": _one(
            columns._columns(24, around, "tl.float32", False, False), wide, target
        ),
        "mixed and trimmed, 48": _one(
            columns._columns(48, trimmed, "tl.float32", True, True),
            wide | {"BLOCK": columns.block_of(48)},
            target,
        ),
        "3 sums": _one(columns._blends(3, "tl.float32"), wide, target),
        "products of 20": _one(
            products._outer(20, True),
            {"stride_d": 1, "stride_p": 1, "BLOCK": warp},
            target,
            warps=1,
            pivot="*fp32",
        ),
        "products of 64": _one(fixed.dots, blocks, target, warps=8, pivot="*fp32"),
        "means around the median of 128": _one(
            tall.ranked,
            {"stride_d": 1, "RANKS": 3, "AROUND": True, "N": 128, "BLOCK": 4},
            target,
            warps=1,
        ),
        "means around the median of 1000": _one(
            tall.ranked,
            {"stride_d": 1, "RANKS": 3, "AROUND": True, "N": 1024, "BLOCK": 4},
            target,
            warps=4,
        ),
        "squares": _one(fixed.squares, {"stride_d": 1, "BLOCK": 64}, target),
    }


def _one(kernel, constants, target, warps=4, **types):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    kinds = {name: "constexpr" if name in constants else (TYPES | types).get(name, "*fp32") for name in names}
    even = {(names.index(name),): [["tt.divisibility", 16]] for name in EVEN if name in names}
    amd = target.startswith("gfx")
    source = ASTSource(kernel, kinds, constexprs=constants, attrs=even)
    options = {"num_warps": warps, "num_stages": 2, "enable_fp_fusion": False}
    where = GPUTarget("hip", target, 64) if amd else GPUTarget("cuda", int(target), 32)
    code = triton.compile(source, target=where, options=options)
    if amd:
        text = code.asm["amdgcn"]
        return int(re.search(r"\.vgpr_count: +(\d+)", text)[1]), int(
            re.search(r"\.vgpr_spill_count: +(\d+)", text)[1]
        )
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(code.asm["cubin"])
        said = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    registers, stack, local = (
        int(re.search(rf"{word}:(\d+)", said)[1]) for word in ("REG", "STACK", "LOCAL")
    )
    return registers, stack + local
