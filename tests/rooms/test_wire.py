"""The wire: both ends, the ledger by hand, where the adversary acts, and what is refused before round 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from byzopt.aggregators import Mean, Median, TrimmedMean
from byzopt.attacks import ATTACKS, Adversary, Attack, View
from byzopt.cohort import Cohort
from byzopt.engines import Simulated
from byzopt.errors import BadMessage, InvalidInput
from byzopt.experiments import Spec, run
from byzopt.layout import Layout
from byzopt.methods import METHODS
from byzopt.rng import coin, stream
from byzopt.tasks import TASKS
from byzopt.tasks.logistic import LogisticTask
from byzopt.wire import (
    EF21,
    EF21P,
    QSGD,
    Diana,
    Direct,
    ErrorFeedback,
    Link,
    Marina,
    RandK,
    ScaledSign,
    TopK,
)
from byzopt.wire.messages import decode_message, encode_message
from tests.products import sampled
from tests.running import finish, play

N, B, D = 7, 2, 20
J = 2000 / 7 / 4  # what a full pass counts, nearly
TOP, RAND = {"name": "top_k", "k": 2}, {"name": "rand_k", "k": 3}
ENDS: dict[str, dict[str, Any]] = {
    "byz_dm21": {"compressor": TOP},
    "byz_vr_dm21": {"compressor": {"name": "natural"}},
    "byz_ef21": {"compressor": {"name": "scaled_sign"}},
    "byz_ef21_bc": {"compressor": TOP, "down": TOP},
    "byz_ef21_sgdm": {"compressor": {"name": "rand_k", "k": 3, "scaled": False}},
    "br_diana": {"compressor": RAND},
    "byz_vr_marina2": {"compressor": RAND, "p": 0.2},
    "byz_dasha_page": {"compressor": RAND, "p": 0.2},
}


def task(batch: int = 4):
    return TASKS.build({"name": "logistic_regression", "batch": batch}).build(Cohort.of(N, B), 3)


def steps(method: str, parameters: dict[str, Any], attack: Any = "sign_flip", last: int = 30, **more: Any):
    recipe = METHODS.build({"name": method, **parameters})
    arguments = {"n": N, "byzantine": B, "lr": 0.02, "last": last, "seed": 3} | more
    return play(recipe, TrimmedMean(f=B), ATTACKS.build(attack), task(), **arguments)


@pytest.mark.parametrize("method, placement", sampled(ENDS, ["free", "state", "message"]))
def test_both_ends_agree_bit_for_bit_for_200_rounds(method, placement):
    for snapshot in steps(method, ENDS[method], last=200, placement=placement):
        wire = snapshot.state.engine.wire
        assert wire.server[: N - B].equal(wire.worker[: N - B])


def test_free_rows_become_what_the_server_remembers():
    for snapshot in steps("byz_dm21", {"compressor": TOP}, last=20):
        wire = snapshot.state.engine.wire
        wanted = -wire.server[: N - B].mean(dim=0)
        torch.testing.assert_close(wire.server[N - B :], wanted.expand(B, D), rtol=1e-12, atol=1e-15)
        assert not wire.server[N - B].equal(wire.worker[N - B])


def test_a_state_attack_moves_no_more_than_the_wire_carries():
    before = torch.zeros(B, D, dtype=torch.float64)
    for snapshot in steps("byz_dm21", {"compressor": TOP}, last=20, placement="state"):
        server = snapshot.state.engine.wire.server
        tau = -server[: N - B].mean(dim=0)
        sent = TopK(k=2).compress(tau - before, None)
        torch.testing.assert_close(server[N - B :], before + sent, rtol=1e-12, atol=1e-15)
        before = server[N - B :]


def test_a_message_attack_sees_and_sends_messages():
    before = torch.zeros(N, D, dtype=torch.float64)
    for snapshot in steps("byz_dm21", {"compressor": TOP}, last=20, placement="message"):
        server = snapshot.state.engine.wire.server
        sent = server - before
        tau = -sent[: N - B].mean(dim=0)
        torch.testing.assert_close(sent[N - B], TopK(k=2).compress(tau, None), rtol=1e-6, atol=1e-12)
        before = server


def test_the_last_honest_worker_as_base():
    before = torch.zeros(N, D, dtype=torch.float64)
    for snapshot in steps("byz_dm21", {"compressor": TOP}, last=20, placement="message", base="last_honest"):
        server = snapshot.state.engine.wire.server
        sent = server[: N - B] - before[: N - B]
        base = before[N - B - 1]
        wanted = base + TopK(k=2).compress(-sent.mean(dim=0), None)
        torch.testing.assert_close(server[N - B], wanted, rtol=1e-6, atol=1e-12)
        before = server


def test_placements_do_not_matter_without_liars_or_compression():
    ends = [
        finish(steps("byz_ef21_sgdm", {"compressor": "identity"}, placement=p)).x for p in ("free", "state")
    ]
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-12, atol=1e-12)
    none = [
        finish(steps("byz_dm21", {"compressor": TOP}, "none", placement=p)).x
        for p in ("free", "state", "message")
    ]
    assert none[0].equal(none[2])


def test_own_messages_follow_the_protocol_wherever_the_attack_acts():
    """A worker that would lie but is told to behave is an honest one."""
    for method in ENDS:
        honest = finish(steps(method, ENDS[method], "none", placement="free"))
        for placement in ("message", "state"):
            found = finish(steps(method, ENDS[method], "none", placement=placement))
            torch.testing.assert_close(found.x, honest.x, rtol=1e-12, atol=1e-12)


FLAT = {
    # method: parameters, gradients of round 1 and later, bits and coordinates of round 1 and later
    "byz_dm21": ({"compressor": TOP}, (1, 1), (74, 74), (2, 2)),
    "byz_vr_dm21": ({"compressor": TOP}, (1, 2), (74, 74), (2, 2)),
    "byz_ef21": ({"compressor": TOP, "init": "released"}, ("J", "J"), (640, 74), (20, 2)),
    "byz_ef21_sgdm": ({"compressor": TOP, "init": "released"}, (1, 1), (640, 74), (20, 2)),
    "br_csgd": ({"compressor": RAND}, (1, 1), (111, 111), (3, 3)),
    "br_diana": ({"compressor": "natural"}, (1, 1), (180, 180), (20, 20)),
    "ef_sign": ({}, (1, 1), (52, 52), (20, 20)),
    "br_mvr": ({}, (1, 2), (640, 640), (20, 20)),
    "robust_sgdm": ({}, (1, 1), (640, 640), (20, 20)),
}


@pytest.mark.parametrize("method", FLAT)
def test_ledger_by_hand(method):
    parameters, gradients, bits, coordinates = FLAT[method]
    report = finish(steps(method, parameters, last=10)).report()
    full = task().passes
    first, later = (full if g == "J" else g for g in gradients)
    assert report["gradients"] == pytest.approx(first + 9 * later)
    assert report["bits"] == bits[0] + 9 * bits[1]
    assert report["coordinates"] == coordinates[0] + 9 * coordinates[1]
    assert (report["bits_down"], report["coordinates_down"]) == (10 * 640, 200)


def test_a_full_pass_counts_its_minibatches():
    built = task()
    sizes = [built.bounds[i + 1] - built.bounds[i] for i in range(N - B)]
    assert built.passes == sum(sizes) / len(sizes) / 4
    assert task(batch=0).passes == 1
    digits = {"name": "digits", "model": "linear", "batch": "full"}
    assert TASKS.build(digits).build(Cohort.of(N, B), 3).passes == 1


@pytest.mark.parametrize("method", ["byz_vr_marina", "byz_vr_marina2", "byz_dasha_page", "br_lsvrg"])
def test_ledger_with_coins(method):
    p, last = 0.3, 10
    parameters = {"p": p} | ({} if method == "br_lsvrg" else {"compressor": RAND})
    if method == "byz_vr_marina2":
        parameters["differences"] = "sample"
    report = finish(steps(method, parameters, last=last)).report()
    whole = sum(coin(3, t, p) for t in range(2, last + 1))
    assert 0 < whole < last - 1
    full, rest = task().passes, last - 1 - whole
    wanted = full * (1 + whole) + 2 * (last - 1 if method == "br_lsvrg" else rest)
    assert report["gradients"] == pytest.approx(wanted)
    raw, short = {"byz_dasha_page": (1, last - 1), "br_lsvrg": (last, 0)}.get(method, (1 + whole, rest))
    assert report["bits"] == 640 * raw + 111 * short
    assert report["coordinates"] == 20 * raw + 3 * short
    assert report["bits_down"] == last * (640 + 1)  # and the coin


def test_ledger_of_a_compressed_broadcast():
    report = finish(
        steps("byz_ef21_bc", {"compressor": TOP, "down": {"name": "top_k", "k": 1}}, last=10)
    ).report()
    assert (report["bits"], report["bits_down"], report["coordinates_down"]) == (740, 370, 10)


class Stream(LogisticTask):
    """A task whose samples cannot be had again."""

    replays = False


def test_refusals():
    scaled = RandK(k=2)
    for make in (
        lambda: EF21(scaled),
        lambda: ErrorFeedback(scaled),
        lambda: EF21P(scaled),
        lambda: METHODS.build({"name": "byz_dm21", "compressor": "rand_k"}).build(Median(), 0.1),
        lambda: METHODS.build({"name": "byz_ef21_bc", "down": "rand_k"}).build(Median(), 0.1),
    ):
        with pytest.raises(InvalidInput, match="contractive"):
            make()
    for make in (lambda: Direct(TopK(k=1)), lambda: Diana(ScaledSign()), lambda: Marina(TopK(k=1))):
        with pytest.raises(InvalidInput, match="unbiased"):
            make()
    for method in ("br_csgd", "br_diana", "byz_vr_marina", "byz_vr_marina2", "byz_dasha_page"):
        with pytest.raises(InvalidInput, match="unbiased"):
            METHODS.build({"name": method, "compressor": TOP}).build(Median(), 0.1)
    with pytest.raises(InvalidInput, match="shortcut"):
        METHODS.build({"name": "byz_dm21", "shortcut": True}).build(Median(), 0.1)
    for placement, base in (("inside", "own"), ("free", "last_honest"), ("state", "theirs")):
        with pytest.raises(InvalidInput):
            Adversary(ATTACKS.build("ipm"), Cohort.of(5, 1), 1, placement, base)


def spec(**changes: Any) -> Spec:
    base = {"task": "quadratic", "rule": "median", "method": "byz_dm21", "attack": "ipm"}
    return Spec.of(base | {"rounds": 6, "lr": 0.1, "n": 7, "f": 2} | changes)


def test_refusals_before_round_1():
    with pytest.raises(InvalidInput, match="contractive"):  # ω >= 1 in this dimension
        run(spec(method={"name": "byz_dm21", "compressor": {"name": "qsgd", "levels": 1}}))
    assert EF21(QSGD(levels=1))  # may be contractive in another
    shortcut = {"name": "byz_dm21", "shortcut": True}
    with pytest.raises(InvalidInput, match="Byzantine"):
        run(spec(method=shortcut, rule="mean"))
    assert run(spec(method=shortcut, rule="mean", attackers=0)).status == "completed"
    with pytest.raises(InvalidInput, match="2 f < n"):
        spec(f=4)
    built = task()
    built.__class__ = Stream
    for name in ("byz_vr_dm21", "br_mvr", "br_lsvrg", "byz_dasha_page", "byz_vr_marina"):
        method = METHODS.build(name).build(Mean(), 0.1)
        adversary = Adversary(ATTACKS.build("none"), built.cohort, B)
        with pytest.raises(InvalidInput, match="two points"):
            Simulated(built, method.worker, method.wire, adversary, 0)


def test_placement_is_part_of_the_spec():
    a, b = spec(), spec(placement="state")
    assert (a.placement, a.data["placement"], b.data["placement"]) == ("free", "free", "state")
    assert a.id != b.id
    assert Spec.of(b.data).data == b.data
    with pytest.raises(InvalidInput, match="placement"):
        spec(placement="inside")
    rule = "geometric_median"
    ends = {p: run(spec(placement=p, rule=rule)).metrics["loss"] for p in ("free", "state", "message")}
    assert len(set(ends.values())) == 3


@pytest.mark.parametrize("placement", ["free", "state", "message"])
@pytest.mark.parametrize("attack", ["nan", "inf"])
def test_malformed_rows_never_stop_a_run(attack, placement):
    for method in ("byz_dm21", "br_diana", "byz_vr_marina", "ef_sign"):
        result = run(spec(method=method, attack=attack, placement=placement, attackers=1))
        assert result.status == "completed"
        assert result.metrics["loss"] < float("inf")


@dataclass(frozen=True)
class Hiccup(Attack):
    """NaN in the rounds `at`, honest otherwise."""

    at: tuple[int, ...] = (3,)

    def forge(self, view: View, generator: torch.Generator) -> torch.Tensor:
        return view.own * float("nan") if view.t in self.at else view.own


@pytest.mark.parametrize("placement", ["state", "message"])
@pytest.mark.parametrize("method", [*ENDS, "marina2, whole"])
def test_a_malformed_message_is_a_missing_row_and_leaves_the_servers_memory(method, placement):
    """Round 3 costs the liars their rows and nothing else; what they send later counts again."""
    name, parameters = (
        ("byz_vr_marina2", {"compressor": RAND, "p": 1.0}) if "whole" in method else (method, ENDS[method])
    )
    built, built_method = task(), METHODS.build({"name": name, **parameters}).build(TrimmedMean(f=B), 0.02)
    worker, wire, down = built_method.worker, built_method.wire, built_method.down
    engine = Simulated(built, worker, wire, Adversary(Hiccup(), built.cohort, B, placement), 3, down)
    honest = Simulated(built, worker, wire, Adversary(ATTACKS.build("none"), built.cohort, B), 3, down)
    x, state, clean = built.start(), None, None
    for t in range(1, 7):
        before = None if state is None else state.wire.server
        x = x - 0.02 * t
        seen, state = engine.exchange(state, x, t, lambda rows: rows[0], x)
        whole, clean = honest.exchange(clean, x, t, lambda rows: rows[0], x)
        assert seen.rows[: N - B].equal(whole.rows[: N - B])
        assert state.wire.worker.equal(clean.wire.worker)
        assert state.wire.server.isfinite().all()
        if t == 3:
            assert seen.rows[N - B :].isnan().any(dim=1).all()
            assert state.wire.server[N - B :].equal(before[N - B :])
        else:
            assert seen.rows.isfinite().all()
    assert state.wire.faults.tolist() == [0] * (N - B) + [1] * B
    assert wire.report(state.wire) == {"malformed": B}
    assert not state.wire.server[N - B :].equal(before[N - B :])


def test_malformed_bytes_leave_the_servers_memory():
    layout, wire, top = Layout.flat(D), EF21(TopK(k=2)), TopK(k=2)
    rows = torch.randn(3, D, dtype=torch.float64, generator=stream(1))
    state, link = wire.start(rows), Link(1, 0, layout)
    sent, _, state = wire.send(state, rows, link)
    good = [encode_message(top, row, layout, 64) for row in sent]
    read = torch.stack([decode_message(top, data, layout, 64) for data in good])
    _, state = wire.receive(state, read, link)
    with pytest.raises(BadMessage):
        decode_message(top, good[0][:-1], layout, 64)
    broken = torch.cat([torch.full_like(read[:1], torch.nan), read[1:]])
    found, after = wire.receive(state, broken, link._replace(t=2))
    assert found[0].isnan().all()
    assert found[1:].equal(2 * sent[1:])
    assert after.server[0].equal(sent[0])
    assert after.faults.tolist() == [1, 0, 0]


def test_malformed_messages_are_counted_in_the_record():
    found = run(spec(attack="nan", placement="message", attackers=2))
    assert found.metrics["malformed"] == 6 * 2
    assert run(spec(placement="message")).metrics["malformed"] == 0


def test_more_malformed_messages_than_f_are_named():
    found = run(spec(attack="nan", placement="state", attackers=3))
    assert found.status == "no_majority"
