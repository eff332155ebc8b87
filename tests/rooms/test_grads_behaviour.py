"""Gradients of other people's modules: what they draw, write and mix reaches nobody else, now or later."""

from __future__ import annotations

import random
import warnings
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import FakeQuantize, MovingAverageMinMaxObserver
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from byzopt.errors import InvalidInput
from byzopt.rng import seed_of
from byzopt.tasks import ModuleTask
from byzopt.tasks.grads import WorkerGradients, lent_rng
from byzopt.tasks.grads.grouped import Grouped
from byzopt.tasks.grads.plain import Looped
from tests.reference.gradients import gradient

N, B, SEED, T = 4, 5, 7, 3
DATA = torch.Generator().manual_seed(1)
WORKERS = [
    (torch.randn(12, 6, generator=DATA, dtype=torch.float64), torch.randint(3, (12,), generator=DATA))
    for _ in range(N)
]


class By(nn.Module):
    """A function of the features, with whatever attributes it needs."""

    def __init__(self, function, **attributes) -> None:
        super().__init__()
        self.function = function
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


class ByBatch(nn.Module):
    """Batch normalisation as people write it themselves."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)) / (x.std(0) + 1e-5) if self.training else x


class Moving(nn.Module):
    """A buffer that follows the data."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean.mul_(0.9).add_(x.detach().mean(0), alpha=0.1)
        return x - self.mean


class FrozenNorm(nn.Module):
    """A batch norm that stays in evaluation mode, as in fine-tuning."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)
        self.norm.running_var.fill_(2.0)

    def train(self, mode: bool = True) -> None:
        super().train(mode)
        self.norm.eval()  # and returns nothing, as is often forgotten

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(3, 1, dropout=0.5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(len(x), 2, 3)
        return self.attention(x, x, x)[0].flatten(1)


class Placed(nn.Module):
    """One layer placed three times."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 6)] * 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


class Caching(nn.Module):
    """A table made in the first pass, again where the batch is of another size."""

    def __init__(self) -> None:
        super().__init__()
        self.table = None

    def forward(self, x: Tensor) -> Tensor:
        if self.table is None or len(self.table) != len(x):
            self.table = torch.linspace(1, 2, 6, dtype=x.dtype).repeat(len(x), 1)
        return x * self.table


