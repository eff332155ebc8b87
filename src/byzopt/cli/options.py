"""Values of options, checked while the command line is read: before anything is loaded or written."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from pathlib import Path

import typer

from byzopt.errors import said
from byzopt.figures import in_percent

AXES = ("rounds", "gradients", "bits")  # those of `reports.curves`, which would load torch
RUN_ENGINES = ("simulated", "torchrun")
SWEEP_BACKENDS = ("local", "ray")
# The keys of a spec, which would load torch: those that may be taken for options.
KEYS = (
    "task",
    "rule",
    "rounds",
    "lr",
    "method",
    "attack",
    "n",
    "f",
    "attackers",
    "seed",
    "data_seed",
    "per_worker",
    "eval_every",
    "stop",
    "placement",
    "base",
    "engine",
    "participants",
    "graph",
    "asynchrony",
    "compare",
)


def as_setting(option: str, words: list[str]) -> str:
    """How to set the key of a spec that was given as an `option` among `words`; empty for no such key."""
    key = option.lstrip("-").replace("-", "_")
    if key.partition(".")[0] not in KEYS:
        return ""
    after = words[words.index(option) + 1 :][:1] if option in words else []
    value = [word.partition("=")[2] for word in words if word.startswith(f"{option}=")] or after
    return f"It is a setting of the spec: --set {key}={value[0] if value else 'VALUE'}"


def one_of(*names: str) -> Callable[[str], str]:
    """One of a few names."""

    def check(value: str) -> str:
        if value not in names:
            raise typer.BadParameter(f"should be one of {', '.join(map(repr, names))}. Found {said(value)}.")
        return value

    return check


def optional(check: Callable[[str], str]) -> Callable[[str | None], str | None]:
    """A check of a value where one is given."""
    return lambda value: None if value is None else check(value)


def at_least(least: int) -> Callable[[int | None], int | None]:
    """A whole number that is not too small, where one is given."""

    def check(value: int | None) -> int | None:
        if value is not None and not least <= value < 1 << 63:
            raise typer.BadParameter(f"should be at least {least}, in 64 bits. Found {said(value)}.")
        return value

    return check


def directory(text: str) -> Path:
    """A directory's name. An empty one, as of a shell variable that is not set, names none."""
    if not text:
        raise typer.BadParameter("should name a directory. Found an empty text.")
    return Path(text)


def seconds(value: float | None) -> float | None:
    """A length of time, where one is given."""
    if value is not None and not (isfinite(value) and value > 0):
        raise typer.BadParameter(f"should be finite and above 0 seconds. Found {value}.")
    return value


def seed_list(text: str | None) -> str | None:
    """Whole numbers with commas between, each once."""
    if text is not None:
        parts = text.split(",")
        good = all(part.strip().isascii() and part.strip().isdigit() and len(part) < 19 for part in parts)
        if not good or len({int(part) for part in parts}) < len(parts):
            raise typer.BadParameter(
                f"should be different whole numbers from 0 on, as 0,1,2. Found {said(text)}."
            )
    return text


def target(text: str | None) -> str | None:
    """A figure and the finite value that it is to reach."""
    if text is not None:
        name, _, value = text.partition("=")
        try:
            good = bool(name.strip()) and isfinite(float(value))
        except ValueError:
            good = False
        if not good:
            raise typer.BadParameter(f"should read as accuracy=0.9, with a finite value. Found {said(text)}.")
        flaw = in_percent(name.strip(), float(value))
        if flaw:
            raise typer.BadParameter(f"cannot be {said(text)}: {flaw}")
    return text


def names(text: str | None) -> str | None:
    """Names with commas between, none of them empty."""
    if text is not None and not all(part.strip() for part in text.split(",")):
        raise typer.BadParameter(f"should be names with commas between. Found {said(text)}.")
    return text
