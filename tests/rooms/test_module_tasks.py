"""Tasks made of a module, a loss and each worker's data: users' own, digits, MNIST, text."""

from __future__ import annotations

import importlib.util
import os
import warnings
from dataclasses import dataclass, replace
from math import exp
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from byzopt.attacks import LabelFlip
from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput
from byzopt.registry import plain
from byzopt.tasks import TASKS, Digits, Mnist, ModuleTask, Pool, Shakespeare, sequence_cross_entropy
from byzopt.tasks.models import mlp
from byzopt.tasks.partitions import SortedByLabel
from byzopt.tasks.text import Text, blocks, encoded

needs_data = pytest.mark.skipif(not os.environ.get("BYZOPT_DATA_DIR"), reason="BYZOPT_DATA_DIR is not set")
SIZES = (7, 4, 9, 5)


def data(sizes=SIZES, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(m, 6, generator=generator, dtype=torch.float64) for m in sizes]
    return [(x, torch.randint(classes, (len(x),), generator=generator)) for x in inputs]


def task(**options) -> ModuleTask:
    settings = {"batch": 4, "dtype": torch.float64, "byzantine": 1, "workers": data()} | options
    return ModuleTask(mlp((6, 5, 3), 0), functional.cross_entropy, **settings)


def autograd(problem, x, inputs, targets):
    """Gradient of the mean loss on given samples, with nothing but autograd."""
    module = mlp((6, 5, 3), 0).double()
    torch.nn.utils.vector_to_parameters(x, module.parameters())
    functional.cross_entropy(module(inputs), targets).backward()
    return torch.cat([p.grad.flatten() for p in module.parameters()])


def test_the_start_is_the_users_module_which_stays_as_it_is():
    module = mlp((6, 5, 3), 0).train()
    problem = ModuleTask(module, functional.cross_entropy, data(), batch=4)
    x = problem.start()
    assert torch.equal(x, torch.nn.utils.parameters_to_vector(module.parameters()))
    assert x.dtype == torch.float32
    problem.grads(x, problem.draw(1))
    problem.measure(x)
    assert module.training
    assert all(p.dtype == torch.float32 and p.grad is None for p in module.parameters())
    x += 1
    assert not torch.equal(problem.start(), x)


def test_each_worker_draws_from_its_own_samples_as_a_pure_function_of_the_round():
    problem, workers = task(), data()
    late = problem.draw(7)
    for t in (1, 2, 3):
        batch = problem.draw(t)
        assert batch.inputs.shape == (4, 4, 6)
        for i, (x, y) in enumerate(workers):
            for sample, label in zip(batch.inputs[i], batch.targets[i], strict=True):
                place = (x == sample).all(dim=1).nonzero().item()
                assert y[place] == label
    assert torch.equal(problem.draw(7).inputs, late.inputs)
    assert not torch.equal(task(seed=1).draw(7).inputs, late.inputs)


