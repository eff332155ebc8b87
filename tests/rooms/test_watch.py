"""What a watch says of ranks: no liar gets an honest one suspected, and who is bad now and then is found."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import byzopt.distributed
from byzopt.aggregators import rule_from
from byzopt.aggregators.guards.outlying import assumed_faults, outlying
from byzopt.aggregators.numerics.mixed import Mixed
from byzopt.cohort import Cohort
from byzopt.distributed import RoundDiagnostics, Suspicion
from byzopt.distributed.diagnostics import diagnose_rows
from byzopt.errors import InvalidInput
from byzopt.tasks import TASKS
from byzopt.theory.outlying import crowd_radii, student
from tests.liars import (
    LIES,
    Lie,
    between,
    copy,
    copy_with_noise,
    drawn,
    huge_in_every_third,
    rounds_of,
)
from tests.products import sampled


def seen(rows: list[Tensor], rule: str, f: int | None, **settings: object) -> tuple[Suspicion, list[int]]:
    """A watch after rounds of rows, and the ranks that it gave alarm for."""
    alarms: list[int] = []
    watch = Suspicion(alarm=lambda i, s: alarms.append(i), **settings)
    one = rule_from(rule) if f is None else rule_from(rule, f=f)
    for t, each in enumerate(rows, start=1):
        watch(diagnose_rows(t, one, each))
    return watch, alarms


CROWDS = [(5, 2, "median"), (6, 2, "trimmed_mean"), (9, 4, "median")]


@pytest.mark.parametrize("lie, crowd", sampled(LIES, CROWDS))
def test_no_strategy_gets_an_honest_rank_suspected(lie: Lie, crowd: tuple[int, int, str]):
    n, f, rule = crowd
    for law in ("line", "heavy"):
        watch, alarms = seen(rounds_of(lie, n, f, 4, 40, law), rule, f)
        assert not [i for i in alarms if i < n - f], law
        if law != "heavy":  # what is said of single steps takes rows for Gaussian
            # At level 0.001 a step.
            assert max(rank.suspicion for rank in watch.ranks[: n - f]) < 0.2
            assert max(rank.expulsions_total for rank in watch.ranks[: n - f]) <= 1


@pytest.mark.parametrize("lie", [copy, copy_with_noise])
@pytest.mark.parametrize("n, f", [(5, 2), (6, 2), (9, 4), (10, 4)])
def test_copies_of_an_honest_rank_expel_nobody_and_are_counted(n: int, f: int, lie: Lie):
    watch, alarms = seen(rounds_of(lie, n, f, 100, 50), "nnm >> rfa", f)
    assert alarms == watch.suspects() == []
    assert [rank.expulsions_total for rank in watch.ranks] == [0] * n
    copied = 50 if lie is copy else 0
    assert [rank.copies_total for rank in watch.ranks] == [copied] + [0] * (n - f - 1) + [copied] * f


@pytest.mark.parametrize(
    "size, rule",
    sampled([(5, 2), (6, 1), (9, 4), (20, 3)], ["nnm >> trimmed_mean", "median", "mean"]),
)
def test_a_rank_that_is_huge_in_every_third_step_gives_alarm(size: tuple[int, int], rule: str):
    n, f = size
    rows = rounds_of(honest_but_last, n, 1, 10, 200)
    watch, alarms = seen(rows, rule, f if rule != "mean" else None)
    assert alarms == [n - 1]
    assert watch.suspects() == [n - 1]
    assert watch.ranks[-1].remote_total == 200 // 3
    assert watch.ranks[-1].suspicion < 0.5  # the running share alone would not have told


def honest_but_last(rows: Tensor, f: int, t: int, sums: Tensor) -> None:
    huge_in_every_third(rows, 1, t, sums)


def test_the_share_of_remote_steps_that_gives_alarm():
    heard: list[int] = []
    watch = Suspicion(alarm=lambda i, s: heard.append(watch.t), eta=0.01)
    even = torch.full((3,), 1 / 3, dtype=torch.float64)
    for t in range(1, 100):
        remote = torch.tensor([0.0, 2.0 if t % 3 == 0 else 0.0, 2.0 if t % 12 == 0 else 0.0])
        watch(RoundDiagnostics(t, even, remote.double(), ()))
    assert heard == [24]  # 8 of 24 are 5 and a tenth; one in twelve never is
    assert watch.suspects() == [1]
    assert watch.ranks[2].remote_total == 8


def test_momentum_and_samples_that_are_dealt_accuse_nobody():
    """Worker momentum makes a rank's rows alike from step to step, and dealt samples make ranks differ."""
    away, rows = 0.03 * drawn("normal", 8, 20, 0, 0), []
    held = torch.zeros_like(away)
    for t in range(1, 201):
        held = 0.9 * held + 0.1 * drawn("normal", 8, 20, t, 0)
        rows.append(held + away)
    watch, alarms = seen(rows, "nnm >> rfa", 2)
    assert alarms == watch.suspects() == []


@pytest.mark.parametrize("partition", [{"name": "dirichlet", "alpha": 0.1}, "sorted"])
def test_on_digits_dealt_by_label_no_honest_rank_is_near_being_suspected(partition: object):
    task = TASKS.build({"name": "digits", "partition": partition}).build(Cohort.of(20, 0), 1)
    x, rule, rows = task.start(), rule_from("nnm >> trimmed_mean", f=3), []
    for t in range(1, 41):
        grads = task.grads(x, task.draw(t))
        rows.append(grads if not rows else 0.9 * rows[-1] + 0.1 * grads)
        x = x - 0.3 * rule(rows[-1])
    watch, alarms = seen(rows, "nnm >> trimmed_mean", 3)
    assert alarms == watch.suspects() == []
    assert max(rank.remoteness for rank in watch.ranks) < 0.2


