"""Triton's kernels against float64, plain torch and slow twins.

On a GPU that torch sees: `pytest FILE`. Without one, where Triton is installed, by its interpreter on CPU
tensors: `TRITON_INTERPRET=1 pytest FILE` (`.ci/run` makes an environment for it).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from byzopt import accelerator, kernels
from byzopt.aggregators import PRE_AGGREGATORS, RULES, GeometricRule, Mean, RankRule, rule_from
from byzopt.aggregators.core import batching, calling
from byzopt.aggregators.numerics import measuring
from byzopt.aggregators.numerics.selection import answer
from byzopt.errors import InvalidInput
from byzopt.kernels import RankWindow, gpu
from byzopt.kernels.gpu import launching
from tests.reference import rules as twin
from tests.reference import rules_more
from tests.spellings import build, chains, meets, ties

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
PLACE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
pytestmark = [
    pytest.mark.skipif(
        find_spec("triton") is None or not (INTERPRETED or PLACE == "cuda"),
        reason="needs Triton, which is made for Linux, and a GPU or TRITON_INTERPRET=1",
    ),
    pytest.mark.filterwarnings(
        "ignore::RuntimeWarning"
    ),  # NumPy's, in the interpreter, where numbers overflow
]
EPS = torch.finfo(torch.float32).eps
HALVES = [torch.float16, torch.bfloat16]
SIZES = [(1, 5), (2, 700), (3, 129), (7, 513), (20, 300), (25, 257), (64, 100)]


@pytest.fixture(autouse=True)
def place():
    with gpu.interpreted() if INTERPRETED else nullcontext(), torch.device(PLACE):
        yield


def cpu(seed):
    """Numbers are drawn alike for all devices."""
    return {"generator": torch.Generator("cpu").manual_seed(seed), "device": "cpu"}


def drawn(n, d, dtype=torch.float32, seed=0, offset=0.0):
    return (torch.randn(n, d, **cpu(seed)) + offset).to(PLACE, dtype)


def exactly(rows, plan):
    """The plan's answer as torch takes it on a CPU, where means are sums from the first rank on."""
    return answer(rows.cpu(), plan).to(PLACE)


