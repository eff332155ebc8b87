"""How rules are called: by whom, with what, in which surroundings."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.masked import masked_tensor

import byzopt
from byzopt import kernels
from byzopt.aggregators import (
    NNM,
    RFA,
    RULES,
    CenteredClipping,
    Chain,
    DnC,
    GeometricRule,
    Krum,
    MeaMed,
    Median,
    Medoid,
    MultiKrum,
    PreAggregator,
    rule_from,
)
from byzopt.aggregators.core.filters import StatelessFilter
from byzopt.errors import InvalidInput, TooManyFaults
from byzopt.experiments.sweeps import Sweep, run_sweep


@dataclass(frozen=True)
class Own(GeometricRule):
    f: int = 2

    def weights(self, geometry):
        return torch.full((geometry.m,), 1 / geometry.m, dtype=torch.float64)


@dataclass(frozen=True)
class Looks(Own):
    def reduce(self, mixed):
        return mixed.rows.mean(dim=0)


@dataclass(frozen=True)
class Moves(PreAggregator):
    f: int = 2

    def mixing(self, geometry):
        raise NotImplementedError

    def apply(self, mixed):
        return mixed.again(mixed.rows[:3])


@pytest.mark.parametrize("rule", [Own(), Looks(), Moves() >> Looks(), NNM(f=2) >> Looks()], ids=repr)
def test_a_rule_of_a_plugin_that_looks_at_rows_itself_is_given_finite_ones(rule):
    """That a base class validates NaN by the way in which it looks holds for that way alone."""
    rows = torch.ones(6, 3)
    rows[4, 1] = torch.nan
    assert torch.equal(rule(rows), torch.ones(3))
    rows[0, 0], rows[1, 2] = torch.inf, -torch.inf
    with pytest.raises(TooManyFaults):
        rule(rows)


@dataclass(frozen=True)
class MeanOfKrum(Krum):
    def reduce(self, mixed):
        return mixed.rows.mean(dim=0)


@dataclass(frozen=True)
class EvenKrum(Krum):
    def weights(self, geometry):  # of one set alone
        return torch.full((geometry.m,), 1 / geometry.m, dtype=torch.float64)


@dataclass(frozen=True)
class MeanOfMedian(Median):
    def columns(self, block):
        return block.mean(dim=0)


@dataclass(frozen=True)
class EvenVotes(CenteredClipping):
    def weights(self, geometry):
        return torch.full((geometry.m,), 1 / geometry.m, dtype=torch.float64)


class Averages:
    def reduce(self, mixed):
        return mixed.rows.mean(dim=0)


@dataclass(frozen=True)
class MixedIn(Averages, MeaMed):
    pass


@pytest.mark.parametrize(
    "rule", [MeanOfKrum(f=1), EvenKrum(f=1), MeanOfMedian(f=1), EvenVotes(f=1), MixedIn(f=1)], ids=repr
)
def test_what_a_rule_says_of_its_code_holds_for_no_other_code(rule):
    """Each of these is the mean, whatever it is derived from: in a batch, as a filter, in what is proved."""
    sets = torch.randn(3, 7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    means = sets.mean(dim=1)
    assert torch.allclose(rule(sets[0]), means[0])
    assert torch.allclose(rule.batch(sets), means)
    assert torch.allclose(rule.certified(sets, 1)[0], means)
    assert isinstance(rule.as_filter(), StatelessFilter)  # which asks the rule itself
    assert rule.kappa_linear(7) is None
    assert rule.kappa_squared(7) is None
    far = torch.cat([sets[0, :6], torch.full((1, 4), 1e6, dtype=torch.float64)])
    told = rule.certify(far).squared  # of a mean with a row far away nothing small is true
    assert told is None or told > 1e6
    far[6] = torch.nan
    assert torch.allclose(rule(far), far[:6].mean(dim=0))


@dataclass(frozen=True)
class OtherNNM(NNM):
    def mixing(self, geometry):
        return torch.eye(geometry.m, dtype=torch.float64)


def test_a_stage_that_mixes_otherwise_has_no_lemma_of_its_base():
    chain = OtherNNM(f=1) >> Krum(f=1)
    assert chain.kappa_squared(9) is None
    sets = torch.randn(3, 9, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(chain.batch(sets), Krum(f=1).batch(sets))


@dataclass(frozen=True)
class TwoWeights(Krum):
    def weights(self, geometry):
        return torch.full((2,), 0.5, dtype=torch.float64)


@dataclass(frozen=True)
class OneNumber(Krum):
    def reduce(self, mixed):
        return mixed.rows.mean()


@pytest.mark.parametrize("rule", [TwoWeights(f=1), OneNumber(f=1), NNM(f=1) >> TwoWeights(f=1)], ids=repr)
def test_an_answer_of_another_shape_is_refused(rule):
    rows = torch.randn(7, 4)
    for call in (rule, lambda rows: rule.batch(rows.expand(3, 7, 4))):
        with pytest.raises(InvalidInput):
            call(rows)


@pytest.mark.parametrize("parts", [([NNM(f=1)], NNM(f=1)), ([Krum(f=1)], Krum(f=1)), (["nnm"], Krum(f=1))])
def test_a_chain_of_other_things_is_refused(parts):
    with pytest.raises(InvalidInput, match="pre-aggregators before one rule"):
        Chain(*parts)


def test_dnc_with_drawn_coordinates_drops_a_row_that_is_not_finite_elsewhere():
    rows = torch.randn(9, 50, generator=torch.Generator().manual_seed(0))
    rows[3] = rows[4]
    rows[3, 7] = torch.inf
    assert torch.isfinite(DnC(f=2, coordinates=2)(rows)).all()


def test_krum_with_one_more_neighbour_takes_as_few_rows_as_its_score_does():
    rows = torch.cat(
        [torch.randn(10, 4, generator=torch.Generator().manual_seed(1)), torch.full((9, 4), 50.0)]
    )
    assert Krum(f=9, extra=1)(rows).norm() < 10
    assert MultiKrum(f=9, extra=1)(rows).norm() < 10
    for rule in (Krum(f=9), MultiKrum(f=9), Krum(f=10, extra=1)):
        with pytest.raises(InvalidInput):
            rule(rows)


def test_the_bulk_of_four_rows_on_a_line_knows_no_order():
    """The third distance from 1 to 5 is that from 5 to 1: two majorities are equally tight."""
    rows = torch.tensor([[0.0], [1.0], [5.0], [5.5]])
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2], [2, 3, 0, 1]):
        assert torch.allclose(RFA(f=1)(rows[order]), RFA(f=1)(rows))
        assert torch.allclose(RFA(f=1)(-rows[order]), -RFA(f=1)(rows))
        assert torch.allclose(CenteredClipping(f=1)(-rows[order]), -CenteredClipping(f=1)(rows))


def test_the_medoid_of_tied_rows_is_the_first_of_them():
    for seed in range(20):
        rows = torch.randn(6, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) / 3
        ranks = rows.flatten().argsort()
        assert torch.equal(Medoid()(rows), rows[int(min(ranks[2], ranks[3]))])


@pytest.mark.parametrize("kind", [np.array, torch.tensor, list])
def test_a_sequence_of_rows_is_answered_in_kind(kind):
    sequence = [kind([1.0, 2.0]), kind([3.0, 2.0]), kind([3.0, 5.0])]
    wanted = np.ndarray if kind is np.array else torch.Tensor
    for rows in (sequence, tuple(sequence), iter(sequence)):
        assert isinstance(Median()(rows), wanted)
    assert isinstance(NNM(f=1)(sequence), wanted)
    assert Median()(sequence).tolist() == [3.0, 2.0]


@pytest.mark.parametrize(
    "spelling", ["nnm >> rfa", "krum", "fail_closed(rule='nnm >> krum')", [{"name": "nnm"}, {"name": "rfa"}]]
)
def test_a_rule_by_name_without_f_says_where_f_goes(spelling):
    with pytest.raises(InvalidInput, match=r"Give f= beside the rule, or write \w+\(f=\.\.\.\)\."):
        rule_from(spelling)


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SURROUNDINGS = {
    "autocast to bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", torch.float16),
    "another default device": lambda: torch.device("meta"),
    "default dtype float64": lambda: default_dtype(torch.float64),
    "default dtype bfloat16": lambda: default_dtype(torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "deterministic algorithms": deterministic,
}
CALLED = [*RULES, *(f"nnm >> {name}" for name in ("mean", "median", "meamed", "rfa", "krum", "signguard"))]
CALLED += [
    "bucketing >> median",
    "clipping >> cge",
    "random_projection(k=64) >> rfa",
    "arc >> geometric_median",
]
CALLED += [f"weighted(rule='{name}', weights=({'1, 2, ' * 8}))" for name in ("median", "rfa", "trimmed_mean")]


@pytest.mark.parametrize("where", SURROUNDINGS)
def test_surroundings_change_no_bit_of_an_answer(where):
    """Rows with a common part that dwarfs their spread: in half precision nothing of it would be left."""
    noise = torch.randn(16, 100, generator=torch.Generator().manual_seed(0))
    rows = torch.linspace(-1, 1, 100) + 1e-3 * noise
    for compiled in (True, False):
        for spelling in CALLED:
            rule = rule_from(spelling, f=2)
            with nullcontext() if compiled else kernels.disabled():
                plain = rule(rows)
                with SURROUNDINGS[where]():
                    again = rule(rows)
            assert (again.device.type, again.dtype) == ("cpu", torch.float32), spelling
            assert torch.equal(again, plain), spelling


@pytest.mark.parametrize("where", SURROUNDINGS)
def test_surroundings_change_no_bit_of_a_report_or_of_a_batch(where):
    rows = torch.linspace(-1, 1, 100) + 1e-3 * torch.randn(
        4, 16, 100, generator=torch.Generator().manual_seed(0)
    )
    for spelling in ("median", "nnm >> rfa", "centered_clipping", "nnm >> median", "signguard", "krum"):
        rule = rule_from(spelling, f=2)
        plain, told = rule.batch(rows), rule.explain(rows[0])
        with SURROUNDINGS[where]():
            assert torch.equal(rule.batch(rows), plain)
            again = rule.explain(rows[0])
        assert torch.equal(again.aggregate, rule(rows[0]))
        assert torch.equal(again.weights, told.weights)
        assert torch.equal(again.scores, told.scores)


def test_a_stage_by_itself_does_not_hear_of_its_surroundings():
    rows = torch.linspace(-1, 1, 50) + 1e-3 * torch.randn(11, 50, generator=torch.Generator().manual_seed(0))
    plain = NNM(f=2)(rows)
    for where in SURROUNDINGS.values():
        with where():
            assert torch.equal(NNM(f=2)(rows), plain)


def test_a_rule_stands_in_a_compiled_function_and_its_answer_is_the_same():
    rows, rule = torch.randn(7, 300, generator=torch.Generator().manual_seed(0)), NNM(f=2) >> RFA(f=2)
    compiled = torch.compile(lambda rows: rule(rows * 2) + 1, backend="eager")
    assert torch.equal(compiled(rows), rule(rows * 2) + 1)


ROWS = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


class Wrapped(torch.Tensor):
    """A tensor of somebody's own that wraps another one: kernels do not find its numbers on the CPU."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise NotImplementedError


