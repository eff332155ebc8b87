"""Mixers: all nodes in one call equal a loop over nodes, reductions, faults, and what theory promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from byzopt.aggregators import Krum, Median, MoNNA, TrimmedMean, Weighted, rule_from
from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput, TooManyFaults
from byzopt.graphs import (
    Complete,
    Dumbbell,
    EdgeList,
    ErdosRenyi,
    Network,
    Ring,
    SmallWorld,
    Torus,
    TwoWorlds,
)
from byzopt.kernels import disabled, kernels_available
from byzopt.mixers import (
    GTS,
    MIXERS,
    NNA,
    UBAR,
    ClippedGossip,
    ClippedOracle,
    CSPlus,
    Gossip,
    Hearing,
    ScaledMixer,
    Screen,
)
from byzopt.mixers.edgewise import Edgewise
from byzopt.theory import gossip as theory
from tests.reference import gossip as twin

SCALED = ["gossip", "cs+", "gts", "he", "oracle", "clipped"]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def networks() -> dict[str, Network]:
    some = [2, 7, 11]
    return {
        "complete": Network.of(Complete(), Cohort.of(12, some)),
        "random": Network.of(ErdosRenyi(p=0.7), Cohort.of(12, some)),
        "metropolis": Network.of(ErdosRenyi(p=0.7), Cohort.of(12, some), "metropolis"),
        "small world": Network.of(SmallWorld(near=3, p=0.3), Cohort.of(14, [4, 9])),
        "beside": Network.of(TwoWorlds(k=4), Cohort.of(18, 2), "unit", "everywhere"),
    }


def hearing(network: Network, b: int, per_receiver: bool, seed: int = 0, d: int = 7, **more: Any) -> Hearing:
    h, liars = len(network.cohort.honest), len(network.cohort.byzantine)
    rows = normal(h, d, seed=seed)
    lies = 3 * normal(liars, *([h] if per_receiver else []), d, seed=seed + 1)
    return Hearing(network, b, rows, lies, per_receiver, **more)


def by_the_loop(mixer: ScaledMixer, given: Hearing) -> Tensor:
    told = twin.heard(given.edges, given.rows, given.lies, given.per_receiver)
    b = given.tolerance.tolist()
    alpha = mixer.step(given.network)
    if mixer.name == "oracle":
        counts = (given.edges[:, : len(given.rows)] > 0).sum(dim=1).tolist()
        out = given.rows.clone()
        for i, summand in enumerate(twin.oracle(counts)):
            out[i] = twin.step(given.rows[i : i + 1], told[i : i + 1], alpha, b[i : i + 1], summand)[0]
        return out
    summands = {"gossip": twin.gossip, "cs+": twin.cs_plus, "gts": twin.gts, "he": twin.he}
    return twin.step(given.rows, told, alpha, b, summands.get(mixer.name) or twin.fixed(1.0))


@pytest.mark.parametrize("per_receiver", [False, True])
@pytest.mark.parametrize("graph", networks())
@pytest.mark.parametrize("name", SCALED)
def test_all_nodes_in_one_call_equal_the_loop(name: str, graph: str, per_receiver: bool) -> None:
    mixer = MIXERS.build(name)
    assert isinstance(mixer, ScaledMixer)
    for b in (0, 1, 2):
        given = hearing(networks()[graph], b, per_receiver, seed=b)
        # Sums of at most 20 products of size 10 in another order: about 1e-14.
        assert (mixer.mix(given) - by_the_loop(mixer, given)).abs().max() < 1e-12


@pytest.mark.parametrize("per_receiver", [False, True])
@pytest.mark.parametrize("graph", networks())
@pytest.mark.parametrize("name", [*SCALED, "nna"])
def test_long_rows_are_taken_along_the_edges(name: str, graph: str, per_receiver: bool) -> None:
    mixer, network, d = MIXERS.build(name), networks()[graph], 8209
    assert isinstance(mixer, ScaledMixer)
    for b, dtype, close in ((1, torch.float64, 1e-11), (2, torch.float32, 1e-4)):
        given = hearing(network, b, per_receiver, seed=b, d=d)
        alike = given.lies[:1].expand(given.lies.shape)
        for lies in (given.lies, alike) if per_receiver else (given.lies,):
            lies = lies.to(dtype) if dtype != lies.dtype else lies
            told = Hearing(network, b, given.rows.to(dtype), lies, per_receiver)
            assert Edgewise.serves(told) is kernels_available()
            found = mixer.mix(told)
            assert found.dtype == dtype
            with disabled():
                assert not Edgewise.serves(told)
                # Sums of ten numbers of size 1 to 10, whose weights come of sums of d squares.
                assert (found - mixer.mix(told)).abs().max() < close
            if name != "nna" and dtype == torch.float64:
                assert (found - by_the_loop(mixer, told)).abs().max() < close


@pytest.mark.parametrize("name", ["cs+", "gts", "he", "clipped", "nna"])
def test_long_rows_that_are_lost_or_overflow_are_seen(name: str) -> None:
    network, mixer = networks()["random"], MIXERS.build(name)
    for per_receiver in (False, True):
        given = hearing(network, 1, per_receiver, d=8209)
        lost, long = given.lies.clone(), given.lies.float()
        lost[0, ..., -1] = torch.nan
        long[1] *= 1e30  # its squares overflow
        for told in (
            Hearing(network, 1, given.rows, lost, per_receiver),
            Hearing(network, 1, given.rows.float(), long, per_receiver),
        ):
            found = mixer.mix(told)
            assert found.isfinite().all()
            with disabled():
                assert (found - mixer.mix(told)).abs().max() < (
                    1e-11 if told.rows.dtype == torch.float64 else 1e-4
                )
        lost[1, ..., 0] = torch.inf
        for _ in range(2):
            with pytest.raises(TooManyFaults, match="NaN or Inf") as seen:
                mixer.mix(Hearing(network, 1, given.rows, lost, per_receiver))
            assert set(seen.value.rows) <= set(network.cohort.byzantine)


def test_long_rows_have_the_same_bits_on_any_number_of_threads() -> None:
    given = hearing(networks()["complete"], 2, False, d=70_001)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(ClippedGossip().mix(given))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("name", SCALED)
def test_it_stays_so_for_clusters_that_are_far_apart(name: str) -> None:
    """Products of rows 1e3 apart lose ten digits of distances of 1e-5 within a cluster."""
    network = Network.of(TwoWorlds(k=3), Cohort.of(20))
    rows = 1e-5 * normal(20, 40)
    rows[10:] += 1e3
    given = Hearing(network, 1, rows, rows.new_zeros(0, 40))
    mixer = MIXERS.build(name)
    assert isinstance(mixer, ScaledMixer)
    # Sums of numbers of size 1e3 end in 1e-13 each.
    assert (mixer.mix(given) - by_the_loop(mixer, given)).abs().max() < 1e-11


def test_a_common_offset_costs_no_digits() -> None:
    network = networks()["random"]
    near, far = hearing(network, 1, False), hearing(network, 1, False)
    far = Hearing(network, 1, far.rows + 1e6, far.lies + 1e6)
    assert (CSPlus().mix(far) - 1e6 - CSPlus().mix(near)).abs().max() < 1e-8  # a row of 1e6 ends at 1e-10


def test_runs_may_stand_side_by_side() -> None:
    network = networks()["random"]
    for per_receiver in (False, True):
        each = [hearing(network, 1, per_receiver, seed=seed) for seed in range(3)]
        many = Hearing(
            network,
            1,
            torch.stack([one.rows for one in each]),
            torch.stack([one.lies for one in each]),
            per_receiver,
        )
        for mixer in (CSPlus(), GTS(), ClippedGossip(), NNA()):
            alone = torch.stack([mixer.mix(one) for one in each])
            assert (mixer.mix(many) - alone).abs().max() < 1e-12
        rule = TrimmedMean(f=1)
        screened = torch.stack(
            [Screen().mix(Hearing(network, 1, o.rows, o.lies, per_receiver, rule)) for o in each]
        )
        many = Hearing(network, 1, many.rows, many.lies, per_receiver, rule)
        assert (Screen().mix(many) - screened).abs().max() < 1e-12


@pytest.mark.parametrize("per_receiver", [False, True])
@pytest.mark.parametrize(
    "rule", ["trimmed_mean", "median", "krum", "geometric_median", "nnm >> trimmed_mean"]
)
def test_screening_equals_a_loop_over_neighbourhoods(rule: str, per_receiver: bool) -> None:
    network, built = networks()["small world"], rule_from(rule, f=1)
    given = hearing(network, 1, per_receiver, rule=built)
    told = twin.heard(given.edges, given.rows, given.lies, per_receiver)
    for i, moved in enumerate(Screen(alpha=0.5).mix(given)):
        sets = torch.stack([given.rows[i], *[row for _, row in told[i]]])
        expected = (given.rows[i] + built(sets)) / 2
        # Iterative rules stop within 1e-9 of where they would go.
        assert (moved - expected).abs().max() < 1e-8, i


@pytest.mark.parametrize("per_receiver", [False, True])
@pytest.mark.parametrize("own", ["among", "beside"])
@pytest.mark.parametrize("rule", ["trimmed_mean", "meamed", "krum"])
def test_screening_of_long_rows_has_the_bits_of_each_node_alone(
    rule: str, own: Any, per_receiver: bool
) -> None:
    built = rule_from(rule, f=1)
    for name in ("small world", "complete"):
        network = networks()[name]
        given = hearing(network, 1, per_receiver, d=12_001, rule=built)
        lost = given.lies.clone()
        lost[0, ..., 5] = torch.nan  # a row that is not finite goes by itself, whoever hears it
        for lies in (given.lies, lost):
            for dtype in (torch.float64, torch.float32):
                case = replace(given.telling(lies.to(dtype)), rows=given.rows.to(dtype), store={})
                moved = Screen(own=own).mix(case)
                assert moved.dtype == dtype
                for i in (0, 3, 6):
                    alone = one_node(case, i)
                    assert torch.equal(moved[i], Screen(own=own).mix(alone)[0]), (name, i, dtype)


def one_node(given: Hearing, i: int) -> Hearing:
    """What the i-th honest node hears by itself, in the order of the cohort."""
    node = given.network.cohort.honest[i]
    said = {w: given.rows[k] for k, w in enumerate(given.network.cohort.honest)}
    for k, w in enumerate(given.network.cohort.byzantine):
        said[w] = given.lies[k, i] if given.per_receiver else given.lies[k]
    order = [w for w in (*given.names[1],) if w in given.network.neighbours(node)]
    heard = torch.stack([said[w] for w in order])
    edges = torch.cat([torch.zeros(1, 1), torch.ones(1, len(order))], dim=1).double()
    return Hearing(
        given.network, given.b, given.rows[i : i + 1], heard, rule=given.rule, store={"edges": edges}
    )


def test_bridge_t_trims_the_neighbours_and_keeps_the_own_row() -> None:
    network = networks()["small world"]
    given = hearing(network, 2, False, rule=TrimmedMean(f=2))
    told = twin.heard(given.edges, given.rows, given.lies, False)
    for i, moved in enumerate(Screen(own="beside").mix(given)):
        ranked = torch.stack([row for _, row in told[i]]).sort(dim=0).values[2:-2]
        expected = torch.cat([given.rows[i : i + 1], ranked]).mean(dim=0)
        assert (moved - expected).abs().max() < 1e-13


@pytest.mark.parametrize("drop", ["b", "2b"])
def test_nearest_neighbour_averaging_equals_its_listing(drop: Any) -> None:
    given = hearing(networks()["complete"], 2, False)
    told = twin.heard(given.edges, given.rows, given.lies, False)
    for i, moved in enumerate(NNA(drop=drop).mix(given)):
        expected = twin.nna(given.rows[i], told[i], 2 if drop == "b" else 4)
        assert (moved - expected).abs().max() < 1e-13


@pytest.mark.parametrize("per_receiver", [False, True])
def test_ubar_equals_its_listing(per_receiver: bool) -> None:
    network = networks()["random"]
    centres = normal(9, 7, seed=5)

    def losses(x: Tensor) -> Sequence[float]:
        return (centres - x).square().sum(dim=1).tolist()

    given = hearing(network, 1, per_receiver, losses=losses)
    told = twin.heard(given.edges, given.rows, given.lies, per_receiver)
    for i, moved in enumerate(UBAR(alpha=0.3, share=0.6).mix(given)):
        expected = twin.ubar(given.rows[i], told[i], 0.6, 0.3, lambda x, i=i: losses(x)[i])  # type: ignore[misc]
        assert (moved - expected).abs().max() < 1e-13


def test_without_liars_to_tolerate_the_family_is_linear_gossip() -> None:
    network = Network.of(Torus(), Cohort.of(16))
    given = Hearing(network, 0, normal(16, 5), torch.zeros(0, 5, dtype=torch.float64))
    linear = given.rows - network.laplacian @ given.rows / network.largest
    for name in ("gossip", "cs+", "gts", "he", "oracle"):
        assert (MIXERS.build(name).mix(given) - linear).abs().max() < 1e-14


def test_metropolis_gossip_is_one_product_with_w() -> None:
    network = Network.of(Ring(), Cohort.of(9), "metropolis")
    given = Hearing(network, 0, normal(9, 3), torch.zeros(0, 3, dtype=torch.float64))
    w = network.weights + (1 - network.weights.sum(dim=1)).diag()
    assert (Gossip().mix(given) - w @ given.rows).abs().max() < 1e-15


def test_on_a_complete_graph_gts_is_nna_is_the_rule_monna() -> None:
    network = Network.of(Complete(), Cohort.of(11, 2))
    given = hearing(network, 2, True, rule=MoNNA(f=2))
    rows = NNA().mix(given)
    assert (GTS(alpha=1 / 9).mix(given) - rows).abs().max() < 1e-14
    assert (Screen().mix(given) - rows).abs().max() < 1e-14


def test_rows_that_do_not_arrive_are_counted_against_b() -> None:
    network = networks()["complete"]
    given = hearing(network, 2, False)
    lies = given.lies.clone()
    lies[0, 3], lies[1] = torch.nan, torch.inf
    rule = Median(f=2)
    lost = Hearing(network, 2, given.rows, lies, rule=rule)
    without = Network.of(Complete(), Cohort.of(10, [9]))
    left = Hearing(without, 0, given.rows, given.lies[2:], rule=Median(f=0))
    for name in ("cs+", "gts", "he", "gossip", "nna", "screen"):
        mixer = (
            MIXERS.build(name) if name in ("nna", "screen") else MIXERS.build({"name": name, "alpha": 0.1})
        )
        assert (mixer.mix(lost) - mixer.mix(left)).abs().max() < 1e-14, name
    one_less = Hearing(network, 1, given.rows, lies, rule=rule)
    for name in MIXERS:
        with pytest.raises(TooManyFaults, match=r"from \[2, 7\] at node 0") as error:
            MIXERS.build(name).mix(one_less)
        assert error.value.rows == (2, 7)


def test_a_liar_may_fall_silent_towards_some_receivers_only() -> None:
    network = networks()["complete"]
    given = hearing(network, 1, True)
    lies = given.lies.clone()
    lies[0, 4] = torch.nan
    moved, before = (CSPlus().mix(Hearing(network, 1, given.rows, told, True)) for told in (lies, given.lies))
    others = [i for i in range(9) if i != 4]
    assert torch.equal(moved[others], before[others])
    assert moved.isfinite().all()


@pytest.mark.parametrize("size", [1e30, 1e160, 1e300])
def test_lies_of_any_size_leave_finite_nodes(size: float) -> None:
    network = Network.of(Complete(), Cohort.of(12, 2))
    for per_receiver in (False, True):
        given = hearing(network, 2, per_receiver, rule=TrimmedMean(f=2))
        lies = torch.full_like(given.lies, size)
        for name in ("cs+", "gts", "he", "oracle", "clipped", "nna", "screen"):
            rows = MIXERS.build(name).mix(Hearing(network, 2, given.rows, lies, per_receiver, given.rule))
            assert rows.isfinite().all(), name
            assert rows.abs().max() < 30, name


def test_nothing_is_written_to_what_nodes_say() -> None:
    network = networks()["random"]
    given = hearing(network, 1, True, rule=TrimmedMean(f=1))
    rows, lies = given.rows.clone(), given.lies.clone()
    for name in set(MIXERS) - {"ubar"}:
        MIXERS.build(name).mix(given)
        assert torch.equal(rows, given.rows), name
        assert torch.equal(lies, given.lies), name


def test_float32_rows_stay_float32() -> None:
    network = networks()["random"]
    exact = hearing(network, 1, False, d=5000)
    single = Hearing(network, 1, exact.rows.float(), exact.lies.float())
    for name in ("cs+", "gts", "he", "nna"):
        rows = MIXERS.build(name).mix(single)
        assert rows.dtype == torch.float32
        # Distances are good to 1e-5 of themselves (squares of 7 digits, of which 2 are lost at most).
        assert (rows - MIXERS.build(name).mix(exact)).abs().max() < 1e-4


def test_cs_plus_never_moves_a_node_with_no_more_than_2b_neighbours() -> None:
    network = Network.of(Ring(), Cohort.of(8))
    given = Hearing(network, 1, normal(8, 3), torch.zeros(0, 3, dtype=torch.float64))
    assert torch.equal(CSPlus().mix(given), given.rows)
    assert network.frozen(1) == tuple(range(8))


def test_parameters_and_rules_that_cannot_work_are_refused() -> None:
    for data in (
        {"name": "cs+", "alpha": 0.0},
        {"name": "clipped", "radius": 0.0},
        {"name": "screen", "alpha": 1.5},
        {"name": "ubar", "share": 0.0},
    ):
        with pytest.raises(InvalidInput):
            MIXERS.build(data)
    with pytest.raises(InvalidInput, match="On node 0, which has 3 rows"):
        Screen().check(Network.of(Ring(), Cohort.of(8)), 1, Krum(f=1))
    Screen().check(Network.of(Complete(), Cohort.of(8)), 1, Krum(f=1))


def test_screening_trusts_the_own_row_and_no_other() -> None:
    network = Network.of(Complete(), Cohort.of(8))
    Screen().check(network, 1, MoNNA(f=1))
    for mixer, rule in (
        (Screen(), MoNNA(f=1, trusted=3)),
        (Screen(), Weighted(Median(f=1), weights=(1.0,) * 8)),
        (Screen(own="beside"), MoNNA(f=1)),
    ):
        with pytest.raises(InvalidInput, match="no place for each worker but its own"):
            mixer.check(network, 1, rule)


# What theory says.

RHO = {"cs+": CSPlus(), "gts": GTS(), "he": ClippedGossip(), "oracle": ClippedOracle()}


def error_of(mixer: ScaledMixer, z: Tensor, honest: int) -> float:
    """‖F(z) - Σ_S z‖²/(b Σ_S ‖z‖²), the first `honest` of z being S."""
    b = torch.tensor([float(len(z) - honest)], dtype=torch.float64)
    lengths = z.norm(dim=1).unsqueeze(0)
    if mixer.name == "oracle":
        tau = (lengths[0, :honest].square().sum() / b).sqrt()
        scales = torch.where(lengths <= tau, 1.0, tau / lengths)
    else:
        scales = mixer.scales(lengths, torch.ones_like(lengths), b)
    found = (scales @ z)[0] - z[:honest].sum(dim=0)
    return float(found.square().sum() / (b * z[:honest].square().sum()))


@pytest.mark.parametrize("name", RHO)
def test_no_search_finds_a_summand_worse_than_its_rho(name: str) -> None:
    mixer, worst = RHO[name], 0.0
    generator = torch.Generator().manual_seed(0)
    for _ in range(1000):
        b, more = (int(torch.randint(1, 6, (), generator=generator)) for _ in range(2))
        honest = b + more
        lengths = torch.rand(honest + b, generator=generator, dtype=torch.float64) ** 2 * 4
        if torch.rand((), generator=generator) < 0.7:  # few lengths, as in the worst cases
            lengths = (lengths * 2).round() / 2
        signs = torch.ones(honest + b, dtype=torch.float64)
        signs[honest:] = -1
        if lengths[:honest].sum() > 0:
            worst = max(worst, error_of(mixer, (lengths * signs).unsqueeze(1), honest))
    assert mixer.rho is not None
    assert 0.5 * mixer.rho < worst <= mixer.rho * (1 + 1e-12)


def test_rho_is_attained() -> None:
    """gts: a lie just shorter than the honest difference that it replaces. cs+: 2b honest ones cut to 0."""
    column = torch.tensor([[1.0], [1.0], [-0.9999]], dtype=torch.float64)
    assert error_of(GTS(), column[1:], 1) == pytest.approx(4, rel=1e-3)
    column[2] = 0
    assert error_of(CSPlus(), column, 2) == pytest.approx(2)
    # b = 4: one honest difference of 2 among zeros, τ² = 4/4 = 1, four liars at -1: error 1 + 4, squares 4.
    z = torch.tensor([[2.0], [0.0], [0.0], [0.0], [0.0], [-9.0], [-9.0], [-9.0], [-9.0]], dtype=torch.float64)
    assert error_of(ClippedGossip(), z, 5) == pytest.approx(25 / 16)
    assert error_of(ClippedOracle(), z, 5) == pytest.approx(25 / 16)


def test_numbers_of_the_theorem() -> None:
    assert theory.contraction(0.1, 8.0, 2.0, 1) == pytest.approx(1 - 0.1 * 4)
    assert theory.drift(0.1, 2.0, 1) == pytest.approx(0.4)
    assert theory.breakdown(16) == 8
    assert [theory.tolerated(16, rho) for rho in (2.0, 4.0, 25 / 16)] == [3, 1, 5]
    assert theory.tolerated(9, 4.0) == 1  # nna on n = 10, f = 1: n > 9 f
    assert theory.tolerated(8, 4.0) == 0
    assert theory.clipped_limit(0.1, 0.5) == pytest.approx(0.4)


def test_a_bridge_no_wider_than_the_tolerance_is_cut_though_nobody_lies() -> None:
    def apart(mixer: Any, network: Network, rounds: int) -> float:
        rows = normal(20, 5)
        first = (rows - rows.mean(dim=0)).square().sum()
        rule = TrimmedMean(f=1)
        for _ in range(rounds):
            rows = mixer.mix(Hearing(network, 1, rows, rows.new_zeros(0, 5), rule=rule))
        return float((rows - rows.mean(dim=0)).square().sum() / first)

    dumbbell, wide = Network.of(Dumbbell(), Cohort.of(20)), Network.of(TwoWorlds(k=3), Cohort.of(20))
    for mixer in (CSPlus(), GTS(), ClippedGossip(), Screen(own="beside")):
        cut = apart(mixer, dumbbell, 60)
        assert cut == pytest.approx(apart(mixer, dumbbell, 120), rel=1e-2), mixer.name  # it stays so
        assert cut > 0.01, mixer.name
        assert apart(mixer, wide, 120) < 1e-6, mixer.name


@pytest.mark.parametrize(
    "mixer",
    [
        CSPlus(),
        GTS(),
        *(pytest.param(one, marks=pytest.mark.slow) for one in (ClippedGossip(), Screen(own="beside"))),
    ],
    ids=lambda m: m.name,
)
def test_how_wide_a_bridge_has_to_be(mixer: Any) -> None:
    """Two cliques of ten at -1 and 1, of which k nodes each hear k of the other: b = 1 cuts what a node
    cannot tell from liars, 2b differences by cs+ and b by the others, and lets through what is wider."""
    clique = [(i, j) for i in range(10) for j in range(i)]
    both = clique + [(i + 10, j + 10) for i, j in clique]
    for k, crossed in ((1, False), (2, mixer.name != "cs+"), (3, True)):
        edges = [*both, *((i, 10 + j) for i in range(k) for j in range(k))]
        network = Network.of(EdgeList(tuple(edges)), Cohort.of(20))
        rows = torch.cat([-torch.ones(10, 1), torch.ones(10, 1)]).double()
        for _ in range(500):
            rows = mixer.mix(Hearing(network, 1, rows, rows.new_zeros(0, 1), rule=TrimmedMean(f=1)))
        left = float((rows - rows.mean(dim=0)).square().mean())
        assert left < 1e-6 if crossed else left > 0.9, (k, left)
