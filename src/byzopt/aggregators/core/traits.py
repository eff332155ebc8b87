"""Traits of rules and pre-aggregators: what callers may rely on, and what contract tests ask of a part.

A class states a trait as a class attribute (`positional = True`), or as a property where it depends on a
parameter. The defaults of the promises are the strongest ones: a part that keeps less says so.
"""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from inspect import isabstract
from typing import Any, Literal, TypeAlias

from byzopt.kernels import Figures

# Methods that decide an answer, those of them that are given rows, and the answer itself.
DECIDE = ("reduce", "apply", "weights", "weigh", "shares", "mixing", "lengths", "columns")
GIVEN_ROWS = frozenset({"reduce", "apply", "weigh", "columns"})
ANSWERS = (*DECIDE, "__call__")
_PROMISES = (
    "trusts",
    "pivots",
    "translation_equivariant",
    "scale_equivariant",
    "convex",
    "columnwise",
    "ties",
)

Ties: TypeAlias = Literal["none", "first", "rounding"]


class Traits:
    """How a part is called, and what its answers promise."""

    foreign: frozenset[str] = frozenset()  # which of the methods `ANSWERS` are code of another package

    @property
    def batched(self) -> bool:
        """Whether `weights`, `mixing` and `plan` take a stacked geometry `[R, n, n]`."""
        return False

    @property
    def direct(self) -> bool:
        """Whether nothing is asked of rows but their distances, by `decide(apart)`, or ranks, by `plan(m)`:
        then the usual call goes straight (`straight`)."""
        return False

    @property
    def asks(self) -> Figures | None:
        """What of each row alone decides (`kernels.row_figures`): a rule by `shares`, a stage by lengths.
        Then it wants no products of rows with each other, and a rule's usual call goes straight. None: more
        than that."""
        return None

    @property
    def row(self) -> int | None:
        """The row that the figures which it `asks` for are measured against."""
        return None

    @property
    def validates(self) -> bool:
        """Whether it finds rows that are not finite by itself: it looks at rows only in the ways in which
        `Mixed` raises `ExtremeRows`. Others are given rows that have been looked at."""
        return False

    @property
    def positional(self) -> bool:
        """Whether a row's place means something: a trusted row, a weight for each worker, groups drawn by
        place. All others promise the same answer for workers in another order, up to rounding."""
        return False

    @property
    def by_value(self) -> bool:
        """Whether it leaves exact ties open: it is given rows in the order of their values."""
        return False

    @property
    def draws(self) -> bool:
        """Whether it draws lots, from its `seed` and the round: then `at(t)` is another recipe each round."""
        return False

    @property
    def trusts(self) -> tuple[int, ...]:
        """Rows that must be honest for the answer to be robust, and for the coefficients to hold."""
        return ()

    @property
    def pivots(self) -> bool:
        """Whether its trusted rows are among those that it averages and need be no better than other honest
        ones, as a worker's own row is. Then stages may mix them with others; else they are to be as sent."""
        return False

    @property
    def by_worker(self) -> bool:
        """Whether places are those of particular workers: a trusted row, a weight for each. Then the rule is
        for rows of which the i-th is worker i's."""
        return bool(self.trusts)

    @property
    def sent_rows(self) -> bool:
        """Whether it makes sense only of the rows that workers sent, whole: no stage may come before it."""
        return False

    @property
    def translation_equivariant(self) -> bool:
        """Whether rows plus a vector give the answer plus that vector. Not so where norms, signs or angles
        about the origin decide."""
        return True

    @property
    def scale_equivariant(self) -> bool:
        """Whether rows times c > 0 give the answer times c, and equal rows that row. Not so where a parameter
        is a length in the rows' own units, or where the answer has no length."""
        return True

    @property
    def convex(self) -> bool:
        """Whether the answer lies between the rows in each coordinate, and weights sum to one."""
        return True

    @property
    def columnwise(self) -> bool:
        """Whether each column is answered for itself, so that the answer is no weighted sum of whole rows."""
        return False

    @property
    def ties(self) -> Ties:
        """What decides between rows that tie: "first", the row that comes first; "rounding", where they are
        equal but for rounding; "none", nothing hangs on it."""
        return "none"

    @classmethod
    def needs_f(cls) -> bool:
        """Whether the recipe has an `f` that cannot be left out."""
        recipe: Any = cls
        known = fields(recipe) if is_dataclass(recipe) else ()
        return any(each.name == "f" and each.default is MISSING for each in known)

    def __init_subclass__(cls) -> None:
        """What a class says of its code holds for that code alone.

        A subclass that looks at rows in a way of its own is given rows that have been looked at, unless it
        says again that it `validates`. A plugin's class that decides in a way of its own is called for one
        set of rows at a time, unless it says again that it is `batched`; it may read a row's place, unless it
        says that it is not `positional`; and it promises what its kind does, unless it says otherwise.
        """
        super().__init_subclass__()
        cls.foreign = frozenset(name for name in ANSWERS if not _ours(_definer(cls, name)))
        if not _ours(cls) and "positional" not in vars(cls):
            _state(cls, positional=True, by_value=False)
        looks = vars(cls).keys() & {"reduce", "apply"} and "validates" not in vars(cls)
        if looks or replaces(cls, "validates", ("reduce", "apply", "columns", "weigh")):
            _state(cls, validates=False)
        if replaces(cls, "batched", ANSWERS):
            _state(cls, batched=False)
        if replaces(cls, "direct", ANSWERS):
            _state(cls, direct=False)
        if replaces(cls, "asks", tuple(set(ANSWERS) - {"shares", "lengths"})):
            _state(cls, asks=None)
        for trait in _PROMISES:
            if replaces(cls, trait, ANSWERS):
                _state(cls, **{trait: getattr(kind_of(cls), trait)})


def replaces(cls: type, stated: str, code: tuple[str, ...]) -> bool:
    """Whether a plugin replaces one of the methods `code` of the class that has `stated`, without a word of
    its own on `stated`: then what was said there was said of other code."""
    for each in cls.__mro__:
        if stated in vars(each):
            return False
        if vars(each).keys() & set(code):
            return not _ours(each)
    return False


def kind_of(cls: type) -> type:
    """The nearest abstract class that `cls` extends: what is said there is said of all rules of a kind."""
    return next((base for base in cls.__mro__[1:] if isabstract(base)), Traits)


def _definer(cls: type, name: str) -> type:
    return next((each for each in cls.__mro__ if name in vars(each)), Traits)


def _ours(cls: type) -> bool:
    return cls.__module__.startswith("byzopt.")


def _state(cls: type, **traits: object) -> None:
    for name, value in traits.items():
        setattr(cls, name, value)
