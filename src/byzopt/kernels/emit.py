"""A thin layer over llvmlite's IR builder: loops, vector loads and sums, in the words of the kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from byzopt.kernels.jit import lanes


class Body:
    """The body of a function on vectors of `dtype`, of `width` numbers (default: as many as fit a register).

    Values are IR values; ints become constants.
    """

    def __init__(self, builder: Any, function: Any, dtype: torch.dtype, width: int = 0) -> None:
        import llvmlite.ir as ir

        self.ir, self.b, self.function = ir, builder, function
        self.i64 = ir.IntType(64)
        self.double = ir.DoubleType()
        self.scalar = self.double if dtype == torch.float64 else ir.FloatType()
        self.lanes = width or lanes(dtype)
        self.dtype, self.size = dtype, dtype.itemsize
        self.vector = ir.VectorType(self.scalar, self.lanes)

    def _call(self, name: str, *arguments: Any) -> Any:
        """LLVM's own operation `name` on vectors."""
        name, known = f"llvm.{name}.v{self.lanes}f{8 * self.size}", self.function.module.globals
        kind = self.ir.FunctionType(self.vector, [self.vector] * len(arguments))
        return self.b.call(known.get(name) or self.ir.Function(self.function.module, kind, name), arguments)

    def whole(self, value: Any) -> Any:
        """An int64: a constant, or a value as it is."""
        return self.ir.Constant(self.i64, value) if isinstance(value, int) else value

    def add(self, *values: Any) -> Any:
        """The sum of int64 values."""
        total = self.whole(values[0])
        for value in values[1:]:
            total = self.b.add(total, self.whole(value))
        return total

    def times(self, a: Any, b: Any) -> Any:
        """The product of two int64 values."""
        return self.b.mul(self.whole(a), self.whole(b))

    def least(self, a: Any, b: Any) -> Any:
        """The smaller of two int64 values."""
        return self.b.select(self.b.icmp_signed("<", a, b), a, b)

    @contextmanager
    def loop(self, start: Any, stop: Any, step: Any = 1) -> Iterator[Any]:
        """`for k in range(start, stop, step)`: the code in the block is the loop's body."""
        place = self.local(self.i64, self.whole(start))
        head, body, end = (self.function.append_basic_block(part) for part in ("head", "body", "end"))
        self.b.branch(head)
        self.b.position_at_end(head)
        k = self.b.load(place)
        self.b.cbranch(self.b.icmp_signed("<", k, self.whole(stop)), body, end)
        self.b.position_at_end(body)
        yield k
        self.b.store(self.add(k, step), place)
        self.b.branch(head)
        self.b.position_at_end(end)

    @contextmanager
    def tiles(self, count: Any, step: int) -> Iterator[Any]:
        """The starts of tiles of `step` that cover `count` >= `step` elements; the last two may overlap."""
        with self.loop(0, count, step) as start:
            yield self.least(start, self.add(count, -step))

    @contextmanager
    def pieces(self, start: Any, stop: Any, step: int) -> Iterator[Any]:
        """The starts of tiles of `step` columns that cover start .. stop, the last one moved back to its end:
        what is written twice is written alike. There are `step` columns before the stop."""
        with self.loop(start, stop, step) as column:
            yield self.least(column, self.add(stop, -step))

    def local(self, kind: Any, value: Any) -> Any:
        """A variable; the optimiser keeps it in a register."""
        with self.b.goto_entry_block():
            place = self.b.alloca(kind)
        self.b.store(value, place)
        return place

    def zeros(self) -> Any:
        """A vector variable that starts at zero."""
        return self.local(self.vector, self.ir.Constant(self.vector, None))

    def array(self, count: int) -> Any:
        """Room for `count` vectors, reused in every turn of a loop."""
        with self.b.goto_entry_block():
            return self.b.alloca(self.vector, count)

    def const(self, value: float) -> Any:
        """A vector that holds one number."""
        return self.ir.Constant(self.vector, [value] * self.lanes)

    def at(self, pointer: Any, index: Any, kind: Any) -> Any:
        """The address of element `index` of an array of `kind`."""
        return self.b.gep(self.b.bitcast(pointer, kind.as_pointer()), [self.whole(index)])

    def row(self, places: Any, index: Any) -> Any:
        """A pointer to where element `index` of an array of addresses says."""
        place = self.b.load(self.at(places, index, self.i64))
        return self.b.inttoptr(place, self.ir.IntType(8).as_pointer())

    def load(self, pointer: Any, index: Any) -> Any:
        """The vector that starts at element `index`."""
        place = self.b.bitcast(self.at(pointer, index, self.scalar), self.vector.as_pointer())
        return self.b.load(place, align=self.size)

    def store(self, value: Any, pointer: Any, index: Any) -> None:
        """Write a vector from element `index` on."""
        place = self.b.bitcast(self.at(pointer, index, self.scalar), self.vector.as_pointer())
        self.b.store(value, place, align=self.size)

    def fetch(self, pointer: Any, index: Any) -> None:
        """Ask for element `index` to be in the cache by the time that it is read. Any address will do."""
        if self.lanes == 1:  # its line was asked for with a vector
            return
        i32, byte = self.ir.IntType(32), self.ir.IntType(8).as_pointer()
        name, known = "llvm.prefetch.p0i8", self.function.module.globals
        kind = self.ir.FunctionType(self.ir.VoidType(), [byte, i32, i32, i32])
        place = self.b.bitcast(self.at(pointer, index, self.scalar), byte)
        ask = known.get(name) or self.ir.Function(self.function.module, kind, name)
        self.b.call(ask, [place, *(self.ir.Constant(i32, value) for value in (0, 2, 1))])

    def store_past(self, value: Any, pointer: Any, index: Any) -> None:
        """As `store`, past the cache. The place must be a multiple of the vector's size."""
        place = self.b.bitcast(self.at(pointer, index, self.scalar), self.vector.as_pointer())
        once = self.b.module.add_metadata([self.ir.Constant(self.ir.IntType(32), 1)])
        self.b.store(value, place, align=self.size * self.lanes).set_metadata("nontemporal", once)

    def increase(self, pointer: Any, index: Any, value: Any) -> None:
        """Add a double to element `index` of an array of doubles."""
        place = self.at(pointer, index, self.double)
        self.b.store(self.b.fadd(self.b.load(place), value), place)

    def spread(self, pointer: Any, index: Any) -> Any:
        """Element `index` in every lane."""
        return self.everywhere(self.b.load(self.at(pointer, index, self.scalar)))

    def narrowed(self, value: Any) -> Any:
        """A double as a number of the body's dtype."""
        return value if self.scalar is self.double else self.b.fptrunc(value, self.scalar)

    def everywhere(self, value: Any) -> Any:
        """A number in every lane."""
        empty = self.ir.Constant(self.vector, self.ir.Undefined)
        first = self.b.insert_element(empty, value, self.ir.Constant(self.ir.IntType(32), 0))
        zeros = self.ir.Constant(self.ir.VectorType(self.ir.IntType(32), self.lanes), None)
        return self.b.shuffle_vector(first, empty, zeros)

    def index(self, pointer: Any, index: Any) -> Any:
        """Element `index` of an array of int32, as an int64."""
        return self.b.sext(self.b.load(self.at(pointer, index, self.ir.IntType(32))), self.i64)

    def number(self, value: Any) -> Any:
        """An int64 value as a number in every lane."""
        return self.everywhere(self.b.sitofp(value, self.scalar))

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a b + c, rounded once."""
        return self._call("fma", a, b, c)

    def widened(self, vector: Any, target: Body) -> Any:
        """A vector as one of the `target` body, whose numbers are the same or wider."""
        return vector if target.scalar == self.scalar else self.b.fpext(vector, target.vector)

    def root(self, a: Any) -> Any:
        """The square root."""
        return self._call("sqrt", a)

    def greater(self, a: Any, b: Any) -> Any:
        """The greater of two vectors; `b` where `a` is NaN."""
        return self.b.select(self.b.fcmp_ordered(">", a, b), a, b)

    def number_at(self, pointer: Any, index: Any) -> Any:
        """Element `index` of an array of doubles."""
        return self.b.load(self.at(pointer, index, self.double))

    def put(self, value: Any, pointer: Any, index: Any) -> None:
        """Write a double to element `index` of an array of doubles."""
        self.b.store(value, self.at(pointer, index, self.double))

    def total(self, vector: Any) -> Any:
        """The sum of a vector's lanes, as a double: halves are added to halves."""
        width = self.lanes
        if self.scalar is not self.double:
            vector = self.b.fpext(vector, self.ir.VectorType(self.double, width))
        while width > 1:
            width //= 2
            picks = [
                self.ir.Constant(self.ir.VectorType(self.ir.IntType(32), width), list(part))
                for part in (range(width), range(width, 2 * width))
            ]
            low, high = (self.b.shuffle_vector(vector, vector, pick) for pick in picks)
            vector = self.b.fadd(low, high)
        return self.b.extract_element(vector, self.ir.Constant(self.ir.IntType(32), 0))

    def transposed(self, vectors: list[Any]) -> list[Any]:
        """As many vectors as they have lanes, with rows and columns exchanged: first of single numbers, then
        of pairs of them, and so on."""
        out, places, size = list(vectors), range(self.lanes), 1
        while size < self.lanes:
            low = [i + self.lanes - size if i & size else i for i in places]
            high = [i + self.lanes if i & size else i + size for i in places]
            kind = self.ir.VectorType(self.ir.IntType(32), self.lanes)
            picks = self.ir.Constant(kind, low), self.ir.Constant(kind, high)
            for i in places:
                if not i & size:
                    pair = out[i], out[i + size]
                    out[i], out[i + size] = (self.b.shuffle_vector(*pair, pick) for pick in picks)
            size *= 2
        return out
