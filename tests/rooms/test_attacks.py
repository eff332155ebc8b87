"""The attackers' window, and hand-computed values and twins of the basic attacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from byzopt.attacks import (
    ALIE,
    ATTACKS,
    IPM,
    Adversary,
    Attack,
    Gaussian,
    LabelFlip,
    Mimic,
    MimicIndex,
    MimicVariance,
    OptimalALIE,
    SignFlip,
    View,
)
from byzopt.attacks.moments import quantile_z
from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput
from byzopt.rng import stream
from byzopt.tasks import Quartic
from byzopt.tasks.logistic import LogisticRegression
from tests.forging import HONEST, OWN, ROWS, close, forged, rows_of
from tests.reference import attacks as twin


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("none", OWN),
        ("bit_flip", [[-10, 20], [-30, -40]]),
        ("sign_flip", [[-3, -2]] * 2),
        ({"name": "sign_flip", "scale": 2.5}, [[-7.5, -5]] * 2),
        ("label_flip", OWN),
        ("mimic", OWN),
        ({"name": "mimic", "rounds": 0}, [[-6, -4]] * 2),
        ({"name": "mimic", "rounds": 0, "scale": 3}, [[-9, -6]] * 2),
        ("mimic_index", [[1, 4]] * 2),
        ({"name": "mimic_index", "index": 2}, [[5, 2]] * 2),
        ("alie", [[5, 4]] * 2),
        ({"name": "alie", "sign": -1}, [[1, 0]] * 2),
        ({"name": "alie", "z": -1}, [[1, 0]] * 2),
        ({"name": "alie", "z": 1.5, "ddof": 0}, [[3 + 6**0.5, 2 + 6**0.5]] * 2),
        ("ipm", [[-0.3, -0.2]] * 2),
        ({"name": "ipm", "scale": 10}, [[-30, -20]] * 2),
        ({"name": "gaussian", "std": 0}, [[0, 0]] * 2),
        ({"name": "gaussian", "std": 0, "around": "mean"}, [[3, 2]] * 2),
        ("huge", [[1e30, 1e30]] * 2),
        ("inf", [[float("inf")] * 2] * 2),
        ({"name": "inf", "sign": -1}, [[-float("inf")] * 2] * 2),
    ],
    ids=str,
)
def test_value_by_hand(spec: Any, expected: Any) -> None:
    close(forged(ATTACKS.build(spec)), expected)


def test_nan_sends_nothing_but_nan() -> None:
    assert forged(ATTACKS.build("nan")).isnan().all()


@pytest.mark.parametrize(("f", "z"), [(3, 0.074), (5, 0.253), (8, 0.674), (9, 0.908)])
def test_quantile_rule_has_the_values_of_the_table(f: int, z: float) -> None:
    assert quantile_z(20, f) == pytest.approx(z, abs=5e-4)
    assert quantile_z(20, f) == pytest.approx(twin.alie_quantile(20, f), rel=1e-12)


def test_alie_takes_the_quantile_of_the_actual_number_of_attackers() -> None:
    # n = 5, b = 2: q = 1, z = quantile of 2/3.
    close(forged(ALIE(z="quantile")), [[3 + 2 * 0.4307272992954576, 2 + 2 * 0.4307272992954576]] * 2)


@pytest.mark.parametrize(("n", "b"), [(2, 1), (3, 2), (20, 11)])
def test_quantile_rule_refuses_where_it_is_not_defined(n: int, b: int) -> None:
    with pytest.raises(InvalidInput, match="quantile rule"):
        quantile_z(n, b)


@given(ROWS, st.floats(-3, 3))
def test_mean_based_attacks_equal_their_twins(rows: Any, scale: float) -> None:
    honest, own = rows
    b = len(own)
    for attack, expected in [
        (ATTACKS.build("bit_flip"), twin.negative(own)),
        (SignFlip(scale=scale), twin.reversed_mean(honest, b, scale)),
        (IPM(scale=scale), twin.reversed_mean(honest, b, scale)),
        (Mimic(rounds=0, scale=scale), twin.reversed_mean(honest, b, scale)),
        (ALIE(z=scale), twin.alie(honest, b, scale)),
        (ALIE(z=scale, sign=-1, ddof=0), twin.alie(honest, b, scale, -1, 0)),
    ]:
        torch.testing.assert_close(
            forged(attack, honest, own),
            torch.tensor(expected, dtype=torch.float64),
            rtol=1e-9,
            atol=1e-9,
        )


def test_drawn_sign_flip_sends_negatives_of_different_honest_rows() -> None:
    own = [[0.0, 0.0]] * 3
    seen = {
        tuple(row) for s in range(20) for row in (-forged(SignFlip(of="drawn"), own=own, seed=s)).tolist()
    }
    assert seen == {tuple(row) for row in HONEST}


def test_gaussian_has_the_mean_and_the_spread_asked_for() -> None:
    honest, own = [[2.0] * 20_000] * 3, [[0.0] * 20_000] * 2
    one, other = forged(Gaussian(std=1e6), honest, own)
    assert one.std() == pytest.approx(1e6, rel=0.03)
    assert abs(one.mean()) < 3e4
    assert not torch.equal(one, other)
    around = forged(Gaussian(std=0.5, around="mean"), honest, own)
    assert around.mean() == pytest.approx(2.0, abs=0.02)
    assert around.std() == pytest.approx(0.5, rel=0.03)


def test_mimic_is_honest_for_fifty_rounds_and_then_reverses_twice_the_mean() -> None:
    close(forged(Mimic(), t=50), OWN)
    close(forged(Mimic(), t=51), [[-6, -4]] * 2)


def test_mimic_index_beyond_the_honest_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"0\.\.2"):
        forged(MimicIndex(index=3))


@pytest.mark.parametrize("warmup", [1, 3])
def test_mimic_variance_follows_its_twin_and_then_keeps_its_target(warmup: int) -> None:
    cohort = Cohort.of(6, (0, 4))
    attack = MimicVariance(warmup=warmup)
    x = torch.zeros(4, dtype=torch.float64)
    z0 = torch.randn(4, dtype=torch.float64, generator=stream(9, 1))
    rounds = [torch.randn(6, 4, dtype=torch.float64, generator=stream(5, t)) for t in range(1, 7)]
    honest = [rows[list(cohort.honest)].tolist() for rows in rounds]
    expected, way = twin.mimic_variance(honest, z0.tolist(), warmup)
    adversary = Adversary(attack, cohort, 2)
    state = adversary.start(x)
    for t, rows in enumerate(rounds, start=1):
        out, state = adversary.forge_rows(state, t, x, rows, stream(9, t), torch.Tensor.mean)
        close(out[[0, 4]], [expected[t - 1]] * 2)
    close(state.z, way)
    kept = {h.index(e) for h, e in zip(honest[warmup - 1 :], expected[warmup - 1 :], strict=True)}
    assert len(kept) == 1


def test_mimic_variance_finds_the_axis_of_largest_variance() -> None:
    honest = [[1.0, 0.0], [-1.0, 0.0], [0.1, 9.0], [0.0, -9.0]]
    rows = forged(MimicVariance(), honest)
    assert torch.equal(rows[0], rows[1])
    assert rows[0].tolist() in ([0.1, 9.0], [0.0, -9.0])


def test_labels_are_shifted_mirrored_or_permuted() -> None:
    labels = torch.arange(10)
    assert LabelFlip().relabel(labels, 10).tolist() == twin.label_shift(list(range(10)), 10, 5)
    assert LabelFlip(shift=1).relabel(torch.tensor([9, 0]), 10).tolist() == [0, 1]
    assert LabelFlip(mode="mirrored").relabel(labels, 10).tolist() == list(range(9, -1, -1))
    assert LabelFlip(mode="mirrored").relabel(torch.tensor([0, 1, 1]), 2).tolist() == [1, 0, 0]


@pytest.mark.parametrize("classes", [2, 3, 10, 65])
def test_random_labels_are_a_cycle_through_all_classes(classes: int) -> None:
    y, seen = torch.tensor([0]), set()
    for _ in range(classes):
        y = LabelFlip(mode="random").relabel(y, classes)
        seen.add(int(y))
    assert seen == set(range(classes))
    assert int(y) == 0


def test_random_labels_hang_on_the_seed_alone() -> None:
    labels = torch.arange(50, dtype=torch.int32)
    one = LabelFlip(mode="random").relabel(labels, 50)
    assert one.dtype == torch.int32
    assert torch.equal(one, LabelFlip(mode="random").relabel(labels, 50))
    assert not torch.equal(one, LabelFlip(mode="random", seed=1).relabel(labels, 50))


def test_a_shift_that_flips_nothing_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no multiple of 5"):
        LabelFlip().relabel(torch.tensor([1, 2]), 5)


def test_poison_relabels_the_byzantine_workers_of_the_task() -> None:
    calls = []

    class Labelled:
        def relabelled(self, workers: Any, relabel: Any) -> str:
            calls.append((workers, relabel(torch.tensor([1]), 10).tolist()))
            return "poisoned"

    assert Adversary(LabelFlip(), Cohort.of(5, (1, 3)), 2).poison(Labelled()) == "poisoned"
    assert calls == [((1, 3), [6])]


@pytest.mark.parametrize("mode", ["shift", "mirrored", "random"])
def test_flipped_labels_turn_the_gradients_of_byzantine_workers_only(mode: Any) -> None:
    cohort = Cohort.of(6, (0, 4))
    task = LogisticRegression().build(cohort, seed=0)
    poisoned = Adversary(LabelFlip(mode=mode), cohort, 2).poison(task)
    x = torch.linspace(-1, 1, len(task.start()), dtype=torch.float64)
    change = (poisoned.grads(x, poisoned.draw(3)) - task.grads(x, task.draw(3))).norm(dim=1)
    assert change[[1, 2, 3, 5]].max() == 0
    assert change[[0, 4]].min() > 0.1


def test_label_flipping_a_task_without_labels_is_refused() -> None:
    cohort = Cohort.of(4, 1)
    with pytest.raises(InvalidInput, match="labels"):
        Adversary(LabelFlip(), cohort, 1).poison(Quartic().build(cohort, seed=0))


@dataclass(frozen=True)
class Peeking(Attack):
    what: str = "honest"
    knows = frozenset()

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        look = getattr(view, self.what)
        return look(view.like) if self.what == "with_forged" else view.like


@pytest.mark.parametrize("what", ["own", "honest", "defence", "with_forged"])
def test_a_look_at_what_was_not_declared_is_refused(what: str) -> None:
    with pytest.raises(InvalidInput, match="to its `knows`"):
        forged(Peeking(what))


@dataclass(frozen=True)
class Misshapen(Attack):
    shape: tuple[int, ...] = (2,)
    dtype: torch.dtype = torch.float64

    def forge(self, view: View, generator: torch.Generator) -> Tensor:
        return torch.zeros(self.shape, dtype=self.dtype)


@pytest.mark.parametrize("shape", [(2,), (1, 2), (5, 2), (2, 3), (2, 2, 1), ()])
def test_forged_rows_of_a_wrong_shape_are_refused_by_name(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match=r"Misshapen.*\[2, 2\]"):
        forged(Misshapen(shape))


def test_forged_rows_that_are_no_floating_numbers_are_refused() -> None:
    with pytest.raises(InvalidInput, match="floating"):
        forged(Misshapen((2, 2), torch.int64))


def test_rows_handed_to_an_attack_are_copies() -> None:
    @dataclass(frozen=True)
    class Scribbler(Attack):
        def forge(self, view: View, generator: torch.Generator) -> Tensor:
            view.honest.fill_(9)
            return view.own.fill_(7)

    cohort = Cohort.of(5, (1, 3))
    rows = rows_of(HONEST, OWN, cohort)
    out, _ = Adversary(Scribbler(), cohort, 2).forge_rows((), 1, rows[0], rows, stream(0), torch.Tensor.mean)
    assert torch.equal(rows, rows_of(HONEST, OWN, cohort))
    assert torch.equal(out, rows_of(HONEST, [[7.0, 7.0]] * 2, cohort))


def test_an_attack_may_search_the_rows_as_the_server_would_see_them() -> None:
    @dataclass(frozen=True)
    class Searcher(Attack):
        knows = frozenset({"honest", "defence"})

        def forge(self, view: View, generator: torch.Generator) -> Tensor:
            trial = view.with_forged(view.like.fill_(12.0))
            return view.alike(view.defence(trial))

    # The mean of HONEST and two rows of 12: (9 + 24)/5 and (6 + 24)/5.
    close(forged(Searcher()), [[6.6, 6.0]] * 2)


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "alie", "z": "quartile"},
        {"name": "alie", "sign": 2},
        {"name": "mimic", "rounds": -1},
        {"name": "mimic_variance", "warmup": 0},
        {"name": "mimic_index", "index": -1},
        {"name": "gaussian", "std": -1.0},
        {"name": "label_flip", "mode": "upside_down"},
        {"name": "sign_flip", "of": "median"},
    ],
    ids=str,
)
def test_a_bad_parameter_is_one_clear_line(spec: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        ATTACKS.build(spec)
    assert "\n" not in str(caught.value)


def test_an_attack_called_on_rows_forges_those_of_its_workers_and_no_others():
    rows = torch.arange(10.0).reshape(5, 2)
    before = rows.clone()
    attacked = IPM(scale=2.0)(rows, byzantine=[0, 3])
    mean = before[[1, 2, 4]].mean(0)
    torch.testing.assert_close(attacked[[0, 3]], (-2 * mean).expand(2, 2))
    assert torch.equal(attacked[[1, 2, 4]], before[[1, 2, 4]])
    assert torch.equal(rows, before)


def test_an_attack_called_on_rows_searches_against_the_rule_that_it_is_given():
    rows = torch.tensor([[1.0], [2.0], [3.0], [4.0], [0.0]])
    asked = []

    def rule(rows):
        asked.append(rows)
        return rows.median(0).values

    OptimalALIE(evaluations=5)(rows, byzantine=1, rule=rule)
    assert asked
    assert all(torch.equal(one[:4], rows[:4]) for one in asked)


@pytest.mark.parametrize(
    "rows", [torch.ones(5), torch.ones(5, 2, dtype=torch.int64)], ids=["vector", "integers"]
)
def test_an_attack_called_on_anything_but_rows_is_refused(rows):
    with pytest.raises(InvalidInput, match="shape"):
        IPM()(rows, byzantine=1)
