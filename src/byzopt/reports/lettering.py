"""How text enters a figure: every name, label and note goes through `letters`, every legend through `legend`.

Names come from users. Matplotlib reads `$` as mathematics and leaves out of a legend what begins with `_` or
is empty, which shifts the names of the lines that follow; it knows nothing of control characters and draws
boxes where its font has no glyph.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache, wraps
from textwrap import wrap
from typing import Any, ParamSpec, TypeVar
from unicodedata import bidirectional

from byzopt.escaping import visible

P = ParamSpec("P")
T = TypeVar("T")

FONT = "DejaVu Sans"  # comes with matplotlib, so that a figure is the same everywhere
# Set for whatever draws or saves, because a user's own settings may typeset all text by TeX. TrueType fonts
# in PDF are what publishers ask for.
INK: Any = {"font.family": [FONT], "font.size": 10, "text.usetex": False, "axes.titlesize": 10}
INK |= {"svg.fonttype": "path", "svg.hashsalt": "byzopt", "pdf.fonttype": 42}
MOST = 160  # letters of a name that are drawn; of a longer one the middle gives way
WIDE = 46  # letters in a line of a legend
_RIGHT = "[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]"
_LEFTWARD = re.compile(rf"{_RIGHT}(?:[^A-Za-z]*{_RIGHT})?")  # right-to-left letters, and what lies between
_MARK = "\u200e"  # left-to-right mark: what comes before and after keeps its place


def inked(draw: Callable[P, T]) -> Callable[P, T]:
    """`draw`, with matplotlib's settings as `INK` says."""

    @wraps(draw)
    def drawn(*given: P.args, **named: P.kwargs) -> T:
        import matplotlib as mpl

        with mpl.rc_context(INK):
            return draw(*given, **named)

    return drawn


def letters(text: str, width: int | None = None, most: int = MOST) -> str:
    r"""A text as matplotlib draws it to the letter, in lines of at most `width` letters.

    An empty one becomes `""`; spaces at an end are shown by quotation marks. What the font has no glyph for,
    or what this matplotlib cannot lay out, is spelt as in `visible`. Beyond `most` letters the middle goes.
    """
    shown = "".join(one if _has(one) else _spelt(one) for one in visible(text, ""))
    shown = shown if shown and shown == shown.strip() else f'"{shown}"'
    if len(shown) > most:
        shown = f"{shown[: most // 2]} … {shown[-most // 2 :]}"
    lines = wrap(shown, width, break_on_hyphens=False) if width else [shown]
    return "\n".join(map(_line, lines))


def distinct(names: Sequence[str], width: int | None = None, most: int = MOST) -> list[str]:
    """Names as `letters` gives them; those that would look the same are numbered."""
    names_drawn: list[str] = []
    for name in names:
        shown, again = letters(name, width, most), 1
        while shown in names_drawn:
            again += 1
            shown = f"{letters(name, width, most)} #{again}"
        names_drawn.append(shown)
    return names_drawn


def longest(names: Sequence[str]) -> int:
    """The length of the longest line of these drawn names."""
    return max((len(line) for name in names for line in name.split("\n")), default=0)


def heights(names: Sequence[str]) -> int:
    """How many lines these drawn names take, one below the other."""
    return sum(name.count("\n") + 1 for name in names)


def legend(place: Any, handles: Sequence[Any], names: Sequence[str], columns: int, **style: Any) -> None:
    """A legend below everything else, each of the names (already drawn letters) beside its own handle."""
    # Matplotlib decides by a label whether there is an entry, so the names are put in afterwards.
    made = place.legend(
        handles,
        [f"line {i}" for i in range(len(handles))],
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        **style,
    )
    for text, name in zip(made.get_texts(), names, strict=True):
        text.set_text(name)


def _line(text: str) -> str:
    if any(bidirectional(one) in ("R", "AL") for one in text):
        text = _LEFTWARD.sub(lambda found: f"{_MARK}{found[0]}{_MARK}", text)
    return text.replace("$", r"\$")


def _spelt(one: str) -> str:
    return one.encode("unicode_escape").decode()


def _has(one: str) -> bool:
    if bidirectional(one) in ("R", "AL") and not _lays_out():
        return False
    return ord(one) in _glyphs()


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib.font_manager import findfont
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(findfont(FONT)).get_charmap())


@cache
def _lays_out() -> bool:
    """Whether this matplotlib writes from right to left."""
    import matplotlib as mpl

    return mpl.__version_info__ >= (3, 11)
