"""The attack that a spec names: one on rows, on the edges of a graph, or on a clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from byzopt.attacks import ATTACKS, CLOCK_ATTACKS, EDGE_ATTACKS, Attack
from byzopt.engines.asynchrony import check_clock
from byzopt.engines.graph import check_server
from byzopt.errors import unknown
from byzopt.own_files import is_reference


def attack_recipe(data: Any, on_graph: bool, on_clock: bool = False) -> Attack:
    """The attack that data describe; on a graph it may be one on edges, on a clock one on that. Errors:
    `UnknownName`."""
    name = data.get("name") if isinstance(data, Mapping) else data
    registered = isinstance(name, str) and not is_reference(name)  # a user's part is read later
    if registered and name in EDGE_ATTACKS and name not in ATTACKS:
        edges = EDGE_ATTACKS.build(data)
        if not on_graph:
            check_server(edges)
        return edges
    if registered and name in CLOCK_ATTACKS and name not in ATTACKS:
        timed = CLOCK_ATTACKS.build(data)
        if not on_clock:
            check_clock(timed)
        return timed
    if registered and ":" not in str(name) and name not in ATTACKS:  # a part of a file: the registry tells
        raise unknown("attack", name, [*ATTACKS, *EDGE_ATTACKS, *CLOCK_ATTACKS])
    return ATTACKS.recipe(data)