def test_where_data_differ_an_honest_rank_of_its_own_is_suspected_unless_that_is_said():
    def rare(rows: Tensor, f: int, t: int, sums: Tensor) -> None:
        rows[0] += 1000

    rows = rounds_of(rare, 8, 1, 5, 40)
    told, alarms = seen(rows, "median", 1)
    assert alarms == [0]
    assert "alike=False" in told.premises
    assert told.premises in told.prometheus()
    assert told.premises in str(told.table().caption)
    silent, alarms = seen(rows, "median", 1, alike=False)
    assert alarms == silent.suspects() == []
    assert silent.ranks[0].remoteness > 1  # the figure is there, and accuses nobody
    rows[3][2] = torch.nan
    silent, _ = seen(rows, "median", 1, alike=False, eta=1.0)
    assert silent.ranks[2].nonfinite_total == 1


@pytest.mark.parametrize("degrees", [1, 2, 5, 13, 80])
@pytest.mark.parametrize("tail", [1e-2, 1e-5, 1e-9])
def test_the_quantile_of_students_t_is_bounded_from_above(degrees: int, tail: float):
    from scipy.stats import t

    exact = float(t.isf(tail / 2, degrees))
    assert exact * (1 - 1e-9) <= student(tail, degrees) <= 1.3 * exact


def test_limits_are_none_where_the_crowd_may_hold_one_honest_row():
    assert crowd_radii(3, 1) == ()
    assert [c for c, _ in crowd_radii(5, 2)] == [4]
    assert [c for c, _ in crowd_radii(6, 2)] == [4, 5]
    assert [c for c, _ in crowd_radii(11, 2)] == [6, 7, 8, 9, 10]
    for n, f in ((11, 2), (20, 9)):
        reaches = [k for _, k in crowd_radii(n, f)]
        assert reaches == sorted(reaches, reverse=True)
        assert reaches[-1] > 1
    with pytest.raises(InvalidInput):
        crowd_radii(4, 2)


@pytest.mark.parametrize("n, f", [(6, 2), (8, 2), (10, 4)])
@pytest.mark.parametrize("lie", [copy_with_noise, between])
def test_honest_rows_stay_within_the_limits_at_their_level(n: int, f: int, lie: Lie):
    """The laws with the largest tails: all along one line, and in three directions alike."""
    beyond = draws = 0
    for law, d in (("line", 1), ("normal", 3)):
        for seed in range(150):
            rows = drawn(law, n, d, 1, seed)
            lie(rows, f, 1, rows)
            beyond += bool((outlying(Mixed(rows), rows.dtype, f)[: n - f] > 1).any())
            draws += 1
    assert beyond <= 0.01 * draws  # 3 of 300; the level is 0.001


def test_who_may_lie_follows_the_rule():
    assert assumed_faults(rule_from("trimmed_mean", f=2), 9) == 2
    assert assumed_faults(rule_from("median"), 9) == 4
    assert assumed_faults(rule_from("mean"), 9) == assumed_faults(None, 9) == 4
    assert assumed_faults(rule_from("fltrust"), 9) == 4
    assert assumed_faults(None, 1) == 0


def test_a_verdict_without_distances_is_heard_all_the_same():
    watch = Suspicion(eta=1.0)
    watch(RoundDiagnostics(1, torch.full((3,), 1 / 3).double(), torch.tensor([0.1, 0.2, 5.0]).double(), ()))
    assert watch.suspects() == [2]


def test_the_running_weight_is_of_what_was_seen_and_not_of_its_start():
    watch = Suspicion()
    for t in range(1, 7):
        shares = torch.tensor([0.0, 0.5, 0.5 * (t % 2)], dtype=torch.float64)
        watch(RoundDiagnostics(t, shares, torch.full((3,), 0.25, dtype=torch.float64), ()))
    assert watch.ranks[0].weight == 0.0
    assert watch.ranks[1].weight == pytest.approx(1.5)
    paces = [0.9 ** (6 - t) for t in range(1, 7)]  # the weighted mean, spelled out
    wanted = sum(p * 1.5 * (t % 2) for t, p in enumerate(paces, start=1)) / sum(paces)
    assert watch.ranks[2].weight == pytest.approx(wanted)
    assert watch.ranks[2].remoteness == pytest.approx(0.25)


@pytest.mark.parametrize(
    "n, f, said", [(3, 1, "no finite vector"), (4, 1, "15,382 radii"), (5, 1, "no power"), (8, 1, "21 radii")]
)
def test_a_watch_says_how_little_it_sees(n: int, f: int, said: str):
    watch = Suspicion()
    assert "does not say that a rank is honest" in watch.power
    watch(diagnose_rows(1, rule_from("nnm >> rfa", f=f), drawn("line", n, 4, 1, seed=0)))
    assert said in watch.power
    assert ("no power" in watch.power) == (n in (4, 5))
    assert watch.power in watch.prometheus()
    assert watch.power in str(watch.table().caption)
    assert "radii" not in Suspicion(alike=False, population=(8, 1)).power


@pytest.mark.parametrize("former", ["Keep", "Verdict", "join", "ByzNSGDM", "ByzDM21", "ByzVRDM21"])
def test_former_names_are_importable_with_a_warning(former):
    with pytest.warns(DeprecationWarning, match=f"{former} is now called"):
        assert callable(getattr(byzopt.distributed, former))
