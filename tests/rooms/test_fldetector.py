"""FLDetector and SLSGD: twins, what is seen and what is not, reductions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from byzopt.aggregators import Mean, Median, RoundContext, TrimmedMean
from byzopt.aggregators.guards.consistency import Consistency, bent, several, split
from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput
from byzopt.experiments import simulate
from byzopt.methods import SLSGD, FedAvg, FLDetector
from byzopt.schedules import InverseSqrt
from byzopt.tasks import Quadratic
from tests.reference import fldetector as twin
from tests.running import play


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("m", [1, 2, 5])
def test_the_compact_form_is_the_bfgs_matrix(m):
    root = drawn(8, 8, seed=1)
    curve = root @ root.T + torch.eye(8, dtype=torch.float64)
    steps, v = drawn(m, 8, seed=2), drawn(8, seed=3)
    changes = steps @ curve
    pairs = [(s.numpy(), y.numpy()) for s, y in zip(steps, changes, strict=True)]
    expected = twin.hessian(pairs) @ v.numpy()
    assert np.allclose(bent(steps, changes, v).numpy(), expected, rtol=1e-9)
    # The secant condition: the last step's change is met exactly.
    assert torch.allclose(bent(steps, changes, steps[-1]), changes[-1], rtol=1e-9)


def test_without_a_step_nothing_is_bent():
    assert torch.equal(bent(torch.zeros(2, 3), torch.ones(2, 3), torch.ones(3)), torch.zeros(3))


@pytest.mark.parametrize("seed", range(4))
def test_clusters_are_those_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    means = np.concatenate([rng.normal(0, 0.1, 9), rng.normal(0.5 * seed, 0.1, 3)])
    scaled = (means - means.min()) / (means.max() - means.min())
    references = rng.random((5, 12))
    assert split(scaled)[0] == pytest.approx(twin.scatter(scaled, 2)[0])
    expected = twin.upper(means, list(references))
    assert several(scaled, references) == bool(expected)
    if expected:
        assert set(np.flatnonzero(scaled > split(scaled)[1])) == expected


def rounds_of(liars, t=40, n=10, d=5, noise=0.01):
    """Rows `[t, n, d]` on bowls of one curvature and centres apart, while x walks down; and the points."""
    curve = torch.diag(torch.linspace(0.5, 2, d, dtype=torch.float64))
    centres, x, rows, points = drawn(n, d, seed=5), torch.full((d,), 3.0, dtype=torch.float64), [], []
    for k in range(t):
        sent = (x - centres) @ curve + noise * drawn(n, d, seed=100 + k)
        if liars:
            sent[-liars:] += 2 * drawn(liars, d, seed=900 + k)
        rows.append(sent)
        points.append(x)
        x = x - 0.1 * sent[: n - liars].mean(dim=0)
    return rows, points


def walk(guard, rows, points):
    state = guard.init(points[0], len(rows[0]))
    for t, (sent, x) in enumerate(zip(rows, points, strict=True), start=1):
        answer, state = guard.step(state, sent, RoundContext(t, x))
        yield answer, state


def test_scores_are_those_of_the_twin():
    rows, points = rounds_of(2, t=14)
    walked = list(walk(Consistency(window=3, warmup=4, f=0), rows, points))
    answers = [answer.numpy() for answer, _ in walked]
    given = [r.numpy() for r in rows], [x.numpy() for x in points], answers
    for t in (6, 9, 13):
        expected = [twin.scores(*given, k) for k in (t - 2, t - 1, t)]
        assert np.allclose(walked[t][1].past.scores.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("rule", [Mean(), Median(f=3)])
def test_inconsistent_liars_go_and_honest_workers_with_other_data_stay(rule):
    rows, points = rounds_of(3)
    guard = Consistency(window=5, warmup=6, f=3, rule=rule)
    answer, state = list(walk(guard, rows, points))[-1]
    gone = guard.expelled(state)
    assert [one.worker for one in gone] == [7, 8, 9]
    assert {str(one).split(", ")[1] for one in gone} == {"prediction)"}
    expected = Mean()(rows[-1][:7]) if isinstance(rule, Mean) else Median(f=0)(rows[-1][:7])
    assert torch.allclose(answer, expected, rtol=1e-12)
    assert guard.report(state) == {"expelled": 3.0, "alarms": 0.0}


def test_nobody_goes_where_all_are_honest_or_lie_alike_in_each_round():
    for bias in (0.0, 5.0):
        rows, points = rounds_of(0)
        for sent in rows:
            sent[-3:] += bias  # a constant bias is consistent: it is not seen, as the docs say
        guard = Consistency(window=5, warmup=6, f=3)
        assert guard.expelled(list(walk(guard, rows, points))[-1][1]) == ()


def test_more_than_f_who_stand_out_are_an_alarm_and_stay():
    rows, points = rounds_of(3)
    guard = Consistency(window=5, warmup=6, f=2)
    state = list(walk(guard, rows, points))[-1][1]
    assert guard.expelled(state) == ()
    assert guard.report(state)["alarms"] > 0


def test_a_row_that_is_not_finite_expels_its_worker_and_nothing_else_is_lost():
    rows, points = rounds_of(0)
    rows[8][4, 2] = float("nan")
    guard = Consistency(window=5, warmup=6, f=1)
    answers, states = zip(*walk(guard, rows, points), strict=True)
    assert [tuple(one) for one in guard.expelled(states[-1])] == [(4, 9, "not finite")]
    assert all(answer.isfinite().all() for answer in answers)
    keep = [i for i in range(10) if i != 4]
    assert torch.allclose(answers[-1], rows[-1][keep].mean(dim=0))


def test_preview_leaves_the_state_and_dtypes_stay():
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        rows, points = rounds_of(2, t=16)
        guard = Consistency(window=3, warmup=4, f=2)
        state = guard.init(points[0].to(dtype), 10)
        for t, (sent, x) in enumerate(zip(rows, points, strict=True), start=1):
            at = RoundContext(t, x.to(dtype))
            seen = guard.preview(state, sent.to(dtype), at)
            before = [part.clone() for part in state.past]
            answer, after = guard.step(state, sent.to(dtype), at)
            assert torch.equal(seen, answer)
            assert answer.dtype == dtype
            assert all(torch.equal(a, b) for a, b in zip(before, state.past, strict=True))
            state = after


def test_parameters_are_checked():
    for bad in ({"window": 0}, {"memory": 0}, {"references": 0}, {"warmup": 1}):
        with pytest.raises(InvalidInput):
            FLDetector(**bad)
    for bad in ({"steps": 0}, {"alpha": 0.0}, {"alpha": 1.5}):
        with pytest.raises(InvalidInput):
            SLSGD(**bad)


def test_training_goes_on_without_the_expelled_and_ends_lower():
    task = Quadratic(noise=0.01).build(Cohort.of(10, 3), seed=0)
    given = {"lr": 0.1, "rounds": 80, "f": 3, "attack": {"name": "gaussian", "std": 5.0}}
    plain = simulate(task, "mean", method="robust_gd", **given)
    ours = simulate(task, "mean", method=FLDetector(warmup=10), **given)
    assert [worker for worker, *_ in ours.expelled] == [7, 8, 9]
    assert ours.metrics["loss"] < 0.2 * plain.metrics["loss"]


# SLSGD.


def path(recipe, rule, **more):
    return torch.stack([s.x for s in play(recipe, rule, "sign_flip", last=6, **more)])


def test_slsgd_is_fed_avg_with_that_server_rate_to_the_bit():
    ours = path(SLSGD(steps=4, alpha=0.6), TrimmedMean(f=3), lr=1e-3)
    assert torch.equal(ours, path(FedAvg(steps=4, server_lr=0.6), TrimmedMean(f=3), lr=1e-3))


def test_slsgd_averages_the_points_as_the_paper_writes_it():
    task = Quadratic(noise=0.0).build(Cohort.of(7, 0), seed=0)
    rule, lr, steps = TrimmedMean(f=2), 0.1, 3
    x = task.start()
    for t, s in enumerate(
        play(
            SLSGD(steps=steps, alpha=0.5, mixing=InverseSqrt()),
            rule,
            "none",
            task,
            n=7,
            byzantine=0,
            lr=lr,
            last=5,
        ),
        start=1,
    ):
        points = []
        for i in range(7):
            y = x
            for _ in range(steps):
                y = y - lr * task.grads(y, task.draw(1))[i]
            points.append(y)
        alpha = 0.5 / t**0.5
        x = (1 - alpha) * x + alpha * rule(torch.stack(points))
        # Rows are differences of numbers near 1 over γ K = 0.3: 1e-15 a round.
        torch.testing.assert_close(s.x, x, rtol=1e-12, atol=1e-13)
