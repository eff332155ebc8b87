"""Files and values that say what to run: whatever is wrong with them is one sentence, with the rule."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import fields
from datetime import date
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

from byzopt.aggregators import PRE_AGGREGATORS, RULES, WRAPPERS, rule_from
from byzopt.attacks import ATTACKS
from byzopt.errors import ByzoptError, InvalidInput
from byzopt.experiments import Spec
from byzopt.experiments.running import prepare_spec
from byzopt.experiments.specs.loading import MOST, load
from byzopt.experiments.sweeps import load_sweep
from byzopt.methods import METHODS
from byzopt.registry import DEEPEST
from byzopt.reproductions.loading import load_reproduction
from byzopt.rng import stream
from byzopt.tasks import TASKS

SPEC = {"task": {"name": "quadratic", "d": 3}, "rule": "mean", "n": 7, "f": 1, "rounds": 2, "lr": 0.1}
TEXT = 'task = "quadratic"\nrule = "mean"\nrounds = 2\nlr = 0.1\n'
READERS = {"spec": load, "sweep": load_sweep, "reproduction": load_reproduction}
everywhere = pytest.mark.parametrize("read", READERS.values(), ids=list(READERS))


def nested(levels: int) -> list:
    found: list = []
    for _ in range(levels):
        found = [found]
    return found


@pytest.fixture
def file(tmp_path):
    def make(content: bytes):
        path = tmp_path / "given.toml"
        path.write_bytes(content)
        return path

    return make


CONTENTS = {
    "20,000 brackets": b"n = " + b"[" * 20_000,
    "20,000 closed brackets": b"n = " + b"[" * 20_000 + b"]" * 20_000,
    "brackets that Python bears": b"n = " + b"[" * 100 + b"]" * 100,
    "20,000 tables": b"n" + b".a" * 20_000 + b" = 1",
    "a key of 20,000 steps": b"[n" + b".a" * 20_000 + b"]",
    "5,000 digits": b"n = " + b"1" * 5_000,
    "65 bits": b"n = 9223372036854775808",
    "400 digits": b"n = [[" + b"1" * 400 + b"]]",
    "UTF-16": TEXT.encode("utf-16"),
    "Latin-1": "# é\n".encode("latin-1") + TEXT.encode(),
    "a zero byte": b"n = 1\0",
    "nothing but zeros": bytes(10_000),
    "too many bytes": b"#" * (MOST + 1),
    "a surrogate": b'task = "\\ud800"',
}


@everywhere
@pytest.mark.parametrize("content", CONTENTS.values(), ids=list(CONTENTS))
def test_files_that_cannot_be_read_are_one_sentence(content, read, file):
    with pytest.raises(InvalidInput) as found:
        read(file(content))
    assert len(str(found.value)) < 600


@everywhere
def test_what_is_no_file_is_refused_without_being_opened(read, tmp_path):
    os.mkfifo(tmp_path / "fifo.toml")
    os.symlink(tmp_path / "fifo.toml", tmp_path / "link.toml")
    os.symlink(tmp_path / "loop.toml", tmp_path / "loop.toml")
    (tmp_path / "folder.toml").mkdir()
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "socket.toml"))
        for name, kind in (("fifo", "pipe"), ("link", "pipe"), ("folder", "directory"), ("socket", "socket")):
            with pytest.raises(InvalidInput, match=f"readable file. Found: a.* {kind}"):
                read(tmp_path / f"{name}.toml")
    for path in ("/dev/zero", "/dev/tty"):
        with pytest.raises(InvalidInput, match="a device"):
            read(path)
    for path in (
        tmp_path / "loop.toml",
        tmp_path / ("x" * 300 + ".toml"),
        tmp_path / "a\0b.toml",
        "",
        "x" * 5_000,
    ):
        with pytest.raises(InvalidInput):
            read(path)


def test_a_byte_order_mark_and_any_line_ends_change_nothing(file):
    want = load(file(TEXT.encode())).id
    assert load(file(TEXT.encode("utf-8-sig"))).id == want
    assert load(file(TEXT.replace("\n", "\r\n").encode("utf-8-sig"))).id == want


SETTINGS = [
    "n=" + "1" * 5_000,
    "n=" + "[" * 20_000 + "]" * 20_000,
    "n" + ".a" * 20_000 + "=1",
    "n=1" + "0" * 25,
    "attack=\udcff",
    "compare.\udcff.rule=median",
    "=1",
    "n",
    "",
    "a = 1\nb=2",
    "seed=-1",
    "rule={name=[]}",
    "rule=[[]]",
    "rule=[]",
    "rule={}",
]


@pytest.mark.parametrize("setting", SETTINGS, ids=range(len(SETTINGS)))
def test_settings_that_cannot_be_are_one_sentence(setting, file):
    with pytest.raises(InvalidInput) as found:
        load(file(TEXT.encode()), [setting])
    assert len(str(found.value)) < 1500


WRONG = [
    None, True, [], {}, "", "x" * 5_000, -1, 1 << 62, 1 << 63, 10**5_000, 1e308, float("nan"), float("-inf"),
    [[]], [{}], {"name": []}, {"name": "x"}, {"": 1}, [1.5], nested(20_000), "\udcff", "a\0b",
    date(2020, 1, 1), b"x",
]  # fmt: skip


def complaint(data) -> str:
    """What is said against these data; nothing where there is a spec of them."""
    try:
        return "" if Spec.of(Spec.of(data).data).id else "no id"
    except ByzoptError as error:
        return str(error)


def places():
    for key in (field.name for field in fields(Spec)):
        yield pytest.param(lambda value, key=key: {key: value}, id=key)
    for key, room in {"task": TASKS, "method": METHODS, "attack": ATTACKS}.items():
        for name in room:
            yield pytest.param(
                [
                    lambda value, key=key, name=name, own=own.name: {key: {"name": name, own: value}}
                    for own in fields(room[name])
                    if own.init
                ],
                id=f"{key} {name}",
            )
    for room, after in ((RULES, []), (PRE_AGGREGATORS, ["mean"]), (WRAPPERS, [])):
        for name in room:
            yield pytest.param(
                [
                    lambda value, name=name, own=own.name, after=after, room=room: {
                        "rule": [
                            ({"rule": "mean"} if room is WRAPPERS else {}) | {"name": name, own: value},
                            *after,
                        ]
                    }
                    for own in fields(room[name])
                    if own.init
                ],
                id=f"rule {name}",
            )


@pytest.mark.parametrize("place", places())
def test_any_value_of_any_key_is_taken_or_refused_in_a_sentence(place):
    for put in place if isinstance(place, list) else [place]:
        for value in WRONG:
            told = complaint(SPEC | put(value))
            assert len(told) < 2_500
            assert "\n" not in told


def choices(kind) -> list:
    parts = [choices(part) for part in get_args(kind)] if get_origin(kind) is not Literal else []
    return list(get_args(kind)) if get_origin(kind) is Literal else [one for part in parts for one in part]


def enumerations():
    rooms = {"task": TASKS, "method": METHODS, "attack": ATTACKS}
    for key, room in rooms.items():
        for name in room:
            for own, kind in get_type_hints(room[name]).items():
                if own in {field.name for field in fields(room[name]) if field.init} and choices(kind):
                    yield pytest.param({key: {"name": name, own: "x"}}, choices(kind), id=f"{name}.{own}")
    for key in ("placement", "base"):
        yield pytest.param({key: "x"}, choices(get_type_hints(Spec)[key]), id=key)


@pytest.mark.parametrize(("change", "valid"), enumerations())
def test_a_value_out_of_a_few_is_refused_with_all_of_them(change, valid):
    with pytest.raises(InvalidInput) as found:
        Spec.of(SPEC | change)
    assert all(repr(value) in str(found.value) for value in valid)
    assert "Found 'x'." in str(found.value)


SAID = [
    ({"rounds": "x"}, "`rounds` should be a whole number. Found 'x'."),
    ({"lr": []}, "`lr` should be a number. Found []."),
    (
        {"attackers": "x"},
        "`attackers` should be a whole number or a list, each of its values a whole",
    ),
    ({"stop": {"a": "x"}}, "`stop` should be a table, each of its values a number. Found {'a': 'x'}."),
    ({"task": {"name": "digits", "batch": "x"}}, "`batch` should be a whole number or 'full'. Found 'x'."),
    ({"task": {"name": "digits", "partition": 3}}, "A partition should be a name or a table with a `name`."),
    ({"n": 1 << 63}, "`n` should be a whole number of at most 64 bits."),
    ({"lr": float("nan")}, "`lr` should be a finite number. Found nan."),
    ({"stop": {"a": nested(DEEPEST + 1)}}, f"`stop` should nest at most {DEEPEST} levels deep."),
    ({"seed": -1}, "`seed` should be at least 0. Found -1."),
]


@pytest.mark.parametrize(("change", "wanted"), SAID, ids=[next(iter(change)) for change, _ in SAID])
def test_rules_for_values_are_said_in_words(change, wanted):
    with pytest.raises(InvalidInput, match=re.escape(wanted)):
        Spec.of(SPEC | change)


def test_seeds_are_not_negative_wherever_they_stand():
    spec = Spec.of(SPEC | {"rule": "bucketing(s=2, seed=-1) >> mean"})
    with pytest.raises(InvalidInput, match="A seed should be at least 0"):
        prepare_spec(spec, {})
    with pytest.raises(InvalidInput, match="A seed should be at least 0"):
        stream(-1, "x")


def test_rules_that_are_no_rules(file):
    for data in (
        3,
        None,
        [],
        {},
        [[]],
        {"name": []},
        {"name": {}},
        ["mean", []],
        [None],
        "nnm >>",
        "mean >> " * 5_000,
    ):
        with pytest.raises(InvalidInput):
            rule_from(data)


def test_sweeps_and_declarations_bound_what_they_span(file):
    axis = str(list(range(101)))
    with pytest.raises(InvalidInput, match=r"at most 1,000,000 points\. Found 1,030,301"):
        load_sweep(file(f"grid = {{seed = {axis}, lr = {axis}, n = {axis}}}\n".encode())).expand()
    part = b'[[part]]\nname = "a"\nseeds = 4611686018427387904\n'
    for text in (part, b"[[part]]\nfrom = []\n", b"[[part]]\nfrom = {a = 1}\n", b"part = 3\n", b"[part]\n"):
        with pytest.raises(InvalidInput):
            load_reproduction(file(text))
