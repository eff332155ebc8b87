"""How callers hear how far a computation of several stages is."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[str, int, int], None]  # (stage, steps done, steps in all)


def no_progress(stage: str, done: int, total: int) -> None:
    """Report progress to nobody."""
