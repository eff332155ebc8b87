r"""Texts, numbers and figures as LaTeX, for any engine with the package graphicx.

Every character that LaTeX would obey, or that its fonts may lack, is written as a command.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from unicodedata import normalize

from byzopt.escaping import visible

_NUMBER = re.compile(r"(-?)([\d,]*\.?\d+)(?:e([+-]\d+))?")
# A drawing that is wider than the text is made smaller.
_FITTED = r"\resizebox{\ifdim\width>\linewidth \linewidth\else\width\fi}{!}{%"
_ASCII = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%",
    "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "`": r"\textasciigrave{}", '"': "''",
    "[": "{[}", "*": "{*}",  # behind the end of a row both are read as its options
}  # fmt: skip
_SIGNS = {
    "‖": r"\Vert ", "∇": r"\nabla ", "≥": r"\ge ", "≤": r"\le ", "±": r"\pm ", "≈": r"\approx ",
    "×": r"\times ", "·": r"\cdot ", "∞": r"\infty ", "²": "^2", "³": "^3", "√": r"\surd ", "∈": r"\in ",
    "→": r"\to ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "δ": r"\delta ", "ε": r"\varepsilon ",
    "ζ": r"\zeta ", "η": r"\eta ", "θ": r"\theta ", "κ": r"\kappa ", "λ": r"\lambda ", "μ": r"\mu ",
    "µ": r"\mu ", "ν": r"\nu ", "ξ": r"\xi ", "π": r"\pi ", "ρ": r"\rho ", "σ": r"\sigma ", "τ": r"\tau ",
    "φ": r"\varphi ", "χ": r"\chi ", "ψ": r"\psi ", "ω": r"\omega ", "Γ": r"\Gamma ", "Δ": r"\Delta ",
    "Θ": r"\Theta ", "Λ": r"\Lambda ", "Π": r"\Pi ", "Σ": r"\Sigma ", "Φ": r"\Phi ", "Ψ": r"\Psi ",
    "Ω": r"\Omega ",
}  # fmt: skip
_LETTERS = {
    "…": r"\dots{}", "–": "--", "—": "---", "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "ø": r"\o{}",
    "Ø": r"\O{}", "å": r"\aa{}", "Å": r"\AA{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ł": r"\l{}", "Ł": r"\L{}",
    "ı": r"\i{}",
}  # fmt: skip
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u",
    "\u0307": ".", "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c",
}  # fmt: skip


def escaped(text: str) -> str:
    """A text to the letter. What has no command is spelt as Python does, `中` as `\\u4e2d`."""
    return "".join(map(_letter, normalize("NFC", visible(text, ""))))


def latex_number(text: str) -> str:
    """A number as it is spoken, `1.2e-05` or `1,234`, in mathematics; other texts as `escaped`."""
    numbers = [_NUMBER.fullmatch(part) for part in text.split(" ± ")]
    return "$" + r" \pm ".join(map(_power, numbers)) + "$" if all(numbers) else escaped(text)


def latex_figure(name: str, caption: str) -> str:
    """A figure that includes `name`.pdf beside it."""
    lines = [r"\begin{figure}", r"\centering", _FITTED, rf"\includegraphics{{{name}.pdf}}}}"]
    lines += [rf"\caption{{{caption}}}\label{{fig:{name}}}", r"\end{figure}"]
    return "\n".join([needs(["graphicx"]), *lines]) + "\n"


def needs(packages: Sequence[str]) -> str:
    """The comment that says what a file needs."""
    return "% Needs " + ", ".join(rf"\usepackage{{{one}}}" for one in packages) + "."


def _power(number: re.Match[str] | None) -> str:
    assert number is not None
    sign, digits, exponent = number.groups()
    power = rf" \times 10^{{{int(exponent)}}}" if exponent else ""
    return f"{sign}{digits.replace(',', '{,}')}{power}"


def _letter(one: str) -> str:
    if one in _SIGNS:
        return rf"\ensuremath{{{_SIGNS[one].strip()}}}"
    if one in _LETTERS:
        return _LETTERS[one]
    if one.isascii():
        return _ASCII.get(one, one)
    parts = normalize("NFD", one)
    base, marks = parts[:1], parts[1:]
    if base.isascii() and base.isalpha() and all(mark in _ACCENTS for mark in marks):
        for mark in marks:
            base = rf"\{_ACCENTS[mark]}{{{base}}}"
        return base
    return escaped(one.encode("unicode_escape").decode())
