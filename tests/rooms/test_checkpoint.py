"""Checkpoints: a continued run is the uninterrupted one bit for bit; damage is found."""

from __future__ import annotations

import json
import os
import random
import signal
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from byzopt.aggregators import NNM, Krum
from byzopt.attacks import ATTACKS, Adversary, Remembering
from byzopt.checkpoint import load, save
from byzopt.cohort import Cohort
from byzopt.engines import Simulated, Snapshot, begin, rounds
from byzopt.errors import InvalidInput, Status
from byzopt.experiments import Spec, run
from byzopt.experiments import load as load_spec
from byzopt.experiments.specs.overrides import apply_settings
from byzopt.experiments.store.checkpoint_timer import CheckpointTimer
from byzopt.files import write_atomically
from byzopt.intakes import INTAKES
from byzopt.layout import Layout
from byzopt.methods import METHODS
from byzopt.servers import ServerContext
from byzopt.states import freeze, thaw
from byzopt.tasks import Task
from tests.products import sampled
from tests.short_methods import short

SPEC = {"task": "quartic", "rule": "nnm >> krum", "attack": "alie", "rounds": 12, "lr": 0.1, "eval_every": 5}


class Bowl(Task):
    """f_i(x) = ‖x - c_i‖²/2 in any dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.cohort, self.layout = Cohort.of(12, 3), Layout(("w", "b"), ((4, 3), (4,)))
        generator = torch.Generator().manual_seed(5)
        self.centres = torch.randn(12, 16, generator=generator, dtype=torch.float64).to(dtype)

    def start(self) -> Tensor:
        return torch.ones(16, dtype=self.centres.dtype)

    def draw(self, t: int) -> int:
        return t

    def full(self) -> int:
        return 0

    def grads(self, x: Tensor, batch: int) -> Tensor:
        return x - self.centres * (1 + 0.1 * batch)

    def measure(self, x: Tensor) -> dict[str, float]:
        return {"loss": float(x @ x)}


REMEMBERING = [name for name in ATTACKS if issubclass(ATTACKS[name], Remembering)]


def same(a: object, b: object) -> bool:
    """Equality of states to the last bit."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and a.equal(b)
    if isinstance(a, tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize(
    "method, dtype, attack",
    sampled(METHODS, ["float64", "float32"], [*REMEMBERING, "bit_flip"]),
)
def test_every_state_continues_from_its_file_bit_for_bit(method, dtype, attack, tmp_path):
    task = Bowl(getattr(torch, dtype))
    built = METHODS.build(short(method), n=12, f=3, noise=50.0).build(NNM(f=3) >> Krum(f=3), 0.1, 16)
    last, cut = (8, 2) if attack == "autobyz" else (16, 6)  # a search asks a guard a hundred times a round
    attack = {"name": attack, "budget": "cheap"} if attack == "autobyz" else attack
    adversary = Adversary(ATTACKS.build(attack), task.cohort, 3)
    engine = Simulated(task, built.worker, built.wire, adversary, 0)
    start = begin(built, task.start(), ServerContext(task.layout, lambda x: (x @ x) ** 2), task.n)
    whole: list[Snapshot] = list(rounds(built, engine, start, last))
    save(tmp_path / "state.pt", {"state": freeze(whole[cut].state)})
    found = thaw(load(tmp_path / "state.pt")["state"], whole[0].state)
    assert same(found, whole[cut].state)
    rest = list(rounds(built, engine, found, last))
    assert len(rest) == last - cut - 1
    assert all(
        same(a.state, b.state) and a.report() == b.report()
        for a, b in zip(whole[cut + 1 :], rest, strict=True)
    )


class Inner(NamedTuple):
    rows: Tensor
    count: int


class Outer(NamedTuple):
    inner: Inner
    layout: Layout
    nothing: None
    plain: tuple[float, ...]


STATE = Outer(Inner(torch.arange(6.0).view(2, 3), 4), Layout.flat(3), None, (0.5, 0.25))


def test_nested_states_come_back_in_their_own_types():
    assert same(thaw(freeze(STATE), STATE), STATE)


@pytest.mark.parametrize(
    "other",
    [
        STATE._replace(plain=(0.5,)),
        STATE._replace(plain=(0.5, 1)),
        STATE._replace(inner=Inner(torch.zeros(3, 2), 4)),
        STATE._replace(inner=Inner(torch.zeros(2, 3, dtype=torch.float64), 4)),
        STATE._replace(nothing=3),
        (),
    ],
)
def test_a_state_that_does_not_fit_its_template_is_refused(other):
    with pytest.raises(InvalidInput, match="should fit"):
        thaw(freeze(other), STATE)


@pytest.mark.parametrize("where", [0, 25, 60, 400, -1])
def test_one_changed_byte_of_a_checkpoint_is_found(where, tmp_path):
    path = tmp_path / "c.pt"
    save(path, {"x": torch.ones(100)})
    raw = bytearray(path.read_bytes())
    raw[where] ^= 1
    path.write_bytes(raw)
    with pytest.raises(InvalidInput, match="damage"):
        load(path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr("os.replace", lambda *names: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def spec(*settings: str) -> Spec:
    return Spec.of(apply_settings(SPEC, settings))


def stop_at(*places: tuple[str, int]):
    return lambda name, t: (name, t) in places


@pytest.mark.parametrize("task", ["quartic", "digits"])
@pytest.mark.parametrize("attack", ["alie", "mimic_variance", "sleeper"])
def test_a_continued_run_has_the_records_of_an_uninterrupted_one(task, attack, tmp_path):
    one = spec(f"task={task}", f"attack={attack}", "compare.mean.rule=mean")
    whole = run(one, out=tmp_path / "whole")
    out = tmp_path / "parts"
    for place in [("main", 1), ("main", 7), ("mean", 5), ("mean", 11)]:
        assert run(one, out=out, on_round=stop_at(place)).interrupted
        assert {path.name for path in out.iterdir()} == {"spec.toml", "checkpoint.pt"}
    parts = run(one, out=out)
    assert {path.name for path in out.iterdir()} == {"spec.toml", "records.parquet", "result.json"}
    for name, outcome in whole.outcomes.items():
        assert parts.outcomes[name].records == outcome.records
        assert parts.outcomes[name].status is Status.COMPLETED
        assert parts.outcomes[name].x.equal(outcome.x)
    assert (out / "records.parquet").read_bytes() == (tmp_path / "whole" / "records.parquet").read_bytes()


CLOCKED = {"task": {"name": "quadratic", "proxy": "worker"}, "method": "robust_sgdm", "attack": "flooding"}
NOISY = {"name": "digits", "model": "linear", "batch": 8}
# Runs whose state is more than an iterate and momenta: mailboxes, clocks, noise, averages of both ends.
KILLED = {
    **{f"intake {name}": CLOCKED | {"asynchrony": {"intake": name}} for name in INTAKES},
    "safe_dshb": {"task": NOISY, "method": {"name": "safe_dshb", "noise_multiplier": 0.1}},
    "safe_dshb by samples": {
        "task": NOISY,
        "method": {"name": "safe_dshb", "epsilon": 20.0, "per": "sample"},
    },
    "clip21": {"task": NOISY, "method": {"name": "clip21", "noise_multiplier": 0.1}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLED)
def test_a_run_that_is_killed_at_random_rounds_ends_on_the_same_bits(name, tmp_path, monkeypatch):
    monkeypatch.setattr(CheckpointTimer, "due", property(lambda self: True))  # after every round
    changes = KILLED[name]
    rule = (
        "median"
        if changes.get("asynchrony", {}).get("intake") in (None, "unique", "fed_buff", "latest")
        else "mean"
    )
    settings = {"rule": rule, "rounds": 24, "eval_every": 4, "lr": 0.05, "n": 10, "f": 2, "attack": "sleeper"}
    one = Spec.of(settings | changes | {"compare": {"slower": {"lr": 0.01}}})
    whole = run(one, out=tmp_path / "whole")
    draw, kills, out = random.Random(name), 0, tmp_path / "parts"
    while not (out / "result.json").exists():
        child = get_context("fork").Process(target=_killed, args=(one, out, draw.randint(4, 14)))
        child.start()
        child.join()
        assert child.exitcode in (0, -signal.SIGKILL)
        kills += child.exitcode == -signal.SIGKILL
    assert kills >= 2
    found = run(one, out=out)
    assert found.outcomes.keys() == whole.outcomes.keys()
    assert all(found.outcomes[key].records == ended.records for key, ended in whole.outcomes.items())
    assert (out / "records.parquet").read_bytes() == (tmp_path / "whole" / "records.parquet").read_bytes()


def _killed(one: Spec, out: Path, at: int) -> None:
    """Play on, and die after so many rounds, before the checkpoint of the last of them is written."""
    heard = 0

    def on_round(name: str, t: int) -> bool:
        nonlocal heard
        heard += 1
        if heard == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    run(one, out=out, on_round=on_round)


def test_a_checkpoint_in_the_form_of_before_is_continued_bit_for_bit(tmp_path):
    one = spec("compare.mean.rule=mean")
    assert run(one, out=tmp_path / "a", on_round=stop_at(("mean", 7))).interrupted
    kept = load(tmp_path / "a" / "checkpoint.pt")
    former = {"ended": kept["ended"], "current": "mean", "progress": kept["running"]["mean"]}
    save(tmp_path / "a" / "checkpoint.pt", former)
    rounds: list[tuple[str, int]] = []
    parts = run(one, out=tmp_path / "a", on_round=lambda name, t: rounds.append((name, t)))
    assert rounds[0] == ("mean", 8)
    assert {n: o.records for n, o in parts.outcomes.items()} == {
        n: o.records for n, o in run(one).outcomes.items()
    }


def test_a_run_that_fails_right_after_its_checkpoint_has_the_same_last_record(tmp_path):
    one = spec("rule=mean", "attack={name='sleeper', until=7, attack='nan'}")
    assert run(one, out=tmp_path / "a", on_round=stop_at(("main", 7))).interrupted
    assert run(one, out=tmp_path / "a").main.records == run(one).main.records


def test_a_finished_run_is_read_back_without_work(tmp_path):
    first = run(spec("compare.mean.rule=mean"), out=tmp_path / "r")
    again = run(spec("compare.mean.rule=mean"), lambda *seen: pytest.fail("it ran"), tmp_path / "r")
    assert again.main.records == first.main.records
    assert (again.status, again.main.rounds) == (first.status, first.main.rounds)
    assert list(again.outcomes) == list(first.outcomes)


def test_fresh_runs_again_in_the_same_directory(tmp_path):
    seen: list[str] = []
    for _ in range(2):
        run(spec(), lambda name, record: seen.append(name), tmp_path / "r", fresh=True)
    assert len(seen) == 8


def test_a_directory_of_another_spec_or_of_something_else_is_refused_and_left_alone(tmp_path):
    run(spec(), out=tmp_path / "r")
    before = (tmp_path / "r" / "result.json").read_bytes()
    with pytest.raises(InvalidInput, match="of this spec"):
        run(spec("seed=1"), out=tmp_path / "r", fresh=True)
    assert (tmp_path / "r" / "result.json").read_bytes() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    for place in (
        tmp_path / "mine",
        tmp_path / "mine" / "thesis.txt",
        tmp_path / "mine" / "thesis.txt" / "x",
    ):
        with pytest.raises(InvalidInput):
            run(spec(), out=place, fresh=True)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_an_empty_directory_is_used(tmp_path):
    assert run(spec(), out=tmp_path).out == tmp_path
    assert (tmp_path / "result.json").exists()


@pytest.mark.parametrize("name", ["result.json", "records.parquet", "checkpoint.pt"])
@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"", lambda raw: raw[::-1]])
def test_a_damaged_file_is_refused_and_fresh_gets_over_it(name, damage, tmp_path):
    unfinished = name == "checkpoint.pt"
    run(spec(), out=tmp_path / "r", on_round=stop_at(("main", 5)) if unfinished else None)
    path: Path = tmp_path / "r" / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InvalidInput, match="damage"):
        run(spec(), out=tmp_path / "r")
    assert run(spec(), out=tmp_path / "r", fresh=True).status is Status.COMPLETED


def test_a_result_says_what_it_was_computed_with(tmp_path):
    run(spec(), out=tmp_path / "r")
    found = json.loads((tmp_path / "r" / "result.json").read_text())
    assert found["id"] == spec().id
    assert {"byzopt", "torch"} <= set(found["environment"]["packages"])
    assert load_spec(tmp_path / "r" / "spec.toml").id == spec().id
