"""Where a part comes from: what is written down of it with a run, and how it is found again."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from string import ascii_letters, digits
from typing import Any, NamedTuple

from byzopt.errors import ChangedFile, InvalidInput, said, unknown
from byzopt.own_files.bundle import Bundle
from byzopt.own_files.reference import Reference, check_allowed, is_reference

_PLAIN = frozenset(ascii_letters + digits + "/\\._-:~")
KEY = "source"  # of a component's table


class PartSource(NamedTuple):
    """A part's name (`file.py:part`), its file (empty: it can only be given as an object), a hash of all code
    that it is made of. The path is no part of a run's identity: files may be moved."""

    label: str
    path: str
    sha256: str

    @property
    def reference(self) -> str:
        """The part as a command line names it, in quotes where a rule in words needs them."""
        name = f"{self.path}:{self.label.rpartition(':')[2]}"
        return name if set(name) <= _PLAIN else repr(name)

    @property
    def data(self) -> dict[str, Any]:
        """As plain data: the `name` and the `source` of a component's table."""
        return {"name": self.label, KEY: {"path": self.path, "sha256": self.sha256}}


def load_part(name: str, recorded: Any = None) -> tuple[Any, PartSource]:
    """The part that a reference names, and its source. `recorded` is the `source` of a stored table.

    Errors: `ChangedFile` where the file is gone or its code another than recorded; `InvalidInput` for what
    holds no such part; `UserError` for errors in it.
    """
    check_allowed(name)
    reference = _reference(name, recorded)
    bundle = Bundle.of(reference.path)
    if recorded is not None and recorded["sha256"] != bundle.sha256:
        raise ChangedFile(
            f"File {reference.path} and what it imports from beside it should be as they were when the run "
            f"was made. Found other code. Put the old one back, or name {reference.label} without its "
            "`source`, which is another run."
        )
    local, _, part = reference.part.rpartition(".")  # `helper.Part` is one of a module beside the file
    if local and local not in bundle.sources:
        raise InvalidInput(f"File {reference.path} should import {local!r}. Found no such import beside it.")
    module = bundle.load(local) if local else bundle.module
    names = [key for key in vars(module) if not key.startswith("_")]
    if part not in names:
        raise InvalidInput(f"In file {reference.path}: {unknown('part', part, names)}")
    source = PartSource(reference.label, str(reference.path), bundle.sha256)
    return getattr(module, part), source


def parts_of(path: str) -> dict[str, Any]:
    """The public classes and functions that a file defines, by name. Its code is run."""
    module = Bundle.of(Reference.of(f"{path}:parts").path).module
    public = {name: part for name, part in vars(module).items() if not name.startswith("_")}
    return {name: part for name, part in public.items() if getattr(part, "__module__", "") == module.__name__}


def source_of(part: Any) -> PartSource:
    """The source of a class or function that is given as an object, by the file that defines it.

    Errors: `InvalidInput` for one of an interactive session whose code nobody can tell.
    """
    name = getattr(part, "__qualname__", type(part).__name__)
    if (bundle := Bundle.holding(part)) is not None:
        local = str(part.__module__).partition(".")[2]
        inner = name if local == bundle.path.stem else f"{local}.{name}"
        again = is_reference(f"{bundle.path}:{inner}")
        return PartSource(f"{bundle.path.name}:{inner}", str(bundle.path) if again else "", bundle.sha256)
    try:
        path = Path(inspect.getsourcefile(part) or "").absolute()
        if path.is_file():
            label, again = f"{path.name}:{name}", is_reference(f"{path}:{name}")
            return PartSource(label, str(path) if again else "", Bundle.of(path).sha256)
        text = inspect.getsource(part)
    except (OSError, TypeError):
        raise InvalidInput(
            f"A part of one's own should be defined in a file, whose code tells runs apart. Found "
            f"{said(part)}, of which there is no code. Put it into a file."
        ) from None
    return PartSource(name, "", sha256(text.encode()).hexdigest())


def without_paths(data: Any) -> Any:
    """Plain data of a spec without where its files lie, which is no part of its identity."""
    if isinstance(data, Mapping):
        source = data.get(KEY)
        kept = dict(data)
        if isinstance(source, Mapping) and "sha256" in source:
            kept[KEY] = {key: value for key, value in source.items() if key != "path"}
        return {key: without_paths(value) for key, value in kept.items()}
    return [without_paths(value) for value in data] if isinstance(data, (list, tuple)) else data


def without_hashes(data: Any) -> Any:
    """Plain data of a spec without what files held: equal for a spec before and after they were edited."""
    if isinstance(data, Mapping):
        return {key: without_hashes(one) for key, one in data.items() if key != KEY}
    return [without_hashes(one) for one in data] if isinstance(data, (list, tuple)) else data


def objects_in(data: Any) -> list[str]:
    """The parts in plain data of a spec that only the program that gave them, as objects, can find again."""
    if isinstance(data, Mapping):
        source = data.get(KEY)
        here = [str(data.get("name"))] if isinstance(source, Mapping) and source.get("path") == "" else []
        return here + [name for value in data.values() for name in objects_in(value)]
    return [name for value in data for name in objects_in(value)] if isinstance(data, (list, tuple)) else []


def _reference(name: str, recorded: Any) -> Reference:
    """The reference that a name is, at the path that is recorded. Errors: `ChangedFile` for none."""
    if recorded is None:
        return Reference.of(name)
    shape = isinstance(recorded, Mapping) and recorded.keys() <= {"path", "sha256"} and "sha256" in recorded
    if not shape or not all(isinstance(value, str) for value in recorded.values()):
        raise InvalidInput(f"`{KEY}` should be a table of `path` and `sha256`. Found {said(recorded)}.")
    if recorded.get("path") == "" or not is_reference(name):
        raise ChangedFile(
            f"The part {name!r} should be one that a file's name leads to. Found one that was given as an "
            "object: give it again, in Python."
        )
    reference = Reference.of(name)
    reference = reference._replace(path=Path(recorded.get("path", reference.path)).absolute())
    if not reference.path.exists():
        raise ChangedFile(
            f"File {reference.path} should be there, because the run was made with it. Found none. Put it "
            f"back, or write where it lies now into the `path` of `{KEY}`."
        )
    return reference
