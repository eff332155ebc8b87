"""The Byz-DM21 family against slow twins written from the listings, and the reductions between methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from byzopt.aggregators import NNM, Aggregator, Mean, Median, TrimmedMean
from byzopt.attacks import ATTACKS
from byzopt.cohort import Cohort
from byzopt.layout import Layout
from byzopt.methods import METHODS
from byzopt.rng import coin
from byzopt.tasks import TASKS, Task
from byzopt.wire import COMPRESSORS, Compressor, Link
from tests.reference import byz_dm21 as twin
from tests.running import play

N, F, T, SEED = 9, 2, 40, 5
RULE = NNM(f=F) >> Median()
TOP = {"name": "top_k", "k": 2}
RAND = {"name": "rand_k", "k": 3}
QSGD = {"name": "qsgd", "levels": 4}
LOGISTIC = {"name": "logistic_regression", "batch": 2}


def task_of(name: Any = LOGISTIC) -> Task:
    return TASKS.build(name).build(Cohort.of(N, F), SEED)


def run(
    method: str,
    parameters: dict[str, Any],
    attack: Any = "sign_flip",
    rule: Aggregator = RULE,
    task: Any = LOGISTIC,
    byzantine: int = F,
    lr: float = 0.3,
) -> Tensor:
    """Iterates `[T, d]`."""
    recipe = METHODS.build({"name": method, **parameters})
    built = TASKS.build(task).build(Cohort.of(N, byzantine), SEED)
    attack = ATTACKS.build(attack)
    snapshots = play(recipe, rule, attack, built, n=N, byzantine=byzantine, lr=lr, last=T, seed=SEED)
    return torch.stack([snapshot.x for snapshot in snapshots])


def problem_of(task: Task, p: float = 0.0) -> twin.Problem:
    return twin.Problem(
        N,
        task.start(),
        lambda i, t, x: task.grads(x, task.draw(t))[i],
        lambda i, x: task.grads(x, task.full())[i],
        lambda t: coin(SEED, t, p),
    )


def flip(i: int, t: int, rows: list[Tensor]) -> Tensor | None:
    return -torch.stack(rows[: N - F]).mean(dim=0) if i >= N - F else None


def server(rule: Aggregator = RULE, lr: float = 0.3) -> twin.Server:
    return twin.Server(lr, lambda rows: rule(torch.stack(rows)), flip)


def press(data: Any, way: str = "up", rows: int = N) -> twin.Press:
    """A compressor for one row, with that row of the round's draws."""
    compressor: Compressor = COMPRESSORS.build(data)

    def one(row: Tensor, i: int, t: int) -> Tensor:
        link = Link(t, SEED, Layout.flat(len(row)), way=way)
        noise = link.uniform(row.new_empty(rows, len(row)))[i] if compressor.random else None
        return compressor.compress(row, noise)

    return one


def top2(row: Tensor, i: int, t: int) -> Tensor:
    return twin.top(row, 2)


def close(found: Tensor, path: list[Tensor]) -> None:
    torch.testing.assert_close(found, torch.stack(path), rtol=1e-12, atol=1e-12)


