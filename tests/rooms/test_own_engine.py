"""An engine of one's own: the loop, runs, stores and sweeps ask nothing of it that `Engine` does not say."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from byzopt import Adversary, Cohort, InvalidInput, NoAttack, Quartic, Spec, run, simulate
from byzopt.aggregators import Krum
from byzopt.engines import ENGINES, Engine, EngineRecipe, Exchange, InProcess, begin, rounds
from byzopt.experiments.sweeps import Sweep, run_sweep
from byzopt.experiments.trials.batched import BatchedTrials, batch_groups
from byzopt.experiments.trials.method_on_engine import check_runs
from byzopt.methods import METHODS
from byzopt.methods.base import with_counts
from byzopt.servers import ServerContext
from byzopt.wire import EF21, EF21P, Broadcast, Direct, Identity, RandK, TopK
from byzopt.workers import Plain, WorkerMomentum
from tests.products import sampled

DATA = {"task": "quartic", "n": 10, "f": 3, "attackers": 0, "rule": "krum", "rounds": 30, "lr": 0.01}
DATA |= {"method": "robust_gd"}


class Twelve(Engine):
    def __init__(self, task):
        self.task = task

    @property
    def n(self):
        return self.task.n

    def exchange(self, state, x, t, defence, last=None):
        return Exchange(self.task.grads(x, self.task.draw(t)), 1.0, 32.0 * len(x)), state


@dataclass(frozen=True)
class TwelveRecipe(EngineRecipe):
    def build(self, task, method, adversary, seed):
        return Twelve(task)


@pytest.fixture(autouse=True)
def twelve(registering):
    ENGINES.register("twelve")(TwelveRecipe)


def iterates(outcome):
    """The figures of records that follow from iterates alone."""
    return [{key: record[key] for key in ("t", "loss", "grad_norm")} for record in outcome.records]


def test_the_loop_drives_it_and_its_rounds_report():
    task = Quartic().build(Cohort.of(10), 0)
    method = METHODS.build("robust_gd").build(Krum(3), 0.01)
    start = begin(method, task.start(), ServerContext(task.layout), task.n)
    *_, end = rounds(method, Twelve(task), start, 3)
    assert end.report() == {
        "aggregate_norm": float(torch.linalg.vector_norm(end.aggregate)),
        "gradients": 3.0,
        "bits": 960.0,
        "coordinates": 0.0,
        "bits_down": 0.0,
        "coordinates_down": 0.0,
    }


def test_by_name_and_by_object_it_gives_the_iterates_of_the_simulated_engine():
    task = Quartic().build(Cohort.of(10), 0)
    given = (task, "krum", 0.01, 30, 3, "robust_gd")
    wanted = iterates(simulate(*given))
    for engine in (Twelve(task), TwelveRecipe(), "twelve", {"name": "twelve"}):
        assert iterates(simulate(*given, engine=engine)) == wanted
    spec = Spec.of(DATA)
    assert iterates(run(spec, engine="twelve").main) == iterates(run(spec).main)
    assert iterates(run(spec, engine=Twelve(task)).main) == iterates(run(spec).main)


def test_its_name_is_in_the_spec_and_the_usual_one_leaves_ids_as_they_were():
    plain, own = Spec.of(DATA), Spec.of(DATA | {"engine": "twelve"})
    assert "engine" not in plain.data
    assert Spec.of(DATA | {"engine": "simulated"}).id == plain.id != own.id
    assert own.data["engine"] == {"name": "twelve"}
    assert Spec.of(own.data).data == own.data
    beside = Spec.of(DATA | {"engine": "twelve", "compare": {"usual": {"engine": "simulated"}}})
    assert Spec.of(beside.data).variants()["usual"].id == plain.id


def test_a_stored_run_on_it_goes_on_bit_for_bit(tmp_path):
    spec = Spec.of(DATA | {"engine": "twelve"})
    whole = run(spec, out=tmp_path / "whole")
    assert run(spec, out=tmp_path / "parts", on_round=lambda name, t: t == 11).interrupted
    assert run(spec, out=tmp_path / "parts").main.records == whole.main.records


def test_one_that_is_built_is_not_stored(tmp_path):
    with pytest.raises(InvalidInput, match="engine of a run that is stored should be a recipe"):
        run(Spec.of(DATA), out=tmp_path / "out", engine=Twelve(Quartic().build(Cohort.of(10), 0)))
    assert not (tmp_path / "out").exists()


def test_sweeps_play_it_alone(tmp_path):
    sweep = Sweep.of({"spec": DATA, "grid": {"engine": ["twelve", "simulated"], "seed": [0, 1]}})
    specs = sweep.specs()
    assert batch_groups(specs) == [(0,), (1,), (2, 3)]
    assert run_sweep(sweep, tmp_path, jobs=0).counts == {"completed": 4}


def test_runs_in_step_refuse_it():
    from byzopt.experiments.running import prepare_spec

    ready = [prepare_spec(Spec.of(DATA | {"seed": s, "engine": "twelve"}), {}) for s in (0, 1)]
    with pytest.raises(InvalidInput, match=r"Twelve\. Run it alone"):
        BatchedTrials(ready, None, lambda i, record: None)


def test_an_attack_that_it_does_not_play_is_refused():
    task = Quartic().build(Cohort.of(10, 3), 0)
    for engine in ("twelve", Twelve(task)):
        with pytest.raises(InvalidInput, match="Engine Twelve should let attacks forge rows"):
            simulate(task, "krum", 0.01, 30, 3, "robust_gd", attack="ipm", engine=engine)
        assert simulate(task, "krum", 0.01, 30, 3, "robust_gd", engine=engine).status == "completed"


@pytest.mark.parametrize("method", list(METHODS))
def test_a_method_is_refused_unless_the_engine_runs_all_of_it(method, tmp_path):
    built = with_counts(METHODS.build(method), 10, 3).build(Krum(3), 0.01, 30)
    plain = built.worker == Plain() and built.wire == Direct() and built.down == Broadcast()
    task = Quartic().build(Cohort.of(10), 0)
    for engine in ("twelve", Twelve(task)):
        if plain:
            check_runs(Twelve(task), built, prepared=isinstance(engine, Twelve))
            continue
        with pytest.raises(
            InvalidInput, match=r"A method on engine Twelve, which does not run `(\w+)`, should"
        ):
            simulate(task, "krum", 0.01, 30, 3, method, engine=engine)
    if not plain:
        with pytest.raises(InvalidInput, match="on engine Twelve"):
            run(Spec.of(DATA | {"engine": "twelve", "method": method}), out=tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_each_part_of_a_method_is_asked_about_alone():
    plain = METHODS.build("robust_gd").build(Krum(3), 0.01, 30)
    other = {"worker": WorkerMomentum(0.1), "wire": EF21(TopK(k=2)), "down": EF21P(TopK(k=2))}
    task = Quartic().build(Cohort.of(10), 0)
    for part, choice in (*other.items(), ("wire", Direct(RandK(k=2, scaled=True)))):
        method = replace(plain, **{part: choice})
        with pytest.raises(InvalidInput, match=f"which does not run `{part}`, should have"):
            check_runs(Twelve(task), method, prepared=False)
        able = type("Able", (Twelve,), {"runs": frozenset({part})})
        check_runs(able(task), method, prepared=False)
    check_runs(Twelve(task), replace(plain, wire=Direct(Identity(scope="tensor"))), prepared=False)


def test_one_that_was_built_before_holds_the_methods_own_parts():
    task = Quartic().build(Cohort.of(10), 0)
    adversary = Adversary(NoAttack(), task.cohort, 3)
    given = (task, "krum", 0.01, 30, 3)
    for name, other in (("byz_nsgdm", "robust_gd"), ("robust_gd", "byz_nsgdm")):
        method = METHODS.build(name).build(Krum(3), 0.01, 30)
        engine = InProcess().build(task, method, adversary, 0)
        assert iterates(simulate(*given, name, engine=engine)) == iterates(simulate(*given, name))
        with pytest.raises(
            InvalidInput, match="Engine Simulated, built before should hold the method's `worker`"
        ):
            simulate(*given, other, engine=engine)


SPOILT = {
    "n": lambda r: r[:-1],
    "d": lambda r: r[:, :-1],
    "dtype": lambda r: r.float(),
    "type": lambda r: r.tolist(),
}


@pytest.mark.parametrize(
    "attack, spoilt, method",
    sampled(
        ["none", "ipm", "alie", "sign_flip", "optimal_ipm"],
        SPOILT,
        ["robust_gd", "byz_nsgdm", "byz_dm21"],
        times=4,
    ),
)
def test_gradients_that_do_not_fit_are_refused_in_the_tasks_name(attack, spoilt, method):
    spoil = SPOILT[spoilt]

    class SpoiltTask(type(Quartic().build(Cohort.of(10), 0))):
        def grads(self, x, batch):
            return spoil(super().grads(x, batch))

    task = Quartic().build(Cohort.of(10, 2), 0)
    task.__class__ = SpoiltTask
    with pytest.raises(InvalidInput, match="The gradients of SpoiltTask should"):
        simulate(task, "krum", 0.01, 30, 3, method, attack=attack)


@pytest.mark.parametrize("spoil", [lambda r: r[:-1], lambda r: r[:, :-1], lambda r: r.float()])
def test_rows_that_do_not_fit_are_refused_in_the_engines_name(spoil):
    class Spoilt(Twelve):
        def exchange(self, state, x, t, defence, last=None):
            seen, state = super().exchange(state, x, t, defence, last)
            return seen._replace(rows=spoil(seen.rows)), state

    task = Quartic().build(Cohort.of(10), 0)
    with pytest.raises(InvalidInput, match=r"rows of engine Spoilt should have shape \[10, 10\]"):
        simulate(task, "krum", 0.01, 30, 3, "robust_gd", engine=Spoilt(task))


def test_a_recipe_that_builds_something_else_is_told_of():
    @dataclass(frozen=True)
    class Wrong(EngineRecipe):
        def build(self, task, method, adversary, seed):
            return task

    with pytest.raises(InvalidInput, match="`build` of Wrong should return an Engine"):
        run(Spec.of(DATA), engine=Wrong())


@pytest.mark.parametrize("lr", [0.0, -1.0, float("nan"), float("inf"), "0.1"], ids=str)
def test_a_wrong_lr_is_that_of_the_method_and_not_of_its_step(lr):
    for name in METHODS:
        with pytest.raises(InvalidInput, match=f"Parameter `lr` of {name} should be"):
            METHODS.build(name).build(Krum(3), lr, 10)
