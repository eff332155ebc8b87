"""Declarations of reproductions: TOML files to `Reproduction`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from byzopt.errors import require, said, unknown
from byzopt.experiments.specs import toml
from byzopt.experiments.specs.loading import path_exists, read_user_text, shipped_files
from byzopt.experiments.specs.overrides import merge
from byzopt.registry import decode
from byzopt.reproductions.reproduction import Cell, Expected, Fit, Part, Quick, Reproduction, TableMeasure

MOST_SEEDS = 100_000
CELL = ("at", "printed", "kind", "limit", "tolerance")  # what a cell says of itself; other keys are settings
PAPERS = files("byzopt.reproductions") / "papers"


def reproductions() -> dict[str, str]:
    """Every reproduction, `paper/table`, and the first comment line of its file."""
    places = sorted(shipped_files(PAPERS).items())
    return {name: _text(place).partition("\n")[0].lstrip("# ") for name, place in places}


def load_reproduction(source: str | Path) -> Reproduction:
    """The reproduction of that name, or in a TOML file. Errors: `UnknownName`, `InvalidInput`."""
    places = shipped_files(PAPERS)
    if str(source) not in places and not path_exists(source):
        raise unknown("reproduction", str(source), list(places))
    place, what = places.get(str(source)), f"Reproduction {source}"
    data = toml.loads(_text(place) if place else read_user_text(Path(source), what), what)
    name = str(source) if str(source) in places else Path(source).stem
    return _decoded(name, data)


def _decoded(name: str, data: Mapping[str, Any]) -> Reproduction:
    where = f"reproduction {name}"
    surplus = sorted(data.keys() - {"title", "paper", "remarks", "all", "part"})
    if surplus:
        raise unknown(f"key of {where}", surplus[0], ["title", "paper", "remarks", "all", "part"])
    shared = _table(data, "all", where)
    parts = [_part(_borrowed(merge(shared, part))) for part in _tables(data, "part", where)]
    require(bool(parts), f"Reproduction {name}", "have a part", "none")
    texts = {key: str(data.get(key, "")) for key in ("title", "paper", "remarks")}
    return Reproduction(name=name, parts=tuple(parts), **texts)


def _borrowed(data: dict[str, Any]) -> dict[str, Any]:
    """With `from`: the part of that name and protocol (or of the protocol `like`) in another reproduction,
    changed by ours."""
    if "from" not in data:
        return data
    require(isinstance(data["from"], str), "`from` of a part", "be a reproduction's name", said(data["from"]))
    source = shipped_files(PAPERS).get(data["from"])
    if source is None:
        raise unknown("reproduction", data["from"], list(shipped_files(PAPERS)))
    other = toml.loads(_text(source), data["from"])
    kept = {key: value for key, value in data.items() if key not in ("from", "like")}
    wanted = (kept.get("name"), data.get("like", kept.get("protocol")))
    known = {(part["name"], part["protocol"]): part for part in other["part"]}
    if wanted not in known:
        raise unknown("part", " ".join(map(str, wanted)), [" ".join(each) for each in known])
    return merge(merge(other.get("all", {}), known[wanted]), kept)


def _part(data: Mapping[str, Any]) -> Part:
    where = f"part {data.get('name', '?')}"
    measures = tuple(decode(TableMeasure, one, where) for one in _tables(data, "measures", where))
    require(bool(measures), f"`measures` of {where}", "be one or more tables", "none")
    cells = tuple(_cell(one, measures, where) for one in _tables(data, "cells", where))
    short = _table(data, "quick", where)
    quick = decode(Quick, short | ({"seeds": _seeds(short["seeds"])} if "seeds" in short else {}), where)
    fits = tuple(_fit(one, where) for one in _tables(data, "fits", where))
    seeds = _seeds(data.get("seeds", (0,)))
    read = {"measures": measures, "cells": cells, "quick": quick, "fits": fits, "seeds": seeds}
    plain = {key: value for key, value in data.items() if key not in read}
    return decode(Part, plain | read, where)


def _seeds(given: Any) -> Any:
    """Seeds as a declaration names them: one by one, or how many from 0."""
    if not isinstance(given, int):
        return given
    require(1 <= given <= MOST_SEEDS, "A number of seeds", f"lie in 1 .. {MOST_SEEDS:,}", said(given))
    return tuple(range(given))


def _fit(data: Mapping[str, Any], where: str) -> Fit:
    expected = tuple(decode(Expected, one, where) for one in _tables(data, "printed", where))
    return decode(Fit, dict(data) | {"printed": expected}, where)


def _cell(data: Mapping[str, Any], measures: Sequence[TableMeasure], where: str) -> Cell:
    """A cell; `printed = [mean, deviation]` is the first measure's, and settings may be keys of its own."""
    settings = {key: value for key, value in data.items() if key not in CELL}
    require("at" in data, f"A cell of {where}", "have labels, `at`", dict(data))
    printed = data.get("printed", {})
    printed = printed if isinstance(printed, Mapping) else {measures[0].name: printed}
    kind = data.get("kind", "printed" if printed else "unprinted")
    pairs = {name: _pair(told, f"`printed` of a cell of {where}") for name, told in printed.items()}
    told = {"kind": kind} | {key: data[key] for key in ("limit", "tolerance") if key in data}
    return decode(Cell, {"at": data["at"], "set": settings, "printed": pairs} | told, where)


def _pair(given: Any, what: str) -> tuple[float, float | None]:
    numbers = isinstance(given, list) and all(type(one) in (int, float) for one in given)
    require(numbers and len(given) in (1, 2), what, "be [mean] or [mean, deviation]", said(given))
    return float(given[0]), float(given[1]) if len(given) == 2 else None


def _table(data: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    table = data.get(key, {})
    require(isinstance(table, Mapping), f"`{key}` of {where}", "be a table", said(table))
    return dict(table)


def _tables(data: Mapping[str, Any], key: str, where: str) -> list[Mapping[str, Any]]:
    tables = data.get(key, [])
    good = isinstance(tables, list) and all(isinstance(one, Mapping) for one in tables)
    require(good, f"`{key}` of {where}", "be a list of tables", said(tables))
    return list(tables)


def _text(place: Traversable) -> str:
    return place.read_text(encoding="utf-8")
