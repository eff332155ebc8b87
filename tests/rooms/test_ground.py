"""The ground floor: layout, random streams, cohort, registry."""

from __future__ import annotations

import tomllib
from abc import ABC
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput, UnknownName
from byzopt.layout import Layout
from byzopt.registry import Registry, decode, plain
from byzopt.rng import seed_of, stream

LAYOUT = Layout(("w", "b", "s"), ((2, 3), (4,), ()))


@pytest.mark.parametrize("lead", [(), (5,), (2, 3)])
def test_flatten_undoes_views(lead):
    vec = torch.arange(float(np.prod(lead) * 11)).view(*lead, 11)
    views = LAYOUT.views(vec)
    assert [tuple(v.shape) for v in views.values()] == [(*lead, 2, 3), (*lead, 4), lead]
    assert torch.equal(LAYOUT.flatten(views, lead=len(lead)), vec)


def test_views_share_memory():
    vec = torch.zeros(11)
    LAYOUT.views(vec)["b"].fill_(7)
    assert vec.tolist() == [0] * 6 + [7] * 4 + [0]


def test_layout_of_a_module_lists_parameters_in_order():
    module = torch.nn.Linear(3, 2)
    layout = Layout.of(module.named_parameters())
    assert layout == Layout(("weight", "bias"), ((2, 3), (2,)))
    assert Layout.of(dict(module.named_parameters())) == layout
    assert layout.d == 8
    assert Layout.flat(8).views(torch.zeros(8)).keys() == {"x"}


@pytest.mark.parametrize(
    "call",
    [
        lambda: LAYOUT.views(torch.zeros(10)),
        lambda: LAYOUT.flatten({"w": torch.zeros(2, 3), "b": torch.zeros(4)}),
        lambda: LAYOUT.flatten({"w": torch.zeros(3, 2), "b": torch.zeros(4), "s": torch.zeros(())}),
        lambda: LAYOUT.flatten(LAYOUT.views(torch.zeros(5, 11))),
        lambda: Layout(("a", "a"), ((1,), (1,))),
        lambda: Layout(("a",), ((1,), (1,))),
    ],
)
def test_what_does_not_fit_a_layout_is_refused(call):
    with pytest.raises(InvalidInput, match="should"):
        call()


def draws(*names: int | str) -> list[float]:
    return torch.rand(4, generator=stream(*names)).tolist()  # type: ignore[arg-type]


def test_equal_names_give_equal_streams_and_other_names_others():
    assert draws(1, "noise", 3) == draws(1, "noise", 3)
    different = [
        (1, "noise", 3),
        (2, "noise", 3),
        (1, "noise", 4),
        (1, "noise", "3"),
        (1, "data", 3),
        (1, "noise"),
        (1, "noise", 3, ""),
        (1, "nois", "e", 3),
    ]
    assert len({tuple(draws(*names)) for names in different}) == len(different)


def test_a_stream_neither_reads_nor_moves_the_global_generator():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = draws(0, "a")
    assert torch.equal(torch.rand(3), expected)
    assert draws(0, "a") == first


def test_numpy_integers_name_the_same_stream():
    assert seed_of(np.int64(3), "noise", np.int32(4)) == seed_of(3, "noise", 4)  # type: ignore[arg-type]


def test_seeds_of_many_rounds_are_spread():
    seeds = [seed_of(0, "noise", t) for t in range(2000)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert abs(np.mean(seeds) / 2**31 - 1) < 0.05


def test_a_count_of_attackers_means_the_last_workers():
    cohort = Cohort.of(6, 2)
    assert (cohort.byzantine, cohort.honest) == ((4, 5), (0, 1, 2, 3))
    assert Cohort.of(6, [3, 0]).byzantine == (0, 3)
    assert Cohort(4).honest == (0, 1, 2, 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Cohort.of(3, 3),
        lambda: Cohort.of(3, -1),
        lambda: Cohort(0),
        lambda: Cohort(3, (3,)),
        lambda: Cohort(3, (-1,)),
        lambda: Cohort(3, (1, 1)),
        lambda: Cohort(2, (0, 1)),
    ],
)
def test_impossible_cohorts_are_refused(make):
    with pytest.raises(InvalidInput, match="Found"):
        make()


class Engine(ABC):
    name: ClassVar[str]


class Wheel(ABC):
    name: ClassVar[str]


ENGINES: Registry[Engine] = Registry("engine", Engine)
WHEELS: Registry[Wheel] = Registry("wheel", Wheel)


@WHEELS.register("round")
@dataclass(frozen=True)
class Round(Wheel):
    radius: float = 1.0


@ENGINES.register("steam")
@dataclass(frozen=True)
class Steam(Engine):
    power: int
    wheel: Wheel = Round()
    gears: tuple[float, ...] = (1.0, 2.0)
    pairs: tuple[tuple[str, int], ...] = ()
    extras: dict[str, float] | None = None
    limit: int | None = 5
    mode: Literal["slow", "fast"] = "slow"

    def __post_init__(self) -> None:
        if self.power < 0:
            raise InvalidInput("Power should be at least 0.")


