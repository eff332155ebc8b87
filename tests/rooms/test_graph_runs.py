"""Runs on a graph: reductions, the loop by hand, attacks, what theory promises, specs, stores, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from byzopt.aggregators import TrimmedMean, rule_from
from byzopt.attacks import ATTACKS, EDGE_ATTACKS, Adversary, Attack, EdgeView, Spectral
from byzopt.certificates.certified import error_bound_sentence
from byzopt.certificates.graphs import graph_facts
from byzopt.cohort import Cohort
from byzopt.engines import Graph, InProcess, OnGraph, begin, rounds, rounds_on_graph
from byzopt.errors import InvalidInput, Status
from byzopt.experiments import Spec, run, runs_table, simulate
from byzopt.experiments.sweeps import plan_sweep, run_sweep
from byzopt.experiments.sweeps.sweep import Sweep
from byzopt.graphs import Complete, ErdosRenyi, Network, Ring, TwoWorlds
from byzopt.methods import METHODS
from byzopt.methods.base import with_counts
from byzopt.mixers import GTS, MIXERS, CSPlus, Gossip, Hearing, Screen
from byzopt.servers import ServerContext
from byzopt.states import freeze, map_leaves, thaw
from byzopt.tasks import TASKS
from byzopt.theory import gossip as theory
from tests.reference import gossip as twin

BASE = {"task": {"name": "quadratic", "d": 6}, "rounds": 8, "lr": 0.1, "method": "robust_sgdm"}
WORLDS = {"topology": {"name": "two_worlds", "k": 4}, "mixer": "cs+", "liars": "everywhere"}


def on_graph(
    graph: Graph, n: int, byzantine: int = 0, attack: Any = "none", rule: Any = "mean", **more: Any
) -> OnGraph:
    cohort = Cohort.of(n, byzantine)
    task = TASKS.build({"name": "quadratic", "d": 6} | more.pop("task", {})).build(cohort, 0)
    b = more.pop("b", byzantine)
    method = METHODS.recipe(more.pop("method", "robust_gd")).build(
        rule_from(rule, f=b), more.pop("lr", 0.1), 100
    )
    room = EDGE_ATTACKS if attack in EDGE_ATTACKS and attack not in ATTACKS else ATTACKS
    adversary = Adversary(attack if isinstance(attack, Attack) else room.build(attack), cohort, b)
    return OnGraph(adversary.poison(task), method, graph, adversary, b, 0)


def played(one: OnGraph, last: int) -> Any:
    return list(rounds_on_graph(one, one.begin(), last))


def spec(**changes: Any) -> Spec:
    return Spec.of(BASE | {"n": 14, "f": 2, "graph": WORLDS} | changes)


@pytest.mark.parametrize(
    "method", ["robust_gd", "robust_sgdm", "server_sgdm", "fed_avg", "br_mvr", "br_lsvrg", "nesterov"]
)
def test_full_averaging_on_a_complete_graph_is_a_server(method: str) -> None:
    cohort = Cohort.of(9)
    one = on_graph(Graph(Complete(), Gossip(alpha=1 / 9)), 9, method=method)
    built = one.method
    engine = InProcess().build(one.task, built, one.adversary, 0)
    state = begin(built, one.task.start(), ServerContext(one.task.layout), cohort.n)
    server = list(rounds(built, engine, state, 6))
    for alone, graph in zip(server, played(one, 6), strict=True):
        assert (graph.x - alone.x).abs().max() < 1e-12
        assert (graph.nodes - graph.x).abs().max() < 1e-12


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_on_a_graph_or_says_why_not(method: str) -> None:
    graph = Graph(Complete(), CSPlus(), spread=0.1)
    try:
        task = {"proxy": "worker", "heterogeneity": 0.0}
        recipe = with_counts(METHODS.recipe(method), 9, 2)
        one = on_graph(graph, 9, 2, "ipm", method=recipe, task=task)
    except InvalidInput as error:
        assert "on a graph" in str(error)  # noqa: PT017
        return
    assert played(one, 4)[-1].nodes.isfinite().all()


def test_nodes_share_no_memory_and_write_to_none() -> None:
    one = on_graph(Graph(Ring(), Gossip()), 6, method="robust_sgdm")
    state = one.begin()
    first = played(one, 1)[0].state
    for leaf in state.step:
        if isinstance(leaf, Tensor) and leaf.ndim == 2:
            assert len({row.data_ptr() for row in leaf}) == 6
    assert torch.equal(state.step.x, one.starts)
    assert torch.equal(one.starts, one.task.start().expand(6, -1))
    # In a round from one point each node moves by its own gradient alone, and then mixes.
    moved = one.starts - 0.1 * 0.1 * one.task.grads(one.task.start(), one.task.draw(1))
    laplacian = one.network.laplacian
    assert (first.step.x - (moved - laplacian @ moved / one.network.largest)).abs().max() < 1e-14


@pytest.mark.parametrize("order", ["adapt_combine", "combine_adapt"])
def test_the_loop_by_hand(order: Any) -> None:
    """D-SGD with momentum, and BRIDGE-T where nodes mix first: node by node."""
    graph = Graph(ErdosRenyi(p=0.8), Screen(own="beside"), order=order)
    one = on_graph(graph, 10, 1, "sign_flip", "trimmed_mean", method={"name": "robust_sgdm", "eta": 0.3})
    task, x = one.task, one.starts.clone()
    v = torch.zeros_like(x)
    for t, seen in enumerate(played(one, 4), start=1):
        grads = torch.stack([task.grads_of(x[i], task.draw(t), slice(i, i + 1))[0] for i in range(10)])
        v = 0.7 * v + 0.3 * grads
        said = x - 0.1 * v if order == "adapt_combine" else x
        lie = -said[9]
        told = twin.heard(Hearing(one.network, 1, said[:9], lie[None]).edges, said[:9], lie[None], False)
        mixed = said.clone()
        for i in range(9):
            ranked = torch.stack([row for _, row in told[i]]).sort(dim=0).values[1:-1]
            mixed[i] = torch.cat([said[i : i + 1], ranked]).mean(dim=0)
        mixed[9] = mixed[:9].mean(dim=0)  # a liar holds the mean of the honest
        x = mixed if order == "adapt_combine" else mixed - 0.1 * v
        assert (seen.nodes - x[:9]).abs().max() < 1e-13


@pytest.mark.parametrize("attack", ["spectral", "mimic", "gaussian"])
def test_a_checkpoint_continues_bit_for_bit(attack: str) -> None:
    graph = Graph(TwoWorlds(k=4), CSPlus(), liars="everywhere", spread=0.5)
    one = on_graph(graph, 14, 2, attack, method="robust_sgdm")
    whole = played(one, 6)
    middle = thaw(freeze(whole[2].state), whole[0].state)
    *_, last = rounds_on_graph(one, middle, 6)
    assert torch.equal(last.nodes, whole[-1].nodes)
    assert last.report() == whole[-1].report()


@pytest.mark.parametrize("name", [*ATTACKS, *EDGE_ATTACKS])
def test_every_attack_can_act_on_a_graph(name: str) -> None:
    room = EDGE_ATTACKS if name in EDGE_ATTACKS and name not in ATTACKS else ATTACKS
    try:
        attack = room.build(name)
    except InvalidInput:  # parameters that only a user can give
        return
    if type(attack).poison is not Attack.poison:
        return  # of tasks with labels
    one = on_graph(Graph(TwoWorlds(k=4), CSPlus(), liars="everywhere"), 14, 2, attack)
    snapshot = played(one, 3)[-1]
    assert snapshot.nodes.isfinite().all()
    assert snapshot.reach < 100


# The theorem.


@pytest.mark.parametrize("mixer", ["cs+", "gts", "he", "oracle"])
@pytest.mark.parametrize("attack", [*EDGE_ATTACKS, "alie", "ipm", "sign_flip", "gaussian", "huge", "nan"])
def test_one_step_contracts_as_theory_says_under_every_attack(attack: str, mixer: str) -> None:
    graph = Graph(TwoWorlds(k=5), MIXERS.build(mixer), liars="everywhere", spread=1.0)
    one = on_graph(graph, 21, 1, attack, lr=1e-15)
    network, rho = one.network, graph.mixer.rho
    assert rho is not None
    assert network.connectivity > 2 * rho  # 10 > 8
    alpha = graph.mixer.step(network)
    factor, drift = theory.contraction(alpha, network.connectivity, rho, 1), theory.drift(alpha, rho, 1)
    for seen in played(one, 6):
        middle = seen.said.mean(dim=0)
        before = (seen.said - middle).square().sum()
        after = (seen.mixed - middle).square().sum()
        assert after <= factor * before * (1 + 1e-9)
        moved = (seen.mixed.mean(dim=0) - middle).square().sum()
        assert moved <= drift * before / len(seen.said) * (1 + 1e-9)


@pytest.mark.slow
def test_breakdown_of_gts_and_stall_of_cs_plus() -> None:
    ends = {}
    for name in ("cs+", "gts", "he"):
        graph = Graph(TwoWorlds(k=8), MIXERS.build(name), liars="everywhere", spread=1.0)
        one = on_graph(graph, 32, 6, "spectral", lr=1e-15)
        ends[name] = played(one, 60)[-1].report()["consensus_error"]
    assert ends["gts"] > 1e10
    assert 0.05 < ends["cs+"] < 1
    assert ends["he"] < 1e-3


# Attacks on edges.


def view(network: Network, rows: Tensor, b: int, mixer: Any) -> EdgeView:
    h = len(network.cohort.honest)

    def defence(lies: Tensor) -> Tensor:
        return mixer.mix(Hearing(network, b, rows[:h], lies, True))

    knows = frozenset({"honest", "defence"})
    return EdgeView(1, rows[:h].mean(dim=0) + 1, rows, network.cohort, b, knows, defence, network)


@pytest.mark.parametrize("name", EDGE_ATTACKS)
def test_no_single_length_moves_a_node_farther_than_the_search(name: str) -> None:
    network = Network.of(TwoWorlds(k=4), Cohort.of(14, 2), attachment="everywhere")
    rows = torch.randn(14, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for mixer in (CSPlus(), GTS(), MIXERS.build("he")):
        seen, attack = view(network, rows, 2, mixer), EDGE_ATTACKS.build(name)
        u = attack.directions(seen)  # type: ignore[attr-defined]
        unit = u / u.norm(dim=1, keepdim=True)

        def gain(lies: Tensor, unit: Tensor = unit, seen: EdgeView = seen) -> Tensor:
            return ((seen.defence(lies) - rows[:12]) * unit).sum(dim=1)

        found = gain(attack.forge_edges(seen, torch.Generator()))
        for scale in (0.0, 0.3, 1.0, 3.0, 30.0):
            fixed = EDGE_ATTACKS.build({"name": name, "scale": scale})
            assert (gain(fixed.forge_edges(seen, torch.Generator())) <= found + 0.35).all()
        assert (found >= gain(seen.towards(rows[:12])) - 1e-12).all()  # than to say what the receiver says


def test_directions_are_those_of_their_formulas() -> None:
    network = Network.of(Ring(), Cohort.of(8, [7]))
    rows = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    seen = view(network, rows, 1, CSPlus())

    def of(name: str) -> Tensor:
        return EDGE_ATTACKS.build(name).directions(seen)  # type: ignore[attr-defined, no-any-return]

    for i in range(7):
        near = [j for j in network.neighbours(i) if j != 7]
        assert torch.allclose(of("dissensus")[i], sum(rows[i] - rows[j] for j in near))  # type: ignore[arg-type]
        here = rows[[i, *near]]
        assert torch.allclose(of("local_alie")[i], here.std(dim=0, correction=0))
        assert torch.allclose(of("local_ipm")[i], torch.ones(3, dtype=torch.float64))
    v = network.fiedler
    assert torch.allclose(of("spectral"), torch.outer(v, v @ rows[:7]))
    signs = of("two_faced").sign()[:, 0]
    assert set(signs.tolist()) == {-1.0, 1.0}


# Specs, stores, what is refused.


def test_a_spec_with_a_graph_is_plain_data_with_an_id_of_its_own() -> None:
    one = spec()
    assert Spec.of(one.data).data == one.data
    assert one.data["graph"]["topology"] == {"name": "two_worlds", "k": 4}
    assert one.id != spec(graph=WORLDS | {"mixer": "gts"}).id
    assert "graph" not in Spec.of(BASE | {"rule": "median"}).data  # other specs keep their ids
    assert spec(attack="spectral").attack == Spectral()


def test_a_run_is_stored_continued_and_shown(tmp_path: Path) -> None:
    one = spec(attack="spectral", eval_every=2)
    whole = run(one, out=tmp_path / "whole")
    assert whole.main.status is Status.COMPLETED
    assert {"loss", "loss_worst", "loss_nodes", "disagreement", "drift", "bits"} <= whole.metrics.keys()
    assert whole.metrics["loss_worst"] >= whole.metrics["loss_nodes"] >= whole.metrics["loss"] - 1e-12
    stopped = run(one, out=tmp_path / "parts", on_round=lambda name, t: t == 3)
    assert stopped.interrupted
    assert run(one, out=tmp_path / "parts").main.records == whole.main.records


@pytest.mark.parametrize(
    "graph,rule", [(WORLDS, "mean"), (WORLDS | {"mixer": "screen"}, "trimmed_mean(f=1)")]
)
def test_no_promise_of_a_server_is_made_for_a_graph(graph: dict[str, Any], rule: str) -> None:
    one = spec(graph=graph, rule=rule)
    said = error_bound_sentence(one, run(one).main)
    assert said.startswith("no exchange is certified")
    assert "proved of this rule" not in said


def test_a_ledger_counts_what_the_average_honest_node_sends() -> None:
    outcome = run(spec(eval_every=8)).main
    degrees = 9 + 2  # five in its world but itself, four in the other, two liars
    assert outcome.metrics["bits"] == outcome.metrics["bits_down"] == 8 * 32 * 6 * (5 + 4 + 2)
    assert outcome.metrics["coordinates"] == 8 * 6 * degrees
    assert outcome.metrics["gradients"] == 8


def test_nodes_that_fly_apart_end_the_run_though_their_mean_stays() -> None:
    topology = {"name": "two_worlds", "k": 4}
    graph = {"topology": topology, "mixer": "gts", "liars": "everywhere", "spread": 1.0}
    changes = {"n": 18, "f": 6, "graph": graph, "attack": "spectral", "lr": 1e-15, "eval_every": 50}
    outcome = run(spec(rounds=200, **changes)).main
    assert outcome.status is Status.DIVERGED
    assert outcome.metrics["consensus_error"] > 1e10


def test_simulate_takes_a_graph() -> None:
    task = TASKS.build("quadratic").build(Cohort.of(14, 2), 0)
    graph = Graph(TwoWorlds(k=4), CSPlus(), liars="everywhere")
    outcome = simulate(task, "mean", 0.1, 20, 2, "robust_gd", "dissensus", graph=graph)
    assert outcome.metrics["loss"] < outcome.records[0]["loss"]


def test_too_many_silent_neighbours_have_no_majority() -> None:
    outcome = run(spec(attack="nan", f=1, attackers=2)).main
    assert outcome.status is Status.NO_MAJORITY
    assert "[12, 13]" in outcome.message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rule": "median"}, "be the mean"),
        ({"attack": "spectral", "graph": None}, "should have a graph"),
        ({"method": "byz_dm21"}, "send rows as they are"),
        ({"method": "accelerated_extragradient"}, "work for many nodes at once"),
        ({"method": "safeguard"}, "remember nothing|one distribution|work for many"),
        ({"placement": "message"}, "placement"),
        ({"graph": WORLDS | {"spread": -1.0}}, "at least 0"),
        ({"graph": WORLDS | {"colour": 1}}, "Unknown key 'colour'"),
        ({"graph": WORLDS | {"topology": "rign"}}, "ring"),
        ({"graph": {"topology": "ring", "mixer": "screen"}, "rule": "krum"}, "On node"),
        ({"graph": {"topology": "star", "mixer": "cs+"}, "attackers": [0]}, "connected"),
        ({"engine": "simulated", "graph": {"mixer": "cs+"}}, "topology"),
    ],
)
def test_what_cannot_run_on_a_graph_is_refused_before_any_work(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        run(Spec.of({key: value for key, value in (spec().data | changes).items() if value is not None}))


def test_what_is_known_before_a_run() -> None:
    facts = graph_facts(spec(f=1, attackers=1, n=13, rounds=10))
    numbers = facts.numbers
    assert (numbers["mu2"], numbers["breakdown"], numbers["rho"]) == pytest.approx((8, 4, 2))
    assert numbers["tolerated"] == 1
    assert numbers["byzantine_neighbours"] == 1
    assert facts.promise.bound == pytest.approx((1 - numbers["alpha"] * 4) ** 10)
    assert not facts.warnings
    broken = graph_facts(spec(f=4, n=16)).promise
    assert broken.bound is None
    assert "μ₂" in str(broken.broken[0])
    assert graph_facts(spec(graph=WORLDS | {"mixer": "ubar"})).promise.bound is None


def test_trees_of_states_stay_stacked() -> None:
    one = on_graph(Graph(Ring(), Gossip()), 6, method="byz_nsgdm")
    shapes: list[int] = []
    map_leaves(
        lambda leaf: shapes.append(len(leaf)) if isinstance(leaf, Tensor) and leaf.ndim else None,
        one.begin().step,
    )
    assert set(shapes) == {6}


def test_screening_by_any_rule_on_a_run() -> None:
    one = on_graph(Graph(Complete(), Screen()), 9, 2, "alie", "nnm >> trimmed_mean")
    nodes = played(one, 3)[-1].nodes
    assert nodes.isfinite().all()
    assert isinstance(rule_from("trimmed_mean", f=1), TrimmedMean)


@pytest.mark.slow
def test_lies_that_shift_the_mean_turn_the_order_of_mixers() -> None:
    """Where lies pull nodes apart `he` holds longest (`reproduce gossip/breakdown`); where they shift the
    mean it is moved most, for it clips nobody who stays near."""

    def left(mixer: str, attack: str) -> float:
        graph = {"topology": {"name": "two_worlds", "k": 8}, "mixer": mixer, "liars": "everywhere"}
        task = {"name": "quadratic", "d": 10}
        one = Spec.of(BASE | {"task": task, "rounds": 300, "n": 29, "f": 3, "attack": attack, "graph": graph})
        return run(one).metrics["grad_norm"]

    shifted = [left(mixer, "local_alie") for mixer in ("cs+", "gts", "he")]
    assert shifted == sorted(shifted)
    assert shifted[2] > 1.5 * shifted[0]
    assert all(left(mixer, "spectral") < shifted[0] for mixer in ("cs+", "gts", "he"))


@pytest.mark.slow
def test_a_sweep_of_graphs_is_stored_and_shown(tmp_path: Path) -> None:
    base = BASE | {"n": 14, "f": 2, "rounds": 4, "graph": WORLDS}
    axes = {"graph.mixer": ["cs+", "gts"], "attack": ["spectral", "alie"], "seed": [0, 1]}
    swept = run_sweep(plan_sweep(Sweep(spec=base, grid=axes), tmp_path / "store"), jobs=1)
    assert swept.counts == {"completed": 8}
    rows = runs_table(tmp_path / "store", ["attack=spectral"], ["graph.mixer", "disagreement"]).to_pylist()
    assert [row["graph.mixer"] for row in rows] == ["cs+", "cs+", "gts", "gts"]
    assert len({row["disagreement"] for row in rows}) == 4


def test_the_halves_of_the_honest_nodes_may_start_apart() -> None:
    one = on_graph(Graph(TwoWorlds(k=4), CSPlus(), liars="everywhere", apart=6.0), 14, 2)
    away = one.starts[one.honest] - one.task.start()
    assert torch.equal(away[:6], torch.full((6, 6), -3.0, dtype=torch.float64))
    assert torch.equal(away[6:], torch.full((6, 6), 3.0, dtype=torch.float64))
    assert set(one.network.fiedler[:6].sign().tolist()) != set(one.network.fiedler[6:].sign().tolist())
    # Nobody lies: the mean stays where it was, and nodes meet there.
    *_, last = played(on_graph(Graph(TwoWorlds(k=4), Gossip(), apart=6.0), 12, lr=1e-15), 60)
    assert last.report()["consensus_error"] < 1e-12
    with pytest.raises(InvalidInput, match="`apart`"):
        Graph(TwoWorlds(k=4), CSPlus(), apart=-1.0)
