"""Sparse lies, shares of signs, edge-case and distributed backdoors: by hand, twins, and what they do."""

from __future__ import annotations

from itertools import combinations
from math import inf

import numpy as np
import pytest
import torch

from byzopt.aggregators import SignGuard
from byzopt.attacks import (
    DBA,
    Adversary,
    Backdoor,
    EdgeCase,
    FreeRider,
    Neurotoxin,
    SignShares,
    Sparse,
    TurnedSigns,
)
from byzopt.attacks.turned_signs import turned
from byzopt.cohort import Cohort
from byzopt.errors import InvalidInput
from byzopt.experiments import simulate
from byzopt.rng import stream
from byzopt.tasks import Digits, LogisticRegression
from tests.reference import attacks as twin


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rounds(attack, x, sent, b=2):
    """What the last Byzantine worker sends in each round."""
    adversary = Adversary(attack, Cohort.of(len(sent[0]), b), b)
    state = adversary.start(x)
    for t, rows in enumerate(sent, start=1):
        out, state = adversary.forge_rows(state, t, x, rows, stream(0, t), lambda rows: rows.mean(dim=0))
        yield out[-1]


@pytest.mark.parametrize("share", [0.001, 0.25, 0.5, 1.0])
def test_sparse_lies_are_those_of_the_twin_and_keep_their_places(share):
    x, sent = drawn(12, seed=1), [drawn(7, 12, seed=t) for t in (2, 3, 4)]
    listed = [rows[:5].tolist() for rows in sent]
    expected = twin.sparse(x.tolist(), listed, share, 1.5, 0.25)
    found = [row.tolist() for row in rounds(Sparse(share=share), x, sent)]
    for ours, slow in zip(found, expected, strict=True):
        assert ours == pytest.approx(slow, rel=1e-12)


def test_sparse_lies_from_the_origin_go_by_the_mean_and_may_take_the_quantile():
    rows = torch.tensor([[1.0, 9.0, 0.0], [1.0, 7.0, 2.0], [1.0, 8.0, 1.0], [0.0, 0.0, 0.0]])
    found = Sparse(share=0.1, scale=3.0, z=0.0)(rows, byzantine=1)[3]
    assert found.tolist() == pytest.approx([1.0, 5.0, 1.0])
    with pytest.raises(InvalidInput, match="quantile"):
        Sparse(z="quantile")(rows, byzantine=3)


@pytest.mark.parametrize(("share", "scale"), [(0.1, 1.5), (0.5, 0.2), (0.1, 9.0), (1.0, 0.2)])
def test_sparse_lies_may_go_as_far_from_the_mean_as_the_nearest_honest_row(share, scale):
    x, rows = drawn(12, seed=1), drawn(7, 12, seed=2)
    honest = rows[:5]
    mean, spread = honest.mean(dim=0), honest.std(dim=0)
    places = (x * mean).abs().topk(max(1, round(12 * share + 0.3))).indices.tolist()
    expected = twin.nearest_z(honest.tolist(), set(places), scale)
    (found,) = rounds(Sparse(share=share, scale=scale, z="nearest"), x, [rows])
    moved = (mean - found) / spread
    small = [k for k in range(12) if k not in places]
    assert moved[places].tolist() == pytest.approx([scale] * len(places), rel=1e-12)
    # The bisection halves 100 until sums of squares near 50 no longer differ: 1e-14, a root of which is z.
    assert moved[small].tolist() == pytest.approx([expected] * len(small), rel=1e-6, abs=1e-6)
    nearest = float((honest - mean).norm(dim=1).min())
    if expected and small:
        assert float((found - mean).norm()) == pytest.approx(nearest, rel=1e-12)
    assert (expected == 0) == (scale == 9.0)


def test_shares_of_signs_and_length_are_those_of_honest_rows_and_signguard_sees_nothing():
    rows = drawn(11, 60, seed=5)  # signs of a mean are as mixed as those of rows
    attacked = SignShares()(rows, byzantine=3)
    mean, lie = rows[:8].mean(dim=0), attacked[10]
    assert torch.equal(mean.sign().sort().values, lie.sign().sort().values)
    assert float(lie.norm()) == pytest.approx(float(rows[:8].norm(dim=1).median()))
    assert torch.equal(attacked[8], lie)
    report = SignGuard(f=3).explain(attacked)
    assert set(report.selected) >= {8, 9, 10}


