"""Rows of the benchmark's table: what one defence came to in one cell, as plain data that is stored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from byzopt.benchmark.protocol import ATTACK_SET, PROTOCOL, SEEDS, Cell
from byzopt.errors import require, said

LARGEST = 1e300  # of a row's numbers: their sums are finite


class Setting(msgspec.Struct):
    """A setting that was tried in tuning, its worst figure (None: a run failed), and its runs' ids."""

    setting: dict[str, Any]
    score: float | None
    runs: list[str]


class Hit(msgspec.Struct):
    """What an attack did: the figure of every seed (None: a run failed), and the ids of its runs."""

    values: list[float | None]
    runs: list[str]
    attack: dict[str, Any]
    status: str
    seconds: float


class Row(msgspec.Struct):
    """What a defence came to in a cell: its tuning, and each attack's figures by seed.

    `spec` with one of `rules` (draws of its lots) and a hit's attack is all that its runs need. `outside` are
    attacks that others entered. `refused` says why a cell has no place for the defence.
    `slower` and `different` are those of `facts`.

    Args:
        cell: Name of the cell.
        entry: Name of the entry.
        title: What the entry is.
        source: Where it comes from.
        remarks: What readers should know of it.
        protocol: Version of the protocol.
        attack_set: Version of the set of attacks.
        figure: By what the cell is judged.
        rises: Whether more of it is better.
        seeds: Those of the figures.
        versions: Of the packages that decide a result.
        spec: Plain data of the chosen spec, without attack and seed.
        rules: The rule, once for each draw of its lots.
        tries: The settings that were tried.
        trusted: Rows that the rule trusts.
        hits: What each attack of the set did, by its name.
        outside: What attacks of others did, by the entry's name.
        curves: The figure over rounds under each attack, mean over seeds.
        start: The figure before the first round.
        refused: Why the cell has no place for the entry; empty: it has.
        slower: How many times as long a round takes as with the mean.
        different: Rounds, and how different honest gradients are there.

    Examples:
        >>> from byzopt.benchmark import Row
        >>> cell = "digits-dirichlet1-n20-f3"
        >>> Row(cell, "mine", "Mine", "", "", "1", "1", "accuracy", True, [0, 1, 2], {}).hits
        {}
    """

    cell: str
    entry: str
    title: str
    source: str
    remarks: str
    protocol: str
    attack_set: str
    figure: str
    rises: bool
    seeds: list[int]
    versions: dict[str, str]
    spec: dict[str, Any] = {}
    rules: list[Any] = []
    tries: list[Setting] = []
    trusted: list[int] = []
    hits: dict[str, Hit] = {}
    outside: dict[str, Hit] = {}
    curves: dict[str, list[list[float]]] = {}
    start: float | None = None
    refused: str = ""
    slower: float | None = None
    different: list[list[float]] = []


def is_current(row: Row) -> bool:
    """Whether a row was taken under this protocol and attack set."""
    return (row.protocol, row.attack_set) == (PROTOCOL, ATTACK_SET)


def trusts(row: Row) -> bool:
    """Whether a defence has more than workers' rows: one that it trusts, or clean data of the server's."""
    return bool(row.trusted) or row.spec.get("task", {}).get("proxy") is not None


def check_row(row: Row) -> None:
    """Refuse a row that the protocol cannot have led to; one of an earlier protocol is not looked into.

    Args:
        row: A row that was read.

    Raises:
        InvalidInput: It names a cell or an attack that there is not, figures are missing, or no figures.
    """
    if not is_current(row):
        return
    cell = Cell.of(row.cell)
    rules, attacks, what = cell.rules, cell.attacks, f"The row of {said(row.entry)} in {cell.name}"
    judged = (rules.figure, rules.rises)
    require((row.figure, row.rises) == judged, what, f"be judged by {rules.figure}", row.figure)
    require(row.seeds == list(SEEDS), f"The seeds of {what}", f"be {list(SEEDS)}", row.seeds)
    stray = [*(row.hits.keys() - attacks.keys()), *(row.outside.keys() & attacks.keys())]
    require(not stray, what, "tell attacks of the set from those of others", stray)
    least, most = (0.0, 1.0) if rules.rises else (-LARGEST, LARGEST)
    for name, struck in {**row.hits, **row.outside}.items():
        fit = len(struck.values) == len(row.seeds) and _within(struck.values, least, most)
        rule = f"hold a figure from {least:g} to {most:g} for each seed"
        require(fit, f"{what}, {said(name)},", rule, struck.values)
    for pairs in (*row.curves.values(), row.different):
        fit = all(len(pair) == 2 and _within(pair, -LARGEST, LARGEST) for pair in pairs)
        require(fit, f"{what}, its curves and facts,", "be pairs of a round and a number", pairs)
    single = [row.start, row.slower, *(one.score for one in row.tries)]
    require(_within(single, -LARGEST, LARGEST), f"The numbers of {what}", f"be up to {LARGEST:g}", single)


def once(rows: Iterable[Row]) -> list[Row]:
    """The rows without those that are there twice.

    Args:
        rows: Rows, perhaps of several sources.

    Returns:
        Each row once, in the order of the first.

    Raises:
        InvalidInput: Two rows of one entry in one cell, under one protocol, that differ.
    """
    found: dict[tuple[str, ...], Row] = {}
    for row in rows:
        first = found.setdefault((row.cell, row.entry, row.protocol, row.attack_set), row)
        require(
            first == row,
            f"The row of {row.entry} in {row.cell}",
            "be the same in all sources",
            "two that differ",
            "Name one source of it.",
        )
    return list(found.values())


def _within(values: Sequence[float | None], least: float, most: float) -> bool:
    return all(value is None or least <= value <= most for value in values)
