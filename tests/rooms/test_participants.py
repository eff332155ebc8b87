"""Who takes part in a round: masks, what absence means to every part, and what the rule gets."""

from __future__ import annotations

import json

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from byzopt.aggregators import NNM, LastRows, Mean, Median, PresentRows, RoundContext, TrimmedMean, rule_from
from byzopt.attacks import ATTACKS, Adversary, NoAttack, View
from byzopt.certificates.promised import spec_promise
from byzopt.cohort import Cohort
from byzopt.distributed import RobustOptimizer
from byzopt.engines import Simulated, begin, rounds
from byzopt.errors import InvalidInput, Status
from byzopt.experiments import Spec, run, simulate
from byzopt.experiments.running import prepare_spec
from byzopt.experiments.trials.batched import BatchedTrials, batch_groups
from byzopt.methods import METHODS, RobustGD
from byzopt.methods.base import check_everybody
from byzopt.servers import ServerContext
from byzopt.tasks import TASKS, Quadratic
from byzopt.workers import PARTICIPANTS, All, Bernoulli, Coined, Exactly, Trace

N, F = 9, 2
LOGISTIC = {"name": "logistic_regression", "batch": 2}


def test_masks_are_functions_of_seed_and_round():
    for participants in (Bernoulli(0.4), Exactly(3), Coined(2, 7, 0.3), Trace(rounds=((0, 2), (1,)))):
        masks = [participants.mask(5, t, N) for t in range(1, 40)]
        assert all(torch.equal(a, participants.mask(5, t, N)) for t, a in enumerate(masks, start=1))
        if not isinstance(participants, Trace):
            assert any(not torch.equal(a, participants.mask(6, t, N)) for t, a in enumerate(masks, start=1))
            assert len({tuple(mask.tolist()) for mask in masks}) > 5


def test_shares_are_those_asked_for():
    counts = [int(Bernoulli(0.3).mask(0, t, 1000).sum()) for t in range(1, 51)]
    # The mean of 50,000 coins: four standard deviations are 0.0082.
    assert sum(counts) / 50_000 == pytest.approx(0.3, abs=0.0082)
    seen = torch.stack([Exactly(4).mask(1, t, 10) for t in range(1, 2001)])
    assert (seen.sum(dim=1) == 4).all()
    assert (seen.double().mean(dim=0) - 0.4).abs().max() < 0.045  # four standard deviations
    sizes = [int(Coined(2, 7, 0.25).mask(3, t, 9).sum()) for t in range(1, 2001)]
    assert sizes[0] == 7
    assert set(sizes) == {2, 7}
    assert sizes.count(7) / 2000 == pytest.approx(0.25, abs=0.039)


@pytest.mark.parametrize("participants", [All(), Bernoulli(1.0), Exactly(N), Coined(N, N)])
def test_everybody_is_no_mask(participants):
    assert participants.mask(0, 1, N) is None


def method_and_engine(participants, method="robust_gd", attack="none", byzantine=0, wire=None, seed=0):
    task = TASKS.build(LOGISTIC).build(Cohort.of(N, byzantine), seed)
    built = METHODS.recipe(method).build(Median(), 0.2, 20).among(participants)
    adversary = Adversary(ATTACKS.recipe(attack), task.cohort, byzantine)
    engine = Simulated(
        task, built.worker, wire or built.wire, adversary, seed, built.down, built.participants
    )
    return task, built, engine


def test_the_rule_gets_the_rows_of_those_who_came():
    task, method, engine = method_and_engine(Exactly(4))
    x = task.start()
    for snapshot in rounds(method, engine, begin(method, x, ServerContext(task.layout), N), 12):
        t = snapshot.state.t
        here = Exactly(4).mask(0, t, N)
        rows = task.grads(x, task.draw(t))[here]
        x = x - 0.2 * rows.median(dim=0).values  # of an even number: the lower one
        expected = Median(f=1)(rows)
        torch.testing.assert_close(snapshot.aggregate, expected, rtol=0, atol=0)
        x = snapshot.x
    assert snapshot.report()["bits"] == pytest.approx(12 * 32 * task.layout.d * 4 / 9, rel=1e-12)
    assert snapshot.report()["gradients"] == pytest.approx(12 * 4 / 9, rel=1e-12)