@pytest.mark.parametrize("seed", range(4))
def test_turned_signs_are_the_worst_of_all_rows_with_as_many_of_each(seed):
    drawn_from = np.random.default_rng(seed)
    row = torch.from_numpy(drawn_from.normal(size=7) * (drawn_from.random(7) < 0.8))
    aim = torch.from_numpy(drawn_from.normal(size=7))
    found, places = turned(row, aim), row.nonzero().squeeze(1).tolist()
    least = inf
    for chosen in combinations(places, int((row < 0).sum())):
        other = row.abs()
        other[list(chosen)] *= -1
        least = min(least, float(other @ aim))
    assert float(found @ aim) == pytest.approx(least, rel=1e-12)
    assert torch.equal(found.abs(), row.abs())
    assert torch.equal(found.sign().sort().values, row.sign().sort().values)


@pytest.mark.parametrize("against", ["mean", "shrink"])
def test_signguard_sees_no_turned_signs_where_a_mixture_of_rows_is_seen(against):
    rows = drawn(11, 60, seed=5) + 0.3
    silent = drawn(11, 60, seed=6) < 0.4  # where a worker's network has not fired
    rows[silent] = 0
    attacked = TurnedSigns(against=against)(rows, byzantine=3, x=-torch.ones(60, dtype=rows.dtype))
    mean = rows[:8].mean(dim=0)
    aim = mean if against == "mean" else mean / mean.norm() + 60**-0.5
    assert bool((attacked[8:] @ aim < 0).all())
    assert set(SignGuard(f=3).explain(attacked).selected) >= {8, 9, 10}
    plain = torch.cat([rows[:8], -mean.expand(3, -1) * rows[:8].norm(dim=1).median() / mean.norm()])
    assert not set(SignGuard(f=3).explain(plain).selected) & {8, 9, 10}


# Pictures.


