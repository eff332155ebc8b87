"""A user's file and what it imports from beside it, read at once: one hash, and modules of their own.

The modules have private names, so that two files of one name, or two states of one file, live side by side,
and nothing is put on Python's own path. Their code is compiled from the very bytes that are hashed.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from byzopt import files
from byzopt.errors import InvalidInput
from byzopt.own_files.blame import blamed, broken

MOST = 1 << 22  # bytes of a file
PREFIX = "_byzopt_own_"
_LOADED: dict[str, Bundle] = {}


class Bundle:
    """The file `path` and the local modules that its `import` statements reach, by dotted name.

    What is imported by a function (`importlib`) or read as data is not part of it. Errors: `InvalidInput` for
    what is no readable file; `UserError` for what is no Python.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sources = dict(_closure(path))
        hashes = [f"{name} {sha256(data).hexdigest()}" for name, (_, data) in sorted(self.sources.items())]
        self.sha256 = sha256("\n".join(hashes).encode()).hexdigest()
        self._prefix = f"{PREFIX}{sha256(f'{path} {self.sha256}'.encode()).hexdigest()[:16]}"

    @classmethod
    def of(cls, path: Path) -> Bundle:
        """The bundle of a file as it is now; one that is loaded already where nothing has changed."""
        bundle = cls(path)
        return _LOADED.setdefault(bundle._prefix, bundle)

    @classmethod
    def holding(cls, part: Any) -> Bundle | None:
        """The bundle in whose modules a class or function is defined."""
        return _LOADED.get(str(getattr(part, "__module__", "")).partition(".")[0])

    @property
    def module(self) -> ModuleType:
        """The module of the file itself; executed when first asked for."""
        return self.load(self.path.stem)

    def load(self, name: str) -> ModuleType:
        """The local module of that dotted name, executed once, after the packages that it is in."""
        full = f"{self._prefix}.{name}"
        if full in sys.modules:
            return sys.modules[full]
        above, _, last = name.rpartition(".") if name != self.path.stem else ("", "", name)
        parent = self.load(above) if above else None
        path, data = self.sources[name]
        module = ModuleType(full)
        module.__file__ = str(path)
        package = path != self.path and (path.name == "__init__.py" or path.is_dir())
        module.__package__ = full if package else f"{self._prefix}.{above}".rstrip(".")
        if package:
            module.__path__ = []
        module.__dict__["__builtins__"] = vars(builtins) | {"__import__": self._import}
        sys.modules[full] = module
        try:
            with blamed(str(path)):
                exec(compile(data, str(path), "exec", dont_inherit=True), module.__dict__)
        except BaseException:
            del sys.modules[full]
            raise
        if parent is not None:
            setattr(parent, last, module)
        return module

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """The `import` statement of these modules: local names first, as for a script that is run."""
        local = _absolute(name, str((globals or {}).get("__package__", ""))[len(self._prefix) + 1 :], level)
        if local.partition(".")[0] not in self.sources:
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        if local not in self.sources:
            raise ModuleNotFoundError(f"No module named {local!r} beside {self.path.name}", name=local)
        module = self.load(local)
        for item in fromlist or ():
            if f"{local}.{item}" in self.sources:
                self.load(f"{local}.{item}")
        return module if fromlist else self.load(local.partition(".")[0])


def _absolute(name: str, package: str, level: int) -> str:
    """The dotted name that an import means, from within a local `package`."""
    if level == 0:
        return name
    parts = package.split(".") if package else []
    above = parts[: len(parts) - level + 1]
    return ".".join([*above, *([name] if name else [])])


def _closure(path: Path) -> Iterator[tuple[str, tuple[Path, bytes]]]:
    """The file and every local module that it reaches: dotted name -> path and content."""
    seen, waiting = {path.stem}, [(path.stem, path)]
    while waiting:
        name, place = waiting.pop()
        data = b"" if place.is_dir() else _read(place)
        yield name, (place, data)
        package = name if place.is_dir() or place.name == "__init__.py" else name.rpartition(".")[0]
        if place == path:  # a file that is named is in no package, as a script is in none
            package = ""
        for wanted, level in _imports(data, str(place)):
            for local in _prefixes(_absolute(wanted, package, level)):
                place_beside = None if local in seen else _beside(path.parent, local)
                if place_beside is None and local not in seen:
                    break
                seen.add(local)
                waiting += [(local, place_beside)] if place_beside else []


@lru_cache(maxsize=256)
def _imports(data: bytes, place: str) -> tuple[tuple[str, int], ...]:
    """(dotted name, level) of all that the `import` statements of a module may mean."""
    try:
        tree = ast.parse(data, place)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise broken(place, error) from None
    names: list[tuple[str, int]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [(alias.name, 0) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = f"{node.module}." if node.module else ""
            names += [(f"{base}{alias.name}", node.level) for alias in node.names]
            names += [(node.module, node.level)] if node.module else []
    return tuple(names)


def _prefixes(name: str) -> list[str]:
    """`a`, `a.b`, `a.b.c`."""
    parts = name.split(".") if name else []
    return [".".join(parts[: k + 1]) for k in range(len(parts))]


def _beside(folder: Path, name: str) -> Path | None:
    """Where a module lies in the folder; None for one that does not."""
    top = name.partition(".")[0]
    if top == "byzopt":  # there is one only, whatever lies here
        return None
    place = folder.joinpath(*name.split("."))
    for one in (place / "__init__.py", place.with_name(f"{place.name}.py")):
        if one.is_file():
            return one
    # A folder without an `__init__.py` gives way to an installed package.
    return place if place.is_dir() and (name != top or not _installed(top)) else None


def _installed(top: str) -> bool:
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None


def _read(path: Path) -> bytes:
    what = f"File {path}"
    if not path.is_file():  # pipes and devices are not even opened
        instead = "something else" if path.exists() else "no such file"
        raise InvalidInput(f"{what} should be a Python file. Found {instead}.")
    try:
        return files.read(path, MOST)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInput(f"{what} should be readable. Found: {reason}.") from None
