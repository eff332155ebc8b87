"""Names of parts in files, and who may follow them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

from byzopt.errors import InvalidInput

_PATTERN = re.compile(r"(?P<path>.*[^/\\]\.py):(?P<part>[^\W\d]\w*(\.[^\W\d]\w*)*)")
_FORBIDDEN: ContextVar[str] = ContextVar("whose data may run no code", default="")


class Reference(NamedTuple):
    """A file and the name of a part in it."""

    path: Path
    part: str

    @classmethod
    def of(cls, name: str) -> Reference:
        """The reference that `name` is (`is_reference`), its path absolute."""
        match = _PATTERN.fullmatch(name)
        assert match is not None
        path = Path(match["path"]).expanduser().absolute()
        return cls(path.parent.resolve() / path.name, match["part"])

    @property
    def label(self) -> str:
        """The reference as runs are told apart by it: without the folder, for it may be moved."""
        return f"{self.path.name}:{self.part}"


def is_reference(name: object) -> bool:
    """Whether a component's name is that of a part in a file."""
    return isinstance(name, str) and _PATTERN.fullmatch(name) is not None


def anchored(name: str, folder: Path) -> str:
    """A reference whose path no longer depends on where it is read: relative ones start at `folder`."""
    path, part = Reference.of(name) if name.startswith("~") else name.rsplit(":", 1)
    return f"{(folder / path).absolute()}:{part}"


@contextmanager
def no_user_code(whose: str) -> Iterator[None]:
    """Refuse references while data are read that no user has given: those of `whose`."""
    token = _FORBIDDEN.set(whose)
    try:
        yield
    finally:
        _FORBIDDEN.reset(token)


def check_allowed(name: str) -> None:
    """Raise `InvalidInput` inside `no_user_code`."""
    if whose := _FORBIDDEN.get():
        raise InvalidInput(f"A part named in {whose} should come with byzopt or a plugin. Found {name!r}.")
