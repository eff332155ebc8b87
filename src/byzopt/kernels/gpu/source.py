"""Triton kernels whose number of values is known only at run time, written out as source text.

Triton has no arrays of registers: each value of a column needs a name of its own. The text is kept where
Python looks for the lines of a file, which is where Triton reads it.
"""

from __future__ import annotations

import linecache
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from zlib import crc32

HEAD = (
    "at = first + tl.arange(0, BLOCK)",
    "inside = at < d",
    "place = rows + at * tl.cast(stride_d, tl.int64)",
)


class Source:
    """The text of a kernel as it grows; and the `Arithmetic` of answers on blocks of `wide` numbers.

    Values are names in the text. `wide` is tl.float32 or tl.float64.
    """

    def __init__(self, name: str, arguments: str, wide: str) -> None:
        self.name, self.wide = name, wide
        self.lines = [f"def {name}({arguments}, BLOCK: tl.constexpr):"]
        self._depth, self._count = 1, 0

    def line(self, text: str) -> None:
        """A statement."""
        self.lines.append("    " * self._depth + text)

    def value(self, expression: str) -> str:
        """A new name for the value of an expression."""
        self._count += 1
        self.line(f"v{self._count} = {expression}")
        return f"v{self._count}"

    @contextmanager
    def loop(self, head: str) -> Iterator[None]:
        """The statements of the block are the body of the loop."""
        self.line(head)
        self._depth += 1
        yield
        self._depth -= 1

    def loaded(self, place: str, inside: str = "inside") -> str:
        """The numbers at a block of addresses, 0 outside."""
        return self.value(f"tl.load({place}, mask={inside}, other=0.0).to({self.wide})")

    def zeros(self) -> str:
        """A block of zeros."""
        return self.value(f"tl.zeros([BLOCK], {self.wide})")

    def number(self, value: float) -> str:
        """One number, for all of a block."""
        return repr(value)

    def pair(self, a: str, b: str) -> tuple[str, str]:
        """Two names, of which the unused one costs nothing: the compiler drops it."""
        return self.value(f"tl.minimum({a}, {b})"), self.value(f"tl.maximum({a}, {b})")

    def plus(self, a: str, b: str) -> str:
        """a + b."""
        return self.value(f"{a} + {b}")

    def minus(self, a: str, b: str) -> str:
        """a - b."""
        return self.value(f"{a} - {b}")

    def over(self, a: str, b: str) -> str:
        """a / b, rounded once."""
        return self.value(f"tl.div_rn({a}, {b})" if self.wide == "tl.float32" else f"{a} / {b}")

    def fma(self, a: str, b: str, c: str) -> str:
        """a b + c, rounded once."""
        return self.value(f"tl.fma({a}, {b}, {c})")

    def above(self, a: str, b: str) -> str:
        """Whether a > b."""
        return self.value(f"{a} > {b}")

    def choose(self, condition: str, a: str, b: str) -> str:
        """a where the condition holds, else b."""
        return self.value(f"tl.where({condition}, {a}, {b})")

    def kernel(self, unspecialised: tuple[str, ...] = ()) -> Any:
        """The kernel. Arguments that are `unspecialised` may take any value without another compilation."""
        import triton
        import triton.language as tl

        text = "\n".join(self.lines) + "\n"
        file = f"<byzopt {self.name} {crc32(text.encode()):08x}>"
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        scope: dict[str, Any] = {"tl": tl, "__name__": f"{__name__}.{self.name}"}
        exec(compile(text, file, "exec"), scope)
        return triton.jit(scope[self.name], do_not_specialize=list(unspecialised))
