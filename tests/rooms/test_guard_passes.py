"""Guards by a kernel, in one pass over rows and sums: the slow twin's decisions, and those of plain torch."""

from __future__ import annotations

from functools import partial
from math import inf, nan

import numpy as np
import pytest
import torch

from byzopt import kernels, linalg
from byzopt.aggregators import Mean, Median
from byzopt.aggregators.core.filters import RoundContext
from byzopt.aggregators.guards import majority, passes
from byzopt.aggregators.guards.guard import HistoryGuard
from byzopt.aggregators.guards.safeguard import Safeguard
from byzopt.attacks import Shift
from byzopt.cohort import Cohort
from byzopt.methods import ByzantineSGD, SafeguardSGD
from byzopt.theory.byzantine_epochs import Epoch
from tests.bounded import Bowl
from tests.products import sampled
from tests.reference import byzantine_sgd as twin
from tests.running import play


@pytest.fixture(autouse=True)
def _small_rows_too(monkeypatch):
    """Kernels for rows of any size, which else are for many numbers."""
    monkeypatch.setattr(passes, "SMALL", 0)
    monkeypatch.setattr(majority, "DIRECT", 0)
    monkeypatch.setattr(passes, "LOOK", 100)


pytestmark = pytest.mark.skipif(not kernels.kernels_available(), reason="needs llvmlite")

N, D, LIARS = 9, 1003, 3  # no whole number of vectors
PLAN = (Epoch(7, 1.0, 0.1), Epoch(60, 1.0, 0.1))
GUARDS = {
    "medoid": HistoryGuard(PLAN, 1.0),
    "random": HistoryGuard(PLAN, 1.0, "printed"),
    "over good": HistoryGuard(PLAN, 1.0, adaptive_a=True, over_good=True),
    "sketch": HistoryGuard(PLAN, 1.0, sketch=99),
    "another rule": HistoryGuard(PLAN, 1.0, rule=Median(f=LIARS)),
    "pairs": HistoryGuard(PLAN, None, f=LIARS),
    "pairs, sketch": HistoryGuard(PLAN, None, f=LIARS, sketch=99),
    "windows": Safeguard((4, 11), 60, noise=1.0),
    "windows, random": Safeguard((4, 11), 60, noise=1.0, finder="random"),
    "windows, normalised": Safeguard((4, 11), 60, noise=1.0, sums="normalised", reset=True),
    "windows, measured": Safeguard((4, 11), 60, measured="medoid"),
    "windows, capped": Safeguard((4,), 60, measured="capped", limits_of=(3.0,)),
    "windows, ended": Safeguard((4,), 60, measured="window_end", limits_of=(3.0,)),
    "windows, pairs": Safeguard((4, 11), 60, measured="pairs", f=LIARS),
    "windows, sketch": Safeguard((4, 11), 60, noise=1.0, sketch=99),
}