class FirstBatch(nn.Module):
    """Normalises by the first batch that it ever saw."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = None

    def forward(self, x: Tensor) -> Tensor:
        if self.mean is None:
            self.mean = x.detach().mean(0)
        return x - self.mean


def with_counter(self, x: Tensor) -> Tensor:
    self.calls += 1
    return x * (1 + 0.1 * self.calls)


def clamped(self, x: Tensor) -> Tensor:
    with torch.no_grad():
        self.layer.weight.clamp_(-0.1, 0.1)
    return self.layer(x)


def depth(draw) -> By:
    """Stochastic depth: one coin for the whole batch."""
    return By(lambda self, x: x * (draw() < 0.5) if self.training else x)


def old_norm(kind) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kind(nn.Linear(6, 6))


new = nn.utils.parametrizations
MIDDLES = {
    # drawn for each sample
    "dropout": (lambda: nn.Dropout(0.5), "grouped"),
    "functional dropout": (
        lambda: By(lambda self, x: functional.dropout(x, 0.5, self.training)),
        "grouped",
    ),
    "dropout in evaluation too": (lambda: By(lambda self, x: functional.dropout(x)), "grouped"),
    "noise": (lambda: By(lambda self, x: x + torch.randn_like(x)), "grouped"),
    "randomised slopes": (lambda: nn.RReLU(), "grouped"),
    "attention": (Attention, "vmap"),
    # drawn for a whole batch
    "one noise for all": (lambda: By(lambda self, x: x + torch.randn(6)), "vmap"),
    "mixup": (lambda: By(lambda self, x: (x + x[torch.randperm(len(x))]) / 2), "loop"),
    "mixup by integers": (lambda: By(lambda self, x: x + x[torch.randint(len(x), (len(x),))]), "loop"),
    "torch's coin": (lambda: depth(lambda: float(torch.rand(()))), "loop"),
    "Python's coin": (lambda: depth(random.random), "loop"),
    "NumPy's coin": (lambda: depth(np.random.rand), "loop"),
    # looks at the batch
    "own batch norm": (ByBatch, "vmap"),
    "batch norm": (lambda: nn.BatchNorm1d(6), "grouped"),
    "batch norm without weights": (lambda: nn.BatchNorm1d(6, affine=False), "grouped"),
    "batch norm that keeps nothing": (lambda: nn.BatchNorm1d(6, track_running_stats=False), "grouped"),
    "frozen batch norm": (FrozenNorm, "grouped"),
    "divided by the batch's size": (lambda: By(lambda self, x: x / len(x)), "vmap"),
    "by place": (lambda: By(lambda self, x: x * torch.arange(len(x)).unsqueeze(1)), "vmap"),
    "a guard against large numbers": (
        lambda: By(lambda self, x: x / 2 if x.abs().max() > 0.999 else x),
        "loop",
    ),
    # writes
    "moving mean": (Moving, "loop"),
    "counter": (lambda: By(with_counter, calls=0), "loop"),
    "fake quantisation": (
        lambda: FakeQuantize(MovingAverageMinMaxObserver, quant_min=0, quant_max=255).float(),
        "loop",
    ),
    "weights clamped in forward": (lambda: By(clamped, layer=nn.Linear(6, 6)), "loop"),
    "old spectral norm": (lambda: old_norm(nn.utils.spectral_norm), "loop"),
    "spectral norm": (lambda: new.spectral_norm(nn.Linear(6, 6)), "loop"),
    "old weight norm": (lambda: old_norm(nn.utils.weight_norm), "loop"),
    "weight norm": (lambda: new.weight_norm(nn.Linear(6, 6)), "vmap"),
    "a mask kept for the next pass": (Caching, "grouped"),
    "statistics of the first batch": (FirstBatch, "loop"),
    # computed again in the backward pass, or used in several places
    "checkpointing": (
        lambda: By(lambda self, x: checkpoint(self.layer, x, use_reentrant=False), layer=nn.Linear(6, 6)),
        "grouped",
    ),
    "placed three times": (Placed, "grouped"),
}


def around(name: str) -> nn.Module:
    with lent_rng(0):
        module = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), MIDDLES[name][0](), nn.Linear(6, 3))
    # Observers are written in float32 by torch itself.
    return module if name == "fake quantisation" else module.double()


def task(module, loss=functional.cross_entropy, workers=WORKERS, **options) -> ModuleTask:
    settings = {"batch": B, "seed": SEED, "dtype": torch.float64} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ModuleTask(module, loss, workers, **settings)


@pytest.fixture(scope="module", params=MIDDLES)
def case(request: pytest.FixtureRequest):
    name = request.param
    module = around(name)
    dtype = torch.float32 if name == "fake quantisation" else torch.float64
    fast, slow = (task(module, strategy=s, dtype=dtype) for s in ("auto", "loop"))
    x = fast.start() + 0.01
    return name, module, fast, slow, x, fast.draw(T)


def test_rows_are_those_of_autograd_on_each_workers_batch(case):
    name, module, fast, slow, x, batch = case
    assert fast.strategy == MIDDLES[name][1]
    rows, looped = fast.grads(x, batch), slow.grads(x, batch)
    # Sums in another order; in float32 a number on an edge of the grid may also fall to the other side.
    tolerance = 1e-5 if x.dtype == torch.float32 else 1e-12
    torch.testing.assert_close(rows, looped, rtol=tolerance, atol=tolerance)
    for i in range(N):
        seed = seed_of(SEED, "dropout", T, i)
        expected, _ = gradient(module, functional.cross_entropy, x, batch.inputs[i], batch.targets[i], seed)
        torch.testing.assert_close(looped[i], expected, rtol=tolerance, atol=tolerance)


def test_a_call_gives_the_same_bits_again_and_changes_nothing(case):
    _, module, fast, _, x, batch = case
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    held, point = deepcopy(module.state_dict()), x.clone()
    rows, figures, full = fast.grads(x, batch), fast.measure(x), fast.grads(x, fast.full())
    fast.grads(x + 1, fast.draw(T + 1))
    fast.measure(x + 1)
    assert torch.equal(fast.grads(x, batch), rows)
    assert fast.measure(x) == figures
    assert torch.equal(fast.grads(x, fast.full()), full)
    assert torch.equal(x, point)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]
    assert torch.equal(torch.get_rng_state(), states[0])
    for key, value in module.state_dict().items():
        assert torch.equal(value, held[key])


def test_some_workers_rows_are_theirs_of_all_rows(case):
    _, _, fast, slow, x, batch = case
    tolerance = 1e-5 if x.dtype == torch.float32 else 1e-12
    for some in (slice(2, 4), slice(1, 2)):
        rows = fast.grads_of(x, batch, some)
        torch.testing.assert_close(rows, fast.grads(x, batch)[some], rtol=tolerance, atol=tolerance)
        assert torch.equal(slow.grads_of(x, batch, some), slow.grads(x, batch)[some])


def test_no_bit_of_a_row_moves_with_another_workers_samples(case):
    _, _, fast, _, x, batch = case
    inputs, targets = batch.inputs.clone(), batch.targets.clone()
    inputs[3], targets[3] = -3 * inputs[3] + 1, 2 - targets[3]
    rows, others = fast.grads(x, batch), fast.grads(x, batch._replace(inputs=inputs, targets=targets))
    assert torch.equal(rows[:3], others[:3])


def same_samples(batch):
    """The batch with the first worker's samples for everyone."""
    inputs, targets = batch.inputs[:1].expand(N, B, 6), batch.targets[:1].expand(N, B)
    return batch._replace(inputs=inputs, targets=targets)


