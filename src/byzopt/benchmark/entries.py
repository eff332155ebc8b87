"""Entries of the benchmark: a folder with one TOML file, and the Python files of parts of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from importlib.resources import as_file, files
from pathlib import Path
from sys import float_info
from typing import Any, Literal

from byzopt.aggregators import Aggregator, rule_data
from byzopt.attacks import ATTACKS as KNOWN_ATTACKS
from byzopt.benchmark.protocol import ATTACKS, CLEAN, DRAWS, NAME, SETTINGS, SIZES, Cell
from byzopt.errors import InvalidInput, require, said, unknown
from byzopt.experiments import Spec
from byzopt.experiments.specs import toml
from byzopt.experiments.specs.loading import path_exists, read_user_text
from byzopt.experiments.specs.overrides import anchor, assign_settings, merge, parse_path
from byzopt.own_files import within
from byzopt.registry import decode, plain
from byzopt.servers import LMOStep

FILE = "entry.toml"
SHIPPED = files("byzopt.benchmark") / "defences"


@dataclass(frozen=True)
class Entry:
    """A defence, or an attack, as its author entered it.

    Args:
        name: The name of its folder: small letters, digits and hyphens.
        title: What it is, in a line.
        kind: "defence" or "attack".
        source: Where it comes from: a paper, a page.
        remarks: What readers should know.
        rule: Of a defence: the server's rule. Its `f` is the cell's.
        method: Of a defence: the method with what it sets.
        settings: Of a defence: the settings of which one is chosen, each a table of a spec's keys.
        attack: Of an attack: its name, table, or `"file.py:Part"`.

    Raises:
        InvalidInput: A name, or a number of settings, that the benchmark does not take.

    Examples:
        >>> from byzopt.benchmark import Entry
        >>> tries = tuple({"lr": lr} for lr in (0.3, 1.0, 3.0))
        >>> Entry("my-median", "A median", "defence", rule="median", settings=tries).kind
        'defence'
    """

    name: str
    title: str
    kind: Literal["defence", "attack"] = "defence"
    source: str = ""
    remarks: str = ""
    rule: Any = None
    method: Any = "byz_nsgdm"
    settings: tuple[Mapping[str, Any], ...] = ()
    attack: Any = None

    def __post_init__(self) -> None:
        what = f"Entry {said(self.name)}"
        good = NAME.fullmatch(self.name) is not None
        require(good, "An entry's name", "hold at most 40 small letters, digits and hyphens", said(self.name))
        require(self.kind in ("defence", "attack"), f"`kind` of {what}", "be defence or attack", self.kind)
        for text, most in ((self.title, 200), (self.source, 500), (self.remarks, 2000)):
            fits = len(text) <= most and "".join(text.split()).isprintable()
            require(fits, f"A text of {what}", f"be of at most {most} printable characters", said(text))
        if self.kind == "attack":
            require(self.attack is not None, what, "name its `attack`", "none")
            stray = self.rule is not None or bool(self.settings) or self.method != Entry.method
            require(not stray, what, "set nothing but its attack", "a rule, a method or settings")
            return
        require(self.rule is not None, what, "name its `rule`", "none")
        require(self.attack is None, what, "leave attacks to the benchmark", "`attack`")
        count = f"be {SETTINGS} different ones: every defence has the same number of tries"
        different = [one for i, one in enumerate(self.settings) if one not in self.settings[:i]]
        fits = len(self.settings) == len(different) == SETTINGS
        require(fits, f"`settings` of {what}", count, f"{len(different)} different")
        for one in self.settings:
            for key, value in one.items():
                free = ["lr"], ["method"], ["rule"]
                path = parse_path(key)
                require(
                    path[:1] in free, f"A setting of {what}", "be `lr`, of `method` or of `rule`", said(key)
                )
                if path[0] == "lr":
                    require(key == "lr", f"A rate of {what}", "be called `lr`", said(key))
                    require(_positive(value), f"`lr` of {what}", "be a finite number above 0", said(value))
            require("lr" in one, f"A setting of {what}", "name `lr`", said(dict(one)))
        alike = {frozenset(one) for one in self.settings}
        require(len(alike) == 1, f"`settings` of {what}", "all set the same keys", "others")

    def settings_in(self, cell: Cell) -> list[dict[str, Any]]:
        """Its settings with rates in the unit of the cell's task. Errors: `InvalidInput`."""
        return [{**one, "lr": _times(self._unit(cell, one), one["lr"])} for one in self.settings]

    def specs(self, cell: Cell) -> list[dict[str, Any]]:
        """The plain data of its specs in a cell, one for each setting. Errors: `InvalidInput`."""
        found = [self._spec(cell, setting) for setting in self.settings_in(cell)]
        for data in found:
            Spec.of(data)
        return found

    def base(self, cell: Cell) -> dict[str, Any]:
        """What its specs in a cell share. A method that needs a loss of the server's, with any setting, is
        granted one on clean data. Errors: `InvalidInput`."""
        base = {**cell.spec, "rule": self.rule, "method": self.method}
        tried = [Spec.of(_assigned(base, one)).built() for one in self.settings]
        owns = any(method.needs_proxy for method in tried)
        return merge(base, {"task": {"proxy": dict(CLEAN)}}) if owns else base

    def _spec(self, cell: Cell, setting: Mapping[str, Any]) -> dict[str, Any]:
        return _assigned(self.base(cell), setting)

    def _unit(self, cell: Cell, setting: Mapping[str, Any]) -> float:
        """What a rate of 1 stands for: a length where a step's length does not follow the rows', else a
        multiple of the gradient."""
        step = Spec.of(self._spec(cell, setting)).built().step
        return cell.rules.length if isinstance(step, LMOStep) else cell.rules.multiple

    def check(self) -> None:
        """Refuse what no number of workers and liars makes a place for, and what a cell decides itself.

        Raises:
            InvalidInput: An unknown part, a value that a part does not take, or an `f` or `n` of its own.
        """
        with within(f"In entry {self.name}"):
            self._check()

    def _check(self) -> None:
        if self.kind == "attack":
            named = self.attack_data["name"]
            require(named != "none", "Its attack", "be one that attacks", repr(named))
            return
        failed: list[InvalidInput] = []
        for n, f in SIZES:
            try:
                found = self.specs(Cell("digits", "iid", n, f))
            except InvalidInput as error:
                failed.append(error)
                continue
            for data in found:
                full = Spec.of(data).data
                own = [*_strays(full["rule"], n=n, f=f), *_strays(full["method"], n=n, f=f)]
                remedy = "Leave it out."
                require(not own, "Its parts", "leave n and f to the cell", ", ".join(own), remedy)
        if len(failed) == len(SIZES):
            raise failed[0]

    def lots(self, data: Mapping[str, Any]) -> list[Any]:
        """The rules of a spec with other lots; one rule where it draws none."""
        rule = Spec.of(data).rule
        return [rule_data(_drawn(rule, k)) for k in range(DRAWS)] if rule.draws else [data["rule"]]

    @property
    def attack_data(self) -> dict[str, Any]:
        """The attack as plain data. Errors: `InvalidInput`, and what its file raises."""
        return dict(plain(KNOWN_ATTACKS.build(self.attack)))