def test_a_name_and_a_table_build_the_same_recipe():
    assert WHEELS.build("round") == WHEELS.build({"name": "round"}) == Round()
    assert ENGINES.build({"name": "steam", "power": 3, "wheel": {"name": "round", "radius": 2}}) == Steam(
        3, Round(2.0)
    )
    assert ENGINES.build({"name": "steam", "power": 3, "wheel": "round"}) == Steam(3)


def test_defaults_fill_silence_and_nothing_else():
    assert ENGINES.build("steam", power=4, radius=9) == Steam(4)
    assert ENGINES.build({"name": "steam", "power": 1}, power=4) == Steam(1)


def test_toml_lists_become_tuples():
    text = 'name = "steam"\npower = 1\ngears = [3, 4.5]\npairs = [["a", 1], ["b", 2]]\nextras = {k = 1.5}'
    built = ENGINES.build(tomllib.loads(text))
    assert built == Steam(1, gears=(3.0, 4.5), pairs=(("a", 1), ("b", 2)), extras={"k": 1.5})
    assert all(type(gear) is float for gear in built.gears)  # type: ignore[attr-defined]


finite = st.floats(allow_nan=False, allow_infinity=False)
steams = st.builds(
    Steam,
    st.integers(0, 10**9),
    st.builds(Round, finite),
    st.lists(finite, max_size=3).map(tuple),
    st.lists(st.tuples(st.text(max_size=3), st.integers(-9, 9)), max_size=2).map(tuple),
    st.none() | st.dictionaries(st.text(max_size=3), finite, max_size=2),
    st.none() | st.integers(0, 9),
    st.sampled_from(["slow", "fast"]),
)


@given(steams)
def test_build_undoes_plain(recipe):
    assert ENGINES.build(plain(recipe)) == recipe


def test_plain_leaves_out_what_toml_cannot_say():
    assert "extras" not in plain(Steam(1))
    assert plain(Steam(1))["gears"] == [1.0, 2.0]
    assert plain(Steam(1))["name"] == "steam"


@pytest.mark.parametrize(
    "data, message",
    [
        ({"name": "stem", "power": 1}, "'steam'"),
        ({"name": "steam", "powr": 1}, "'power'"),
        ({"name": "steam"}, "'power' is required"),
        ({"name": "steam", "power": 1.5}, "power"),
        ({"name": "steam", "power": True}, "power"),
        ({"name": "steam", "power": "1"}, "power"),
        ({"name": "steam", "power": -1}, "at least 0"),
        ({"name": "steam", "power": 1, "gears": 3}, "gears"),
        ({"name": "steam", "power": 1, "gears": "ab"}, "gears"),
        ({"name": "steam", "power": 1, "gears": [1, "x"]}, "gears"),
        ({"name": "steam", "power": 1, "gears": [1, float("nan")]}, "finite"),
        ({"name": "steam", "power": 1, "extras": {"k": float("inf")}}, "finite"),
        ({"name": "steam", "power": 1, "wheel": {"name": "round", "radius": float("-inf")}}, "finite"),
        ({"name": "steam", "power": 1, "wheel": "square"}, "'round'|Known: round"),
        ({"name": "steam", "power": 1, "wheel": {"name": "round", "radios": 1}}, "'radius'"),
        ({"name": "steam", "power": 1, "wheel": 3}, "wheel"),
        ({"name": "steam", "power": 1, "mode": "medium"}, "mode"),
        ({"power": 1}, "name"),
        (["steam"], "name"),
        (3, "name"),
    ],
)
def test_wrong_data_is_refused_in_one_line_that_names_it(data, message):
    with pytest.raises(InvalidInput, match=message) as caught:
        ENGINES.build(data)
    assert "\n" not in str(caught.value)


def test_unknown_names_are_their_own_error():
    with pytest.raises(UnknownName, match="Did you mean 'steam'"):
        ENGINES["steem"]
    assert "steam" in ENGINES
    assert list(ENGINES) == ["steam"]


def test_a_name_is_given_once():
    with pytest.raises(InvalidInput, match="taken by Steam"):
        ENGINES.register("steam")(Steam)


def test_what_is_registered_for_a_time_is_forgotten():
    with suppress(ZeroDivisionError), ENGINES.temporarily():  # also where the time ends badly
        ENGINES.register("kite")(dataclass(frozen=True)(type("Kite", (Engine,), {})))
        assert list(ENGINES) == ["kite", "steam"]
        with ENGINES.temporarily(only=["kite"]):
            assert list(ENGINES) == ["kite"]
            assert "steam" not in ENGINES
        _ = 1 / 0
    assert list(ENGINES) == ["steam"]
    with pytest.raises(UnknownName), ENGINES.temporarily(only=["kite"]):
        pass
    assert list(ENGINES) == ["steam"]


def test_decode_reads_a_dataclass_without_a_registry():
    assert decode(Round, {"radius": 2}, "a wheel") == Round(2.0)
    with pytest.raises(InvalidInput, match="In a wheel"):
        decode(Round, {"radius": "2"}, "a wheel")