def far(rows, t):
    """Liars 5 deviations away, and a drifting one. The first is soon expelled, and then sends NaN."""
    rows[-1] += 5 / D**0.5
    rows[-2, : D // 2] += 0.3 * t / D**0.5
    if t > 5:
        rows[-1] = nan


def hidden(rows, t):
    """A number that is not finite, where no look at some columns finds it, from round 3 on."""
    rows[-1, -1] = inf if t >= 3 else 0.0


def huge(rows, t):
    """A finite row whose square overflows in float32."""
    rows[-1] = 1e25


def central(rows, t):
    """Liars amid the others in the columns that are looked at, and far from them in all others."""
    looked = torch.zeros(D, dtype=torch.bool)
    looked[passes.looked_at(torch.arange(D).unsqueeze(0))[0]] = True
    middle = rows[:-LIARS].mean(dim=0)
    rows[-LIARS:] = torch.where(looked, middle, middle + 3.5 / D**0.5)


LIES = {"far": far, "hidden": hidden, "huge": huge, "central": central, "none": lambda rows, t: None}


def sent(t, lie, dtype):
    """Honest noise of length 0.7 about a common gradient that dwarfs it."""
    rows = torch.randn(N, D, generator=torch.Generator().manual_seed(t), dtype=dtype)
    rows = 3 + 0.7 * rows / rows.norm(dim=1, keepdim=True)
    lie(rows, t)
    return rows


def played(guard, lie, dtype=torch.float32, rounds=range(1, 13), state=None):
    x, answers = torch.zeros(D, dtype=dtype), []
    state = guard.init(x, N) if state is None else state
    for t in rounds:
        answer, state = guard.step(state, sent(t, lie, dtype), RoundContext(t, x - 0.01 * (t - 1)))
        answers.append(answer)
    return torch.stack(answers), state


def sums_of(guard, state):
    """The sums of all workers but the last, whose rows may be huge, about the first one's."""
    each = [state.sums.b] if isinstance(guard, HistoryGuard) else [window.sums for window in state.windows]
    return torch.cat([sums[:-1] - sums[0] for sums in each], dim=1)


def assert_alike(guard, found, wanted):
    (answers, state), (plain, expected) = found, wanted
    assert guard.expelled(state) == guard.expelled(expected)
    assert all(torch.equal(a, b) for a, b in zip(state.roster, expected.roster, strict=True))
    eps = torch.finfo(answers.dtype).eps
    # Means of N numbers near 3, or one of 1e25: sums in two orders differ by N units of the last place.
    torch.testing.assert_close(answers, plain, rtol=2 * N * eps, atol=2 * N * 3 * eps)
    # 12 additions of numbers near 3, about rows that may differ: each rounds sums below 36, of which a sketch
    # adds up D / 99.
    most = 36 * (D / 99 if guard.sketch else 1)
    torch.testing.assert_close(
        sums_of(guard, state), sums_of(guard, expected), rtol=0, atol=4 * 12 * most * eps
    )


@pytest.mark.parametrize(("name", "lie"), sampled(GUARDS, LIES))
def test_guards_decide_alike_with_kernels_and_without(name, lie):
    guard = GUARDS[name]
    with kernels.disabled():
        wanted = played(guard, LIES[lie])
    assert_alike(guard, played(guard, LIES[lie]), wanted)


@pytest.mark.parametrize("name", ["medoid", "windows"])
def test_they_decide_alike_in_float64(name):
    with kernels.disabled():
        wanted = played(GUARDS[name], far, torch.float64)
    assert_alike(GUARDS[name], played(GUARDS[name], far, torch.float64), wanted)


@pytest.mark.parametrize("bias", [3.2, 2.0])
def test_byzantine_sgd_by_a_kernel_is_its_slow_twin(bias):
    liars = 3
    task = Bowl(Cohort.of(9, liars), d=4, noise=0.4, seed=3)
    run = list(
        play(ByzantineSGD(noise=0.4, diameter=1.0), Mean(), Shift(by=bias), task, 9, liars, lr=0.1, last=60)
    )

    def send(k, x):
        rows = task.grads(torch.from_numpy(x), task.draw(k))
        rows[6:] = rows[:6].mean(dim=0) + bias
        return list(rows.numpy())

    path, answer, _, why = twin.byzantine_sgd(np.zeros(4), send, 9, 60, 0.1, 0.4, 1.0)
    asked = torch.stack([s.asked for s in run])
    torch.testing.assert_close(asked, torch.from_numpy(np.stack(path[:-1])), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(run[-1].x, torch.from_numpy(answer), rtol=1e-12, atol=1e-12)
    assert {one.worker: (one.round, one.reason) for one in run[-1].expelled} == why
    assert why


@pytest.mark.parametrize("sums", ["raw", "printed"])
def test_safeguard_by_a_kernel_is_its_slow_twin(sums):
    windows = (7, 25)
    limits = tuple(1.8 * w**0.5 / (1 if sums == "raw" else 9) for w in windows)
    task = Bowl(Cohort.of(9, 3), d=4, noise=1.0)
    recipe = SafeguardSGD(windows=windows, limits=limits, sums=sums)
    run = list(play(recipe, Mean(), Shift(by=0.8), task, 9, 3, lr=0.1, last=60))

    def send(k, x):
        rows = task.grads(torch.from_numpy(x), task.draw(k))
        rows[6:] = rows[:6].mean(dim=0) + 0.8
        return list(rows.numpy())

    path, good = twin.safeguard(np.zeros(4), send, 9, 60, 0.1, windows, limits, sums != "raw")
    asked = torch.stack([s.asked for s in run])
    torch.testing.assert_close(asked, torch.from_numpy(np.stack(path[:-1])), rtol=1e-12, atol=1e-12)
    assert set(range(9)) - {one.worker for one in run[-1].expelled} == good
    assert 6 <= len(good) < 9


@pytest.mark.parametrize("name", ["medoid", "random", "pairs", "windows", "windows, pairs"])
def test_ordinary_rows_are_read_in_one_pass(name, monkeypatch):
    guard, calls, made = GUARDS[name], [], kernels.fused_history
    state = played(guard, LIES["none"], rounds=range(1, 4))[1]

    def counted(*args, **more):
        calls.append(args)
        return made(*args, **more)

    def refused(look, rows, *args, **more):
        assert rows.shape[-1] < D, "rows are read once more"
        return look(rows, *args, **more)

    monkeypatch.setattr(kernels, "fused_history", counted)
    for module, look in (
        (linalg, "gram"),
        (majority, "norms"),
        (majority, "distances"),
        (majority, "projections"),
    ):
        monkeypatch.setattr(module, look, partial(refused, getattr(module, look)))
    monkeypatch.setattr(linalg, "blend", lambda *args: pytest.fail("the mean is taken once more"))
    played(guard, LIES["none"], rounds=range(4, 7), state=state)
    assert len(calls) == 3


@pytest.mark.parametrize("name", ["medoid", "pairs", "windows", "sketch"])
def test_a_run_goes_on_from_a_state_of_plain_torch(name):
    guard = GUARDS[name]
    with kernels.disabled():
        half = played(guard, far, rounds=range(1, 7))[1]
        wanted = played(guard, far, rounds=range(7, 13), state=half)
    assert_alike(guard, played(guard, far, rounds=range(7, 13), state=half), wanted)


@pytest.mark.parametrize("name", ["medoid", "windows"])
def test_states_that_are_held_are_never_written_to(name, monkeypatch):
    monkeypatch.setattr(majority, "MANY", 1)
    guard, state, held = GUARDS[name], None, []
    for t in range(1, 9):
        state = played(guard, far, rounds=[t], state=state)[1]
        big = state.sums.b if isinstance(guard, HistoryGuard) else state.windows[0].sums
        held.append((big, big.clone()))
    assert all(torch.equal(sums, copy) for sums, copy in held)
    assert len({sums.data_ptr() for sums, _ in held}) == len(held)


def test_a_centre_that_proves_far_is_not_kept(monkeypatch):
    """Three liars are the medoids of what is looked at, and every pass about one of them is made again."""
    centres, made = [], kernels.fused_history

    def counted(rows, factors, centre, *args, **more):
        centres.append(int((rows == centre).all(dim=1).nonzero()[0]))
        return made(rows, factors, centre, *args, **more)

    monkeypatch.setattr(kernels, "fused_history", counted)
    played(GUARDS["medoid"], central, rounds=range(1, 4))
    assert all(first >= N - LIARS > second for first, second in zip(centres[::2], centres[1::2], strict=True))
