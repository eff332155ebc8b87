"""Text that others may have written (names, messages, files), made harmless where it is shown.

A terminal obeys control characters, a spreadsheet runs cells that look like formulas, Markdown holds HTML and
links. Each function keeps the text readable and shows what it disarms.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any
from unicodedata import category

JOINERS = "\u200c\u200d"  # of category Cf like the marks that turn text round, but part of written words
# What spreadsheets take for a formula, at the start of a cell or behind the semicolon at which some split.
_FORMULA = re.compile(r"(^|;)(?=\s*[=+\-@\uff1d\uff0b\uff0d\uff20])")
_MARKUP = re.compile(r"<(?=[A-Za-z/!?])")
_LINK = re.compile(r"\](?=\s*[(\[:])")
_SAFE_LINK = re.compile(r"\]\((?:https?://[^\s()<>]*|(?!//)[\w./#-]+)\)")


def visible(text: str, kept: str = "\n\t") -> str:
    """`text` with every character that a terminal obeys instead of showing it spelled out, as `\\x1b`.

    These are control characters but those in `kept`, marks that change the direction of text, separators of
    lines, and halves of surrogate pairs.
    """
    if text.isprintable():
        return text
    return "".join(one if one in kept or not _obeyed(one) else _spelled(one) for one in text)


def one_line(text: str) -> str:
    """`visible` text on a single line."""
    return visible(" ".join(text.split()), "")


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV. Numbers stay numbers, None is an empty cell; text that a spreadsheet would run begins
    with an apostrophe, and control characters in it are spelled out."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(map(_cell, row) for row in rows)
    return buffer.getvalue()


def markdown_cell(text: str) -> str:
    """`text` as it is, in a cell of a Markdown table, a heading or a line: no markup of its own."""
    return re.sub(r"([\\|`\[\]])", r"\\\1", one_line(text)).replace("<", "&lt;")


def markdown(text: str) -> str:
    """Markdown that keeps its formatting but has neither HTML nor links other than to the web or to files."""
    safe = {match.start() for match in _SAFE_LINK.finditer(text)}
    text = _LINK.sub(lambda found: "]" if found.start() in safe else "&#93;", text)
    return visible(_MARKUP.sub("&lt;", text))


def _obeyed(character: str) -> bool:
    return category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in JOINERS


def _spelled(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return "" if value is None else value
    return value if _is_number(value) else _FORMULA.sub(r"\1'", visible(value, ""))


def _is_number(text: str) -> bool:
    """Whether it is one, or the dash of a figure that is missing."""
    try:
        float(text.replace(",", ""))
    except ValueError:
        return text == "-"
    return text == text.strip()
