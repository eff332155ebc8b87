"""Named errors and result codes. Every message says what, rule, found and remedy, in one line."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from enum import StrEnum

__all__ = [
    "BadAnswer",
    "BadMessage",
    "ByzoptError",
    "ChangedFile",
    "DoubtfulSetting",
    "InvalidInput",
    "MissingData",
    "MissingExtra",
    "Status",
    "TooManyFaults",
    "UnknownName",
]


class ByzoptError(Exception):
    """Base of every error that byzopt raises on purpose."""


class InvalidInput(ByzoptError, ValueError):
    """A parameter, a tensor or a file that breaks a stated rule.

    Examples:
        >>> import torch
        >>> from byzopt import InvalidInput, Krum
        >>> try:
        ...     Krum(f=2)(torch.ones(5, 3))
        ... except InvalidInput as error:
        ...     print(str(error).partition(". ")[2])
        Found f = 2 with n = 5. Lower f or add workers.
    """


class UnknownName(InvalidInput):
    """A component, key or preset that does not exist; the message suggests near names.

    Examples:
        >>> from byzopt import UnknownName, rule_from
        >>> try:
        ...     rule_from("krumm", f=1)
        ... except UnknownName as error:
        ...     print("krum" in str(error))
        True
    """


class BadAnswer(InvalidInput):
    """A rule's answer that is no vector of finite numbers, though its rows are."""


class ChangedFile(InvalidInput):
    """A file of the user's that a stored run was made with is gone, or holds other code by now."""


class DoubtfulSetting(UserWarning):
    """What is run is valid, and yet theory, or its noise, says that it cannot work as asked.

    Examples:
        >>> import warnings
        >>> from byzopt import Cohort, Quadratic, simulate
        >>> from byzopt.errors import DoubtfulSetting
        >>> task = Quadratic().build(Cohort.of(9, byzantine=3), seed=0)
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("error", DoubtfulSetting)
        ...     try:
        ...         simulate(task, "median", lr=0.1, rounds=5, f=2, attack="ipm")
        ...     except DoubtfulSetting as warning:
        ...         print(warning)
        3 of 9 workers attack, and f = 2 are tolerated. No rule is proved against more than f.
    """


class TooManyFaults(ByzoptError):
    """More rows are unusable than the rule tolerates. `rows` names them (worker indices).

    Args:
        message: What happened, the rule, and the remedy.
        rows: Indices of the workers whose rows are unusable.

    Examples:
        >>> import torch
        >>> from byzopt import Median, TooManyFaults
        >>> rows = torch.ones(5, 2)
        >>> rows[3:] = float("nan")
        >>> try:
        ...     Median(f=1)(rows)
        ... except TooManyFaults as error:
        ...     print(error.rows)
        (3, 4)
    """

    def __init__(self, message: str, rows: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.rows = tuple(rows)


class BadMessage(ByzoptError, ValueError):
    """Bytes that do not decode as a message of the wire's compressor: their sender's fault."""


class MissingData(ByzoptError, FileNotFoundError):
    """A data file is neither on disk nor downloadable."""


class MissingExtra(ByzoptError, ImportError):
    """An optional dependency is not installed; the message names the extra."""


class Status(StrEnum):
    """How a run ended. Stored with every record and printed in every table.

    Examples:
        >>> from byzopt import Status
        >>> Status.COMPLETED == "completed"
        True
        >>> len(Status) > 3
        True
    """

    COMPLETED = "completed"
    CONVERGED = "converged"
    DIVERGED = "diverged"
    NONFINITE = "nonfinite"
    NO_MAJORITY = "no_majority"
    INTERRUPTED = "interrupted"
    ERROR = "error"

    @property
    def sentence(self) -> str:
        """One helpful sentence for people."""
        return _SENTENCES[self]

    @property
    def failed(self) -> bool:
        """True for the codes under which the final iterate is worthless."""
        return self in (Status.DIVERGED, Status.NONFINITE, Status.NO_MAJORITY, Status.ERROR)


_SHOWN = 200  # letters of a value in a message
_FEW = 20  # names that are all listed beside the near ones
_SENTENCES = {
    Status.COMPLETED: "All rounds were run.",
    Status.CONVERGED: "The stopping criterion was met.",
    Status.DIVERGED: "The iterate left every reasonable range. Lower the step size or use a robust rule.",
    Status.NONFINITE: "The iterate or its loss is NaN or infinite. Lower the step size or use a robust rule.",
    Status.NO_MAJORITY: "More workers were faulty than the rule tolerates. Raise f or use another rule.",
    Status.INTERRUPTED: "The run was interrupted; run it again with the same --out to continue.",
    Status.ERROR: "The run could not be made, or an error ended it.",
}


def require(ok: bool, what: str, rule: str, found: object, remedy: str = "") -> None:
    """Raise `InvalidInput` unless `ok`: "<what> should <rule>. Found <found>. <remedy>"."""
    if not ok:
        told = found if isinstance(found, str) else said(found)
        raise InvalidInput(f"{what} should {rule}. Found {told}.{' ' + remedy if remedy else ''}")


def said(value: object) -> str:
    """A value as messages show it, however large it is."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # Python writes neither integers of 5,000 digits nor 20,000 brackets
        text = f"a value of type {type(value).__name__}, too large to be shown"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def counted(count: int, noun: str) -> str:
    """A number with its noun, for messages: `1 faulty row`, `2 faulty rows`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def unknown(kind: str, name: object, known: Sequence[str]) -> UnknownName:
    """The error for a name that is not registered, with near names or the whole list."""
    near = get_close_matches(name[:_SHOWN] if isinstance(name, str) else said(name), known, n=3)
    close = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    listed = f"Known: {', '.join(sorted(known))}." if known else "There are none."
    hint = close + (listed if not near or len(known) <= _FEW else "")
    return UnknownName(f"Unknown {kind} {said(name)}. {hint.rstrip()}")
