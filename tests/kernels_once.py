"""Machine code of kernels, made once in a test session: its processes, ranks too, find it on disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest import mock

from byzopt.files import write_atomically
from byzopt.kernels import jit


@contextmanager
def kept_in(folder: Path) -> Iterator[None]:
    """Meanwhile code for a module that is in `folder` is taken from there, and other code is put there."""

    def made_of(text: str, machine: Any) -> Any:
        path, llvm = folder / sha256(text.encode()).hexdigest(), machine.llvm
        if not path.exists():
            parsed, target = jit.tuned(text, machine)
            write_atomically(path, target.emit_object(parsed))
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine.target())
        engine.add_object_file(llvm.ObjectFileRef.from_data(path.read_bytes()))
        return engine

    with mock.patch.object(jit, "made_of", made_of):
        yield
