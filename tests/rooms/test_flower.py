"""Runs of the Flower strategy over a grid in this process, beside those of the simulated engine."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from byzopt.aggregators import rule_from
from byzopt.cohort import Cohort
from byzopt.errors import ByzoptError, InvalidInput, TooManyFaults
from byzopt.layout import Layout
from byzopt.methods import METHODS, ByzNSGDM, RobustSGDM
from byzopt.methods.base import EVERYBODY
from byzopt.tasks import TASKS, Quadratic
from byzopt.wire import Channel, Cost, Direct
from tests.running import finish, play

flwr = pytest.importorskip("flwr.app", reason="needs the extra `flower`")

from byzopt.flower import Local, RobustStrategy, client_app  # noqa: E402
from byzopt.flower.records import to_arrays, to_point  # noqa: E402
from tests.flowers import PlayGrid, crash, silent  # noqa: E402

N = 20


def clients(task, **parts):
    return client_app(lambda context: Local.of_task(task, int(context.node_config["partition-id"])), **parts)


def start_of(task):
    return to_arrays(task.start(), task.layout)


def run(task, strategy, rounds, ways=None, seed=0, **parts):
    grid = PlayGrid(clients(task, **parts), task.n, ways, seed)
    return strategy.start(grid, start_of(task), num_rounds=rounds, timeout=5), grid


@pytest.mark.parametrize(
    "method", [*METHODS, {"name": "byz_nsgdm", "schedule": {"name": "anytime"}}], ids=str
)
def test_without_faults_iterates_are_those_of_the_simulated_engine(method):
    if method in ("byzantine_sgd", "safeguard"):
        method = {"name": method, "f": 3, "differing": True}  # nobody sees the clients' data
    recipe = METHODS.build(method)
    built = recipe.build(rule_from("nnm >> rfa", f=3), 0.05, 12)
    if built.wire != Direct():
        pytest.skip("its channel draws lots, or is tested below")
    if built.participants != EVERYBODY:
        pytest.skip("refused below: the strategy samples")
    task = TASKS.build({"name": "quadratic", "proxy": "worker"}).build(Cohort.of(N), 3)
    wanted = finish(
        play(recipe, rule_from("nnm >> rfa", f=3), task=task, lr=0.05, last=12, byzantine=0, seed=3)
    )
    strategy = RobustStrategy("nnm >> rfa", method=method, lr=0.05, f=3, n=N, proxy=task.proxy())
    result, _ = run(task, strategy, 12)
    got = to_point(result.arrays).x
    assert float((got - wanted.x).norm()) <= 1e-12 * float(wanted.x.norm())
    assert result.faults == {t: {} for t in range(1, 13)}
    assert result.train_metrics_clientapp[12]["bits"] == 32 * task.layout.d


def test_float32_modules_agree_with_the_simulated_engine_to_rounding():
    task = TASKS.build({"name": "digits", "hidden": [8]}).build(Cohort.of(5), 1)
    wanted = finish(play(ByzNSGDM(), rule_from("rfa", f=1), task=task, last=5, byzantine=0, n=5))
    result, _ = run(task, RobustStrategy(f=1), 5)
    assert float((to_point(result.arrays).x - wanted.x).norm()) <= 1e-6 * float(wanted.x.norm())


def forged(scale):
    """A malicious client that sends its row times `scale`."""

    def way(asked, answer):
        point = to_point(answer.content["arrays"])
        answer.content["arrays"] = to_arrays(point.x * scale, point.layout)
        return [answer]

    return way


def test_malicious_crashing_and_slow_clients_cost_less_than_a_point_of_accuracy():
    task = TASKS.build("digits").build(Cohort.of(N, 6), 0)
    rounds = 60
    wanted = finish(
        play(ByzNSGDM(), rule_from("rfa", f=6), "sign_flip", task, last=rounds, byzantine=6, lr=0.3)
    )
    ways = {19: forged(-1), 18: forged(-10), 17: forged(1e30), 16: crash, 15: crash, 14: silent}
    result, grid = run(task, RobustStrategy(lr=0.3, f=6, n=N), rounds, ways)
    accuracy = [task.measure(x)["accuracy"] for x in (to_point(result.arrays).x, wanted.x)]
    assert accuracy[0] >= accuracy[1] - 0.01
    assert accuracy[0] > 0.8
    node = grid.nodes
    crashed = "error 2: ZeroDivisionError"
    assert result.faults[rounds] == {node[14]: "no reply in time", node[15]: crashed, node[16]: crashed}
    # Node 18 is ten honest lengths away: less than what is out of the question for honest ones.
    assert set(result.watch.suspects()) == {14, 15, 16, 17}
    assert result.nodes == tuple(node)


def test_too_many_faults_stop_the_run_and_leave_the_model_alone():
    task = Quadratic().build(Cohort.of(8), 0)
    answers = {"count": 0}

    def later(asked, answer):
        answers["count"] += 1
        return [answer] if answers["count"] <= 3 * 3 else []

    strategy = RobustStrategy("median", method="robust_gd", f=2)
    with pytest.raises(TooManyFaults, match="no reply in time") as caught:
        run(task, strategy, 10, {1: later, 4: later, 6: later})
    assert caught.value.rows == (1, 4, 6)
    strict = finish(
        play(METHODS.build("robust_gd"), rule_from("median", f=2), task=task, last=3, byzantine=0)
    )
    assert torch.allclose(strategy.answer, strict.x, rtol=1e-12)
    assert list(strategy.faults) == [1, 2, 3, 4]
    assert str(strategy.server.nodes[4]) in str(caught.value)


def test_faults_within_the_tolerance_leave_the_rule_on_the_others():
    task = Quadratic().build(Cohort.of(9), 0)
    strategy = RobustStrategy("median", method="robust_gd", f=2)
    run(task, strategy, 1, {0: silent, 5: crash})
    rows = task.grads(task.start(), task.draw(1))[[1, 2, 3, 4, 6, 7, 8]]
    wanted = task.start() - 0.1 * rule_from("median", f=0)(rows)
    assert torch.allclose(strategy.answer, wanted, rtol=1e-12)


def test_rows_are_ordered_by_node_in_every_order_of_arrival():
    task = Quadratic().build(Cohort.of(N), 0)
    found = [
        run(task, RobustStrategy("nnm >> krum", f=3), 4, seed=seed)[0].arrays["x"].numpy() for seed in (1, 2)
    ]
    assert (found[0] == found[1]).all()


def test_partial_participation_asks_a_sample_and_blames_no_one_else():
    task = Quadratic().build(Cohort.of(N), 0)
    strategy = RobustStrategy("median", method="robust_gd", f=2, sample=7, n=N, seed=4)
    result, grid = run(task, strategy, 40, dict.fromkeys((0, 1), silent))
    assert grid.sent == 7 * 40
    assert set().union(*result.faults.values()) == {grid.nodes[0], grid.nodes[1]}
    assert max(r.suspicion for r in result.watch.ranks[2:]) == 0
    assert min(r.suspicion for r in result.watch.ranks[:2]) > 0.5
    assert task.measure(strategy.answer)["loss"] < 0.3 * task.measure(task.start())["loss"]


def test_a_node_that_is_gone_is_not_asked_and_counts_as_faulty():
    task = Quadratic().build(Cohort.of(7), 0)
    grid = PlayGrid(clients(task), 7)
    strategy = RobustStrategy("median", f=1)

    def leave(t, arrays):
        grid.gone = {3} if t >= 1 else set()

    result = strategy.start(grid, start_of(task), num_rounds=2, evaluate_fn=leave)
    assert result.faults == {1: {}, 2: {grid.nodes[3]: "not connected"}}
    assert grid.sent == 7 + 6


def test_strangers_are_refused_at_the_door():
    task = Quadratic().build(Cohort.of(7), 0)
    with pytest.raises(InvalidInput, match="node authentication"):
        run(task, RobustStrategy(f=1, n=6), 1)
    with pytest.raises(ByzoptError, match="within 0 s"):
        run(task, RobustStrategy(f=1, n=8, patience=0), 1)


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(InvalidInput, match="2 f < n"):
        RobustStrategy(f=4, n=8)
    with pytest.raises(InvalidInput, match="`sample`"):
        RobustStrategy(f=1, n=8, sample=9)
    with pytest.raises(InvalidInput, match="Call `start`"):
        _ = RobustStrategy(f=1).answer


def test_a_late_reply_of_another_round_and_a_second_reply_do_not_count():
    task = Quadratic().build(Cohort.of(7), 0)
    kept = []

    def late(asked, answer):
        kept.append(answer)
        return kept[-2:-1]

    result, grid = run(
        task, RobustStrategy("median", f=2), 2, {2: late, 3: lambda asked, answer: [answer, answer]}
    )
    wanted = {grid.nodes[2]: "answers no message of this round", grid.nodes[3]: "more than one reply"}
    assert result.faults[2] == wanted


def test_nobody_answers_for_another_node():
    task = Quadratic().build(Cohort.of(7), 0)

    def under_another_name(asked, answer):
        answer.metadata.__dict__["_src_node_id"] = grid.nodes[5]
        return [answer]

    grid = PlayGrid(clients(task), 7, {2: under_another_name})
    result = RobustStrategy("median", f=2).start(grid, start_of(task), num_rounds=1)
    assert result.faults[1] == {grid.nodes[2]: "no reply in time"}


def test_clients_evaluate_and_medians_are_kept():
    task = Quadratic().build(Cohort.of(7), 0)

    def boasts(asked, answer):
        answer.content["metrics"]["loss"] = -1e9
        return [answer]

    result, _ = run(task, RobustStrategy("median", f=1, evaluate=True), 2, {2: boasts})
    assert result.evaluate_metrics_clientapp[2]["loss"] == task.measure(to_point(result.arrays).x)["loss"]


@dataclass(frozen=True)
class Halves(Channel):
    """A channel with memory: the mean of the last two messages."""

    def start(self, rows):
        return (rows,)

    def send(self, state, said, link):
        return said, (state[0] + said) / 2, (said,)

    def receive(self, state, sent, link):
        return sent, state

    def compress(self, rows, link):
        return rows

    def cost(self, link):
        return Cost(8.0, 1.0)


def test_a_whole_method_brings_its_rule_and_a_strategy_may_start_again():
    task = Quadratic().build(Cohort.of(7), 0)
    method = RobustSGDM().build(rule_from("median", f=1), 0.2)
    strategy = RobustStrategy(method=method, n=7)
    rule = rule_from("median", f=1)
    wanted = finish(play(RobustSGDM(), rule, task=task, lr=0.2, last=3, byzantine=0))
    for _ in range(2):
        result, _grid = run(task, strategy, 3)
        assert torch.allclose(to_point(result.arrays).x, wanted.x, rtol=1e-12)


def test_a_channels_memory_and_a_server_step_of_ones_own():
    from byzopt.servers import Descent

    task = Quadratic().build(Cohort.of(5), 0)
    strategy = RobustStrategy("mean", method="robust_gd", f=0, step=Descent(0.5))
    result, _ = run(task, strategy, 3, wire=Halves())
    x, before = task.start(), None
    for t in (1, 2, 3):
        rows = task.grads(x, task.draw(t))
        x, before = x - 0.5 * (rows if before is None else (rows + before) / 2).mean(dim=0), rows
    assert torch.allclose(to_point(result.arrays).x, x, rtol=1e-12)
    assert result.train_metrics_clientapp[3]["bits"] == 8


def test_double_momentum_over_compressed_messages_is_that_of_the_simulated_engine():
    task = TASKS.build("quadratic").build(Cohort.of(N), 3)
    rule, recipe = rule_from("nnm >> rfa", f=3), METHODS.build("byz_dm21")
    wanted = finish(play(recipe, rule, task=task, lr=0.05, last=12, byzantine=0, seed=3))
    result, _ = run(task, RobustStrategy("nnm >> rfa", method=recipe, lr=0.05, f=3, n=N), 12)
    assert float((to_point(result.arrays).x - wanted.x).norm()) <= 1e-12 * float(wanted.x.norm())


@pytest.mark.parametrize("method", ["byz_vr_marina", "byz_ef21_bc", "demoa"])
def test_methods_that_share_more_than_the_model_are_refused(method):
    task = TASKS.build("quadratic").build(Cohort.of(N), 3)
    with pytest.raises(InvalidInput, match="A method over Flower"):
        run(task, RobustStrategy("nnm >> rfa", method=method, f=3, n=N), 1)


def test_a_client_that_comes_late_begins_its_own_momentum():
    task = Quadratic().build(Cohort.of(5), 0)
    grid = PlayGrid(clients(task), 5)

    def leave(t, arrays):
        grid.gone = {3} if t == 1 else set()
        if t == 2:
            grid.contexts[4].state.clear()  # a node that lost its memory

    strategy = RobustStrategy("median", method=RobustSGDM(), f=1)
    result = strategy.start(grid, start_of(task), num_rounds=4, evaluate_fn=leave)
    assert result.faults[3] == result.faults[4] == {}


def test_models_with_counters_among_their_arrays_are_refused():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    with pytest.raises(InvalidInput, match="arrays_of"):
        to_point(flwr.ArrayRecord(module.state_dict()))


def test_another_module_at_the_client_is_an_error_there():
    task = Quadratic(d=3).build(Cohort.of(3), 0)
    other = to_arrays(torch.ones(3), Layout(("y",), ((3,),)))
    with pytest.raises(TooManyFaults, match="same module"):
        RobustStrategy("median", f=1).start(PlayGrid(clients(task), 3), other, num_rounds=1)
