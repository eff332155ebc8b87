"""The tutorials: their commands and blocks of code run, in the order of the page, in one directory."""

from __future__ import annotations

import re
import sys

import pytest

from byzopt.aggregators import RULES
from tests.tutorials import PAGES, follow

pytestmark = pytest.mark.slow  # many processes

OTHERS = {"README", "flower", "harden"}  # tested below, or elsewhere
LONG = {"sweep-to-table"}  # repeats a cell of a paper's table
NAMES = sorted(page.stem for page in PAGES.glob("*.md") if page.stem not in OTHERS)


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """What a tutorial registers and imports does not outlive it."""
    monkeypatch.setattr(RULES, "_classes", dict(RULES._classes))
    yield
    sys.modules.pop("midhinge", None)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in NAMES]
)
def test_a_tutorial_can_be_followed(name, tmp_path, monkeypatch):
    follow(name, tmp_path, monkeypatch)


@pytest.mark.slow
def test_the_hardened_script_learns_beside_a_broken_rank_and_the_other_does_not(tmp_path, monkeypatch):
    said = follow("harden", tmp_path, monkeypatch)
    broken, hardened = (float(re.search(r"test accuracy ([\d.]+)", text)[1]) for text in said)
    assert hardened > 0.9 > broken + 0.1
