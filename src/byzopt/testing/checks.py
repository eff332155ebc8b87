"""A check: one promise, asked of one part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import cleandoc
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from byzopt.errors import MissingData

P = TypeVar("P", bound=Callable[..., None])


class BrokenPromise(AssertionError):
    """A part does not do what every part of its kind promises.

    Examples:
        >>> from dataclasses import dataclass
        >>> from byzopt.aggregators import CoordinateRule
        >>> from byzopt.testing import BrokenPromise, verify
        >>> @dataclass(frozen=True)
        ... class Largest(CoordinateRule):  # one row moves it anywhere
        ...     f: int = 1
        ...
        ...     def columns(self, block):
        ...         return block.amax(dim=0)
        >>> try:
        ...     verify(Largest())
        ... except BrokenPromise as error:
        ...     print("huge" in str(error))
        True
    """


@dataclass(frozen=True)
class Requirement:
    """A function that checks one promise, and the parts to which it applies."""

    check: Callable[..., None]
    applies: Callable[[Any], str] = lambda part: ""  # why it does not; empty where it does

    @property
    def name(self) -> str:
        """The promise's name, for ids of tests."""
        return self.check.__name__

    def spares(self, part: Any) -> str:
        """Why the promise is not asked of this part; empty where it is.

        A part that fails while it says what it is, is asked: the check then tells what is wrong.
        """
        try:
            return self.applies(part)
        except MissingData:
            raise
        except Exception:
            return ""


@dataclass(frozen=True)
class Check:
    """One promise asked of one part: call it. `BrokenPromise` says what was found.

    Args:
        part: The rule, attack or other part that is asked.
        promise: What is asked of it.

    Raises:
        BrokenPromise: When called, if the part does not keep it.

    Examples:
        >>> from byzopt.aggregators import Median
        >>> from byzopt.testing import checks_of
        >>> check = checks_of(Median(f=1))[0]
        >>> check()  # silent where the promise is kept
    """

    part: Any
    promise: Requirement

    @property
    def name(self) -> str:
        """`part-promise`, for ids of tests."""
        return f"{label(self.part)}-{self.promise.name}"

    @property
    def says(self) -> str:
        """The promise in a sentence."""
        return cleandoc(self.promise.check.__doc__ or self.promise.name)

    def __call__(self) -> None:
        """Checks. Errors: `BrokenPromise`, with the promise and what was found; `MissingData`."""
        try:
            self.promise.check(self.part)
        except BrokenPromise as broken:
            raise BrokenPromise(f"{label(self.part)}: {self.says} {broken}") from None
        except MissingData:
            raise
        except Exception as error:
            found = f"Found {type(error).__name__}: {error}"
            raise BrokenPromise(f"{label(self.part)}: {self.says} {found}") from error


class Verified(NamedTuple):
    """Names of the promises that a part keeps, and those that were not asked of it, each with the reason.

    Args:
        kept: Names of the promises that are kept.
        left_out: Those that were not asked, with the reason.

    Examples:
        >>> from byzopt.testing import Verified
        >>> Verified(kept=("determinism",), left_out={}).kept
        ('determinism',)
    """

    kept: tuple[str, ...]
    left_out: dict[str, str]


def label(part: Any) -> str:
    """The registered name of a part, else that of its class."""
    return str(getattr(part, "name", None) or type(part).__name__)


def holds(good: bool | Tensor, found: object) -> None:
    """Raise `BrokenPromise` with what was found, unless `good`."""
    if not bool(good):
        raise BrokenPromise(f"Found {found}.")


def refuses(call: Callable[[], object], errors: tuple[type[Exception], ...], what: str) -> Exception:
    """The named error that a call raises. `BrokenPromise` when it raises none or another."""
    try:
        answer = call()
    except errors as error:
        return error
    except Exception as error:
        raise BrokenPromise(f"Found {type(error).__name__} for {what}: {error}.") from error
    raise BrokenPromise(f"Found an answer for {what}: {answer!r:.200}.")


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers: the same for the same seed, in every dtype up to rounding."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64, device="cpu").to(dtype)


def equal(a: Any, b: Any) -> bool:
    """Whether tensors, or tuples, lists and tables of them, are equal to the bit; NaN equals NaN."""
    if isinstance(a, Tensor):
        alike = isinstance(b, Tensor) and a.shape == b.shape and a.dtype == b.dtype
        return alike and bool(((a == b) | (a.isnan() & b.isnan())).all())
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (tuple, list)):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)
