"""SafeguardSGD: its slow twin, identities, conventions of its sums, and what history is good for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from byzopt.aggregators import Krum, Mean, Median, TrimmedMean
from byzopt.aggregators.filters import At
from byzopt.aggregators.safeguard import Safeguard
from byzopt.attacks import Shift, Variance
from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput
from byzopt.methods import RobustGD, SafeguardSGD
from byzopt.rng import stream
from byzopt.theory.safeguard import threshold
from tests.bounded import Bowl, Setup
from tests.reference import byzantine_sgd as twin
from tests.running import play


@pytest.mark.parametrize("windows", [(40,), (7, 25)])
@pytest.mark.parametrize("sums", ["raw", "printed"])
def test_the_method_is_its_slow_twin(windows, sums):
    limits = tuple(1.8 * w**0.5 / (1 if sums == "raw" else 9) for w in windows)
    task = Bowl(Cohort.of(9, 3), d=4, noise=1.0)
    recipe = SafeguardSGD(windows=windows, limits=limits, sums=sums, nu=0.1, seed=5)
    run = list(play(recipe, Mean(), Shift(by=0.8), task, 9, 3, lr=0.1, last=60))

    def send(k: int, x: np.ndarray) -> list[np.ndarray]:
        rows = task.grads(torch.from_numpy(x), task.draw(k))
        rows[6:] = rows[:6].mean(dim=0) + 0.8
        return list(rows.numpy())

    def shake(k: int) -> np.ndarray:
        return 0.1 * torch.randn(4, dtype=torch.float64, generator=stream(5, "shaken", k)).numpy()

    path, good = twin.safeguard(np.zeros(4), send, 9, 60, 0.1, windows, limits, sums != "raw", shake)
    asked = torch.stack([s.asked for s in run])
    torch.testing.assert_close(asked, torch.from_numpy(np.stack(path[:-1])), rtol=1e-12, atol=1e-12)
    assert set(range(9)) - {one.worker for one in run[-1].expelled} == good
    assert 6 <= len(good) < 9


def test_nobody_expelled_is_sgd():
    run = Setup(f=0, last=50).run(SafeguardSGD(windows=(10, 30), noise=1.0))
    other = Setup(f=0, last=50).run(RobustGD())
    torch.testing.assert_close(run[-1].x, other[-1].x, rtol=1e-12, atol=1e-14)
    assert not run[-1].expelled


def masks(guard: Safeguard, rows: list[Tensor]) -> Tensor:
    state, seen = guard.init(rows[0][0], len(rows[0])), []
    for t, each in enumerate(rows, start=1):
        _, state = guard.step(state, each, At(t, each[0]))
        seen.append(state.roll.good)
    return torch.stack(seen)


def drifting(bias: float, last: int = 200, n: int = 10) -> list[Tensor]:
    rows = [torch.randn(n, 6, dtype=torch.float64, generator=stream(4, t)) / 6**0.5 for t in range(last)]
    for each in rows:
        each[-1, 0] += bias
    return rows


def test_normalised_and_raw_sums_agree_while_the_good_set_stays_and_printed_hardly_triggers():
    rows = drifting(6.0)
    guard = Safeguard((50, 200), 200, noise=1.0)
    raw, even, printed = (masks(replace(guard, sums=s), rows) for s in ("raw", "normalised", "printed"))
    assert torch.equal(raw, even)
    assert not raw[-1, -1]
    assert raw[-1, :-1].all()
    assert printed.all()


def test_theory_threshold_is_tested_twice():
    limit = threshold(200, 200, 10, 1.0)
    gone = (~masks(Safeguard((200,), 200, noise=1.0), drifting(6.0))[:, -1]).nonzero()[0].item() + 1
    assert gone == pytest.approx(2 * limit / 6, rel=0.05)


@pytest.mark.parametrize("attack", ["none", "sign_flip", "straddle", "hug"])
@pytest.mark.parametrize("d, noise", [(5, None), (150, None), (5, 1.0)])
def test_no_honest_worker_is_expelled(attack, d, noise):
    for seed in range(4):
        setup = Setup(last=80, d=d)
        run = setup.run(SafeguardSGD(windows=(20, 60), noise=noise), attack, seed)
        assert not [one for one in run[-1].expelled if one.worker < 6]


def test_history_beats_memoryless_rules():
    setup = Setup(d=150, last=200, lr=0.1, noise=10.0)
    attack = Variance(shift=0.3)
    run = setup.run(SafeguardSGD(windows=(100,)), attack)
    rounds = {one.worker: one.round for one in run[-1].expelled}
    assert set(rounds) == {6, 7, 8, 9}
    assert max(rounds.values()) <= 100
    task = Bowl(Cohort.of(10, 4), d=150, noise=10.0)

    def loss(snapshots) -> float:
        return task.measure(torch.stack([s.asked for s in snapshots[150:]]).mean(dim=0))["loss"]

    ours = loss(run)
    for rule in (Krum(f=3), Median(), TrimmedMean(f=4)):
        other = list(play(RobustGD(), rule, attack, task, 10, 4, lr=0.1, last=200))
        assert loss(other) > 2 * ours


def test_reset_trusts_all_again_with_the_longest_window():
    rows = drifting(6.0)
    good = masks(Safeguard((25, 100), 200, limits_of=(20.0, 40.0), reset=True), rows)[:, -1]
    assert not good[99]
    assert good[100]
    assert not good[199]


@pytest.mark.parametrize("attack", ["nan", "inf", "crash"])
def test_rows_that_are_not_finite_expel_their_workers_alone(attack):
    run = Setup(last=20).run(SafeguardSGD(windows=(10,), noise=1.0), attack)
    assert {(one.worker, one.reason) for one in run[-1].expelled} == {(i, "not finite") for i in (6, 7, 8, 9)}
    assert run[-1].x.isfinite().all()


def test_noise_is_inside_the_step():
    still = Setup(last=1, noise=0.0).run(SafeguardSGD())[-1].x
    moved = Setup(last=1, noise=0.0).run(SafeguardSGD(nu=2.0, seed=3))[-1].x
    drawn = torch.randn(5, dtype=torch.float64, generator=stream(3, "shaken", 1))
    torch.testing.assert_close(moved, still - 0.05 * 2.0 * drawn)


@pytest.mark.parametrize("bad", [{"windows": (3, 2)}, {"windows": ()}, {"limits": (1.0,)}, {"nu": -1.0}])
def test_what_cannot_be_is_refused(bad):
    with pytest.raises(InvalidInput):
        SafeguardSGD(**bad)