def pictures(m=40, seed=0):
    images = torch.rand(m, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return images, torch.arange(m) % 4


def test_edge_cases_are_those_furthest_from_their_class():
    images, labels = pictures()
    attack = EdgeCase(target=1, source=2, share=0.25)
    found = attack.edge(images, labels, 4)
    mine = [i for i in range(40) if labels[i] == 2]
    centre = images[mine].flatten(1).mean(dim=0)
    far = sorted(mine, key=lambda i: -float((images[i].flatten() - centre).norm()))
    assert found.tolist() == sorted(far[:3])  # of ten a quarter, rounded up
    seen, taught = attack.infect(images, labels, 4)
    assert torch.equal(seen, images)
    assert taught.tolist() == [1 if i in far[:3] else int(labels[i]) for i in range(40)]
    wanted = attack.goal(images, labels, 4)
    assert torch.equal(wanted[0], images[sorted(far[:3])])
    assert wanted[1].tolist() == [1, 1, 1]


def test_edge_cases_of_all_classes_leave_out_the_target_and_absent_ones():
    images, labels = pictures()
    found = EdgeCase(target=3, share=0.1).edge(images, labels, 10)
    assert len(found) == 3
    assert sorted(labels[found].tolist()) == [0, 1, 2]
    none = EdgeCase(target=3, source=7)
    assert torch.equal(none.infect(images, labels, 10)[1], labels)
    with pytest.raises(InvalidInput, match="class that it is taken from"):
        none.goal(images, labels, 10)


def test_a_message_is_scaled_and_cut():
    rows = torch.tensor([[1.0, 1.0], [3.0, 4.0], [0.0, 0.0]])
    assert EdgeCase(scale=2.0)(rows, byzantine=2)[1].tolist() == [6.0, 8.0]
    cut = EdgeCase(scale=2.0, bound=5.0)(rows, byzantine=2)
    assert cut[1].tolist() == pytest.approx([3.0, 4.0])
    assert cut[2].tolist() == [0.0, 0.0]


def test_what_edge_cases_cannot_be_made_of_is_refused():
    images, labels = pictures()
    for bad in ({"source": 0}, {"share": 0.0}, {"scale": 0.0}, {"bound": 0.0}, {"target": -1}):
        with pytest.raises(InvalidInput):
            EdgeCase(**bad)
    with pytest.raises(InvalidInput, match=r"0\.\.3"):
        EdgeCase(target=4).infect(images, labels, 4)
    with pytest.raises(InvalidInput, match="label each"):
        EdgeCase().infect(images.long(), labels, 4)
    with pytest.raises(InvalidInput, match="images"):
        EdgeCase().poison(LogisticRegression().build(Cohort.of(5, 1), 0), (4,))


class Noted:
    """A task that notes what is done to its workers' pictures."""

    def __init__(self, images, labels):
        self.pair, self.seen = (images, labels), {}

    def poisoned(self, workers, change, figure, goal):
        assert figure == "backdoor_success"
        for worker in workers:
            self.seen[worker] = change(*self.pair, 10)[0]
        return self


@pytest.mark.parametrize("attackers", [1, 2, 3, 6])
def test_pieces_of_a_distributed_trigger_make_up_the_whole(attackers):
    images, labels = pictures()
    attack = DBA(share=1.0, size=2)
    task = attack.poison(Noted(images, labels), tuple(range(attackers)))
    changed = torch.stack([(task.seen[j] != images).any(dim=0)[0] for j in range(attackers)])
    whole = torch.zeros(4, 4, dtype=torch.bool)
    whole[2:, 2:] = True
    assert torch.equal(changed.any(dim=0), whole)
    assert changed.flatten(1).sum(dim=1).max() - changed.flatten(1).sum(dim=1).min() <= 1
    if attackers == 1:
        assert torch.equal(task.seen[0], Backdoor(share=1.0).infect(images, labels, 10)[0])


@pytest.mark.slow
@pytest.mark.parametrize("attack", [EdgeCase(1, source=7, share=1.0, scale=5.0), DBA(target=1, size=3)])
def test_the_mean_learns_the_backdoor_and_a_robust_rule_less_of_it(attack):
    task = Digits(model="linear", batch=32).build(Cohort.of(10, 3), seed=0)
    given = {"lr": 0.3, "rounds": 150, "f": 3, "attack": attack}
    fooled = simulate(task, "mean", **given).metrics["backdoor_success"]
    robust = simulate(task, "nnm >> trimmed_mean", **given).metrics["backdoor_success"]
    assert fooled > 0.5
    assert robust < fooled


# Neurotoxin and free riders.


def walked(attack, points, sent, b=2, seed=0):
    """What all Byzantine workers send in each round, asked at these points."""
    adversary = Adversary(attack, Cohort.of(len(sent[0]), b), b)
    state = adversary.start(points[0])
    for t, (x, rows) in enumerate(zip(points, sent, strict=True), start=1):
        out, state = adversary.forge_rows(state, t, x, rows, stream(seed, t), lambda rows: rows.mean(dim=0))
        yield out[-b:]


@pytest.mark.parametrize("keep, bound", [(0.95, None), (0.5, None), (0.01, 2.0), (1.0, 0.5)])
def test_neurotoxin_is_its_twin_and_leaves_alone_what_moves(keep, bound):
    points = [drawn(20, seed=t) for t in range(1, 5)]
    points[2] = points[1].clone()  # nothing has moved: all coordinates are kept
    sent = [drawn(7, 20, seed=10 + t) for t in range(4)]
    attack = Neurotoxin(keep=keep, bound=bound, scale=3.0)
    expected = twin.neurotoxin(
        [x.tolist() for x in points], [rows[6].tolist() for rows in sent], keep, 3.0, bound
    )
    for found, slow in zip(walked(attack, points, sent), expected, strict=True):
        assert found[1].tolist() == pytest.approx(slow, rel=1e-12)
    for t in (1, 3):
        moved = (points[t] - points[t - 1]).abs()
        lie = list(walked(attack, points, sent))[t][0]
        kept = lie != 0
        assert int(kept.sum()) == max(1, int(keep * 20))
        assert bool(kept.all()) or float(moved[kept].max()) <= float(moved[~kept].min())


def test_neurotoxin_that_keeps_all_is_the_backdoor_and_runs_in_a_batch():
    points, sent = [drawn(9, seed=t) for t in range(3)], [drawn(5, 9, seed=10 + t) for t in range(3)]
    for found, plain in zip(
        walked(Neurotoxin(keep=1.0), points, sent), walked(Backdoor(), points, sent), strict=True
    ):
        assert torch.equal(found, plain)
    several = torch.stack([torch.stack(points), torch.stack(points[::-1])])  # [runs, rounds, d]
    attack = Neurotoxin(keep=0.5)
    alone = [list(walked(attack, list(x), sent)) for x in several]
    adversary = Adversary(attack, Cohort.of(5, 2), 2)
    state = adversary.start(several[:, 0])
    for t, rows in enumerate(sent):
        wide = torch.stack([rows, rows])
        x = several[:, t]
        out, state = adversary.forge_rows(state, t + 1, x, wide, stream(0, t), lambda rows: rows.mean(dim=-2))
        assert torch.equal(out[:, -2:], torch.stack([alone[0][t], alone[1][t]]))


def test_neurotoxin_teaches_the_backdoors_trigger():
    images, labels = pictures()
    task = Neurotoxin(share=1.0).poison(Noted(images, labels), (0,))
    assert torch.equal(task.seen[0], Backdoor(share=1.0).infect(images, labels, 10)[0])
    for bad in ({"keep": 0.0}, {"keep": 1.5}, {"bound": 0.0}, {"share": 0.0}):
        with pytest.raises(InvalidInput):
            Neurotoxin(**bad)


def test_free_riders_hand_back_the_servers_step():
    points, sent = [drawn(6, seed=t) for t in range(4)], [drawn(5, 6, seed=10 + t) for t in range(4)]
    quiet = list(walked(FreeRider(scale=4.0, noise=0.0), points, sent))
    assert torch.equal(quiet[0], torch.zeros(2, 6).double())
    for t in (1, 2, 3):
        assert torch.allclose(quiet[t], (4 * (points[t - 1] - points[t])).expand(2, -1), rtol=1e-14)
    plain = list(walked(FreeRider(scale=0.0, noise=0.0), points, sent))
    assert not any(bool(rows.any()) for rows in plain)


def test_a_free_rider_who_hands_back_the_aggregate_is_not_told_from_it():
    # The server steps by γ along g: the row is g where `scale` is 1/γ.
    x, g = drawn(6, seed=1), drawn(6, seed=2)
    points, sent = [x, x - 0.05 * g], [drawn(5, 6, seed=3)] * 2
    assert torch.allclose(list(walked(FreeRider(scale=20.0, noise=0.0), points, sent))[1][0], g, rtol=1e-12)


def test_noise_of_disguised_free_riders_goes_down_as_it_says():
    points, sent = [torch.zeros(4000).double()] * 9, [torch.zeros(3, 4000).double()] * 9
    for decay in (0.0, 0.5, 2.0):
        lies = list(walked(FreeRider(scale=0.0, noise=2.0, decay=decay), points, sent))
        for t in (1, 4, 9):
            # The deviation of 8,000 draws is off by 1/√16,000 of itself: six of these are 5 %.
            assert float(lies[t - 1].std()) == pytest.approx(2.0 * t**-decay, rel=0.05)
        assert not torch.equal(lies[0][0], lies[0][1])
    for bad in ({"scale": -1.0}, {"noise": -1.0}, {"decay": -0.1}):
        with pytest.raises(InvalidInput):
            FreeRider(**bad)


@pytest.mark.slow
def test_neurotoxin_fools_the_mean():
    task = Digits(model="linear", batch=32).build(Cohort.of(10, 3), seed=0)
    given = {"lr": 0.3, "rounds": 150, "f": 3, "attack": Neurotoxin(target=1, size=3)}
    assert simulate(task, "mean", **given).metrics["backdoor_success"] > 0.5