def test_rounds_and_workers_draw_numbers_of_their_own():
    alike = [WORKERS[0]] * N
    for name in ("functional dropout", "noise", "attention", "one noise for all", "mixup"):
        noisy = task(around(name), workers=[(x[:B], y[:B]) for x, y in alike])
        x, batch = noisy.start(), noisy.draw(1)
        batch = same_samples(batch)
        rows = noisy.grads(x, batch)
        assert len({tuple(row.tolist()) for row in rows}) == N
        assert not torch.allclose(noisy.grads(x, batch._replace(t=2)), rows)


def test_generators_that_a_module_holds_are_seeded_for_each_worker_and_round():
    def masked(self, x: Tensor) -> Tensor:
        return x * (torch.rand(x.shape, generator=self.own) > 0.5) * (0.5 + self.python.random())

    own = By(masked, own=torch.Generator().manual_seed(3), python=random.Random(3))
    held = task(nn.Sequential(nn.Linear(6, 6), own, nn.Linear(6, 3)), workers=[WORKERS[0]] * N)
    x = held.start()
    batch = held.draw(1)
    batch = same_samples(batch)
    rows = held.grads(x, batch)
    assert len({tuple(row.tolist()) for row in rows}) == N
    assert torch.equal(held.grads(x, batch), rows)
    assert not torch.equal(held.grads(x, batch._replace(t=2)), rows)


def test_noise_where_figures_are_measured_is_said():
    with pytest.warns(UserWarning, match="draws random numbers in evaluation mode too"):
        ModuleTask(around("dropout in evaluation too"), functional.cross_entropy, WORKERS, batch=B)


def test_samples_stay_as_they_are_where_module_or_loss_write_to_them():
    def merging(output: Tensor, targets: Tensor) -> Tensor:
        targets[targets == 2] = 0
        return functional.cross_entropy(output.clone(), targets)

    module = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 3)).double()
    writing = task(module, merging)
    x, batch = writing.start(), writing.draw(1)
    rows = writing.grads(x, batch)
    assert torch.equal(writing.grads(x, batch), rows)
    again = writing.draw(1)
    assert torch.equal(batch.inputs, again.inputs)
    assert torch.equal(batch.targets, again.targets)
    figures = writing.measure(x)
    assert writing.measure(x) == figures


