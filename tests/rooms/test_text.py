"""Language models: whose text trains, what is held out of it, and the benchmark's cell on it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from byzopt.benchmark import Cell, load_entry
from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput
from byzopt.experiments import Spec
from byzopt.tasks import IID, Contiguous, SampleProxy, ServerProxy
from byzopt.tasks.text import TRAIN_SHARE, Text

COHORT = Cohort(5, (1, 3))
BLOCKS = 36  # of the training text


@dataclass(frozen=True)
class Rhyme(Text):
    """A short text of many letters, no two blocks of which are alike."""

    context: int = 8
    batch: int = 2
    layers: int = 1
    heads: int = 1
    width: int = 4
    dropout: float = 0.0
    dtype: str = "float64"

    def text(self) -> str:
        drawn = torch.Generator().manual_seed(0)
        codes = torch.randint(0, 26, (int(BLOCKS * 8 / TRAIN_SHARE) + 9,), generator=drawn)
        return "".join(chr(97 + code) for code in codes.tolist())


def blocks_of(task, worker):
    """A worker's blocks, as a set."""
    return {tuple(block) for block in task.pool.at(task.pool.shards[worker])[0].tolist()}


def test_by_default_all_blocks_are_dealt_in_order_to_all_workers():
    task = Rhyme().build(COHORT, 0)
    m = sum(len(shard) for shard in task.pool.shards)
    assert torch.equal(torch.cat(list(task.pool.shards)), torch.arange(m))
    assert not any(name.startswith("validation") for name in task.measure(task.start()))


@pytest.mark.parametrize("partition", [IID(), Contiguous()])
def test_with_mirrors_the_honest_share_all_and_liars_hold_what_honest_ones_do(partition):
    task = Rhyme(byzantine_data="mirror", validation=6, partition=partition).build(COHORT, 0)
    honest = [blocks_of(task, worker) for worker in COHORT.honest]
    m = len(Rhyme().build(Cohort.of(1), 0).pool.shards[0])
    assert sum(map(len, honest)) == len(set().union(*honest)) == m - 6
    assert [blocks_of(task, worker) for worker in COHORT.byzantine] == honest[:2]


def test_validation_blocks_are_training_text_that_nobody_holds():
    """The loss on all training blocks is the mean of that on those held out and that on the others."""
    whole, parted = (Rhyme(byzantine_data="all", validation=v).build(COHORT, 0) for v in (0, 6))
    x, m = whole.start() + 0.1, len(whole.pool.shards[1])
    kept, held = parted.loss_of(x, [1]), parted.measure(x)["validation_loss"]
    assert ((m - 6) * kept + 6 * held) / m == pytest.approx(whole.loss_of(x, [1]), rel=1e-12)
    assert parted.measure(x)["loss"] == whole.measure(x)["loss"]
    other = Rhyme(validation=6).build(COHORT, 1)
    assert other.measure(x)["validation_loss"] != held


def test_the_server_may_own_text_too():
    recipe = Rhyme(byzantine_data="all")
    m = len(recipe.build(COHORT, 0).pool.shards[1])
    task = replace(recipe, proxy=SampleProxy(m)).build(COHORT, 0)
    assert float(task.proxy()(task.start())) == pytest.approx(task.loss_of(task.start(), [1]), rel=1e-12)
    task = replace(recipe, proxy=ServerProxy(), byzantine_data="mirror").build(COHORT, 0)
    assert len(set().union(*(blocks_of(task, worker) for worker in range(5)))) == m - m // 4


@pytest.mark.parametrize("wrong", [{"validation": -1}, {"validation": 10**6}, {"proxy": SampleProxy(10**6)}])
def test_more_text_than_there_is_cannot_be_held_out(wrong):
    with pytest.raises(InvalidInput, match=r"at least 0|leave some|at most"):
        Rhyme(**wrong).build(COHORT, 0)


def test_entries_fit_the_cell_of_the_benchmark():
    cell = Cell.of("shakespeare-contiguous-n20-f3")
    assert (cell.rules.figure, cell.rules.rises, cell.rules.tuned_by) == ("loss", False, "validation_loss")
    for name in ("rfa", "trial-trust"):
        specs = [Spec.of(data) for data in load_entry(name).specs(cell)]
        assert [spec.lr for spec in specs] == [0.3, 1.0, 3.0]
        assert {spec.task.partition for spec in specs} == {Contiguous()}