CASES: dict[str, tuple[str, dict[str, Any], Callable[[twin.Problem], list[Tensor]]]] = {
    "dm21": (
        "byz_dm21",
        {"eta_v": 0.3, "eta_u": 0.2, "compressor": TOP},
        lambda p: twin.dm21(p, server(), top2, 0.3, 0.2, T),
    ),
    "vr_dm21": (
        "byz_vr_dm21",
        {"eta_v": 0.3, "eta_u": 0.2, "compressor": TOP},
        lambda p: twin.dm21(p, server(), top2, 0.3, 0.2, T, vr=True),
    ),
    "sgdm": (
        "byz_ef21_sgdm",
        {"eta": 0.3, "compressor": TOP},
        lambda p: twin.sgdm(p, server(), top2, 0.3, T),
    ),
    "ef21": ("byz_ef21", {"compressor": TOP}, lambda p: twin.ef21(p, server(), top2, T)),
    "ef21_bc": (
        "byz_ef21_bc",
        {"compressor": TOP, "down": TOP},
        lambda p: twin.ef21(p, server(), top2, T, top2),
    ),
    "ef21_bc_rand": (
        "byz_ef21_bc",
        {"compressor": TOP, "down": RAND | {"scaled": False}},
        lambda p: twin.ef21(p, server(), top2, T, press(RAND | {"scaled": False}, "down", 1)),
    ),
    "csgd": ("br_csgd", {"compressor": RAND}, lambda p: twin.csgd(p, server(), press(RAND), T)),
    "diana": ("br_diana", {"compressor": RAND}, lambda p: twin.diana(p, server(), press(RAND), 3 / 20, T)),
    "ef_sign": ("ef_sign", {}, lambda p: twin.error_feedback(p, server(), press("scaled_sign"), T)),
    "marina": (
        "byz_vr_marina",
        {"p": 0.3, "compressor": QSGD},
        lambda p: twin.marina(p, server(), press(QSGD), T, own_base=False),
    ),
    "marina2": (
        "byz_vr_marina2",
        {"p": 0.3, "compressor": QSGD},
        lambda p: twin.marina(p, server(), press(QSGD), T, own_base=True, whole=True),
    ),
    "dasha": (
        "byz_dasha_page",
        {"p": 0.3, "compressor": RAND},
        lambda p: twin.dasha(p, server(), press(RAND), 1 / (2 * 17 / 3 + 1), T),
    ),
    "lsvrg": ("br_lsvrg", {"p": 0.3}, lambda p: twin.lsvrg(p, server(), T)),
    "mvr": ("br_mvr", {"eta": 0.3}, lambda p: twin.storm(p, server(), 0.3, T)),
}


@pytest.mark.parametrize("case", CASES)
def test_every_method_is_its_listing(case):
    method, parameters, listed = CASES[case]
    found = run(method, parameters)
    close(found, listed(problem_of(task_of(), 0.3)))
    assert not torch.equal(found[0], found[-1])


IDENTITY = {"compressor": "identity"}
SAME = [
    ("both weights 1: stochastic EF21 without compression is robust SGD", "byz_dm21",
     {"eta": 1.0, **IDENTITY}, "robust_gd", {}),
    ("one weight 1 (v)", "byz_dm21", {"eta_v": 1.0, "eta_u": 0.2, "compressor": TOP},
     "byz_ef21_sgdm", {"eta": 0.2, "compressor": TOP}),
    ("one weight 1 (u)", "byz_dm21", {"eta_v": 0.2, "eta_u": 1.0, "compressor": TOP},
     "byz_ef21_sgdm", {"eta": 0.2, "compressor": TOP}),
    ("VR with η_v = 1", "byz_vr_dm21", {"eta_v": 1.0, "eta_u": 0.2, "compressor": TOP},
     "byz_ef21_sgdm", {"eta": 0.2, "compressor": TOP}),
    ("VR with η_u = 1 and no compression is MVR", "byz_vr_dm21", {"eta_v": 0.2, "eta_u": 1.0, **IDENTITY},
     "br_mvr", {"eta": 0.2}),
    ("SGDM without compression", "byz_ef21_sgdm", {"eta": 0.2, **IDENTITY},
     "robust_sgdm", {"eta": 0.2, "start": "first_gradient"}),
    ("CSGD without compression", "br_csgd", IDENTITY, "robust_gd", {}),
    ("DIANA without compression", "br_diana", IDENTITY, "robust_gd", {}),
    ("error feedback without compression", "ef_sign", IDENTITY, "robust_gd", {}),
    ("two ways, broadcast uncompressed", "byz_ef21_bc", {"compressor": TOP, "down": "identity"},
     "byz_ef21", {"compressor": TOP}),
    ("weights by one name", "byz_dm21", {"eta": 0.3, "compressor": TOP},
     "byz_dm21", {"eta_v": 0.3, "eta_u": 0.3, "compressor": TOP}),
]  # fmt: skip