def test_a_module_that_begins_to_draw_later_is_stopped():
    def late(self, x: Tensor) -> Tensor:
        return x * torch.rand(len(x), 1) if x.abs().max() < 1e-3 else x

    module = nn.Sequential(By(late), nn.Tanh(), nn.Linear(6, 3)).double()
    quiet, looped = task(module), task(module, strategy="loop")
    x, batch = quiet.start(), quiet.draw(1)
    faint = batch._replace(inputs=1e-6 * batch.inputs)
    assert quiet.grads(x, batch).isfinite().all()
    with pytest.raises(InvalidInput, match="drew nothing there"):
        quiet.grads(x, faint)
    assert torch.equal(looped.grads(x, faint)[1:2], looped.grads_of(x, faint, slice(1, 2)))


def test_the_choice_does_not_hang_on_the_number_of_workers():
    for name in ("own batch norm", "mixup", "divided by the batch's size", "dropout"):
        alone = task(around(name), workers=WORKERS[:1])
        assert alone.strategy == MIDDLES[name][1]


def test_a_slice_has_the_regulariser_too():
    regularised = task(nn.Sequential(nn.Linear(6, 3)), wd=0.5)
    x, batch = regularised.start(), regularised.draw(1)
    rows = regularised.grads(x, batch)
    torch.testing.assert_close(regularised.grads_of(x, batch, slice(1, 3)), rows[1:3], rtol=1e-12, atol=1e-14)


def test_modules_and_losses_that_need_whole_batches_are_looked_at_on_whole_batches():
    def in_pairs(self, x: Tensor) -> Tensor:
        return (x.view(-1, 2, 6) - x.view(-1, 2, 6).mean(1, keepdim=True)).flatten(0, 1)

    def by_class(output: Tensor, targets: Tensor) -> Tensor:
        same = (targets == targets[:1]).double()
        return (output.square().sum(1) * same).sum() / (same.sum() - 1)  # nothing to compare with: NaN or Inf

    module = nn.Sequential(nn.Linear(6, 6), By(in_pairs), nn.Linear(6, 3)).double()
    for loss, body in ((functional.cross_entropy, module), (by_class, module[0])):
        paired = task(body, loss, batch=8, metrics={})
        x, batch = paired.start() + 0.1, paired.draw(2)
        for i, row in enumerate(paired.grads(x, batch)):
            expected, _ = gradient(body, loss, x, batch.inputs[i], batch.targets[i])
            torch.testing.assert_close(row, expected, rtol=1e-12, atol=1e-14)


def test_rounding_in_float32_is_told_from_a_difference():
    with lent_rng(0):
        layers = [part for _ in range(24) for part in (nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU())]
        deep = nn.Sequential(*layers, nn.Linear(6, 3))
    rough = task(deep, dtype=torch.float32)
    fine = WorkerGradients(deep.double(), functional.cross_entropy, task(deep).draw(1)[:2])
    assert (rough.strategy, fine.strategy) == ("grouped", "grouped")
    probe = rough._gradients.probe

    class Wrong(Looped):
        def fill(self, rows, *others) -> None:
            super().fill(rows, *others)
            rows *= 1.001

    assert probe._only_rounds(Grouped(probe.pure))
    assert not probe._only_rounds(Wrong(probe.pure))


def test_a_loop_says_why():
    for name, said in [
        ("moving mean", "its forward pass writes 2.mean"),
        ("counter", "its forward pass writes 2.calls"),
        ("Python's coin", "generators of Python or NumPy"),
        ("mixup", "it draws by randperm"),
    ]:
        with pytest.warns(UserWarning, match=f"looped over .*{said}"):
            ModuleTask(around(name), functional.cross_entropy, WORKERS, batch=B)


class Two(nn.Module):
    """Several outputs."""

    def __init__(self, kind) -> None:
        super().__init__()
        self.layer, self.kind = nn.Linear(6, 3).double(), kind

    def forward(self, x: Tensor):
        return self.kind(self.layer(x), x)


