"""Per-worker gradients: every strategy gives what a plain loop over workers gives."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from byzopt.errors import InvalidInput
from byzopt.tasks import ModuleTask
from byzopt.tasks.grads import WorkerGradients, lent_rng, sequence_cross_entropy
from byzopt.tasks.models import GPT, CausalAttention, mlp, mnist_cnn
from tests.products import sampled

pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
N, B = 4, 3


@pytest.fixture(autouse=True)
def same_weights_in_every_run():
    with lent_rng(0):
        yield


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def labels(classes: int, *shape: int) -> Tensor:
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(2))


def still(module: nn.Module) -> nn.Module:
    """The module without randomness, so that strategies can be compared."""
    for layer in module.modules():
        if isinstance(layer, (nn.Dropout, nn.Dropout2d)):
            layer.p = 0.0
        if isinstance(layer, CausalAttention):
            layer.dropout = 0.0
    return module


def mean_of_logits(output: Tensor, targets: Tensor) -> Tensor:
    """A user's own loss, of which nothing is known."""
    return (output.logsumexp(dim=-1) * (1 + targets) / (1 + targets.double().mean())).mean()


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2),
        nn.GroupNorm(2, 4),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.LayerNorm(4 * 9),
        nn.Linear(4 * 9, 3, bias=False),
    )


def half_frozen() -> nn.Module:
    module = mlp((6, 5, 4), seed=0)
    module[0].weight.requires_grad_(False)
    return module


CASES = {
    "mlp": (lambda: mlp((6, 5, 4), 0), normal(N, B, 6), labels(4, N, B), functional.cross_entropy),
    "own loss": (lambda: mlp((6, 5, 4), 0), normal(N, B, 6), labels(4, N, B), mean_of_logits),
    "loss module": (lambda: mlp((6, 4), 0), normal(N, B, 6), labels(4, N, B), nn.CrossEntropyLoss()),
    "smoothed": (
        lambda: mlp((6, 4), 0),
        normal(N, B, 6),
        labels(4, N, B),
        nn.CrossEntropyLoss(label_smoothing=0.1),
    ),
    "regression": (lambda: mlp((6, 5, 2), 0), normal(N, B, 6), normal(N, B, 2), functional.mse_loss),
    "frozen": (half_frozen, normal(N, B, 6), labels(4, N, B), functional.cross_entropy),
    "convolutional": (convolutional, normal(N, B, 2, 6, 6), normal(N, B, 3), functional.mse_loss),
    "cnn": (lambda: mnist_cnn(0), normal(2, 2, 1, 28, 28), labels(10, 2, 2), functional.cross_entropy),
    "gpt": (
        lambda: GPT(7, 5, 2, 2, 8, 0.1, 0),
        labels(7, N, B, 5),
        labels(7, N, B, 5),
        sequence_cross_entropy,
    ),
}


def one_by_one(module: nn.Module, loss: object, inputs: Tensor, targets: Tensor) -> Tensor:
    """The definition, with nothing but autograd."""
    rows = []
    for x, y in zip(inputs, targets, strict=True):
        module.zero_grad()
        loss(module(x), y).backward()
        trained = [p for p in module.parameters() if p.requires_grad]
        rows.append(torch.cat([p.grad.flatten() for p in trained]))
    return torch.stack(rows)


TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-12}


@pytest.mark.parametrize(
    "case, strategy, dtype", sampled(CASES, ["grouped", "vmap", "loop"], TOLERANCES, times=3)
)
def test_gradients_are_those_of_one_worker_at_a_time(case, strategy, dtype):
    make, inputs, targets, loss = CASES[case]
    module = still(make()).to(dtype)
    inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    targets = targets.to(dtype) if targets.is_floating_point() else targets
    gradients = WorkerGradients(module, loss, (inputs, targets), strategy)
    rows = gradients(gradients.start, inputs, targets, t=1)
    expected = one_by_one(module, loss, inputs, targets)
    assert gradients.strategy == strategy
    assert rows.dtype == dtype
    assert (rows - expected).norm(dim=1).div(expected.norm(dim=1)).max() < TOLERANCES[dtype]


@pytest.mark.parametrize("case", CASES)
def test_known_layers_are_grouped_by_default(case):
    make, inputs, targets, loss = CASES[case]
    assert WorkerGradients(make().double(), loss, (inputs, targets)).strategy == "grouped"