def plans(m):
    f = (m - 1) // 3
    middle = RankWindow((m - 1) // 2, m // 2 + 1)
    return middle, RankWindow(f, m - f), RankWindow(0, m), middle._replace(around=m - f)


def means(m, n, seed=1):
    shares = torch.rand(m, n, dtype=torch.float64, **cpu(seed)).to(PLACE)
    return shares / shares.sum(dim=1, keepdim=True)


def layouts(rows):
    """The same numbers, as they may lie."""
    n, d = rows.shape
    wide = rows.new_zeros(2 * n, 3 * d)
    wide[::2, 1::3] = rows
    return rows, wide[::2, 1::3], rows.T.contiguous().T


@pytest.mark.parametrize("n,d", SIZES)
def test_columns_are_those_of_torch_to_the_last_bit(n, d):
    rows = drawn(n, d)
    for plan in plans(n):
        out, trace = gpu.columns(rows, plan, None, None, torch.float32)
        assert torch.equal(out, exactly(rows, plan)), plan
        assert float(trace) == 0


@pytest.mark.parametrize("dtype", [*HALVES, torch.float64])
def test_other_dtypes_are_reduced_in_their_compute_dtype_and_rounded_once(dtype):
    rows = drawn(9, 200, dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for plan in plans(9):
        out, _ = gpu.columns(rows, plan, None, None, wide)
        exact = exactly(rows.to(wide), plan)
        if dtype == torch.bfloat16 and INTERPRETED:  # which the interpreter cuts off where a GPU rounds
            assert ((out - exact).abs() <= torch.finfo(dtype).eps * exact.abs()).all(), plan
        else:
            assert torch.equal(out, exact.to(dtype)), plan


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layouts_change_nothing(dtype):
    rows, plan, mixing = drawn(7, 150, dtype), plans(7)[1], means(5, 7)
    first = None
    for same in layouts(rows):
        found = (
            gpu.columns(same, plan, None, None, torch.float32)[0],
            gpu.columns(same, plans(5)[0], mixing, 2, torch.float32)[0],
            gpu.blends(mixing, same, torch.float32)[0],
            gpu.products(same, same[3], torch.float32),
            gpu.squares(same, torch.float32),
        )
        first = first or found
        assert all(map(torch.equal, found, first))
    one = torch.arange(150.0).expand(7, 150)  # one row, seven times in the same place
    assert torch.equal(gpu.columns(one, plan, None, None, torch.float32)[0], one[0])


@pytest.mark.parametrize("n,m,d", [(2, 1, 40), (7, 7, 600), (70, 30, 50)])
@pytest.mark.parametrize("about", [False, True])
def test_mixing_on_the_way_is_mixing_before(n, m, d, about):
    rows, mixing = drawn(n, d, offset=1e3), means(m, n)
    for plan in plans(m):
        out, trace = gpu.columns(rows, plan, mixing, n // 2 if about else None, torch.float32)
        exact = answer(mixing @ rows.double(), plan)
        # Products of numbers of size s with weights of sum 1, in a sum of n: each rounds by eps/2 of s at
        # most, and about a row s is the spread. The answer is a mean of m such sums, about 1e3 itself.
        size = 10 if about else 1e3
        assert (out - exact).abs().max() <= EPS * ((n + 2) * size + (m + 2) * 1e3) / 2, plan
        assert float(trace) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_bad_number_anywhere_is_seen(value):
    for place in (0, 127, 128, 511, 512, 699):
        rows = drawn(5, 700)
        rows[3, place] = value
        for plan in plans(5):
            assert gpu.columns(rows, plan, None, None, torch.float32)[1].isnan()
            assert gpu.columns(rows, plan, torch.eye(5), None, torch.float32)[1].isnan()
            assert gpu.columns(rows, plan, torch.eye(5).double(), 1, torch.float32)[1].isnan()
        assert gpu.blends(means(2, 5), rows, torch.float32)[1].isnan()
        assert not gpu.products(rows, None, torch.float32)[3, 3].isfinite()
        assert not gpu.products(rows, rows[0], torch.float32)[3, 3].isfinite()
        assert not gpu.squares(rows, torch.float32)[3].isfinite()


def test_a_sum_that_overflows_is_seen_and_huge_and_tiny_rows_are_not():
    huge, tiny = drawn(4, 50) * 1e38, drawn(4, 50) * 1e-44
    for plan in plans(4)[:2]:
        for rows in (huge.clamp(-1e38, 1e38), tiny):
            out, trace = gpu.columns(rows, plan, None, None, torch.float32)
            assert torch.equal(out, exactly(rows, plan))
            assert float(trace) == 0
    ends = torch.full((4, 50), 3e38)
    assert gpu.columns(ends, RankWindow(0, 4), None, None, torch.float32)[1].isnan()
    assert gpu.blends(torch.ones(1, 4), ends, torch.float32)[1].isnan()
    assert gpu.blends(torch.ones(1, 4), torch.full((4, 50), 6e4).half(), torch.float32)[1].isnan()
    assert gpu.products(ends, None, torch.float32).diagonal().isinf().all()


@pytest.mark.parametrize("n", [1, 2, 65, 300])
def test_the_mean_of_any_number_of_rows(n):
    rows = drawn(n, 200, offset=3.0)
    out, trace = gpu.columns(rows, RankWindow(0, n), None, None, torch.float32)
    assert (out - rows.double().mean(dim=0)).abs().max() <= n * EPS * 10
    assert float(trace) == 0


@pytest.mark.parametrize("n,m", [(1, 1), (9, 3), (30, 16)])
def test_blends_are_weighted_sums_and_rows_without_weight_are_not_read(n, m):
    rows, weights = drawn(n, 600), means(m, n) - 0.02
    out, trace = gpu.blends(weights, rows, torch.float32)
    assert (out - weights @ rows.double()).abs().max() <= n * EPS * 10
    assert float(trace) == 0
    for bad in {0, n - 1}:
        spoilt, less = rows[:, :20].clone(), weights.clone()
        spoilt[bad], less[:, bad] = np.nan, 0
        out, trace = gpu.blends(less, spoilt, torch.float32)
        assert out.isfinite().all()
        assert float(trace) == 0


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("n,d", [(1, 5), (7, 300), (20, 70), (21, 300), (70, 150)])
def test_products_are_those_of_float64(n, d, dtype):
    rows = drawn(n, d, dtype, offset=2.0)
    for pivot in (None, rows[n // 2]):
        about = rows.double() if pivot is None else (rows.float() - pivot.float()).double()
        found, lengths = accelerator.products(rows, pivot, torch.float32), about.norm(dim=1)
        # A sum of k products in float32 is off by k eps/2 of the lengths' product; k is at most 64 here.
        assert ((found - about @ about.T).abs() <= 32 * EPS * torch.outer(lengths, lengths)).all()
        assert (found - found.T).abs().max() <= 32 * EPS * lengths.max() ** 2
    exact = rows.double().square().sum(dim=1)
    assert ((gpu.squares(rows, torch.float32) - exact).abs() <= 32 * EPS * exact).all()


def test_many_spans_are_summed_in_float64():
    rows = drawn(2, 9_000, offset=1.0)
    found, exact = gpu.products(rows, None, torch.float32), rows.double() @ rows.double().T
    assert ((found - exact).abs() <= 8 * EPS * exact).all()
    assert torch.equal(found, found.T)


@pytest.mark.parametrize("n", [5, 20])
def test_equal_rows_have_equal_products_to_the_last_bit(n):
    rows = drawn(n, 200)
    rows[-1] = rows[0]
    found = gpu.products(rows, rows[1], torch.float32)
    assert torch.equal(found[0], found[-1])


def relative(found, rows):
    """The largest error of a product, over the product of the lengths."""
    exact, lengths = rows.double() @ rows.double().T, rows.double().norm(dim=1)
    return float(((found - exact).abs() / torch.outer(lengths, lengths)).max())


def test_products_by_tensor_cores_are_asked_for_and_their_errors_are_known(monkeypatch):
    rows, errors = drawn(20, 600), {}
    for word in ("float32", "tf32x3", "tf32"):
        monkeypatch.setenv("BYZOPT_GPU_PRODUCTS", word)
        errors[word] = relative(gpu.products(rows, None, torch.float32), rows)
    # Numbers of 11 bits are off by 2^-12 each, and products by twice that, mostly in different directions;
    # what tf32x3 leaves out is the product of the parts behind, 2^-24.
    # Tensor cores cut their sums off where the interpreter rounds them.
    assert errors["float32"] <= 16 * EPS
    assert errors["tf32x3"] <= (16 if INTERPRETED else 64) * EPS
    assert 2**-18 < errors["tf32"] <= 2**-11
    monkeypatch.setenv("BYZOPT_GPU_PRODUCTS", "tf16")
    with pytest.raises(InvalidInput, match="tf32x3"):
        gpu.products(rows, None, torch.float32)


def test_nan_with_all_bits_set_stays_nan_in_tf32(monkeypatch):
    monkeypatch.setenv("BYZOPT_GPU_PRODUCTS", "tf32")
    rows = drawn(3, 40)
    rows[1, 7] = torch.tensor([0x7FFFFFFF], dtype=torch.int32).view(torch.float32)[0]
    assert gpu.products(rows, None, torch.float32)[1, 1].isnan()


def test_no_columns_give_no_answer_and_nothing_bad():
    none = torch.empty(5, 0)
    out, trace = gpu.columns(none, plans(5)[0], None, None, torch.float32)
    assert out.shape == (0,)
    assert float(trace) == 0
    assert gpu.blends(means(2, 5), none, torch.float32)[0].shape == (2, 0)
    assert torch.equal(accelerator.products(none, None, torch.float32), torch.zeros(5, 5).double())


@pytest.mark.parametrize("n,d", [(65, 37), (128, 70), (200, 33), (300, 9), (1100, 3)])
def test_ranks_of_tall_columns_are_found_bit_by_bit(n, d):
    rows = drawn(n, d, offset=0.5)
    rows[: n // 3, 1::2] = rows[n // 3, 1::2]  # many are equal
    rows[:, 2] = torch.where(rows[:, 2] > 0, 0.0, -0.0)
    for plan in (*plans(n), RankWindow(0, 1), RankWindow(n - 1, n), RankWindow(0, n, n // 2)):
        out, trace = gpu.columns(rows, plan, None, None, torch.float32)
        exact = exactly(rows.double(), plan)
        if plan.last - plan.first == 1 and plan.around is None:
            assert torch.equal(out, exact.float()), plan
        # A sum of n numbers in any order: each rounds by eps/2 of at most their sum of sizes. About a centre
        # two values at the same distance but for rounding may take each other's place.
        assert (out - exact).abs().max() <= n * EPS * rows.abs().max(), plan
        assert float(trace) == 0
        turned = gpu.columns(rows.T.contiguous().T, plan, None, None, torch.float32)[0]  # sums another way
        assert (turned - exact).abs().max() <= n * EPS * rows.abs().max(), plan
    for value in (np.nan, np.inf, -np.inf):
        spoilt = rows.clone()
        spoilt[n - 2, d - 1] = value
        assert gpu.columns(spoilt, plan, None, None, torch.float32)[1].isnan(), value


@pytest.mark.parametrize("dtype", HALVES)
def test_tall_columns_of_half_precision_are_rounded_once(dtype):
    rows = drawn(70, 40, dtype)
    for plan in plans(70):
        out, _ = gpu.columns(rows, plan, None, None, torch.float32)
        exact = exactly(rows.double(), plan)
        slack = 1e-6 if plan.around is None else 1e-2  # two values at one distance are two answers
        assert ((out - exact).abs() <= 2 * torch.finfo(dtype).eps * exact.abs() + slack).all(), plan


def test_many_mixed_rows_are_mixed_by_torch_and_ranked_by_a_kernel():
    rows, mixing = drawn(70, 40), means(66, 70)
    for plan in plans(66)[:3]:
        found, trace = accelerator.columns(rows, plan, mixing, None, torch.float32)
        assert (found - exactly(mixing @ rows.double(), plan)).abs().max() <= 2e2 * EPS
        assert float(trace) == 0


def test_what_does_not_fit_is_left_to_torch():
    tall, many = drawn(65, 30), drawn(21, 30)
    plan = plans(65)[0]
    assert gpu.columns(tall.double(), plan, None, None, torch.float64) is None
    assert gpu.columns(tall, plan, means(65, 65), None, torch.float32) is None
    assert gpu.columns(drawn(4097, 2), RankWindow(1, 3), None, None, torch.float32) is None
    exact = exactly(tall.double(), plan)
    assert torch.equal(accelerator.columns(tall.double(), plan, None, None, torch.float64)[0], exact)
    assert gpu.products(many, None, torch.float32) is None  # torch is faster
    assert gpu.products(tall, None, torch.float64) is None
    assert gpu.blends(means(17, 65), tall, torch.float32) is None
    assert gpu.products(torch.nn.Parameter(tall), None, torch.float32) is None
    with kernels.disabled():
        assert gpu.columns(tall[:3], plans(3)[0], None, None, torch.float32) is None
        assert gpu.columns(tall, plan, None, None, torch.float32) is None


@pytest.mark.parametrize("word,on", [("on", True), ("cpu", False), ("off", False)])
def test_kernels_of_the_gpu_are_switched_off_from_outside(word, on):
    code = "from byzopt.kernels.jit import switched; print(switched('gpu'))"
    environment = os.environ | {"BYZOPT_KERNELS": word}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert found.stdout.strip() == str(on), found.stderr


def test_a_kernel_that_cannot_be_made_is_told_once_and_left_to_torch(monkeypatch):
    from triton.runtime.errors import OutOfResources

    def run():
        raise OutOfResources(300, 200, "shared memory")

    monkeypatch.setattr(launching, "_failed", set())
    monkeypatch.setitem(launching._state, "interpreted", False)
    with pytest.warns(UserWarning, match=r"shared memory.*plain torch"):
        assert launching.attempted("k", run) is None
    assert launching.attempted("k", pytest.fail) is None


def test_the_doctor_says_which_kernels_are_in_use():
    assert gpu.state().startswith("triton 3")
    with kernels.disabled():
        assert "switched off" in gpu.state()


# Whole rules. Kernels for products see rows of any size here, which otherwise are taken in float64 where they
# are few.
N, D, F = 13, 60, 2
CHAINS = chains("", "nnm >> ", "bucketing >> ")


@pytest.fixture
def used(monkeypatch):
    """The kernels that answered."""
    found = set()

    def watched(name, kernel):
        def call(*arguments):
            answered = kernel(*arguments)
            if answered is not None:
                found.add(name)
            return answered

        return call

    for name in ("products", "columns", "blends", "squares"):
        monkeypatch.setattr(gpu, name, watched(name, getattr(gpu, name)))
    for module in (measuring, calling, batching):
        monkeypatch.setattr(module, "SMALL", 0)
    return found


def built(spelling, n=N):
    for f in (F, 1):
        rule = build(spelling, f)
        try:
            rule.check(n)
        except InvalidInput:
            continue
        return rule
    raise AssertionError(spelling)


@pytest.mark.parametrize("spelling", [s for s in CHAINS if meets(build(s)) and not ties(build(s))])
def test_rules_by_kernels_are_rules_in_float64(spelling, used):
    rule, rows = built(spelling), drawn(N, D, seed=2, offset=1.0)
    rows[:F] += 3
    with kernels.disabled():
        exact = rule(rows.double())
    used.clear()
    found = rule(rows)
    assert found.dtype == torch.float32
    # Weights are decided on products that are off by 16 eps; a solver's answer moves with them.
    assert (found - exact).abs().max() <= 1e3 * EPS * rows.abs().max()
    if type(rule.last).reduce is RankRule.reduce:
        sums = bool(rule.stages) and isinstance(rule.last, Mean)  # a mean of sums of rows is one of them
        assert ("blends" if sums else "columns") in used
    if type(rule.last).reduce is GeometricRule.reduce:
        assert "products" in used
        assert "blends" in used or (rows == found).all(dim=1).any()  # one row is copied


PLAIN = {name: getattr(twin, name) for name in ("mean", "median", "trimmed_mean", "krum", "rfa")}


@pytest.mark.parametrize("name", sorted(PLAIN | rules_more.TWINS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rules_by_kernels_are_their_slow_twins(name, dtype, used):
    rows = drawn(9, 40, dtype, seed=3)
    options = {"trusted": 8} if name == "monna" else {}
    rule = rule_from({"name": name} | ({"f": 1} if "f" in RULES[name].__dataclass_fields__ else {}) | options)
    found, expected = rule(rows), (PLAIN | rules_more.TWINS)[name](rows.double().cpu().numpy(), 1, **options)
    # Of decisions on well separated numbers only rounding is left: of the products, and of the answer.
    slack = 1e2 * EPS + torch.finfo(dtype).eps
    assert np.abs(found.double().cpu().numpy() - expected).max() <= slack * rows.abs().max()
    assert used


@pytest.mark.parametrize("name", ["median", "krum", "nnm >> trimmed_mean", "nnm >> rfa"])
def test_bad_rows_are_dropped_and_counted_as_ever(name, used):
    rule, rows = built(name), drawn(N, D)
    rows[4, 7], rows[9, 0] = np.nan, -np.inf
    kept = [i for i in range(N) if i not in (4, 9)]
    assert torch.equal(rule(rows), rule.lowered(2)(rows[kept]))
    extreme = drawn(N, D)
    extreme[:2] = 3e38
    with kernels.disabled():
        exact = rule(extreme.double())
    assert (rule(extreme) - exact).abs().max() <= 1e-4


@pytest.mark.parametrize("name", list(PRE_AGGREGATORS))
def test_pre_aggregators_alone(name, used):
    stage, rows = PRE_AGGREGATORS.build(name, f=F), drawn(N, D, seed=4)
    with kernels.disabled():
        exact = stage(rows.double())
    assert (stage(rows) - exact).abs().max() <= 1e3 * EPS


def test_products_of_few_numbers_are_left_to_float64():
    rows = drawn(9, 60, offset=5.0)
    for name in ("krum", "nnm >> median"):
        rule = rule_from(name, f=2)
        with kernels.disabled():
            exact = rule(rows.double())
        assert (rule(rows) - exact).abs().max() <= 60 * EPS


COMPILE = """
import json, sys
from tests.gpu_code import made
print(json.dumps(made(json.loads(sys.argv[1]))))
"""


@pytest.mark.parametrize("target", ["80", "90", "gfx942"])
def test_kernels_are_made_for_gpus_and_nothing_much_leaves_their_registers(target):
    """Machine code for GPUs that are not here: of NVIDIA and AMD, by the compilers that Triton brings."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "ignore", "-c", COMPILE, json.dumps(target)]
    found = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert found.returncode == 0, found.stderr
    for kernel, (registers, spilt) in json.loads(found.stdout).items():
        assert spilt <= 16, kernel  # bytes: one kernel spills that much, without a loss that can be measured
        assert 0 < registers <= 512, kernel