@pytest.mark.parametrize(
    "method", ["robust_sgdm", "byz_dm21", "byz_ef21_sgdm", "br_mvr", "fed_avg", "br_diana"]
)
def test_absentees_compute_send_and_forget_nothing(method):
    """A worker that is named in no round leaves everybody else's run as it is, whatever its data are."""
    names = tuple(tuple(i for i in range(N) if i != 3 and (i + t) % 3) for t in range(6))
    paths = []
    for seen in (False, True):
        task, built, engine = method_and_engine(Trace(rounds=names), method)
        if seen:
            engine.task.labels[engine.task.bounds[3] : engine.task.bounds[4]] = (
                1 - engine.task.labels[engine.task.bounds[3] : engine.task.bounds[4]]
            )
        start = begin(built, task.start(), ServerContext(task.layout), N)
        paths.append(torch.stack([s.x for s in rounds(built, engine, start, 8)]))
    assert torch.equal(*paths)


@pytest.mark.parametrize("method", ["robust_sgdm", "byz_ef21_sgdm", "br_diana"])
def test_a_worker_remembers_what_it_did_when_it_comes_back(method):
    """One that is away from round 2 to 4 has in round 5 the memory of round 1."""
    others = tuple(i for i in range(N) if i)
    everybody = tuple(range(N))
    present = Trace(rounds=(everybody, others, others, others, everybody))
    task, built, engine = method_and_engine(present, method)
    state = begin(built, task.start(), ServerContext(task.layout), N)
    memories = [s.state.engine for s in rounds(built, engine, state, 4)]
    flat = [torch.cat([leaf[0] for leaf in _rows_of(memory)]) for memory in memories]
    assert torch.equal(flat[0], flat[3])
    assert not torch.equal(
        torch.cat([leaf[1] for leaf in _rows_of(memories[0])]),
        torch.cat([leaf[1] for leaf in _rows_of(memories[3])]),
    )


def _rows_of(state: object) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state] if state.ndim == 2 and len(state) == N else []
    return [leaf for part in state for leaf in _rows_of(part)] if isinstance(state, tuple) else []


def context(t: int, present: list[bool] | None = None) -> RoundContext:
    mask = None if present is None else torch.tensor(present)
    return RoundContext(t, torch.zeros(1), mask)


def test_the_tolerance_is_lowered_where_few_came():
    filter = PresentRows((NNM(f=3) >> TrimmedMean(f=3)).as_filter())
    state = filter.init(torch.zeros(1), 9)
    rows = torch.arange(9.0).unsqueeze(1)
    for count, f in ((9, 3), (5, 2), (4, 1), (2, 0), (1, 0)):
        present = [i < count for i in range(9)]
        expected = (NNM(f=f) >> TrimmedMean(f=f))(rows[:count])
        assert torch.equal(filter.step(state, rows, context(1, present))[0], expected)
    least = PresentRows((NNM(f=3) >> TrimmedMean(f=3)).as_filter(), tolerated=1)
    here = [i < 5 for i in range(9)]
    assert torch.equal(least.step(state, rows, context(1, here))[0], (NNM(f=1) >> TrimmedMean(f=1))(rows[:5]))


def test_a_round_without_an_answer_moves_nothing_and_is_counted():
    filter = PresentRows(Median(f=2).as_filter())
    state = filter.init(torch.zeros(2), 5)
    rows = torch.ones(5, 2)
    out, state = filter.step(state, rows, context(1, [False] * 5))
    assert torch.equal(out, torch.zeros(2))
    rows[0] = torch.nan
    out, state = filter.step(state, rows, context(2, [True, True, False, False, False]))
    assert torch.equal(out, torch.zeros(2))  # one of two is no minority
    out, state = filter.step(state, rows, context(3, [True, True, True, False, False]))
    assert torch.equal(out, torch.ones(2))
    assert filter.report(state) == {"idle_rounds": 2.0, "lowered_rounds": 1.0}


