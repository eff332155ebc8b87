"""Figures of single rows (lengths, distances to one vector, signs), and the rules that go by them alone."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from byzopt import aggregators as ag
from byzopt import kernels, lengths
from byzopt.aggregators.core import calling
from byzopt.aggregators.numerics import figures, measuring, mixed
from byzopt.errors import TooManyFaults

WAYS = [pytest.param(True, id="kernels"), pytest.param(False, id="torch")]
SIZES = [(1, 1), (3, 17), (5, 0), (7, 4_097), (20, 9_001), (4, 70_003), (2_000, 70), (300, 1_030)]
ASKED = ["squares", "apart", "inner", "lean", "signs"]


def drawn(n, d, dtype=torch.float32, offset=0.0):
    return (torch.randn(n, d, generator=torch.Generator().manual_seed(n + d)) + offset).to(dtype)


def way(compiled):
    if compiled and not kernels.kernels_available():
        pytest.skip("needs llvmlite")
    return nullcontext() if compiled else kernels.disabled()


def expected(rows, p, asked):
    x, p = rows.double(), p.double()
    first = {
        "squares": [],
        "apart": [(x - p).square().sum(1)],
        "inner": [x @ p],
        "lean": [(x - p) @ p],
        "signs": [(x > 0).sum(1), (x == 0).sum(1), (x < 0).sum(1)],
    }
    return torch.stack([*first[asked], x.square().sum(1)]).double()


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("n,d", SIZES)
@pytest.mark.parametrize("compiled", WAYS)
def test_figures_are_those_of_float64(n, d, dtype, asked, compiled):
    rows = drawn(n, d, dtype, offset=0.5)
    rows[:, : d // 8] = 0
    centre = rows[n // 2] if asked in ("apart", "inner", "lean") else None
    with way(compiled):
        found = lengths.figures(rows, centre, asked)
    exact = expected(rows, rows[n // 2], asked)
    # Squares: half a unit of float32 for each of at most 32 sums in a lane, and for square and difference.
    # Products with a vector: the same of the product of lengths; "inner" is float64.
    eps = 1e-12 if dtype == torch.float64 or asked == "inner" else 2e-6
    assert ((found[-1] - exact[-1]).abs() <= eps * exact[-1]).all()
    if asked == "signs":
        assert torch.equal(found[:3], exact[:3])
    elif asked == "apart":
        assert ((found[0] - exact[0]).abs() <= eps * exact[0]).all()
    elif asked != "squares":
        assert ((found[0] - exact[0]).abs() <= 4 * eps * exact[-1].max()).all()


@pytest.mark.parametrize("scale", [1e25, 1e-25, 1e-40])
@pytest.mark.parametrize("asked", ["squares", "apart"])
@pytest.mark.parametrize("some", [1, 20])
@pytest.mark.parametrize("compiled", WAYS)
def test_squares_that_leave_float32_are_taken_again(scale, asked, some, compiled):
    rows = drawn(20, 9_000)
    rows[:some] *= scale
    centre = torch.zeros(9_000) if asked == "apart" else None
    with way(compiled):
        found = lengths.figures(rows, centre, asked)
    assert torch.allclose(found[-1], rows.double().square().sum(1), rtol=1e-6, atol=0)
    if some == 20:
        assert torch.allclose(found[0], rows.double().square().sum(1), rtol=1e-12, atol=0)


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("compiled", WAYS)
@pytest.mark.parametrize("n,d", [(40, 9_001), (5, 300_001)])
def test_equal_rows_have_equal_figures_whatever_the_threads(n, d, asked, compiled):
    rows = drawn(n, d)
    rows[-1] = rows[0]
    centre = rows[1] if asked in ("apart", "inner", "lean") else None
    before, threads, found = torch.get_num_threads(), (1, 2, 3), []
    try:
        with way(compiled):
            for count in threads:
                torch.set_num_threads(count)
                found.append(lengths.figures(rows, centre, asked))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0][:, 0], found[0][:, -1])
    if compiled:
        assert torch.equal(found[0], found[1])
        assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("compiled", WAYS)
def test_an_offset_of_all_rows_costs_distances_no_digits(compiled):
    rows = 1e4 + 0.1 * drawn(30, 9_001).double()
    rows = rows.float()
    with way(compiled):
        apart = lengths.figures(rows, rows[3], "apart")[0]
    exact = (rows.double() - rows[3].double()).square().sum(1)
    assert torch.allclose(apart, exact, rtol=1e-6, atol=0)


def test_a_centre_of_another_length_is_refused():
    if not kernels.kernels_available():
        pytest.skip("needs llvmlite")
    with pytest.raises(ValueError, match="centre should be"):
        kernels.row_figures(drawn(3, 9), torch.zeros(8), "apart")
    with pytest.raises(IndexError):
        kernels.row_figures(drawn(3, 9), 3, "apart")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 8_999])
@pytest.mark.parametrize("compiled", WAYS)
def test_bad_numbers_show(bad, place, compiled):
    rows = drawn(20, 9_000)
    rows[4, place] = bad
    with way(compiled):
        for asked in ASKED:
            centre = rows[4] if asked in ("apart", "inner", "lean") else None
            found = lengths.figures(rows, centre, asked)[-1].numpy()
            assert not np.isfinite(found[4])
            assert not figures.in_range(found, rows.dtype)


RULES = {
    "cge": lambda: ag.CGE(f=2),
    "monna": lambda: ag.MoNNA(f=2, trusted=3),
    "norm_clipping": lambda: ag.NormClipping(),
    "norm_clipping with a bound": lambda: ag.NormClipping(bound=0.5),
    "zeno": lambda: ag.Zeno(f=2, trusted=1, rho=0.3),
    "fltrust": lambda: ag.FLTrust(trusted=1),
    "signguard": lambda: ag.SignGuard(),
    "centered_clipping": lambda: ag.CenteredClipping(start="zero"),
    "centered_clipping with tau": lambda: ag.CenteredClipping(start="zero", tau=0.5),
}
KINDS = {
    "usual": lambda n, d: drawn(n, d),
    "float64": lambda n, d: drawn(n, d, torch.float64),
    "half": lambda n, d: drawn(n, d, torch.float16),
    "tied": lambda n, d: drawn(n, d).sign(),
    "equal": lambda n, d: torch.ones(n, d),
    "zeros": lambda n, d: torch.zeros(n, d),
    "long": lambda n, d: drawn(n, d) * torch.tensor([1e18] + [1.0] * (n - 1))[:, None],
    "huge": lambda n, d: drawn(n, d) * 1e36,
    "tiny": lambda n, d: drawn(n, d) * 1e-40,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RULES)
def test_the_straight_way_is_the_long_way_without_a_gram_product(name, kind, monkeypatch):
    rule = RULES[name]()
    assert rule.asks
    for module in (measuring.linalg, mixed.linalg):
        monkeypatch.setattr(module, "gram", None)  # nobody may ask for it
    for n, d in ((7, 1), (9, 700), (20, 9_001), (300, 50)):
        rows = KINDS[kind](n, d)
        before = rows.clone()
        out = rule(rows)
        assert out.isfinite().all()
        assert torch.equal(out, calling.call_rule(rule, rows, None, False).out), (n, d)
        assert torch.equal(out, rule(rows, f=rule.tolerance(n))), (n, d)
        assert torch.equal(rows, before)


@pytest.mark.parametrize("name", RULES)
def test_kernels_and_torch_agree(name):
    rule = RULES[name]()
    for n, d in ((9, 700), (20, 9_001), (300, 1_000)):
        rows = drawn(n, d)
        out = rule(rows)
        with kernels.disabled():
            # Weights from squares with errors below 2e-6, and sums of n float32 products.
            assert torch.allclose(rule(rows), out, rtol=1e-5, atol=1e-5), (n, d)


@pytest.mark.parametrize("name", RULES)
def test_rows_that_are_not_finite_are_dropped_and_counted(name):
    rule, rows = RULES[name](), drawn(20, 9_001)
    spoilt = rows.clone()
    spoilt[[7, 11]] = torch.tensor([torch.nan, -torch.inf]).unsqueeze(1)
    kept = [i for i in range(20) if i not in (7, 11)]
    expect = rule.restricted(torch.isin(torch.arange(20), torch.tensor(kept)))(rows[kept])
    assert torch.equal(rule(spoilt), expect)
    spoilt[0, 5], spoilt[2, 5] = torch.nan, torch.nan
    if rule.f is not None:
        with pytest.raises(TooManyFaults):
            rule(spoilt)


def test_ties_are_broken_by_value_wherever_rows_stand():
    rows = torch.tensor([[3.0, 4.0], [5.0, 0.0], [0.0, 5.0], [4.0, 3.0], [1.0, 1.0]])
    answers = {
        tuple(ag.CGE(f=2)(rows[torch.tensor(p)]).tolist())
        for p in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 4, 0, 1, 3])
    }
    assert len(answers) == 1


def test_a_subclass_that_decides_otherwise_is_asked():
    class Even(ag.NormClipping):
        def weigh(self, mixed):
            return torch.full((mixed.m,), 1 / mixed.m, dtype=torch.float64)

    class Halved(ag.NormClipping):
        def shares(self, found, unit, order=None):
            return np.full(found.shape[-1], 0.5)

    rows = drawn(6, 40)
    assert Even().asks is None
    assert not Even().validates
    assert torch.allclose(Even()(rows), rows.mean(0), atol=1e-6)
    assert torch.allclose(Halved()(rows), rows.sum(0) / 2, atol=1e-5)


STAGES = [
    ag.Clipping(tau=60.0),
    ag.ARC(f=2),
    ag.Normalise(),
    ag.Clipping(tau=80.0) >> ag.Normalise(),
    ag.ARC(f=2) >> ag.Clipping(tau=60.0),
]


def scaled(stage, rows):
    """What stages make of rows, in float64 and one after the other."""
    for each in getattr(stage, "stages", (stage,)):
        rows = torch.from_numpy(each.scales(rows.norm(dim=1).numpy(), 1.0)).unsqueeze(1) * rows
    return rows


@pytest.mark.parametrize("stage", STAGES, ids=repr)
def test_behind_stages_that_scale_rows_no_gram_product_is_taken(stage, monkeypatch):
    lasts = (
        *(ag.Mean(), ag.Median(), ag.MeaMed(f=2), ag.RLR(ag.Mean(), threshold=3), ag.LASA(f=2)),
        *(ag.NormClipping(), ag.FLTrust(trusted=1), ag.Zeno(f=2), ag.SignGuard()),
    )
    for module in (measuring.linalg, mixed.linalg):
        monkeypatch.setattr(module, "gram", None)
    for n, d in ((20, 50), (20, 9_001), (300, 400)):
        rows = drawn(n, d) * torch.linspace(0.1, 2, n)[:, None]
        for last in lasts:
            if last.trusts and any(each.mixes for each in getattr(stage, "stages", (stage,))):
                continue
            out, expect = (stage >> last)(rows), last(scaled(stage, rows.double()))
            # Lengths have errors of 1e-6 of themselves, and sums are float32.
            assert torch.allclose(out.double(), expect, rtol=1e-4, atol=1e-5), (last, n, d)


def test_rows_that_a_stage_leaves_alone_are_chosen_by_their_lengths():
    rows = drawn(20, 9_001)
    assert torch.equal((ag.Clipping(tau=1e6) >> ag.CGE(f=2))(rows), ag.CGE(f=2)(rows))


@pytest.mark.parametrize("last", [ag.CGE(f=2), ag.MoNNA(f=2), ag.NormClipping(), ag.FLTrust()], ids=repr)
def test_behind_a_sketch_rules_of_distances_decide_on_the_sketch(last):
    rows = drawn(20, 9_001) * torch.linspace(0.9, 1.1, 20)[:, None]
    stage = ag.RandomProjection(k=2)
    seen = stage.apply(mixed.Mixed(rows))
    out = (stage >> last)(rows)
    if isinstance(last, (ag.CGE, ag.MoNNA)):
        sizes = seen.geometry.sq_norms if isinstance(last, ag.CGE) else seen.geometry.sq_dists[0]
        kept = sizes.argsort()[:18]
        assert torch.allclose(out, rows[kept].mean(0), atol=1e-6)
        assert not torch.allclose(out, last(rows), atol=1e-3)
    else:  # of these a sketch says nothing: lengths and angles are those of the rows
        assert torch.allclose(out, last(rows), atol=1e-6)


def test_stages_scale_rows_without_a_number_of_another_row():
    rows = drawn(20, 9_001).double()
    rows[4] *= 1e150  # times 0 of a matrix it would be 0, and beside small numbers it would drown them
    out = (ag.Clipping(tau=1.0) >> ag.Median())(rows)
    units = rows / rows.norm(dim=1, keepdim=True)
    assert torch.allclose(out, ag.Median()(units), rtol=1e-12, atol=1e-15)


def test_a_stage_of_another_package_is_taken_at_its_word():
    class Halving(ag.Clipping):
        def mixing(self, geometry):
            return torch.eye(geometry.m, dtype=torch.float64) / 2

    class Thirds(ag.Clipping):
        def scales(self, norms, unit):
            return np.full(norms.shape, 1 / 3)

    rows = drawn(7, 30)
    for last in (ag.Mean(), ag.Median()):
        assert torch.allclose((Halving() >> last)(rows), last(rows) / 2, atol=1e-6)
        assert torch.allclose((Thirds() >> last)(rows), last(rows) / 3, atol=1e-6)


def test_what_is_asked_after_the_call_is_asked_of_rows_that_were_looked_at():
    rows = drawn(20, 60)
    rows[1:] = rows[0]  # products about a row vanish, lengths do not
    for rule in (ag.CGE(f=2), ag.CenteredClipping(start="zero"), ag.ARC(f=2) >> ag.Mean()):
        out, certificates = rule.certified(rows, 2)
        assert torch.allclose(out, rule(rows))
        assert len(certificates) == 1
        assert rule.explain(rows).aggregate.isfinite().all()


def test_a_single_iteration_from_a_past_is_that_by_products(monkeypatch):
    from byzopt.aggregators.centered_clipping import _Continued

    rows, centre = drawn(20, 9_001, offset=3.0), drawn(1, 9_001, offset=3.0)[0]
    for tau in (None, 20.0):
        rule = _Continued(ag.CenteredClipping(tau=tau), centre)
        out = rule(rows)
        with monkeypatch.context() as patched:
            patched.setattr("byzopt.aggregators.centered_clipping.measures", lambda mixed: False)
            # Distances by products about the centre, float32, have errors of 1e-6 of themselves.
            assert torch.allclose(rule(rows), out, rtol=1e-5, atol=1e-5)
