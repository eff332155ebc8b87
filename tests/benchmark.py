"""A benchmark that is small enough for tests: one task that is trained in milliseconds, and an entry."""

from __future__ import annotations

import pytest

from byzopt.benchmark import evaluating, protocol
from byzopt.benchmark.protocol import Cell, TaskRules

ROUNDS = 8
TASK = {"name": "logistic_regression", "batch": 8, "gap": True, "byzantine_data": "honest"}
CELL = Cell("small", "iid", 9, 2)
ATTACKS = ("no attack", "ipm x10", "alie", "label flip")  # none that searches

DEFENCE = """
title = "The median"
source = "arXiv:1803.01498"
rule = "median"
method = {name = "robust_gd"}

[[settings]]
lr = 0.1
[[settings]]
lr = 0.5
[[settings]]
lr = 1.0
"""


def shrink(patch, attacks=ATTACKS):
    """Put the small cell in the place of the whole benchmark, while a test runs."""
    rules = TaskRules("Small: gap", {"task": TASK, "rounds": ROUNDS}, "gap", "gap")
    patch.setitem(protocol.TASKS, "small", rules)
    patch.setattr(protocol, "ATTACKS", {name: protocol.ATTACKS[name] for name in attacks})
    patch.setattr(evaluating, "TUNED_AGAINST", ("ipm x10", "alie"))
    patch.setattr(protocol, "cells", lambda size: (CELL,))


def entered(folder, name="my-median", text=DEFENCE):
    """A folder with an entry."""
    place = folder / name
    place.mkdir()
    (place / "entry.toml").write_text(text, encoding="utf-8")
    return place


def measured_there(words):
    """The exit status of a command on the small benchmark, for processes of their own."""
    from byzopt.cli import main

    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        try:
            main(words)
        except SystemExit as ended:
            return ended.code