def test_gradients_on_a_batch_and_on_everything_are_autograds():
    problem = task()
    x = problem.start() + 0.1
    batch = problem.draw(2)
    rows, full = problem.grads(x, batch), problem.grads(x, problem.full())
    for i, (inputs, targets) in enumerate(data()):
        expected = autograd(problem, x, batch.inputs[i], batch.targets[i])
        torch.testing.assert_close(rows[i], expected, rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(full[i], autograd(problem, x, inputs, targets), rtol=1e-12, atol=1e-15)


def test_full_gradients_and_measures_do_not_depend_on_the_size_of_the_pieces(monkeypatch):
    problem = task(test=data((11,), seed=5)[0])
    x = problem.start()
    full, figures = problem.grads(x, problem.full()), problem.measure(x)
    monkeypatch.setattr(type(problem._gradients), "most", 3)
    torch.testing.assert_close(problem.grads(x, problem.full()), full, rtol=1e-12, atol=1e-15)
    assert problem.measure(x) == pytest.approx(figures, rel=1e-12)


def test_measure_covers_every_test_sample_in_evaluation_mode():
    module = nn.Sequential(nn.Dropout(0.5), mlp((6, 5, 3), 0))
    (inputs, targets), held = data((11,), seed=5)[0], data((7,), seed=6)[0]
    problem = ModuleTask(
        module,
        functional.cross_entropy,
        data(),
        batch=4,
        dtype=torch.float64,
        test=(inputs, targets),
        validation=held,
    )
    logits = module.double().eval()(inputs).detach()
    figures = problem.measure(problem.start())
    assert figures["loss"] == pytest.approx(float(functional.cross_entropy(logits, targets)), rel=1e-12)
    assert figures["accuracy"] == pytest.approx(int((logits.argmax(1) == targets).sum()) / 11)
    held_loss = float(functional.cross_entropy(module(held[0]), held[1]).detach())
    assert figures["validation_loss"] == pytest.approx(held_loss, rel=1e-12)
    assert set(figures) == {"loss", "accuracy", "validation_loss", "validation_accuracy"}


def test_without_a_test_set_the_honest_workers_data_are_measured():
    problem = task(byzantine=[0])
    inputs, targets = (torch.cat(parts) for parts in zip(*data()[1:], strict=True))
    expected = functional.cross_entropy(mlp((6, 5, 3), 0).double()(inputs), targets)
    assert problem.measure(problem.start())["loss"] == pytest.approx(float(expected.detach()), rel=1e-12)


def test_regression_has_no_accuracy_and_takes_metrics_of_ones_own():
    workers = [(x, x[:, :2]) for x, _ in data()]
    far = {"far": lambda output, targets: (output - targets).abs().max()}
    for metrics, names in ((None, {"loss"}), (far, {"loss", "far"})):
        problem = ModuleTask(mlp((6, 2), 0), functional.mse_loss, workers, batch=4, metrics=metrics)
        assert set(problem.measure(problem.start())) == names


def test_label_flip_changes_the_labels_of_its_workers_and_of_nobody_else():
    problem = task(byzantine=[1, 3])
    flip = LabelFlip(shift=1)
    flipped = flip.poison(problem, problem.cohort.byzantine)
    x = problem.start() + 0.1
    batch, bad = problem.draw(3), flipped.draw(3)
    rows, wrong = problem.grads(x, batch), flipped.grads(x, bad)
    assert torch.equal(batch.inputs, bad.inputs)
    assert torch.equal(batch.targets[[0, 2]], bad.targets[[0, 2]])
    assert torch.equal((batch.targets[[1, 3]] + 1) % 3, bad.targets[[1, 3]])
    torch.testing.assert_close(wrong[[0, 2]], rows[[0, 2]], rtol=1e-12, atol=1e-15)
    for i in (1, 3):
        assert (wrong[i] - rows[i]).norm() > 0.1 * rows[i].norm()
        expected = autograd(problem, x, batch.inputs[i], (batch.targets[i] + 1) % 3)
        torch.testing.assert_close(wrong[i], expected, rtol=1e-12, atol=1e-15)
        whole = autograd(problem, x, data()[i][0], (data()[i][1] + 1) % 3)
        torch.testing.assert_close(flipped.grads(x, flipped.full())[i], whole, rtol=1e-12, atol=1e-15)
    assert torch.equal(problem.draw(3).targets, batch.targets)
    assert flipped.measure(x) == problem.measure(x)


def test_label_flip_needs_classes():
    workers = [(x, x[:, :2]) for x, _ in data()]
    problem = ModuleTask(mlp((6, 2), 0), functional.mse_loss, workers, batch=4)
    with pytest.raises(InvalidInput, match="needs integer labels"):
        problem.relabelled([0], lambda labels, classes: labels)


X, Y = data()[0]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"workers": []}, "pair .* for each worker"),
        ({"workers": [(X, Y), (X[:0], Y[:0])]}, "Worker 1's data should hold at least one sample"),
        ({"workers": [(X, Y[:-1])]}, "one target a sample"),
        ({"workers": [(X.numpy(), Y)]}, "pair of tensors"),
        ({"workers": [X]}, "pair of tensors"),
        ({"workers": [(X, Y), (X[:, :5], Y)]}, "one shape and dtype"),
        ({"workers": [(X, Y), (X, Y.double())]}, "one shape and dtype"),
        ({"workers": [(X.where(X > 0, float("nan")), Y)]}, "be finite"),
        ({"test": (X, Y[:3])}, "The test set should have one target a sample"),
        ({"validation": (X, None)}, "The validation set should be a pair of tensors"),
        ({"batch": 0}, "batch size should be at least 1"),
        ({"batch": "16"}, "`batch` should be a whole number, or 'full'. Found '16'"),
        ({"batch": 10_000}, "`batch` should be at most all"),
        ({"seed": 1.5}, "`seed` should be a whole number"),
        ({"dtype": torch.bfloat16}, "float32 or torch.float64"),
        ({"dtype": "float64"}, "Found 'float64'. Pass the dtype itself"),
        ({"strategy": "fast"}, "Found 'fast'"),
        ({"workers": [(X, Y + 1)] * 4}, "Worker 0's targets should lie in 0.* Number classes from 0"),
        ({"workers": [*[(X, Y)] * 40, (X, Y - 1)]}, "Worker 40's targets .* Found -1"),
        ({"workers": [(X, Y + 1)] * 4, "batch": "full"}, "Worker 0's targets"),
        ({"test": (X, Y + 9)}, "The test set's targets should lie in"),
        ({"byzantine": 4}, "number of attackers"),
    ],
)
def test_wrong_input_is_refused_in_words(options, message):
    with pytest.raises(InvalidInput, match=message):
        task(**options)