def fake_rows(device):
    with FakeTensorMode():
        return torch.empty(5, 3, device=device)


STRANGE = {
    "sparse": (lambda rule: rule(ROWS.to_sparse()), "to_dense"),
    "sparse rows in a list": (lambda rule: rule([row.to_sparse() for row in ROWS]), "to_dense"),
    "compressed": (lambda rule: rule(ROWS.to_sparse_csr()), "to_dense"),
    "nested": (lambda rule: rule(torch.nested.nested_tensor(list(ROWS), layout=torch.jagged)), "nested"),
    "masked": (lambda rule: rule(masked_tensor(ROWS, ROWS > 0)), "MaskedTensor"),
    "masked array": (lambda rule: rule(np.ma.array(ROWS.numpy(), mask=ROWS.numpy() > 0)), "masked array"),
    "meta": (lambda rule: rule(ROWS.to("meta")), "meta device"),
    "sets on meta": (lambda rule: rule.batch(ROWS.expand(2, 5, 3).to("meta")), "meta device"),
    "quantized": (
        lambda rule: rule(torch.quantize_per_tensor(ROWS, 0.1, 0, torch.qint8)),
        "dequantize",
    ),
    "complex": (lambda rule: rule(ROWS.to(torch.complex64)), "view_as_real"),
    "whole numbers": (lambda rule: rule(ROWS.long()), "rows.float"),
    "eight bits": (lambda rule: rule(ROWS.to(torch.float8_e4m3fn)), "rows.float"),
    "fake": (lambda rule: rule(FakeTensorMode().from_tensor(ROWS)), "FakeTensor"),
    "fake rows of a GPU": (lambda rule: rule(fake_rows("cuda")), "FakeTensor"),
    "wrapped on the CPU": (lambda rule: rule(Wrapped(ROWS)), "a Wrapped"),
    "vmap": (lambda rule: torch.func.vmap(rule)(ROWS.expand(2, 5, 3)), "rule.batch"),
    "grad": (lambda rule: torch.func.grad(lambda rows: rule(rows).sum())(ROWS), "no derivative"),
    "jvp": (lambda rule: torch.func.jvp(rule, (ROWS,), (ROWS,)), "no derivative"),
    "a stage in vmap": (lambda rule: torch.func.vmap(NNM(f=1))(ROWS.expand(2, 5, 3)), "rule.batch"),
    "explain": (lambda rule: rule.explain(ROWS.to_sparse()), "to_dense"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_no_plain_matrix_is_refused_in_a_line(kind):
    act, word = STRANGE[kind]
    for rule in (Median(f=1), NNM(f=1) >> RFA(f=1), Krum(f=1)):
        with pytest.raises(InvalidInput, match=word) as caught:
            act(rule)
        assert "\n" not in str(caught.value)


def test_dual_numbers_are_refused_and_negated_views_are_read_right():
    with forward_ad.dual_level(), pytest.raises(InvalidInput, match="no derivative"):
        Median()(forward_ad.make_dual(ROWS, ROWS))
    view = torch.complex(ROWS, ROWS).conj().imag  # its memory holds the numbers with the other sign
    assert torch.equal(Median()(view), Median()(-ROWS))


def test_every_tensor_is_made_on_a_device_that_is_named():
    """Not on the user's default device, where kernels and n x n numbers would not find it."""
    call = re.compile(
        r"torch\.(zeros|ones|empty|full|eye|arange|linspace|randperm|rand|randn|randint|tensor)\("
    )
    nameless = []
    for path in sorted(Path(byzopt.__file__).parent.rglob("*.py")):
        text = re.sub(r"^ *(>>>|\.\.\.) .*$", "", path.read_text(), flags=re.MULTILINE)  # examples are users'
        for found in call.finditer(text):
            depth, end = 1, found.end()
            while depth:
                depth += {"(": 1, ")": -1}.get(text[end], 0)
                end += 1
            probe = text[end:].startswith(".device.type")
            if "device=" not in text[found.start() : end] and not probe and path.name != "cores.py":
                nameless.append(f"{path.name}: {text[found.start() : end]}")
    assert not nameless


def test_all_public_names_and_no_others_come_with_a_star():
    names: dict[str, object] = {}
    exec("from byzopt import *", names)
    assert {"Krum", "simulate", "ModuleTask", "InvalidInput"} <= names.keys()
    assert not {"TYPE_CHECKING", "Any", "import_module", "annotations"} & names.keys()
    assert set(byzopt.__all__) <= set(dir(byzopt))
    assert "TYPE_CHECKING" not in dir(byzopt)


def test_names_are_listed_before_anything_is_loaded():
    code = "import byzopt; names = dir(byzopt); assert {'Krum', '__all__', '__version__'} <= set(names)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("device", ["meta", "cuda:99", "nonsense"])
def test_a_device_that_is_not_here_is_refused_in_a_line(device):
    words = r'Parameter `device` should .* Use device="cpu"\.$'
    task = byzopt.TASKS.build({"name": "digits", "device": device})
    with pytest.raises(InvalidInput, match=words):
        task.build(byzopt.Cohort.of(20, 3), 0)
    own = [(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64))] * 3
    with pytest.raises(InvalidInput, match=words):
        byzopt.ModuleTask(torch.nn.Linear(2, 2), torch.nn.CrossEntropyLoss(), own, device=device)


def test_a_sweep_on_a_device_that_is_not_here_is_refused_before_anything_is_stored(tmp_path):
    spec = {"task": {"name": "digits", "device": "cuda:99"}, "rule": "mean", "lr": 0.1, "rounds": 2}
    with pytest.raises(InvalidInput, match="Parameter `device`"):
        run_sweep(Sweep(name="away", spec=spec, grid={"seed": [0, 1]}), tmp_path / "store", jobs=0)
    assert not list(tmp_path.glob("store/*/result.json"))