@pytest.mark.parametrize("most", [2, 1000])
@pytest.mark.parametrize(
    "kind, loss",
    [
        (lambda a, b: (a, b), lambda o, y: functional.cross_entropy(o[0], y)),
        (lambda a, b: {"a": a, "b": (b,)}, lambda o, y: functional.cross_entropy(o["a"], y)),
        (lambda a, b: a.mean(), lambda o, y: (o - y.double().mean()) ** 2),
    ],
)
def test_outputs_need_not_be_one_tensor(kind, loss, most, monkeypatch):
    monkeypatch.setattr(WorkerGradients, "most", most)
    module = Two(kind)
    several = task(module, loss)
    x, batch = several.start() + 0.1, several.draw(1)
    rows, full = several.grads(x, batch), several.grads(x, several.full())
    for i, (inputs, targets) in enumerate(WORKERS):
        expected, _ = gradient(module, loss, x, batch.inputs[i], batch.targets[i])
        torch.testing.assert_close(rows[i], expected, rtol=1e-12, atol=1e-14)
        expected, _ = gradient(module, loss, x, inputs, targets)
        torch.testing.assert_close(full[i], expected, rtol=1e-12, atol=1e-14)
    everything = [torch.cat(part) for part in zip(*WORKERS, strict=True)]
    assert several.measure(x)["loss"] == pytest.approx(gradient(module, loss, x, *everything)[1], rel=1e-12)


def contrastive(output: Tensor, targets: Tensor) -> Tensor:
    scores = output @ output.mT
    return (scores.logsumexp(dim=1) - scores.diagonal()).mean()


def by_valid(output: Tensor, targets: Tensor) -> Tensor:
    valid = targets != -100
    return (functional.cross_entropy(output, targets, reduction="none") * valid).sum() / valid.sum()


