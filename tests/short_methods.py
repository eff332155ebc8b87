"""Every registered method, with rounds that tests can afford."""

from __future__ import annotations

from typing import Any

# Thousands of AdamW's steps are slow, and as long for a gradient that is rounding as for any: they make
# differences large. A method that is not named here runs with its defaults.
FEWER: dict[str, dict[str, Any]] = {"diloco": {"steps": 3}}


def short(name: str) -> dict[str, Any]:
    """A registered method as a table, with rounds that tests can afford."""
    return {"name": name} | FEWER.get(name, {})
