"""Optimizers over ranks: parity with torch and the simulated engine, faults, states, errors on all ranks."""

from __future__ import annotations

import io
import pickle
import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import byzopt.distributed
from byzopt.aggregators import Krum, Mean, rule_from
from byzopt.attacks import Adversary
from byzopt.attacks.flips import BitFlip
from byzopt.cohort import Cohort
from byzopt.distributed import (
    RankCheckpoints,
    RobustDM21,
    RobustNSGDM,
    RobustOptimizer,
    RobustSGD,
    Suspicion,
    robust_all_reduce,
)
from byzopt.engines import Simulated, begin, rounds
from byzopt.errors import InvalidInput, TooManyFaults
from byzopt.methods import METHODS, Method
from byzopt.servers import Descent, ServerContext
from byzopt.tasks import TASKS
from byzopt.wire import Direct
from byzopt.workers import Estimator
from tests.products import sampled
from tests.ranks import play_ranks

ROUNDS = 6


def small_model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()


def batch_of(rank, t):
    generator = torch.Generator().manual_seed(1000 * rank + t)
    inputs = torch.randn(8, 5, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(3, (8,), generator=generator)


def backward(model, rank, t):
    model.zero_grad()
    inputs, labels = batch_of(rank, t)
    loss = nn.functional.cross_entropy(model(inputs), labels)
    loss.backward()
    return loss


def vector(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def as_torch(rank, robust):
    model = DistributedDataParallel(small_model())
    if robust:
        optimizer = RobustSGD(model, 0.1, momentum=0.9, rule=Mean())
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for t in range(ROUNDS):
        backward(model, rank, t)
        optimizer.step()
    return vector(model)


def test_with_the_mean_it_is_torchs_sgd_under_ddp():
    ours, theirs = play_ranks(3, as_torch, True), play_ranks(3, as_torch, False)
    for out in ours:
        assert torch.equal(out, ours[0])
        assert torch.allclose(out, theirs[0], rtol=1e-12, atol=1e-13)


def over_task(rank, method, task_name, attacked, topology, rule):
    cohort = Cohort.of(5, 1)
    task = TASKS.build(task_name).build(cohort, seed=3)
    x = torch.nn.Parameter(task.start().clone())
    recipe = METHODS.build(method).build(rule_from(rule, f=1), 0.1, ROUNDS)
    optimizer = RobustOptimizer([x], recipe, 0.1, topology=topology)
    path = []
    for t in range(1, ROUNDS + 1):
        x.grad = task.grads(x.detach(), task.draw(t))[rank].clone()
        if attacked and rank == 4:
            x.grad.neg_()
        optimizer.step()
        path.append(x.detach().clone())
    return torch.stack(path)


@pytest.mark.parametrize(
    "method, rule, topology",
    [
        ("byz_nsgdm", "nnm >> rfa", "sharded"),
        ("byz_nsgdm", "bucketing >> median", "sharded"),
        ("robust_sgdm", "centered_clipping", "sharded"),
        ("robust_sgdm", "centered_clipping", "server"),
        ("robust_gd", "multi_krum", "replicated"),
    ],
)
def test_iterates_are_those_of_the_simulated_engine(method, rule, topology):
    cohort = Cohort.of(5, 1)
    task = TASKS.build("quartic").build(cohort, seed=3)
    recipe = METHODS.build(method).build(rule_from(rule, f=1), 0.1, ROUNDS)
    engine = Simulated(task, recipe.worker, recipe.wire, Adversary(BitFlip(), cohort, 1), 3)
    start = begin(recipe, task.start(), ServerContext(task.layout), 5)
    path = torch.stack([snapshot.x for snapshot in rounds(recipe, engine, start, ROUNDS)])
    for found in play_ranks(5, over_task, method, "quartic", True, topology, rule):
        assert torch.allclose(found, path, rtol=1e-12, atol=1e-13)


class TwoPoints(Estimator):
    """Sends the gradient at x plus the one at x + 1, on one sample."""

    def init(self, x, oracle):
        return oracle(x) + oracle(x + 1), ()

    def step(self, state, x, oracle):
        return self.init(x, oracle)


def twice(rank):
    x = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    method = Method(TwoPoints(), Direct(), Mean().as_filter(), Descent(0.1))
    optimizer = RobustOptimizer([x], method, 0.1, same_data=True)

    def closure():
        optimizer.zero_grad()
        loss = (x**2).sum() / 2
        loss.backward()
        return loss

    x.grad = torch.zeros(2)
    with pytest.raises(InvalidInput, match="closure"):
        optimizer.step()
    assert float(optimizer.step(closure)) == 2.5
    return x.detach()


def test_a_closure_serves_estimators_that_ask_twice():
    for x in play_ranks(2, twice):
        assert torch.allclose(x, torch.tensor([1.0 - 0.3, 2.0 - 0.5]))


def broken_off(rank, folder, topology, rule):
    def trained(t_first, t_last, model, optimizer):
        for t in range(t_first, t_last):
            backward(model, rank, t)
            optimizer.step()
        return vector(model)

    def fresh(seed):
        model = small_model(seed)
        return model, RobustNSGDM(model.parameters(), 0.1, rule=rule, f=1, topology=topology)

    whole = trained(0, 2 * ROUNDS, *fresh(0))
    keep = RankCheckpoints(folder)
    model, optimizer = fresh(0)
    assert keep.restore(model=model, optimizer=optimizer) == 0
    trained(0, ROUNDS, model, optimizer)
    keep.save(ROUNDS, model=model, optimizer=optimizer)
    if rank == 0:  # one rank came further than the others before the job died
        keep.save(ROUNDS + 1, model=model, optimizer=optimizer)
    model, optimizer = fresh(7)
    assert RankCheckpoints(folder).restore(model=model, optimizer=optimizer) == ROUNDS
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    with pytest.raises(InvalidInput, match="the same optimizer"):
        optimizer.load_state_dict({**saved, "recipe": "another"})
    optimizer.load_state_dict(saved)
    return whole, trained(ROUNDS, 2 * ROUNDS, model, optimizer)


@pytest.mark.parametrize("topology, rule", [("sharded", "nnm >> rfa"), ("server", "centered_clipping")])
def test_from_a_checkpoint_it_goes_on_bit_for_bit(tmp_path, topology, rule):
    for whole, continued in play_ranks(4, broken_off, tmp_path, topology, rule):
        assert torch.equal(whole, continued)


def caught(play):
    try:
        play()
    except (InvalidInput, TooManyFaults) as error:
        return type(error).__name__, str(error), getattr(error, "rows", ())
    return "none", "", ()


def misfits(rank, topology):
    last, one, row = rank == 3, rank in (0, 3), torch.full((10,), float(rank))
    bad = {
        "shape": row[:7] if last else row,
        "dims": row.view(2, 5) if last else row,
        "dtype": row.double() if last else row,
        "integers": row.long() if last else row,
        "all integers": row.long(),
        "empty": row[:0],
    }
    rule = Krum(f=1)
    way = {"topology": topology}
    found = {name: caught(lambda v=v: robust_all_reduce(v, "median", **way)) for name, v in bad.items()}
    other = Mean() if last else rule_from("median")
    found["rule"] = caught(lambda: robust_all_reduce(row, other, **way))
    found["round"] = caught(lambda: robust_all_reduce(row, "median", t=rank, **way))
    found["f"] = caught(lambda: robust_all_reduce(row, rule, **way))
    nan = row * (float("nan") if one else 1)
    found["nan"] = caught(lambda: robust_all_reduce(nan, "trimmed_mean", f=1, **way))
    # After all that the ranks are still in step.
    out = robust_all_reduce(row * (float("nan") if last else 1), "median", **way)
    return found, out


@pytest.mark.parametrize("topology", ["sharded", "replicated", "server"])
def test_what_does_not_fit_is_refused_on_all_ranks(topology):
    results = play_ranks(4, misfits, topology)
    for found, out in results:
        for name, (kind, message, rows) in found.items():
            assert kind == ("TooManyFaults" if name == "nan" else "InvalidInput"), name
            if name in ("shape", "dims", "dtype", "integers", "rule"):
                assert "rank 3" in message, name
                assert message == results[0][0][name][1]
            assert name != "nan" or rows == (0, 3)
        assert torch.equal(out, torch.ones(10))


def hostile(rank, fault, topology):
    model = small_model()
    watch = Suspicion(every=2)
    optimizer = RobustSGD(model.parameters(), 0.1, rule="nnm >> krum", f=1, watch=watch, topology=topology)
    for t in range(ROUNDS):
        backward(model, rank, t)
        if rank == 4:
            for p in model.parameters():
                p.grad.fill_(fault)
        optimizer.step()
    seen = [vars(r) for r in watch.ranks]
    return vector(model), seen, watch.prometheus(), watch.records


def with_bad_rounds(rank, kind, bad, topology):
    seen = []
    x = nn.Parameter(torch.zeros(6, dtype=torch.float64))
    watch = lambda verdict: seen.append(verdict.dropped)  # noqa: E731
    optimizer = kind([x], 0.1, rule="median", f=1, topology=topology, watch=watch)
    for t in range(1, 7):
        x.grad = x.detach() - torch.arange(6.0) + 0.1 * rank
        if rank == 3 and t in bad:
            x.grad[2] = torch.nan
        optimizer.step()
    return seen, x.detach().clone(), optimizer.malformed


KINDS = [(RobustNSGDM, "sharded"), (RobustDM21, "server"), (RobustDM21, "replicated")]


@pytest.mark.parametrize("kind, bad", sampled(KINDS, [(1,), (3, 4)]))
def test_a_round_with_nan_costs_a_rank_that_round_alone(kind, bad):
    kind, topology = kind
    found = play_ranks(4, with_bad_rounds, kind, bad, topology)
    for seen, x, _ in found[:1] if topology == "server" else found:
        assert [t for t, dropped in enumerate(seen, start=1) if dropped == (3,)] == list(bad)
        assert not any(dropped for t, dropped in enumerate(seen, start=1) if t not in bad)
        assert x.isfinite().all()
        assert torch.equal(x, found[0][1])


@pytest.mark.parametrize("fault, topology", [(float("nan"), "sharded"), (1e30, "sharded"), (1e30, "server")])
def test_a_faulty_rank_is_survived_and_suspected(fault, topology):
    results = play_ranks(5, hostile, fault, topology)
    for rank, (x, seen, text, records) in enumerate(results):
        assert torch.equal(x, results[0][0])
        assert x.isfinite().all()
        assert float(x.abs().max()) < 10
        if topology == "server" and rank:
            assert seen == []
            continue
        assert len(records) == ROUNDS // 2
        assert seen[4]["expulsions_total"] == 3
        assert seen[4]["nonfinite_total"] == (3 if fault != fault else 0)
        assert max(s["suspicion"] for s in seen[:4]) < seen[4]["suspicion"]
        assert 'byzopt_nonfinite_total{rank="4"}' in text


def what_is_pickled(rank):
    """Calls of pickle and of collectives on objects, in all topologies and in `RankCheckpoints.restore`."""
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        for module, names in (
            (pickle, ("dumps", "loads", "dump", "load", "Pickler", "Unpickler")),
            (dist, [name for name in dir(dist) if "object" in name]),
            (torch, ("save", "load")),
        ):
            for name in names:
                patch.setattr(module, name, lambda *_, n=name, **__: seen.append(n))
        model = small_model()
        for topology in ("sharded", "replicated", "server"):
            optimizer = RobustSGD(model.parameters(), 0.1, rule="nnm >> median", f=1, topology=topology)
            for t in range(2):
                backward(model, rank, t)
                optimizer.step()
        for topology in ("replicated", "server"):
            RobustDM21(model.parameters(), 0.1, f=1, topology=topology).step()
        RankCheckpoints(tempfile.mkdtemp()).restore()
        assert pickle.loads(b"") is None
    return seen


def test_nothing_is_pickled_on_the_wire():
    for seen in play_ranks(3, what_is_pickled):
        assert seen == ["loads"]  # the test's own, which shows that it would notice


def test_no_source_of_the_room_pickles():
    room = Path(byzopt.distributed.__file__).parent
    for path in [*room.glob("*.py"), room.parent / "engines" / "process_group.py"]:
        words = ("pickle.", "import pickle", "_object(", "_object_list", "weights_only=False")
        assert not any(word in path.read_text() for word in words), path.name


def test_suspicion_raises_alarm_and_draws_a_table():
    from byzopt.distributed import RoundDiagnostics

    alarms, records = [], []
    watch = Suspicion(eta=0.5, alarm=lambda i, s: alarms.append((i, s)), on_record=records.append)
    for t in (1, 2, 3):
        even = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
        watch(RoundDiagnostics(t, even, torch.tensor([0.1, 0.2, 5.0], dtype=torch.float64), ()))
    assert alarms == [(2, 0.75)]
    assert watch.suspects() == [2]
    assert [r["t"] for r in records] == [1, 2, 3]
    assert watch.table().row_count == 3
    with pytest.raises(InvalidInput):
        Suspicion(eta=0.0)


def test_without_a_process_group_the_error_says_what_to_do():
    with pytest.raises(InvalidInput, match="init_process_group"):
        robust_all_reduce(torch.ones(3), "median")