def test_last_rows_are_kept_and_fade():
    filter = LastRows(PresentRows(Mean().as_filter()), decay=0.5)
    state = filter.init(torch.zeros(1), 3)
    told = [
        ([1.0, 9.0, 9.0], [True, False, False], 1.0),  # nobody else was heard
        ([9.0, 3.0, 9.0], [False, True, False], (0.5 + 3) / 2),
        ([4.0, 9.0, torch.nan], [True, False, False], (4 + 1.5) / 2),
        ([9.0, 9.0, 6.0], [False, False, True], (2 + 0.75 + 6) / 3),
        ([torch.nan, 1.0, 1.0], [True, True, True], 1.0),  # its fault in this round
        ([9.0, 9.0, 9.0], [False, False, False], (0.5 + 0.5 + 0.5) / 3),  # 1.0 was remembered of it
    ]
    for t, (rows, present, expected) in enumerate(told, start=1):
        at = context(t, present)
        rule = Mean() if t != 5 else Median(f=1)
        held = LastRows(PresentRows(rule.as_filter()), decay=0.5)
        before = held.preview(state, torch.tensor(rows).unsqueeze(1), at)
        out, state = held.step(state, torch.tensor(rows).unsqueeze(1), at)
        assert torch.equal(before, out)
        assert float(out) == pytest.approx(expected)


def test_a_guard_cannot_have_absentees():
    named = {"name": "byzantine_sgd", "noise": 1.0, "diameter": 1.0}, {"name": "safeguard", "noise": 1.0}
    for more in named:
        method = METHODS.build(more | {"differing": True}, n=N, f=F)
        with pytest.raises(InvalidInput, match="where not everybody takes part"):
            method.build(Mean(), 0.1, 100).among(Exactly(4))


@pytest.mark.parametrize("absent", ["drop", "keep"])
@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_plays_with_absentees(name, absent):
    if name in ("backdoor", "dba", "edge_case", "neurotoxin"):
        pytest.skip("needs images")
    other = {"label_flip": LOGISTIC, "indistinguishable": {"name": "hard_quad"}}
    task = TASKS.build(other.get(name, {"name": "quadratic", "d": 3})).build(Cohort.of(N, F), 0)
    chosen = Bernoulli(0.4, absent=absent)
    outcome = simulate(task, "median", 0.05, 8, F, "robust_sgdm", name, participants=chosen)
    assert outcome.status is Status.COMPLETED, outcome.message


def test_absent_liars_reach_nobody_and_present_ones_see_who_is_there():
    seen: list[View] = []

    class Spy(type(NoAttack())):
        knows = frozenset({"own", "honest", "defence"})

        def forge(self, view, generator):
            seen.append(view)
            return view.alike(torch.full_like(view.x, 100.0))

    cohort = Cohort(4, (0, 1))
    rows = torch.arange(8.0).view(4, 2)
    adversary = Adversary(Spy(), cohort, 1)
    ask = (torch.zeros(2), rows, torch.Generator(), lambda rows: rows.mean(0))
    none = torch.tensor([False, False, True, True])
    assert torch.equal(adversary.forge_rows((), 1, *ask, none)[0], rows)
    assert not seen
    one = torch.tensor([True, False, False, True])
    adversary.forge_rows((), 1, *ask, one)
    assert torch.equal(seen[0].honest, rows[3:])
    whole = View(1, ask[0], rows, cohort, 1, Spy.knows, ask[3], one, filled=True)
    assert whole.honest.tolist() == rows[[3, 3]].tolist()
    alone = torch.tensor([True, False, False, False])
    adversary.forge_rows((), 1, *ask, alone)
    assert torch.equal(seen[1].honest, rows[:1])


SPEC = {
    "task": LOGISTIC, "rule": "nnm >> median", "n": N, "f": F, "attack": "alie", "rounds": 12, "lr": 0.1,
    "method": {"name": "byz_dm21", "compressor": {"name": "top_k", "k": 3}}, "eval_every": 3,
}  # fmt: skip


def test_specs_name_participants_and_keep_their_ids_without():
    plain, everybody = Spec.of(SPEC), Spec.of(SPEC | {"participants": "all"})
    assert plain.id == everybody.id
    assert "participants" not in plain.data
    sampled = Spec.of(SPEC | {"participants": {"name": "exactly", "count": 4, "absent": "keep"}})
    assert sampled.id != plain.id
    assert Spec.of(json.loads(json.dumps(sampled.data))).id == sampled.id
    traced = Spec.of(SPEC | {"participants": {"name": "trace", "rounds": [[0, 1, 2], [3, 4, 5, 6]]}})
    assert Spec.of(json.loads(json.dumps(traced.data))).data == traced.data
    with pytest.raises(InvalidInput, match="at most n = 9"):
        Spec.of(SPEC | {"participants": {"name": "exactly", "count": 10}})
    with pytest.raises(InvalidInput, match=r"lie in 0\.\.8"):
        Spec.of(SPEC | {"participants": {"name": "trace", "rounds": [[9]]}})