def test_a_pool_holds_the_data_once():
    inputs, targets = X, Y
    shards = [torch.tensor([0, 3]), torch.tensor([3, 1, 2])]
    pool = Pool.dealt(inputs, targets, shards)
    flipped = pool.relabelled([1], lambda labels, classes: classes - 1 - labels, 3)
    assert flipped.inputs is inputs
    assert torch.equal(flipped.at(flipped.shards[1])[0], inputs[[3, 1, 2]])
    assert torch.equal(flipped.at(flipped.shards[1])[1], 2 - targets[[3, 1, 2]])
    assert torch.equal(flipped.at(flipped.shards[0])[1], targets[[0, 3]])


@pytest.mark.parametrize("recipe", [Digits(), Mnist(model="cnn", validation=5), Shakespeare(eval_samples=3)])
def test_recipes_survive_plain_data(recipe):
    assert TASKS.build(plain(recipe)) == recipe


@pytest.mark.parametrize("model, d", [("mlp", 4810), ("linear", 650)])
def test_digits_deal_every_training_sample_but_the_held_out_ones(model, d):
    problem = Digits(model=model, validation=42).build(Cohort.of(20, 3), seed=1)
    assert (problem.n, problem.layout.d, problem.strategy) == (20, d, "grouped")
    dealt = torch.cat(problem.pool.shards)
    assert len(dealt) == len(set(dealt.tolist())) == 1442 - 42
    assert len(problem._sets["validation_"][0]) == 42
    again = Digits(model=model, validation=42).build(Cohort.of(20, 3), seed=1)
    assert torch.equal(problem.start(), again.start())
    assert torch.equal(problem.draw(4).inputs, again.draw(4).inputs)
    other = Digits(model=model, validation=42).build(Cohort.of(20, 3), seed=2)
    assert not torch.equal(problem.start(), other.start())


def test_descent_on_digits_learns():
    problem = Digits(batch=16).build(Cohort.of(8), seed=0)
    x = problem.start()
    for t in range(1, 121):
        x = x - 0.5 * problem.grads(x, problem.draw(t)).mean(dim=0)
    assert problem.measure(x)["accuracy"] > 0.9


def test_wrong_recipes_are_refused():
    for keys in ({"batch": 0}, {"validation": -1}, {"hidden": [0]}, {"model": "cnn"}):
        with pytest.raises(InvalidInput):
            TASKS.build({"name": "digits", **keys})
    with pytest.raises(InvalidInput, match="leave some of the 1442"):
        Digits(validation=1442).build(Cohort.of(2), 0)
    for keys in ({"width": 10}, {"dropout": 1.0}, {"context": 0}, {"eval_samples": -1}):
        with pytest.raises(InvalidInput):
            TASKS.build({"name": "shakespeare", **keys})


@dataclass(frozen=True)
class Rhyme(Text):
    """A text that needs no file."""

    def text(self) -> str:
        return "the cat sat on the mat and the rat sat on the cat. " * 40


TINY = Rhyme(context=8, batch=4, layers=1, heads=2, width=8, dropout=0.0)


def test_text_is_cut_into_blocks_with_the_next_character_as_target():
    codes, symbols = encoded("cabbage")
    assert (codes.tolist(), symbols) == ([2, 0, 1, 1, 0, 4, 3], 5)
    inputs, targets = blocks(codes, 3)
    assert inputs.tolist() == [[2, 0, 1], [1, 0, 4]]
    assert targets.tolist() == [[0, 1, 1], [0, 4, 3]]
    with pytest.raises(InvalidInput, match="hold a block"):
        blocks(codes, 7)


