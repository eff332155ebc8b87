"""Hand-computed values and twins of the attacks that search, remember, wait or fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, radians, sin, sqrt
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from byzopt.attacks import (
    ATTACKS,
    ROP,
    Adversary,
    AntiCGE,
    AOnly,
    Attack,
    Crash,
    DelayedGradient,
    FangKrum,
    FangTrimmedMean,
    Hug,
    LabelFlip,
    MimicVariance,
    MinMax,
    MinSum,
    OptimalALIE,
    OptimalIPM,
    Replay,
    SignFlip,
    Sleeper,
    Stale,
    Straddle,
    Straggle,
    Uniform,
    View,
)
from byzopt.attacks.optimal import line_search
from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput, TooManyFaults
from byzopt.rng import stream
from tests.forging import HONEST, OWN, ROWS, close, forged
from tests.reference import attacks as twin

R13 = sqrt(13)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("zero", [[0, 0]] * 2),
        ("shift", [[4, 3]] * 2),
        ({"name": "shift", "by": -10}, [[-7, -8]] * 2),
        ("variance", [[2.4, 1.4]] * 2),
        ("under_threshold", [[-5, 10], [-15, -20]]),
        ("equivocate", [[5, 4], [1, 0]]),
        ("min_max", [[1, 0]] * 2),
        ({"name": "min_max", "way": "sign"}, [[1, 0]] * 2),
        ("min_sum", [[1, 0]] * 2),
        ({"name": "min_sum", "way": "unit"}, [[3 - 3 * sqrt(8 / 13), 2 - 2 * sqrt(8 / 13)]] * 2),
        ("anti_cge", [[-0.99 * sqrt(17) * 3 / R13, -0.99 * sqrt(17) * 2 / R13]] * 2),
        ("fang_krum", [[-2 - sqrt(14.5)] * 2] * 2),
        ("rop", [[3 - 2 / R13, 2 + 3 / R13]] * 2),
        ({"name": "rop", "angle": 180, "z": 2}, [[3 - 6 / R13, 2 - 4 / R13]] * 2),
        # The mean as defence: every longer row does more damage, so t = 10 + 20 after three trials.
        ({"name": "optimal_alie", "evaluations": 3}, [[63, 62]] * 2),
        ({"name": "optimal_ipm", "evaluations": 3}, [[-90, -60]] * 2),
        ({"name": "optimal_ipm", "evaluations": 1}, [[0, 0]] * 2),
        ({"name": "hug", "rounds": 10, "threshold": 5}, [[3 - 1.425 / R13, 2 - 0.95 / R13]] * 2),
        ({"name": "hug", "rounds": 1, "threshold": 99}, [[3 - 2.7 / R13, 2 - 1.8 / R13]] * 2),
        ({"name": "straddle", "noise": 99, "threshold": 2}, [[1 - 0.999 * sqrt(2), 4 + 0.999 * sqrt(2)]] * 2),
        ("a_only", [[3, 2]] * 2),
        ({"name": "random", "low": 2, "high": 2}, [[2, 2]] * 2),
        ("sleeper", OWN),
        ({"name": "sleeper", "until": 0}, [[-3, -2]] * 2),
        ({"name": "sleeper", "until": 0, "attack": "bit_flip"}, [[-10, 20], [-30, -40]]),
    ],
    ids=str,
)
def test_value_by_hand(spec: Any, expected: Any) -> None:
    close(forged(ATTACKS.build(spec)), expected)


@given(ROWS, st.sampled_from(["std", "unit", "sign"]))
def test_min_max_and_min_sum_equal_bisection(rows: Any, way: Any) -> None:
    honest, own = [[round(x, 3) for x in row] for row in rows[0]], rows[1]
    for attack, kind in ((MinMax(way=way), "max"), (MinSum(way=way), "sum")):
        expected = torch.tensor(twin.crowd(honest, way, kind), dtype=torch.float64)
        torch.testing.assert_close(forged(attack, honest, own)[0], expected, rtol=1e-6, atol=1e-5)


@given(ROWS)
def test_fang_krum_equals_its_twin(rows: Any) -> None:
    honest, own = [[round(x, 2) for x in row] for row in rows[0]], rows[1]
    expected = twin.fang_krum(honest, len(own), len(own))
    torch.testing.assert_close(
        forged(FangKrum(), honest, own)[0], torch.tensor(expected, dtype=torch.float64)
    )


def test_fang_krum_shrinks_until_krum_takes_it() -> None:
    honest = [[100 + v / 10, -100 + u / 10] for v, u in ((0, 0), (1, 0), (0, 1), (1, 1), (3, 3), (2, 0))]
    row = forged(FangKrum(), honest, [[0.0, 0.0]])
    assert row[0].tolist() == pytest.approx(twin.fang_krum(honest, 1, 1), rel=1e-9)
    assert -0.01 < row[0, 0] < 0 < row[0, 1]


@given(ROWS, st.floats(0, 1))
def test_anti_cge_equals_its_twin(rows: Any, margin: float) -> None:
    honest, own = rows
    expected = torch.tensor(twin.anti_cge(honest, len(own), margin), dtype=torch.float64)
    torch.testing.assert_close(forged(AntiCGE(margin), honest, own)[0], expected, rtol=1e-9, atol=1e-9)


def test_fang_trimmed_mean_stays_just_outside_the_honest_range_against_the_mean() -> None:
    honest = [[1.0, -6.0, 4.0, -1.0], [3.0, 8.0, -9.0, -2.0], [5.0, 2.0, -3.0, -4.0]]
    ranges = [(0.5, 1.0), (-12.0, -6.0), (4.0, 8.0), (-1.0, -0.5)]
    rows = torch.cat([forged(FangTrimmedMean(), honest, [[0.0] * 4] * 2, seed=s) for s in range(40)])
    for k, (low, high) in enumerate(ranges):
        assert low <= rows[:, k].min() < low + 0.2 * (high - low)
        assert high - 0.2 * (high - low) < rows[:, k].max() <= high
    assert len(rows.unique(dim=0)) == len(rows)


def test_random_rows_fill_their_range() -> None:
    rows = forged(Uniform(-2, 6), [[0.0] * 5000] * 3, [[0.0] * 5000] * 2)
    assert -2 <= rows.min() < -1.99
    assert 5.99 < rows.max() < 6
    assert rows.mean() == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("peak", [0.0, 3.0, 37.0, 1e4, 1e9])
@pytest.mark.parametrize("evaluations", [1, 2, 5, 20])
def test_line_search_takes_the_steps_of_its_twin(peak: float, evaluations: int) -> None:
    calls = []

    def damage(t: Any) -> Any:
        calls.append(float(t))
        return -((t - peak) ** 2)

    zero = torch.zeros((), dtype=torch.float64)
    found = float(line_search(damage, zero, evaluations, 10.0))
    assert len(calls) == evaluations
    steps, expected = calls.copy(), twin.line_search(damage, evaluations, 10.0)
    assert found == pytest.approx(expected, rel=1e-12)
    assert steps == pytest.approx(calls[evaluations:], rel=1e-12)


@pytest.mark.parametrize("attack", [OptimalALIE(), OptimalIPM()], ids=lambda a: a.name)
def test_optimal_attacks_maximise_the_distance_from_the_honest_mean(attack: Attack) -> None:
    generator = stream(1)
    honest = (torch.randn(7, 4, dtype=torch.float64, generator=generator) + 1).tolist()
    own = [[0.0] * 4] * 2
    cohort = Cohort.of(9, (1, 3))
    mean = torch.tensor(honest).double().mean(dim=0)

    def row(t: float) -> list[float]:
        if attack.name == "optimal_alie":
            return twin.along(twin.mean(honest), t, twin.std(honest))
        return twin.negative([twin.mean(honest)], t)[0]

    def rule(rows: Tensor) -> Tensor:
        return rows.sort(dim=0).values[2:-2].mean(dim=0)

    def damage(t: float) -> float:
        rows = torch.empty(9, 4, dtype=torch.float64)
        rows[list(cohort.honest)] = torch.tensor(honest, dtype=torch.float64)
        rows[[1, 3]] = torch.tensor([row(t)] * 2, dtype=torch.float64)
        return float((rule(rows) - torch.tensor(twin.mean(honest), dtype=torch.float64)).norm())

    best = row(twin.line_search(damage, 20, 10.0))
    rows = torch.zeros(9, 4, dtype=torch.float64)
    rows[list(cohort.honest)] = torch.tensor(honest, dtype=torch.float64)
    rows[[1, 3]] = torch.tensor(own, dtype=torch.float64)
    out, _ = Adversary(attack, cohort, 2).forge_rows((), 1, mean, rows, stream(0), rule)
    torch.testing.assert_close(out[1], torch.tensor(best, dtype=torch.float64))
    assert torch.equal(out[1], out[3])


def test_a_search_does_not_step_where_the_defence_gives_up_or_gives_no_number() -> None:
    def refuses(rows: Tensor) -> Tensor:
        if rows.abs().max() > 1000:
            raise TooManyFaults("too large")
        return rows.mean(dim=0)

    def gives_nan(rows: Tensor) -> Tensor:
        return rows.mean(dim=0) * float("nan")

    cohort, rows = Cohort.of(3, (2,)), torch.tensor([[1.0, 2.0], [3.0, 2.0], [0.0, 0.0]])
    adversary = Adversary(OptimalIPM(), cohort, 1)
    out, _ = adversary.forge_rows((), 1, rows[0], rows, stream(0), refuses)
    assert 500 < out.abs().max() <= 1000
    out, _ = adversary.forge_rows((), 1, rows[0], rows, stream(0), gives_nan)
    assert out[2].tolist() == [0, 0]


def said(
    attack: Attack, rounds: list[Tensor], liars: tuple[int, ...], points: Tensor | None = None
) -> Tensor:
    """What the first Byzantine worker sends in each round, `[T, d]`."""
    adversary = Adversary(attack, Cohort.of(len(rounds[0]), liars), len(liars))
    points = torch.zeros(len(rounds), rounds[0].shape[1], dtype=torch.float64) if points is None else points
    state, sent = adversary.start(points[0]), []
    for t, rows in enumerate(rounds, start=1):
        out, state = adversary.forge_rows(
            state, t, points[t - 1], rows, stream(4, t), lambda r: r.mean(dim=0)
        )
        sent.append(out[liars[0]])
    return torch.stack(sent)


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        (Stale(delay=1), [1, 1, 2, 3, 4, 5, 6]),
        (Stale(delay=3), [1, 2, 3, 1, 2, 3, 4]),
        (DelayedGradient(delay=2), [1, 2, 1, 2, 3, 4, 5]),
        (DelayedGradient(), [1, 2, 3, 4, 5, 6, 7]),
        (Straggle(period=3), [1, 1, 1, 4, 4, 4, 7]),
        (Straggle(period=1), [1, 2, 3, 4, 5, 6, 7]),
        (Replay(), [1, 1, 1, 1, 1, 1, 1]),
        (Replay(after=4), [1, 2, 3, 4, 4, 4, 4]),
        (Crash(after=2), [1, 2] + [float("nan")] * 5),
    ],
    ids=str,
)
def test_faulty_worker_sends_its_message_of_round(attack: Attack, expected: list[float]) -> None:
    rounds = [torch.tensor([[9.0], [float(t)], [9.0]], dtype=torch.float64) for t in range(1, 8)]
    got = said(attack, rounds, (1,))[:, 0]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), equal_nan=True)


def walk(n: int, d: int, last: int) -> tuple[list[Tensor], Tensor]:
    rounds = [torch.randn(n, d, dtype=torch.float64, generator=stream(2, t)) + 0.5 for t in range(last)]
    return rounds, torch.randn(last, d, dtype=torch.float64, generator=stream(2, "x")).cumsum(dim=0)


def honest_of(rounds: list[Tensor], liars: tuple[int, ...]) -> list[list[list[float]]]:
    return [rows[[i for i in range(len(rows)) if i not in liars]].tolist() for rows in rounds]


MEMORIES: list[tuple[Attack, Callable[[Any, Any], Any]]] = [
    (Hug(noise=0.7, rounds=12, threshold=8), lambda h, x: twin.hug(h, 0.7, 12, 8)),
    (Straddle(noise=1.5, rounds=9, threshold=6), lambda h, x: twin.straddle(h, 2, 1.5, 6)),
    (AOnly(noise=0.5, threshold=3), lambda h, x: twin.a_only(h, x, 0.5, 3)),
    (ROP(), lambda h, x: twin.rop(h, 1, 1, 0, 0.9, 1)),
    (
        ROP(z=3, angle=200, memory=0.4, place=0.3),
        lambda h, x: twin.rop(h, 3, sin(radians(200)), cos(radians(200)), 0.4, 0.3),
    ),
]


@pytest.mark.parametrize(("attack", "twin_of"), MEMORIES, ids=[repr(a) for a, _ in MEMORIES])
def test_attack_with_memory_equals_its_twin_over_rounds(attack: Attack, twin_of: Any) -> None:
    rounds, points = walk(7, 3, 20)
    expected = torch.tensor(twin_of(honest_of(rounds, (2, 5)), points.tolist()), dtype=torch.float64)
    torch.testing.assert_close(said(attack, rounds, (2, 5), points), expected, rtol=1e-9, atol=1e-9)


def test_default_threshold_is_the_printed_one() -> None:
    assert Hug(rounds=2000).tau(10) == pytest.approx(708.165, abs=1e-3)
    assert Hug(noise=0.5, rounds=2000).tau(10) == pytest.approx(708.165 / 2, abs=1e-3)
    assert Hug(threshold=7).tau(10) == 7


def test_hugging_and_a_only_sums_stay_under_the_threshold_at_permitted_speed() -> None:
    rounds, points = walk(10, 3, 200)
    means = torch.stack([rows[:6].mean(dim=0) for rows in rounds])
    for attack in (Hug(rounds=200, threshold=30), AOnly(rounds=200, threshold=30)):
        moves = said(attack, rounds, (6, 7, 8, 9), points) - means
        assert moves.norm(dim=1).max() <= 0.9 + 1e-12
        assert moves.cumsum(dim=0).norm(dim=1).max() <= 0.95 * 30 + 1e-9
    hugging = said(Hug(rounds=200, threshold=30), rounds, (6, 7, 8, 9), points) - means
    assert hugging.sum(dim=0).norm() > 0.9 * 30


def test_straddling_makes_a_server_with_one_radius_expel_nearly_all_honest_workers() -> None:
    last, liars = 1000, (6, 7, 8, 9)
    rounds = [torch.randn(10, 5, dtype=torch.float64, generator=stream(8, t)) for t in range(last)]
    rounds = [rows / rows.norm(dim=1, keepdim=True) for rows in rounds]
    attack = Straddle(rounds=last)
    own = said(attack, rounds, liars).cumsum(dim=0)
    honest = torch.stack([rows[:6] for rows in rounds]).cumsum(dim=0)
    far = (honest - own.unsqueeze(1)).norm(dim=2) > attack.tau(10)
    a_majority_is_near = (~far).sum(dim=1, keepdim=True) + len(liars) > 5
    assert a_majority_is_near.double().mean() > 0.9
    assert (far & a_majority_is_near).any(dim=0).sum() >= 5


def test_sleeper_hands_over_to_an_attack_that_starts_afresh() -> None:
    rounds, _ = walk(6, 4, 8)
    inner = MimicVariance(warmup=2)
    woken = said(Sleeper(inner, until=3), rounds, (0, 4))
    assert torch.equal(woken[:3], torch.stack([rows[0] for rows in rounds[:3]]))
    adversary = Adversary(inner, Cohort.of(6, (0, 4)), 2)
    state = adversary.start(rounds[0][0])
    for t, rows in enumerate(rounds[3:], start=1):
        out, state = adversary.forge_rows(state, t, rows[0], rows, stream(4, t + 3), lambda r: r.mean(dim=0))
        assert torch.equal(out[0], woken[t + 2])


def test_the_attack_inside_a_sleeper_sees_only_what_it_declares() -> None:
    @dataclass(frozen=True)
    class Curious(Attack):
        knows = frozenset({"own"})

        def forge(self, view: View, generator: torch.Generator) -> Tensor:
            return view.honest

    with pytest.raises(InvalidInput, match="'honest'"):
        forged(Sleeper(Curious(), until=0))


def test_a_sleeper_cannot_poison_data() -> None:
    with pytest.raises(InvalidInput, match="LabelFlip"):
        Sleeper(LabelFlip())


def test_sleeper_nests_in_plain_data() -> None:
    spec = {"name": "sleeper", "until": 7, "attack": {"name": "sign_flip", "scale": 3}}
    assert ATTACKS.build(spec) == Sleeper(SignFlip(scale=3), until=7)


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "optimal_alie", "evaluations": 0},
        {"name": "optimal_ipm", "first_step": 0},
        {"name": "min_max", "way": "sideways"},
        {"name": "random", "low": 2, "high": 1},
        {"name": "anti_cge", "margin": 1.5},
        {"name": "delayed_gradient", "delay": 0},
        {"name": "stale", "delay": 0},
        {"name": "straggle", "period": 0},
        {"name": "replay", "after": 0},
        {"name": "crash", "after": -1},
        {"name": "sleeper", "until": -1},
        {"name": "hug", "noise": 0},
        {"name": "straddle", "rounds": 0},
        {"name": "a_only", "threshold": -1.0},
    ],
    ids=str,
)
def test_a_bad_parameter_is_one_clear_line(spec: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        ATTACKS.build(spec)
    assert "\n" not in str(caught.value)


def test_min_max_stays_within_the_crowd_it_hides_in() -> None:
    row = torch.tensor(HONEST, dtype=torch.float64) - forged(MinMax())[0]
    assert row.norm(dim=1).max() ** 2 == pytest.approx(20)