class Flattening(nn.Module):
    """Flattens by `view`, which works on images held channel by channel alone."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2))
        self.head = nn.Linear(4 * 9, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).view(len(x), 36))


@pytest.mark.parametrize(
    "module, dtype, by_pixel",
    [
        (mnist_cnn(0), torch.float32, True),
        (mnist_cnn(0), torch.float64, False),
        (Flattening(), torch.float32, False),
    ],
)
def test_images_are_held_pixel_by_pixel_where_the_module_allows_it(module, dtype, by_pixel):
    inputs = normal(N, B, 1, 28, 28) if isinstance(module, nn.Sequential) else normal(N, B, 1, 8, 8)
    inputs, targets = inputs.to(dtype), labels(3, N, B)
    gradients = WorkerGradients(module.to(dtype), functional.cross_entropy, (inputs, targets), "grouped")
    samples = inputs.flatten(0, 1)
    assert gradients.arranged(samples).is_contiguous(memory_format=torch.channels_last) or not by_pixel
    assert (gradients.arranged(samples).stride() == samples.stride()) is not by_pixel
    rows = gradients.still(gradients.start, inputs, targets)
    expected = one_by_one(still(module), functional.cross_entropy, inputs, targets)
    assert torch.allclose(rows, expected, rtol=1e-4 if dtype == torch.float32 else 1e-10, atol=1e-6)
    task = ModuleTask(module, functional.cross_entropy, list(zip(inputs, targets, strict=True)), batch=2)
    loss = functional.cross_entropy(module.eval()(samples), targets.flatten()).item()
    assert task.measure(task.start())["loss"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("most", [1, 2, 5, 7])
def test_passes_over_parts_of_a_batch_add_up(monkeypatch, most):
    make, inputs, targets, loss = CASES["gpt"]
    targets = targets.clone()
    targets[0, 0, :3] = -100  # uncounted symbols must not shift the parts' weights
    module = still(make()).double()
    gradients = WorkerGradients(module, loss, (inputs, targets), "grouped")
    monkeypatch.setattr(WorkerGradients, "most", most)
    rows = gradients(gradients.start, inputs, targets, t=1)
    torch.testing.assert_close(rows, one_by_one(module, loss, inputs, targets), rtol=1e-11, atol=1e-14)


def test_the_same_round_has_the_same_masks_at_every_point_and_global_state_is_left_alone():
    make, inputs, targets, loss = CASES["gpt"]
    gradients = WorkerGradients(make().double(), loss, (inputs, targets), seed=3)
    x = gradients.start
    before = torch.random.get_rng_state()
    first = gradients(x, inputs, targets, t=1)
    gradients(x + 1, inputs, targets, t=2)
    assert torch.equal(gradients(x, inputs, targets, t=1), first)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.allclose(gradients(x, inputs, targets, t=2), first)
    other = WorkerGradients(make().double(), loss, (inputs, targets), seed=4)
    assert not torch.allclose(other(x, inputs, targets, t=1), first)


@pytest.mark.parametrize("strategy", ["grouped", "vmap", "loop"])
def test_workers_with_the_same_samples_have_masks_of_their_own(strategy):
    module = nn.Sequential(nn.Linear(50, 50), nn.Dropout(0.5), nn.Linear(50, 3)).double()
    inputs, targets = normal(1, B, 50).expand(N, B, 50), labels(3, 1, B).expand(N, B)
    gradients = WorkerGradients(module, functional.cross_entropy, (inputs, targets), strategy)
    rows = gradients(gradients.start, inputs, targets, t=1)
    assert len({tuple(row.tolist()) for row in rows}) == N
    calm = gradients.still(gradients.start, inputs, targets)
    torch.testing.assert_close(calm, calm[:1].expand(N, -1))


def test_the_users_module_and_inputs_are_not_written_to():
    make, inputs, targets, loss = CASES["cnn"]
    module = make().double().eval()
    parameters, old = [p.clone() for p in module.parameters()], inputs.clone()
    gradients = WorkerGradients(module, loss, (inputs, targets))
    x = gradients.start
    start = x.clone()
    gradients(x, inputs, targets, t=1)
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), parameters, strict=True))
    assert torch.equal(inputs, old)
    assert torch.equal(x, start)
    assert not module.training


class Scale(nn.Module):
    """A layer that nobody knows."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(6, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Branching(Scale):
    """Its control flow looks at the data, which `vmap` refuses."""

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor if float(x.sum()) > 0 else -x * self.factor


class Sneaky(nn.Module):
    """A known layer whose weight is also used past the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + (x @ self.layer.weight.T) ** 2


class SharedPositions(nn.Module):
    """An embedding looked up once for all samples: its gradient does not split by worker."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Embedding(6, 6).double()
        self.head = nn.Linear(6, 4).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x + self.places(torch.arange(6)).mean(dim=0))


@pytest.mark.parametrize(
    "module, strategy",
    [
        (nn.Sequential(Scale(), nn.Linear(6, 4).double()), "vmap"),
        (Sneaky(), "vmap"),
        (SharedPositions(), "vmap"),
        (nn.Sequential(Branching(), nn.Linear(6, 4).double()), "loop"),
    ],
)
def test_what_cannot_be_grouped_falls_back_and_stays_right(module, strategy):
    inputs, targets = normal(N, B, 6), labels(4, N, B)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gradients = WorkerGradients(module, functional.cross_entropy, (inputs, targets))
    said = [str(w.message) for w in caught if "looped over" in str(w.message)]
    assert gradients.strategy == strategy
    assert len(said) == (strategy == "loop")
    assert all("\n" not in line and "Branching" in line for line in said)
    rows = gradients(gradients.start, inputs, targets, t=1)
    expected = one_by_one(module, functional.cross_entropy, inputs, targets)
    torch.testing.assert_close(rows, expected, rtol=1e-12, atol=1e-14)


def test_what_does_not_work_is_refused_in_words():
    sample = (normal(N, B, 6), labels(4, N, B))
    module = mlp((6, 4), 0).double()
    with pytest.raises(InvalidInput, match="scalar mean on one worker's batch"):
        WorkerGradients(mlp((5, 4), 0).double(), functional.cross_entropy, sample)
    with pytest.raises(InvalidInput, match="scalar mean on one worker's batch"):
        WorkerGradients(module, lambda output, y: output.sum(dim=1), sample)
    with pytest.raises(InvalidInput, match="requires gradients"):
        WorkerGradients(nn.Flatten(), functional.cross_entropy, sample)
    with pytest.raises(InvalidInput, match="be one of auto, grouped, vmap, loop"):
        WorkerGradients(module, functional.cross_entropy, sample, "fast")
    with pytest.raises(InvalidInput, match="not a layer whose gradient is known to split"):
        WorkerGradients(nn.Sequential(Scale(), module), functional.cross_entropy, sample, "grouped")
