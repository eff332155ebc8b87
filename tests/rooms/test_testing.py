"""The contract suites for strangers: sound parts pass, and a part that breaks a promise is found out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from byzopt import Cohort, Quartic, simulate
from byzopt.aggregators import Aggregator, GeometricRule, Median, PreAggregator
from byzopt.attacks import IPM, Attack
from byzopt.errors import InvalidInput
from byzopt.methods import ByzNSGDM, RobustGD
from byzopt.tasks import Quadratic, TaskRecipe
from byzopt.testing import BrokenPromise, checks_of, left_out, parametrize, verify
from byzopt.wire import Compressor, Identity, ScaledSign


@parametrize(Median(f=2), IPM(), Quadratic(), RobustGD(), Identity())
def test_parts_of_this_library_pass(check):
    check()


def broken(part: object) -> set[str]:
    """Names of the promises that a part breaks."""
    names = set()
    for check in checks_of(part):
        try:
            check()
        except BrokenPromise:
            names.add(check.promise.name)
    return names


def rule(reduce: Callable[..., torch.Tensor], **declared: object) -> Aggregator:
    """A stranger's rule that answers with `reduce(rows, f)`."""

    @dataclass(frozen=True)
    class Own(Aggregator):
        """A rule of a test."""

        f: int = 2
        positional: ClassVar[bool] = False

        def reduce(self, mixed):
            return reduce(mixed.materialise(), self.f)

        def influence(self, mixed):
            return torch.full((mixed.m,), 1 / mixed.m, dtype=torch.float64)

    for name, value in declared.items():
        setattr(Own, name, value)
    return Own()


def middle(rows, f):
    return rows.sort(dim=0).values[f : len(rows) - f].mean(dim=0)


def writing(rows, f):
    rows -= 1e-3
    return middle(rows, f) + 1e-3


BROKEN_RULES = {
    "keeps_dtype_shape_and_device": lambda rows, f: middle(rows, f)[:-1],
    "bounds_what_faulty_rows_do": lambda rows, f: rows.mean(dim=0),
    "repeats_to_the_last_bit": lambda rows, f: middle(rows, f) + 1e-6 * torch.randn(rows.shape[1]),
    "does_not_depend_on_the_order_of_workers": lambda rows, f: middle(rows[: len(rows) - 2], f - 1),
    "scales_with_the_rows": lambda rows, f: middle(rows, f).clamp(-1e5, 1e5),
    "moves_with_the_rows": lambda rows, f: middle(rows[rows.norm(dim=1).argsort()[: len(rows) - f]], 0),
    "gives_the_row_that_all_workers_send": lambda rows, f: middle(rows, f).sign(),
    "stays_finite_on_finite_rows": lambda rows, f: middle(rows, f) / rows.std().clamp_max(1).sign(),
}


def test_a_sound_rule_of_a_stranger_keeps_every_promise():
    kept = verify(rule(middle)).kept
    assert set(BROKEN_RULES) <= set(kept)


@pytest.mark.parametrize("promise", BROKEN_RULES)
def test_a_broken_rule_is_found_out(promise):
    assert promise in broken(rule(BROKEN_RULES[promise]))


def test_a_rule_that_declares_less_is_asked_for_less():
    placed = rule(BROKEN_RULES["does_not_depend_on_the_order_of_workers"], positional=True)
    assert "does_not_depend_on_the_order_of_workers" not in broken(placed)
    assert "does_not_depend_on_the_order_of_workers" in left_out(placed)


def attack(forge: Callable[..., torch.Tensor], knows: tuple[str, ...] = ("own", "honest")) -> Attack:
    """A stranger's attack that forges `forge(view, generator)`."""

    @dataclass(frozen=True)
    class Own(Attack):
        """An attack of a test."""

        knows: ClassVar[frozenset[str]] = frozenset(("own", "honest"))

        def forge(self, view, generator):
            return forge(view, generator)

    Own.knows = frozenset(knows)
    return Own()


def spoiling(view, generator):
    view._rows.mul_(1.5)
    return view.own


BROKEN_ATTACKS = {
    "writes_to_nothing": spoiling,
    "draws_from_its_generator_alone": lambda view, generator: view.own + torch.randn(view.own.shape),
    "stays_finite_on_one_coordinate_and_on_zeros": lambda view, generator: view.own / view.own.norm(),
}


def test_a_sound_attack_of_a_stranger_keeps_every_promise():
    assert set(BROKEN_ATTACKS) <= set(verify(attack(lambda view, generator: -view.own)).kept)


@pytest.mark.parametrize("promise", BROKEN_ATTACKS)
def test_a_broken_attack_is_found_out(promise):
    assert promise in broken(attack(BROKEN_ATTACKS[promise]))


@dataclass(frozen=True)
class Halving(PreAggregator):
    """A stage of a test: half of every row, which is no affine mixture."""

    def mixing(self, geometry):
        return torch.eye(geometry.m, dtype=torch.float64) / 2


def test_a_stage_that_shortens_rows_is_found_out():
    assert broken(Halving()) == {"mixes_equal_rows_to_that_row"}


@dataclass(frozen=True)
class Boastful(ScaledSign):
    """A compressor of a test that claims a contraction which signs do not have."""

    def alpha(self, d):
        return 0.9


@dataclass(frozen=True)
class Forgetful(Identity):
    """A compressor of a test that claims to be unbiased and drops a coordinate."""

    def compress(self, rows, noise):
        return torch.cat([rows[..., 1:], rows[..., :1] * 0], dim=-1)


@pytest.mark.parametrize(
    "compressor, promise",
    [(Boastful(), "contracts_as_it_says"), (Forgetful(), "is_unbiased_as_it_says")],
    ids=["contraction", "bias"],
)
def test_a_compressor_that_claims_too_much_is_found_out(compressor: Compressor, promise: str):
    assert promise in broken(compressor)