def test_text_measures_perplexity_on_validation_blocks_in_order():
    problem = TINY.build(Cohort.of(3), seed=0)
    inputs, targets = problem._sets[""]
    figures = problem.measure(problem.start())
    loss = float(sequence_cross_entropy(problem._gradients.module.eval()(inputs), targets).detach())
    assert figures == pytest.approx({"loss": loss, "perplexity": exp(loss)}, rel=1e-6)
    text, train = TINY.text(), int(0.9 * len(TINY.text()))
    assert len(inputs) == (len(text) - train - 1) // 8
    codes, _ = encoded(text)
    assert torch.equal(inputs[0], codes[train : train + 8])
    few = replace(TINY, eval_samples=2).build(Cohort.of(3), seed=0)
    assert torch.equal(few._sets[""][0], inputs[:2])
    assert [int(shard[0]) for shard in problem.pool.shards] == sorted(int(s[0]) for s in problem.pool.shards)


def test_text_learns_and_its_labels_can_be_flipped():
    problem = TINY.build(Cohort.of(3, 1), seed=0)
    x = problem.start()
    before = problem.measure(x)["perplexity"]
    for t in range(1, 61):
        g = problem.grads(x, problem.draw(t)).mean(dim=0)
        x = x - 0.3 * g / g.norm()
    assert problem.measure(x)["perplexity"] < 0.7 * before
    _, symbols = encoded(TINY.text())
    flipped = LabelFlip(shift=2).poison(problem, (2,))
    assert torch.equal(flipped.draw(1).targets[2], (problem.draw(1).targets[2] + 2) % symbols)


def test_the_example_trains_under_an_attack_that_breaks_the_mean(monkeypatch):
    path = Path(__file__).parents[2] / "examples" / "own_task.py"
    spec = importlib.util.spec_from_file_location("own_task", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    monkeypatch.setattr(example, "ROUNDS", 120)
    before = torch.random.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        robust = example.train(example.NNM(f=3) >> example.RFA())
    torch.random.set_rng_state(before)
    assert robust["accuracy"] > 0.8
    assert example.train(example.Mean())["accuracy"] < 0.5


def test_byzantine_workers_may_draw_from_all_data_while_the_honest_share_it():
    cohort = Cohort(5, (0, 3))
    problem = Digits(partition=SortedByLabel(), byzantine_data="all").build(cohort, seed=0)
    sizes = [len(shard) for shard in problem.pool.shards]
    assert (sizes[0], sizes[3]) == (1442, 1442)
    honest = torch.cat([problem.pool.shards[i] for i in cohort.honest])
    assert torch.equal(honest.sort().values, torch.arange(1442))


@needs_data
def test_mnist_is_the_papers_task():
    problem = Mnist().build(Cohort.of(20, 3), seed=0)
    assert (problem.layout.d, problem.strategy) == (109_386, "grouped")
    assert [len(shard) for shard in problem.pool.shards] == [3000] * 20
    assert all(len(problem.pool.at(shard)[1].unique()) <= 2 for shard in problem.pool.shards)
    inputs = problem.pool.inputs
    assert inputs.shape == (60_000, 784)
    assert abs(float(inputs.mean())) < 1e-3
    assert abs(float(inputs.std()) - 1) < 1e-3
    x = problem.start()
    for t in range(1, 41):
        g = problem.grads(x, problem.draw(t)).mean(dim=0)
        x = x - 0.2 * g / g.norm()
    figures = problem.measure(x)
    assert figures["accuracy"] > 0.6
    assert figures["accuracy"] * 10_000 == pytest.approx(round(figures["accuracy"] * 10_000), abs=1e-6)


@needs_data
def test_shakespeare_has_the_released_counts():
    recipe = Shakespeare(layers=1, width=8, heads=2, eval_samples=4)
    problem = recipe.build(Cohort.of(20, 3), seed=0)
    assert len(problem.pool.inputs) == 7_842
    assert [len(shard) for shard in problem.pool.shards] == [393, 393] + [392] * 18
    everything = replace(recipe, eval_samples=0).build(Cohort.of(20, 3), seed=0)
    assert len(everything._sets[""][0]) == 871


def test_a_class_is_no_loss_and_targets_that_do_not_count_have_no_range():
    module = mlp((X.shape[1], int(Y.max()) + 1), 0)
    assert ModuleTask(module, functional.cross_entropy, [(X, Y)], batch=len(X) + 1).n == 1  # a client alone
    with pytest.raises(InvalidInput, match=r"Pass an instance: nn.CrossEntropyLoss\(\)"):
        ModuleTask(module, torch.nn.CrossEntropyLoss, [(X, Y)], batch=4)
    for mark, loss in ((-100, functional.cross_entropy), (255, torch.nn.CrossEntropyLoss(ignore_index=255))):
        marked = Y.clone()
        marked[0] = mark
        assert ModuleTask(module, loss, [(X, marked)], batch=4).n == 1