@pytest.mark.parametrize("what, a, with_a, b, with_b", SAME, ids=[case[0] for case in SAME])
def test_reductions(what, a, with_a, b, with_b):
    torch.testing.assert_close(run(a, with_a), run(b, with_b), rtol=1e-12, atol=1e-12)


FULL = {"name": "logistic_regression", "batch": 0}  # exact gradients from every oracle
EXACT = [
    ("byz_ef21", IDENTITY),
    ("byz_vr_marina2", {"p": 0.3, **IDENTITY}),
    ("byz_dasha_page", {"p": 0.3, **IDENTITY}),
    ("byz_vr_marina", {"p": 1.0, "compressor": RAND}),
    ("byz_vr_marina2", {"p": 1.0, "compressor": RAND}),
    ("br_lsvrg", {"p": 0.3}),
    ("br_mvr", {"eta": 0.2}),
    ("byz_vr_dm21", {"eta_v": 0.2, "eta_u": 1.0, **IDENTITY}),
]


@pytest.mark.parametrize("method, parameters", EXACT)
def test_without_noise_and_compression_they_are_robust_gradient_descent(method, parameters):
    found, plain = run(method, parameters, task=FULL), run("robust_gd", {}, task=FULL)
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-12)


def test_marina_with_the_aggregate_as_base_is_not_even_then():
    found = run("byz_vr_marina", {"p": 0.1, **IDENTITY}, task=FULL)
    assert not torch.allclose(found, run("robust_gd", {}, task=FULL), rtol=1e-6)


def test_diana_with_beta_one_has_the_wire_of_ef21():
    unbiased = {"name": "natural"}  # ω = 1/8: contractive as well
    found = run("br_diana", {"beta": 1.0, "compressor": unbiased})
    plain = run("byz_dm21", {"eta": 1.0, "compressor": unbiased})
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-12)


def test_without_liars_the_mean_needs_only_the_mean_of_messages():
    for method in ("byz_dm21", "byz_vr_dm21", "byz_ef21", "byz_ef21_sgdm"):
        more = {"attack": "none", "rule": Mean(), "byzantine": 0}
        long = run(method, {"compressor": TOP}, **more)
        short = run(method, {"compressor": TOP, "shortcut": True}, **more)
        torch.testing.assert_close(short, long, rtol=1e-12, atol=1e-12)


def test_variance_reduction_on_exact_gradients_keeps_v_exact():
    recipe = METHODS.build({"name": "byz_vr_dm21", "eta": 0.1, "compressor": TOP})
    task = task_of(FULL)
    for snapshot in play(recipe, RULE, "alie", task, n=N, byzantine=F, lr=0.3, last=T, seed=SEED):
        exact = task.grads(snapshot.asked, task.full())
        torch.testing.assert_close(snapshot.state.engine.worker.v, exact, rtol=1e-12, atol=1e-12)


def test_variance_reduction_is_not_single_momentum():
    """The wrong form, with last round's own gradient for s', would collapse to it."""
    vr = run("byz_vr_dm21", {"eta": 0.2, "compressor": TOP})
    single = run("byz_ef21_sgdm", {"eta": 0.2, "compressor": TOP})
    assert torch.equal(vr[0], single[0])
    assert not torch.allclose(vr[2], single[2], rtol=1e-6)