class Following(nn.Module):
    """A loss that keeps a moving mean."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, output: Tensor, targets: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * output.detach().mean(0)
        return functional.cross_entropy(output - self.mean, targets)


WEIGHTS = torch.tensor([1.0, 2.0, 50.0])
LOSSES = {
    "cross-entropy": nn.CrossEntropyLoss(),
    "weighted": nn.CrossEntropyLoss(weight=WEIGHTS),
    "weighted and smoothed": nn.CrossEntropyLoss(weight=WEIGHTS, label_smoothing=0.2),
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "another index ignored": nn.CrossEntropyLoss(ignore_index=1),
    "by the valid": by_valid,
    "contrastive": contrastive,
    "by the batch's spread": lambda o, y: functional.cross_entropy(o / (o.std(0) + 1), y),
    "one number in a vector": lambda o, y: functional.cross_entropy(o, y).reshape(1),
    "with a memory": Following(),
}


def labelled(name: str) -> list[tuple[Tensor, Tensor]]:
    """Workers of unlike sizes, some of whose targets do not count."""
    generator = torch.Generator().manual_seed(3)
    workers = []
    for m in (40, 23, 9):
        targets = torch.randint(3, (m,), generator=generator)
        if name != "another index ignored":
            targets[torch.rand(m, generator=generator) < 0.3] = -100
            targets[:2] = torch.tensor([0, 2])
        workers.append((torch.randn(m, 6, generator=generator, dtype=torch.float64), targets))
    workers[0][1][5:12] = -100 if name != "another index ignored" else 0  # parts in which no target counts
    return workers


@pytest.mark.parametrize("most", [3, 1000])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_taken_of_the_whole_whatever_they_are(name, most, monkeypatch):
    monkeypatch.setattr(WorkerGradients, "most", most)
    loss, workers = LOSSES[name], labelled(name)
    with lent_rng(1):
        module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    twin = deepcopy(loss).double() if isinstance(loss, nn.Module) else loss
    whole = task(module, loss, workers, batch=9)
    x, batch = whole.start() + 0.01, whole.draw(2)
    rows, full = whole.grads(x, batch), whole.grads(x, whole.full())
    values = []
    for i, (inputs, targets) in enumerate(workers):
        expected, _ = gradient(module, twin, x, batch.inputs[i], batch.targets[i])
        torch.testing.assert_close(rows[i], expected, rtol=1e-11, atol=1e-13)
        expected, value = gradient(module, twin, x, inputs, targets)
        torch.testing.assert_close(full[i], expected, rtol=1e-11, atol=1e-13)
        values.append(value)
    everything = [torch.cat(part) for part in zip(*workers, strict=True)]
    measured = gradient(module, twin, x, *everything)[1]
    assert whole.measure(x)["loss"] == pytest.approx(measured, rel=1e-12)
    assert whole.objective(x)[0] == pytest.approx(sum(values) / 3, rel=1e-12)
    every = task(module, loss, workers, batch="full")
    torch.testing.assert_close(every.grads(x, every.draw(1)), full, rtol=1e-11, atol=1e-13)


def test_a_batch_without_a_target_that_counts_has_gradient_zero_as_in_torch():
    module = nn.Sequential(nn.Linear(6, 3)).double()
    inputs, targets = torch.stack([x for x, _ in WORKERS]), torch.stack([y for _, y in WORKERS])
    targets[1] = -100
    for strategy in ("auto", "loop"):
        gradients = WorkerGradients(module, functional.cross_entropy, (inputs, targets), strategy)
        rows = gradients(gradients.start, inputs, targets, 1)
        assert rows.isfinite().all()
        assert not rows[1].any()


@pytest.mark.parametrize("most", [3, 1000])
def test_where_outputs_and_targets_broadcast_nobody_meets_another_workers(most, monkeypatch):
    monkeypatch.setattr(WorkerGradients, "most", most)
    module = nn.Sequential(nn.Linear(6, 1)).double()
    broad = task(module, functional.mse_loss, [(x, x[:, 0]) for x, _ in WORKERS])
    x, batch = broad.start(), broad.draw(1)
    rows, full = broad.grads(x, batch), broad.grads(x, broad.full())
    for i, (inputs, _) in enumerate(WORKERS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mine, _ = gradient(module, functional.mse_loss, x, batch.inputs[i], batch.targets[i])
            all_mine, _ = gradient(module, functional.mse_loss, x, inputs, inputs[:, 0])
        torch.testing.assert_close(rows[i], mine, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(full[i], all_mine, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "name", ["old spectral norm", "weights clamped in forward", "counter", "moving mean"]
)
def test_figures_of_modules_that_write_do_not_depend_on_the_size_of_the_pieces(name, monkeypatch):
    whole = task(around(name))
    x = whole.start() + 0.01
    figures, full = whole.measure(x), whole.grads(x, whole.full())
    monkeypatch.setattr(WorkerGradients, "most", 5)
    parts = task(around(name))
    assert parts._gradients.evaluation(x).cuts
    assert parts.measure(x) == pytest.approx(figures, rel=1e-12)
    torch.testing.assert_close(parts.grads(x, parts.full()), full, rtol=1e-12, atol=1e-14)


def test_own_metrics_see_all_samples_at_once(monkeypatch):
    monkeypatch.setattr(WorkerGradients, "most", 5)
    furthest = {"furthest": lambda output, targets: output.abs().max(), "half": lambda output, targets: 0.5}
    module = nn.Linear(6, 3).double()
    measured = task(module, metrics=furthest)
    inputs = torch.cat([x for x, _ in WORKERS])
    figures = measured.measure(measured.start())
    assert figures["furthest"] == pytest.approx(float(module(inputs).detach().abs().max()), rel=1e-12)
    assert figures["half"] == 0.5
    many = task(module, metrics={"rows": lambda output, targets: output.mean(dim=1)})
    with pytest.raises(InvalidInput, match="Metric 'rows' should give one number"):
        many.measure(many.start())


def test_a_linear_layer_in_disguise_has_its_own_full_gradients():
    class Doubled(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    module = Doubled(nn.Linear(6, 3)).double()
    disguised = task(module)
    x = disguised.start()
    full = disguised.grads(x, disguised.full())
    for row, (inputs, targets) in zip(full, WORKERS, strict=True):
        expected, _ = gradient(module, functional.cross_entropy, x, inputs, targets)
        torch.testing.assert_close(row, expected, rtol=1e-12, atol=1e-14)


class Table(nn.Module):
    def __init__(self, **options) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(10, 4, **options), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.table((x[:, 0].abs() * 3).long().clamp(max=9)))


@pytest.mark.parametrize("options", [{"sparse": True}, {"max_norm": 0.5}])
def test_sparse_tables_and_tables_of_bounded_norm_have_gradients(options):
    module = Table(**options).double()
    tabular = task(module)
    x, batch = tabular.start(), tabular.draw(1)
    rows = tabular.grads(x, batch)
    for i in range(N):
        dense = deepcopy(module)
        dense.table.sparse = False
        expected, _ = gradient(dense, functional.cross_entropy, x, batch.inputs[i], batch.targets[i])
        torch.testing.assert_close(rows[i], expected, rtol=1e-12, atol=1e-14)
    assert torch.equal(x, tabular.start())


def test_wrappers_are_taken_off():
    module = nn.Sequential(nn.Linear(6, 3)).double()
    plain = task(module)
    compiled = nn.Module()  # as `torch.compile` wraps it, whose import takes seconds
    compiled._orig_mod = module
    for wrapped in (nn.DataParallel(module), compiled):
        same = task(wrapped)
        assert same.layout == plain.layout
        assert torch.equal(same.grads(plain.start(), same.draw(1)), plain.grads(plain.start(), plain.draw(1)))


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(6, 3, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        return (x.to(torch.complex64) @ self.factor).abs()


class Locked(nn.Linear):
    """Holds a generator, which cannot be copied."""

    def __init__(self) -> None:
        super().__init__(6, 3)
        self.endless = (k for k in range(3))


OUTSIDE = [0]


def counting_outside(self, x: Tensor) -> Tensor:
    OUTSIDE[0] += 1
    return x * OUTSIDE[0]


SECRET = nn.Linear(6, 3)


@pytest.mark.parametrize(
    "module, loss, said",
    [
        (nn.Sequential(nn.LazyLinear(3)), None, "lazy module, .* Call the module on a batch first"),
        (torch.jit.script(nn.Linear(6, 3)), None, "Found TorchScript"),
        (Complex(), None, "be real. Found 'factor' of torch.complex64"),
        (nn.Sequential(nn.Linear(6, 3), nn.SyncBatchNorm(3)), None, "not share batch statistics"),
        (Locked(), None, "be copyable"),
        (nn.Sequential(By(counting_outside), nn.Linear(6, 3)), None, "others when they were asked for again"),
        (nn.Sequential(By(lambda self, x: SECRET(x)), nn.Linear(3, 3)), None, "no parameters but those"),
        (
            nn.Sequential(nn.Linear(6, 3), nn.Tanh(), By(lambda self, x: x.mul_(2))),
            None,
            "RuntimeError in the backward pass: one of the variables needed",
        ),
        (nn.Flatten(), None, "have a parameter that requires gradients"),
        (lambda x: x, None, "be an nn.Module"),
        (nn.Linear(5, 3), None, r"RuntimeError in the module, given \[5, 6\]"),
        (nn.Linear(6, 3), lambda o, y: o.sum(dim=1), r"a tensor \[5\] from the loss. Reduce it by mean"),
        (nn.Linear(6, 3), lambda o, y: o.mean().item(), "Found a float from the loss"),
        (nn.Linear(6, 3), lambda o, y: o.detach().mean(), "hangs on no parameter"),
        (nn.Linear(6, 3), lambda o, y: o.mean() * torch.nan, "be finite where training starts"),
        (nn.Linear(6, 3), lambda o, y: o[:, 7].mean(), "IndexError in the loss"),
        (nn.Linear(6, 3), nn.Bilinear(3, 1, 1), "no parameters of its own to train"),
        (nn.Linear(6, 3), 3, "be called on"),
    ],
)
def test_what_cannot_be_right_is_one_clear_line(module, loss, said):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InvalidInput, match=said) as caught:
            ModuleTask(module, loss or functional.cross_entropy, WORKERS, batch=B)
    assert "\n" not in str(caught.value)


def test_parameters_of_unlike_dtype_are_refused_where_nobody_converts_them():
    module = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3).double())
    sample = torch.randn(2, 3, 6), torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(InvalidInput, match="have one dtype"):
        WorkerGradients(module, functional.cross_entropy, sample)
    assert task(module).layout.d == 63