def load_entry(source: str | Path) -> Entry:
    """The entry that a folder holds, or the shipped one of that name.

    Args:
        source: A folder with `entry.toml`, that file, or the name of a shipped entry.

    Returns:
        The entry.

    Raises:
        InvalidInput: What cannot be read, is no entry, or has a name that is taken.
        UnknownName: No such folder and no such name.

    Examples:
        >>> from byzopt.benchmark import load_entry
        >>> load_entry("rfa").rule
        'rfa'
    """
    if str(source) in shipped_entries():
        with as_file(SHIPPED / f"{source}.toml") as path:
            return _read(path, str(source))
    if not path_exists(source):
        raise unknown("entry of the benchmark", str(source), list(shipped_entries()))
    path = Path(source)
    path = path / FILE if path.is_dir() else path
    entry = _read(path, path.absolute().parent.name)
    check_name(entry)
    return entry


def check_name(entry: Entry) -> None:
    """Refuse an entry with the name of a shipped one that it is not, or of an attack of the set: what it came
    to would stand in the other's place.

    Args:
        entry: An entry.

    Raises:
        InvalidInput: The name is taken.
    """
    name = said(entry.name)
    taken = entry.name in shipped_entries() and entry != load_entry(entry.name)
    require(
        not taken, f"Entry {name}", "not be called as one that comes with byzopt", name, "Rename its folder."
    )
    known = entry.name in ATTACKS
    require(not known, f"Entry {name}", "not be called as an attack of the set", name, "Rename its folder.")


def shipped_entries() -> dict[str, str]:
    """The entries that come with byzopt, by name, in order of their files.

    Returns:
        The first comment line of each file, by name.

    Examples:
        >>> from byzopt.benchmark import shipped_entries
        >>> "nnm-rfa" in shipped_entries()
        True
    """
    found = sorted((one for one in SHIPPED.iterdir() if one.name.endswith(".toml")), key=lambda one: one.name)
    return {
        one.name.removesuffix(".toml"): one.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        for one in found
    }


def _read(path: Path, name: str) -> Entry:
    what = f"Entry {path}"
    data = anchor(toml.loads(read_user_text(path, what), what), path.absolute().parent)
    settings = data.pop("settings", [])
    tables = isinstance(settings, list) and all(isinstance(one, Mapping) for one in settings)
    require(tables, f"`settings` of {what}", "be tables, as [[settings]]", said(settings))
    require("name" not in data, what, "be called by its folder", "`name`", "Leave it out.")
    return decode(Entry, {**data, "name": name, "settings": tuple(settings)}, what)


def _strays(data: Any, **given: int) -> list[str]:
    """Values in a part's plain data that stand in the place of those that a cell gives."""
    if isinstance(data, Mapping):
        here = [f"{key} = {data[key]}" for key in given if data.get(key) not in (None, given[key])]
        return [*here, *(one for value in data.values() for one in _strays(value, **given))]
    return [one for value in data for one in _strays(value, **given)] if isinstance(data, list) else []


def _assigned(base: Mapping[str, Any], setting: Mapping[str, Any]) -> dict[str, Any]:
    return assign_settings(base, [(parse_path(key), value) for key, value in setting.items()])


def _times(unit: float, rate: float) -> float:
    """Their product as people write it: 3 times 0.3 is 0.9, and not 0.8999999999999999."""
    return float(f"{unit * rate:.12g}")


def _positive(value: object) -> bool:
    """Whether a rate is a number, above 0, that a float can hold."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 < value <= float_info.max  # type: ignore[operator]


def _drawn(rule: Aggregator, k: int) -> Aggregator:
    """A rule with the lots of draw k."""
    parts: list[Any] = [*rule.stages, rule.last]
    drawn = [replace(one, seed=k) if one.draws and hasattr(one, "seed") else one for one in parts]
    chained: Aggregator = reduce(lambda later, earlier: earlier >> later, reversed(drawn))
    return chained