def test_starts():
    task = task_of()
    s = task.grads(task.start(), task.draw(1))
    for init, v, u in (("first", 1.0, 1.0), ("zero", 0.3, 0.06), ("released", 1.0, 1.0)):
        recipe = METHODS.build(
            {"name": "byz_dm21", "eta_v": 0.3, "eta_u": 0.2, "init": init, "compressor": TOP}
        )
        first = next(iter(play(recipe, Mean(), "none", task, n=N, byzantine=F, last=1, seed=SEED)))
        worker, wire = first.state.engine.worker, first.state.engine.wire
        torch.testing.assert_close(worker.v, v * s, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(worker.u, u * s, rtol=1e-12, atol=1e-12)
        if init == "released":
            assert wire.worker.equal(s)
            assert wire.server.equal(s)
            assert first.x.equal(task.start())
            assert first.state.bits == 32 * task.layout.d
        else:
            assert wire.server.equal(wire.worker)
            assert ((wire.worker != 0).sum(dim=1) <= 2).all()


def sign(diffs: list[Tensor]) -> Tensor:
    return top2(-torch.stack(diffs).mean(dim=0), 0, 0)


def inner(diffs: list[Tensor]) -> Tensor:
    return top2(-0.1 * torch.stack(diffs).mean(dim=0), 0, 0)


RELEASED: dict[str, tuple[dict[str, Any], twin.Start]] = {
    # method: parameters, the released worker's first round
    "byz_vr_dm21": ({"eta": 0.3, "init": "released"}, twin.double_start),
    "byz_vr_dm21 zero": ({"eta": 0.3, "init": "zero"}, twin.vr_double_start),
    "byz_dm21": ({"eta": 0.3, "init": "released"}, twin.double_start),
    "byz_ef21_sgdm": ({"eta": 0.3, "init": "released"}, twin.top_start),
}


@pytest.mark.parametrize("attack", ["none", "sign_flip", "ipm"])
@pytest.mark.parametrize("case", RELEASED)
def test_as_released_is_the_release_on_the_same_gradients(case, attack):
    """The released server keeps no memory of liars: it adds their messages to the last honest worker's g."""
    (parameters, start), method = RELEASED[case], case.split()[0]
    lie = {"none": None, "sign_flip": sign, "ipm": inner}[attack]
    recipe = METHODS.build({"name": method, "compressor": TOP, **parameters})
    given = {"name": "ipm", "scale": 0.1} if attack == "ipm" else attack
    byzantine = F if lie else 0
    task = TASKS.build(LOGISTIC).build(Cohort.of(N, byzantine), SEED)
    where = {"placement": "message", "base": "last_honest"} if lie else {}
    found = play(
        recipe, RULE, ATTACKS.build(given), task, n=N, byzantine=byzantine, lr=0.3, last=T, seed=SEED, **where
    )
    path = torch.stack([snapshot.x for snapshot in found])
    listed = twin.release(
        problem_of(task),
        0.3,
        lambda rows: RULE(torch.stack(rows)),
        top2,
        method,
        start,
        0.7,
        T,
        byzantine,
        lie,
    )
    close(path, listed)
    still = task.start().equal(path[0])
    assert still == (parameters["init"] == "released")  # the first step has length 0, and it alone
    assert not torch.equal(path[0], path[1])


def test_byz_ef21_as_released_sends_its_first_gradients_raw():
    found = run("byz_ef21", {"compressor": TOP, "init": "released"})
    close(found, twin.ef21(problem_of(task_of()), server(), top2, T, raw=True))


@pytest.mark.parametrize("placement", ["free", "state", "message"])
def test_both_ends_agree_from_the_first_round_of_a_released_start(placement):
    recipe = METHODS.build({"name": "byz_dm21", "init": "released", "compressor": TOP})
    for snapshot in play(
        recipe, TrimmedMean(f=2), "alie", task_of(), n=N, byzantine=F, last=5, seed=SEED, placement=placement
    ):
        wire = snapshot.state.engine.wire
        assert torch.equal(wire.worker[: N - F], wire.server[: N - F])


def test_ratio_of_weights():
    assert METHODS.build({"name": "byz_vr_dm21", "eta": 0.04, "weights": "ratio"}).both == (0.04, 0.2)
    assert METHODS.build({"name": "byz_dm21", "eta": 0.04}).both == (0.04, 0.04)
    assert METHODS.build({"name": "byz_dm21", "eta_v": 0.5, "eta_u": 0.1}).both == (0.5, 0.1)
    for alone in ("eta_v", "eta_u"):
        assert METHODS.build({"name": "byz_dm21", alone: 0.3}).both == (0.3, 0.3)
    assert METHODS.build({"name": "byz_vr_dm21", "eta_v": 0.25, "weights": "ratio"}).both == (0.25, 0.5)
