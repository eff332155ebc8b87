"""SafeguardSGD: its slow twin, identities, conventions of its sums, and what history is good for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from byzopt.aggregators import Krum, Mean, Median, TrimmedMean
from byzopt.aggregators.core.filters import RoundContext
from byzopt.aggregators.guards.safeguard import Safeguard
from byzopt.attacks import Shift, Variance
from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput
from byzopt.methods import RobustGD, SafeguardSGD
from byzopt.rng import stream
from byzopt.states import freeze, thaw
from byzopt.theory.safeguard import threshold
from tests.bounded import Bowl, Setup
from tests.products import sampled
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
        _, state = guard.step(state, each, RoundContext(t, each[0]))
        seen.append(state.roster.good)
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


@pytest.mark.parametrize(
    "attack, kind", sampled(["none", "sign_flip", "straddle", "hug"], [(5, None), (150, None), (5, 1.0)])
)
def test_no_honest_worker_is_expelled(attack, kind):
    d, noise = kind
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


# Thresholds that others have released, as slow loops.


def numbered(rows: list[Tensor]) -> list[np.ndarray]:
    return [each.numpy() for each in rows]


def window_end(rows: list[Tensor], length: int, seed: int) -> list[list[bool]]:
    """E2, one window: Th is how far the (⌊n/2⌋+1)-th nearest was at the last window's end, + 0.001."""
    n, seen, limit = len(rows[0]), [], np.inf
    good, sums = set(range(n)), np.zeros_like(rows[0].numpy())
    for t, each in enumerate(numbered(rows), start=1):
        if (t - 1) % length == 0:
            sums = np.zeros_like(sums)
        for i in good:
            sums[i] += each[i]
        dists = {i: {j: np.linalg.norm(sums[i] - sums[j]) for j in good} for i in good}
        order = torch.randperm(n, generator=stream(seed, "vmed", 0, t)).tolist()
        counts = {i: sum(d <= limit for d in dists[i].values()) for i in order if i in good}
        enough = [i for i, count in counts.items() if count >= n / 2]
        median = enough[0] if enough else max(counts, key=lambda i: counts[i])
        reached = sorted(dists[median].values())
        good = {j for j in good if dists[median][j] <= limit}
        if t % length == 0 and len(reached) > n // 2:
            limit = reached[n // 2] + 0.001
        seen.append([i in good for i in range(n)])
    return seen


def capped(rows: list[Tensor], length: int, cap: float, mult: float) -> list[list[bool]]:
    """E3, one window: good is rebuilt in each round with 2 mult min(cap, s)."""
    seen, sums = [], np.zeros_like(rows[0].numpy())
    for t, each in enumerate(numbered(rows), start=1):
        sums = each.copy() if (t - 1) % length == 0 else sums + each
        dists = np.linalg.norm(sums[:, None] - sums[None], axis=-1)
        middles = np.median(dists, axis=1)
        median = int(middles.argmin())
        limit = 2 * mult * min(cap, middles[median])
        seen.append((dists[median] < limit).tolist())
    return seen


@pytest.mark.parametrize("n", [9, 10])
@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_a_threshold_from_the_last_windows_end_is_its_slow_twin(n, bias):
    rows = drifting(bias, last=90, n=n)
    found = masks(Safeguard((20,), 90, measured="window_end", seed=4), rows)
    assert found.tolist() == window_end(rows, 20, 4)
    assert found[:20].all()


@pytest.mark.parametrize("n", [9, 10])
@pytest.mark.parametrize("cap, mult", [(np.inf, 1.0), (2.0, 1.0), (np.inf, 0.6)])
def test_capped_thresholds_are_their_slow_twin(n, cap, mult):
    rows = drifting(3.0, last=90, n=n)
    limits = None if cap == np.inf else (cap,)
    found = masks(Safeguard((20,), 90, limits_of=limits, measured="capped", c=mult), rows)
    assert found.tolist() == capped(rows, 20, cap, mult)
    assert not found.all()


def test_what_released_thresholds_do_to_honest_workers():
    """E2 wears honest workers down unless it resets; E3's cap expels them as soon as it is below their
    spread, and takes them back. The default does neither."""
    rows = drifting(0.0, last=400)
    worn = masks(Safeguard((20,), 400, measured="window_end"), rows)
    assert int(worn[-1].sum()) <= 6
    again = masks(Safeguard((20,), 400, measured="window_end", reset=True), rows)
    assert again[::20].all()
    tight = masks(Safeguard((20,), 400, limits_of=(0.5,), measured="capped"), rows)
    assert not tight[19].all()
    assert tight[20].sum() > tight[19].sum()
    assert masks(Safeguard((20,), 400), rows).all()


@pytest.mark.parametrize("thresholds", ["window_end", "capped"])
def test_they_find_liars_and_go_on_behind_a_run(thresholds):
    recipe = SafeguardSGD(windows=(15, 45), thresholds=thresholds, reset=True)
    run = Setup(last=100, d=150).run(recipe, Shift(by=1.0))
    assert {one.worker for one in run[-1].expelled} >= {6, 7, 8, 9}
    assert run[-1].x.isfinite().all()
    for bad in ({"noise": 1.0}, {"c": 0.4}, {"thresholds": "capped", "c": 0.4}):
        with pytest.raises(InvalidInput):
            replace(recipe, **bad)


@pytest.mark.parametrize("thresholds", ["medoid", "window_end", "capped"])
def test_released_thresholds_continue_bit_for_bit_and_run_together(thresholds):
    rows = drifting(2.0, last=60)
    guard = Safeguard((7, 20), 60, measured=thresholds, seed=2)
    state = guard.init(rows[0][0], len(rows[0]))
    pair = torch.utils._pytree.tree_map(lambda part: torch.stack([part, part]), state)
    for t, each in enumerate(rows, start=1):
        alone, state = guard.step(state, each, RoundContext(t, each[0]))
        both, pair = guard.step(
            pair, torch.stack([each, each]), RoundContext(t, torch.stack([each[0], each[0]]))
        )
        torch.testing.assert_close(both[1], alone, rtol=1e-12, atol=1e-14)
        assert torch.equal(pair.roster.good[0], state.roster.good)
        state = thaw(freeze(state), guard.init(each[0], len(each)))


def test_a_sketch_of_windows_tells_the_same_workers():
    setup = Setup(last=90, d=2000)
    for attack, liars in (("none", set()), (Shift(by=0.02), {6, 7, 8, 9})):
        runs = [setup.run(SafeguardSGD(windows=(45,), sketch=k), attack) for k in (None, 256)]
        assert runs[1][-1].state.filter.windows[0].sums.shape == (10, 256)
        assert [{one.worker for one in run[-1].expelled} for run in runs] == [liars, liars]