@pytest.mark.parametrize("absent", ["drop", "keep"])
def test_runs_with_absentees_advance_together(absent):
    chosen = {"name": "bernoulli", "p": 0.5, "absent": absent}
    specs = [
        Spec.of(SPEC | {"participants": chosen if k else "all", "seed": k, "attack": attack})
        for k, attack in enumerate(["alie", "ipm", "alie", "none"])
    ]
    assert batch_groups(specs) == [(0, 1, 2, 3)]
    both = BatchedTrials([prepare_spec(one, {}) for one in specs], None, lambda i, record: None)
    for spec, end in zip(specs, both.run(lambda t: False), strict=True):
        alone = BatchedTrials([prepare_spec(spec, {})], None, lambda i, record: None).run(lambda t: False)[0]
        torch.testing.assert_close(end.x, alone.x, rtol=1e-11, atol=1e-12)
        assert end.metrics["bits"] == pytest.approx(alone.metrics["bits"], rel=1e-12)
        assert end.metrics["gradients"] == pytest.approx(alone.metrics["gradients"], rel=1e-12)


@pytest.mark.parametrize("absent", ["drop", "keep"])
def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path, absent):
    spec = Spec.of(SPEC | {"participants": {"name": "bernoulli", "p": 0.4, "absent": absent}})
    whole = run(spec)
    run(spec, out=tmp_path / "run", on_round=lambda name, t: t == 5)
    resumed = run(spec, out=tmp_path / "run")
    assert torch.equal(resumed.main.x, whole.main.x)
    assert resumed.main.records == whole.main.records


def test_no_theorem_is_told_of_a_sampled_run():
    base = SPEC | {"method": "robust_gd", "task": "quadratic", "attack": "none"}
    _, plain = spec_promise(Spec.of(base))
    _, sampled = spec_promise(Spec.of(base | {"participants": {"name": "exactly", "count": 5}}))
    assert plain.floor is not None
    assert (sampled.floor, sampled.bound, sampled.steps) == (None, None, {})
    assert any("takes part" in reason for reason in sampled.missing)


def test_an_engine_that_asks_everybody_refuses_a_sample():
    task = Quadratic().build(Cohort.of(N), 0)
    engine = Simulated(task, RobustGD().build(Mean(), 0.1).worker, RobustGD().build(Mean(), 0.1).wire,
                       Adversary(NoAttack(), task.cohort, 0), 0)  # fmt: skip
    with pytest.raises(InvalidInput, match="participants"):
        simulate(task, "mean", 0.1, 3, 0, "robust_gd", engine=engine, participants=Exactly(3))


@pytest.mark.parametrize(
    "data",
    [
        {"name": "bernoulli", "p": 0.0},
        {"name": "bernoulli", "p": 1.1},
        {"name": "bernoulli", "decay": 1.5},
        {"name": "bernoulli", "absent": "zero"},
        {"name": "bernoulli", "tolerated": -1},
        {"name": "exactly", "count": 0},
        {"name": "coin", "p": 0.0},
        {"name": "coin", "whole": 0},
        {"name": "trace"},
    ],
)
def test_what_cannot_be_is_refused(data):
    with pytest.raises(InvalidInput, match="Found"):
        PARTICIPANTS.build(data)


def test_a_method_that_samples_is_refused_where_nobody_draws_the_sample():
    method = METHODS.build("demoa").build(rule_from("median", f=1), 0.1, 4)
    with pytest.raises(InvalidInput, match="everybody take part"):
        check_everybody(method, "A method")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(InvalidInput, match="A method over ranks should have everybody take part"):
            RobustOptimizer(torch.nn.Linear(2, 1).parameters(), method, lr=0.1)
    finally:
        dist.destroy_process_group()
    everybody = METHODS.build("robust_sgdm").build(rule_from("median", f=1), 0.1, 4)
    check_everybody(everybody, "A method")