def task(**changes: Callable[..., object]) -> TaskRecipe:
    """A quadratic of a stranger, some of whose methods are replaced."""

    @dataclass(frozen=True)
    class Own(Quadratic):
        """A task of a test."""

        def build(self, cohort, seed):
            made = super().build(cohort, seed)
            made.__class__ = type("Changed", (type(made),), dict(changes))
            return made

    return Own()


def global_draw(self, t):
    return torch.randn(self.n, self.layout.d, dtype=torch.float64)


BROKEN_TASKS = {
    "touches_no_global_generator": {"draw": global_draw},
    "gives_one_finite_row_for_each_worker": {"grads": lambda self, x, batch: (x + batch)[:-1]},
    "measures_finite_figures_with_a_loss": {"measure": lambda self, x: {"accuracy": 97.0, "loss": 1.0}},
    "lowers_the_loss_along_the_full_gradient": {
        "grads": lambda self, x, batch: -x.expand(self.n, -1) + batch
    },
    "writes_to_nothing": {"grads": lambda self, x, batch: x.mul_(2).expand(self.n, -1) + batch},
}


@pytest.mark.parametrize("promise", BROKEN_TASKS)
def test_a_broken_task_is_found_out(promise):
    assert promise in broken(task(**BROKEN_TASKS[promise]))


@dataclass(frozen=True)
class Mixing(ByzNSGDM):
    """A method of a test whose workers tell each other what they saw."""

    def build(self, rule, lr, rounds=None):
        made = super().build(rule, lr, rounds)
        inner = made.worker

        @dataclass(frozen=True)
        class Gossip(type(inner)):
            def init(self, x, oracle):
                said, state = super().init(x, oracle)
                return said + said.mean(dim=0), state

        return replace(made, worker=Gossip(**vars(inner)))


def test_a_method_whose_workers_are_not_apart_is_found_out():
    assert "keeps_workers_apart" in broken(Mixing())


def test_what_is_no_part_is_refused():
    with pytest.raises(InvalidInput, match="instance of one of Aggregator"):
        verify(lambda rows: rows.mean(0))


def test_verify_lists_all_that_is_broken():
    with pytest.raises(BrokenPromise) as caught:
        verify(rule(lambda rows, f: rows.mean(dim=0).sign()))
    assert len(str(caught.value).splitlines()) >= 2
    assert "Found" in str(caught.value)


def test_ids_tell_parts_of_one_name_apart():
    @parametrize(Median(f=1), Median(f=2))
    def test_mine(check):
        check()

    ids = test_mine.pytestmark[0].kwargs["ids"]
    assert len(set(ids)) == len(ids)


class Unregistered(GeometricRule):
    """A rule of a test that is no dataclass."""

    def weights(self, geometry):
        return torch.full((geometry.m,), 1 / geometry.m, dtype=torch.float64)


def test_a_recipe_that_is_no_frozen_dataclass_is_found_out():
    assert "fields_are_frozen" in broken(Unregistered())


class Bare(Compressor):
    """Sends everything, and does not say on what it works."""

    contraction, variance = 1.0, None

    def compress(self, rows, noise):
        return rows.clone()

    def alpha(self, d):
        return self.contraction

    def omega(self, d):
        return self.variance

    def size(self, d, width=32):
        return width * d


def compressor_with(**parts):
    """An own compressor, sound but for these class variables."""
    return dataclass(frozen=True)(
        type("Own", (Bare,), {"__doc__": Bare.__doc__, "scope": "global"} | parts)
    )()


WRONG_COMPRESSORS = {
    "no_scope": (dataclass(frozen=True)(type("Own", (Bare,), {"__doc__": Bare.__doc__}))(), "`scope`"),
    "scope": (compressor_with(scope="rows"), "`scope`"),
    "alpha_0": (compressor_with(contraction=0), "alpha"),
    "alpha_negative": (compressor_with(contraction=-0.5), "alpha"),
    "alpha_above_1": (compressor_with(contraction=1.5), "alpha"),
    "alpha_nan": (compressor_with(contraction=float("nan")), "alpha"),
    "omega": (compressor_with(unbiased=True, variance=-1.0), "omega"),
}


@pytest.mark.parametrize("name", WRONG_COMPRESSORS)
def test_a_compressor_whose_constants_cannot_be_is_named_by_verify_and_by_runs(name):
    compressor, word = WRONG_COMPRESSORS[name]
    with pytest.raises(BrokenPromise, match=word):
        verify(compressor)
    left_out(compressor)  # asks what it is without failing
    method = "br_diana" if name == "omega" else "byz_dm21"
    task = Quartic().build(Cohort.of(10), 0)
    with pytest.raises(InvalidInput, match=f"{word}.* of compressor Own should"):
        simulate(task, "krum", 0.01, 3, 2, {"name": method, "compressor": compressor})


def test_a_sound_compressor_of_ones_own_keeps_its_promises():
    assert "contracts_as_it_says" in verify(compressor_with()).kept


@pytest.mark.parametrize("figures", [{"distance": 1.0}, {}, 1.0, {"loss": "low"}, {"loss": None}], ids=str)
def test_a_task_whose_figures_have_no_loss_is_named(figures):
    class Blind(type(Quartic().build(Cohort.of(10), 0))):
        def measure(self, x):
            return figures

    task = Quartic().build(Cohort.of(10), 0)
    task.__class__ = Blind
    with pytest.raises(InvalidInput, match=r"of Blind .*should"):
        simulate(task, "krum", 0.01, 3, 2, "robust_gd")
