"""The sections of a docstring: what stands before them, arguments, errors, examples."""

from __future__ import annotations

import inspect
import re
from textwrap import dedent

_SECTION = re.compile(r"^(Args|Returns|Raises|Examples):\n", re.MULTILINE)
_ENTRY = re.compile(r"^(\w+): (.*(?:\n +.*)*)", re.MULTILINE)


def sections(doc: str | None) -> dict[str, str]:
    """A docstring's sections by name (`Args`, `Returns`, `Raises`, `Examples`), what precedes them as `""`.

    Args:
        doc: The docstring as written, or None.

    Examples:
        >>> from byzopt.docstrings import sections
        >>> sections("A rule.\\n\\nArgs:\\n    f: A count.")
        {'': 'A rule.', 'Args': 'f: A count.'}
    """
    head, *rest = _SECTION.split(inspect.cleandoc(doc or ""))
    named = zip(rest[::2], rest[1::2], strict=True)
    return {"": head.strip()} | {name: dedent(body).strip() for name, body in named}


def entries(section: str) -> dict[str, str]:
    """The `name: text` entries of a section, each text on one line.

    Args:
        section: The text of a section without its head.

    Examples:
        >>> from byzopt.docstrings import entries
        >>> entries("f: How many rows\\n    may be faulty.")
        {'f': 'How many rows may be faulty.'}
    """
    return {name: " ".join(text.split()) for name, text in _ENTRY.findall(section)}
