"""Partitions deal every sample exactly once, leave nobody empty, and skew labels as they say."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from byzopt.errors import InvalidInput
from byzopt.rng import stream
from byzopt.tasks.partitions import (
    IID,
    PARTITIONS,
    Contiguous,
    Dirichlet,
    GammaSimilarity,
    LabelQuantity,
    LabelShards,
    LongTail,
    Partition,
    SortedByLabel,
    Strided,
    Unbalanced,
)
from byzopt.tasks.partitions.base import in_proportion

RECIPES: list[Partition] = [
    IID(),
    Contiguous(),
    Strided(),
    SortedByLabel(),
    GammaSimilarity(0.0),
    GammaSimilarity(0.5),
    GammaSimilarity(1.0),
    Dirichlet(0.01),
    Dirichlet(1.0),
    Dirichlet(100.0),
    LabelShards(1),
    LabelShards(3),
    LabelQuantity(1),
    LabelQuantity(2),
    Unbalanced(0.0),
    Unbalanced(3.0),
    LongTail(1.0),
    LongTail(1e6),
]
UNEQUAL = ("dirichlet", "shards", "label_quantity", "unbalanced", "long_tail")
MNIST_COUNTS = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)


def split(recipe: Partition, labels: Tensor, n: int, seed: int = 0) -> list[Tensor]:
    return recipe.split(labels, len(labels), n, stream(seed, "partition"))


def random_labels(m: int, classes: int = 10, seed: int = 0) -> Tensor:
    return torch.randint(classes, (m,), generator=stream(seed, "labels"))


def fits(recipe: Partition, labels: Tensor, n: int) -> bool:
    """Whether there are as many samples and labels as the partition needs."""
    if isinstance(recipe, LabelShards):
        return len(labels) >= n * recipe.per_worker
    if isinstance(recipe, LabelQuantity):
        return recipe.labels <= len(labels.unique()) <= n * recipe.labels
    return True


def sizes(shards: Sequence[Tensor]) -> list[int]:
    return [len(shard) for shard in shards]


def test_every_registered_partition_is_tried_here():
    assert {recipe.name for recipe in RECIPES} == set(PARTITIONS)


@given(
    st.sampled_from(RECIPES), st.integers(1, 12), st.integers(0, 30), st.integers(1, 4), st.integers(0, 99)
)
def test_every_sample_has_one_owner_and_no_worker_is_empty(recipe, n, more, classes, seed):
    labels = random_labels(n + more, classes, seed)
    if not fits(recipe, labels, n):
        with pytest.raises(InvalidInput, match=f"`.*{recipe.name}|n \\* per_worker"):
            split(recipe, labels, n, seed)
        return
    shards = split(recipe, labels, n, seed)
    assert len(shards) == n
    assert min(sizes(shards)) >= 1
    assert all(shard.dtype == torch.int64 for shard in shards)
    assert torch.cat(shards).sort().values.equal(torch.arange(n + more))


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_equal_streams_give_equal_partitions(recipe):
    labels = random_labels(300)
    again = zip(split(recipe, labels, 11), split(recipe, labels, 11), strict=True)
    assert all(a.equal(b) for a, b in again)


@pytest.mark.parametrize(
    "recipe",
    [IID(), GammaSimilarity(0.5), Dirichlet(1.0), LabelShards(), LabelQuantity(), Unbalanced(), LongTail()],
    ids=str,
)
def test_random_partitions_depend_on_the_stream(recipe):
    labels = random_labels(300)
    first, second = split(recipe, labels, 7, seed=0), split(recipe, labels, 7, seed=1)
    assert not all(a.equal(b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("recipe", [r for r in RECIPES if r.name not in UNEQUAL], ids=str)
@pytest.mark.parametrize("m, n", [(7, 7), (8, 7), (61, 20), (60, 20)])
def test_shares_differ_by_at_most_one_sample(recipe, m, n):
    found = sizes(split(recipe, random_labels(m), n))
    assert max(found) - min(found) <= 1


def test_sorted_keeps_file_order_within_a_label():
    labels = torch.tensor([1, 0, 2, 0, 1, 1, 0])
    shards = split(SortedByLabel(), labels, 3)
    assert [shard.tolist() for shard in shards] == [[1, 3, 6], [0, 4], [5, 2]]


def test_sorted_mnist_gives_17_workers_the_label_counts_of_the_paper_up_to_its_padding():
    labels = torch.cat([torch.full((count,), k) for k, count in enumerate(MNIST_COUNTS)])
    counts = torch.stack(
        [labels[shard].bincount(minlength=10) for shard in split(SortedByLabel(), labels, 17)]
    )
    released = torch.zeros(17, 10, dtype=torch.int64)
    padded = torch.cat([labels, labels[:10]])
    for worker, part in enumerate(padded.split(3530)):
        released[worker] = part.bincount(minlength=10)
    # The release repeats 10 samples to make the parts equal; a boundary moves by at most 10 samples.
    assert counts.sum() == 60_000
    assert (counts - released).abs().max() <= 10
    assert released[1].tolist()[:2] == [2393, 1137]


def test_contiguous_gives_consecutive_chunks_without_labels():
    shards = Contiguous().split(None, 10, 3, stream(0))
    assert [shard.tolist() for shard in shards] == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]


def test_gamma_zero_is_sorted():
    labels = random_labels(103)
    pairs = zip(split(GammaSimilarity(0.0), labels, 8), split(SortedByLabel(), labels, 8), strict=True)
    assert all(a.equal(b) for a, b in pairs)


def test_gamma_moves_label_skew_from_sorted_to_iid():
    labels = random_labels(10_000)

    def largest_share(recipe: Partition) -> float:
        tables = [labels[shard].bincount(minlength=10) for shard in split(recipe, labels, 10)]
        return sum(float(table.max() / table.sum()) for table in tables) / 10

    skew = [largest_share(GammaSimilarity(gamma)) for gamma in (0.0, 0.3, 0.6, 1.0)]
    assert skew == sorted(skew, reverse=True)
    assert skew[0] > 0.9
    assert skew[-1] < 0.15


def test_dirichlet_shares_of_a_label_have_the_distributions_mean_and_variance():
    alpha, n, m = 0.5, 4, 400
    labels = torch.zeros(m, dtype=torch.int64)
    shares = torch.tensor([sizes(split(Dirichlet(alpha), labels, n, seed)) for seed in range(600)]) / m
    expected = (n - 1) / (n**2 * (n * alpha + 1))  # variance of one share of a symmetric Dirichlet
    assert (shares.mean(dim=0) - 1 / n).abs().max() < 0.04
    assert shares.var(dim=0).mean().item() == pytest.approx(expected, rel=0.15)


def test_dirichlet_never_leaves_a_worker_empty_at_tiny_alpha():
    labels = random_labels(2000)
    for seed in range(20):
        assert min(sizes(split(Dirichlet(1e-3), labels, 20, seed))) >= 1


def test_dirichlet_fills_every_worker_up_to_the_minimum():
    labels = random_labels(400)
    assert min(sizes(split(Dirichlet(0.01, minimum=20), labels, 20))) == 20


def test_dirichlet_says_when_its_minimum_cannot_be_met():
    with pytest.raises(InvalidInput, match=r"n \* minimum = 400. Found 399"):
        split(Dirichlet(1.0, minimum=20), random_labels(399), 20)


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_fewer_samples_than_workers_is_an_error(recipe):
    with pytest.raises(InvalidInput, match=r"at least one for each of 6 workers\. Found 5"):
        split(recipe, random_labels(5), 6)


@pytest.mark.parametrize(
    "recipe",
    [SortedByLabel(), GammaSimilarity(0.5), Dirichlet(1.0), LabelShards(), LabelQuantity(), LongTail()],
    ids=str,
)
def test_a_partition_by_label_needs_labels(recipe):
    with pytest.raises(InvalidInput, match=f"{recipe.name!r} needs one label"):
        recipe.split(None, 10, 2, stream(0))


def test_labels_of_another_length_are_an_error():
    with pytest.raises(InvalidInput, match=r"shape \(10,\). Found \(9,\)"):
        SortedByLabel().split(random_labels(9), 10, 2, stream(0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: GammaSimilarity(-0.1),
        lambda: GammaSimilarity(1.1),
        lambda: Dirichlet(0.0),
        lambda: Dirichlet(float("nan")),
        lambda: Dirichlet(float("inf")),
        lambda: Dirichlet(1.0, minimum=0),
        lambda: LabelShards(0),
        lambda: LabelQuantity(0),
        lambda: Unbalanced(-0.1),
        lambda: Unbalanced(float("inf")),
        lambda: LongTail(0.5),
        lambda: LongTail(float("nan")),
    ],
)
def test_parameters_out_of_range_are_errors(make):
    with pytest.raises(InvalidInput):
        make()


def test_two_shards_of_300_digits_each_are_those_of_the_paper():
    labels = torch.arange(60_000) % 10
    shards = split(LabelShards(per_worker=2), labels, 100)
    assert set(sizes(shards)) == {600}
    assert max(len(labels[shard].unique()) for shard in shards) <= 2  # 6000 samples a label: whole shards
    assert sum(len(labels[shard].unique()) for shard in shards) > 150


@pytest.mark.parametrize("k", [1, 2, 5, 10])
def test_label_quantity_gives_every_worker_k_labels_in_equal_parts(k):
    labels = random_labels(4000)
    shards = split(LabelQuantity(k), labels, 20)
    counts = torch.stack([labels[shard].bincount(minlength=10) for shard in shards])
    assert ((counts > 0).sum(dim=1) == k).all()
    holders = (counts > 0).sum(dim=0)
    assert holders.max() - holders.min() <= 1
    for label in range(10):
        parts = counts[:, label][counts[:, label] > 0]
        assert parts.max() - parts.min() <= 1


def test_label_quantity_with_all_labels_is_alike_for_all():
    labels = torch.arange(1000) % 10
    assert set(sizes(split(LabelQuantity(10), labels, 5))) == {200}


def test_unbalanced_sizes_are_log_normal():
    spread, n, m = 0.5, 50, 10**6
    found = torch.tensor([sizes(split(Unbalanced(spread), torch.zeros(m), n, seed)) for seed in range(20)])
    logs = found.double().log()
    # 1000 draws less a mean of each of 20: a standard deviation to 1/sqrt(2 * 980) = 2.3 %; three of these.
    assert logs.sub(logs.mean(dim=1, keepdim=True)).square().sum().div(20 * (n - 1)).sqrt().item() == (
        pytest.approx(spread, rel=0.07)
    )


@pytest.mark.parametrize("imbalance", [1.0, 10.0, 100.0])
def test_a_long_tail_falls_exponentially_from_each_workers_own_head(imbalance):
    classes, n = 5, 10  # twice round: all labels have the same workers at each rank
    labels = torch.arange(500_000) % classes
    counts = torch.stack(
        [labels[shard].bincount(minlength=classes) for shard in split(LongTail(imbalance), labels, n)]
    )
    ranked = counts.sort(dim=1, descending=True).values.double()
    expected = imbalance ** (-torch.arange(classes).double() / (classes - 1))
    # Sizes are whole, and off by less than one.
    assert (ranked - ranked[:, :1] * expected).abs().max() <= 2
    if imbalance > 1:
        assert set(counts.argmax(dim=1).tolist()) == set(range(classes))


@given(st.integers(0, 1000), st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=9), st.integers(0, 9))
def test_sizes_in_proportion_sum_up_and_miss_their_share_by_less_than_one(m, weights, seed):
    weights = torch.tensor(weights, dtype=torch.float64)
    order = torch.randperm(len(weights), generator=stream(seed))
    found = in_proportion(m, weights, order)
    assert found.sum() == m
    assert ((found - m * weights / weights.sum()).abs() < 1 + 1e-9).all()
