"""Agreement on who counts: two ranks never learn different sets, whatever is lost, late or doubled."""

from __future__ import annotations

import random

import pytest

from byzopt.distributed.deadline.consensus import Slot, Vote, mask_of, ranks_of


class Net:
    """n ranks' slots of one round, and messages that arrive in any order, twice, or never."""

    def __init__(self, n, seed):
        self.n, self.random = n, random.Random(seed)
        self.slots = [Slot(n) for _ in range(n)]
        self.learnt = [set() for _ in range(n)]
        self.flying, self.deaf = [], set()
        self.wishes = [mask_of(self.random.sample(range(n), n - 1)) for _ in range(n)]
        self.ballots = [0] * n

    def send(self, to, *message):
        for _ in range(self.random.choice((0, 1, 1, 1, 2))):
            self.flying.append((to, message))

    def tell_all(self, *message):
        for to in range(self.n):
            self.send(to, *message)

    def propose(self, rank, ballot, value):
        self.tell_all("accept", rank, ballot, value)

    def call(self, rank):
        self.ballots[rank] = (self.ballots[rank] // self.n + 1) * self.n + rank
        self.tell_all("prepare", rank, self.ballots[rank])

    def deliver(self):
        to, (kind, rank, ballot, *rest) = self.flying.pop(self.random.randrange(len(self.flying)))
        slot = self.slots[to]
        if to in self.deaf:
            return
        if kind == "prepare" and (vote := slot.prepare(ballot)) is not None:
            self.send(rank, "promise", to, ballot, vote)
        elif kind == "promise" and ballot == self.ballots[to]:
            slot.hear_promise(rank, ballot, rest[0])
            value = slot.proposal(ballot, self.wishes[to])
            if value is not None:
                slot.promises.pop(ballot)
                self.ballots[to] += self.n  # it proposes one value in a ballot
                self.propose(to, ballot, value)
        elif kind == "accept" and slot.accept(ballot, rest[0]):
            self.tell_all("voted", to, ballot, rest[0])
        elif kind == "voted":
            slot.hear_vote(rank, Vote(ballot, rest[0]))
        if slot.decision is not None:
            self.learnt[to].add(slot.decision)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 7])
def test_ranks_never_learn_different_sets(n):
    learnt = 0
    for seed in range(150):
        net = Net(n, seed)
        net.propose(0, 0, net.wishes[0])  # the leader's own ballot
        for _ in range(60 * n):
            if net.random.random() < 0.08:
                net.call(net.random.randrange(n))
            if net.random.random() < 0.02:
                net.deaf ^= {net.random.randrange(n)}  # stopped, or going on
            if net.flying:
                net.deliver()
        known = set().union(*net.learnt)
        assert len(known) <= 1, seed
        learnt += len(known)
    assert learnt > 75  # the test would not notice anything in rounds that end undecided


def test_with_more_than_half_answering_one_rank_alone_brings_it_about():
    for n in (2, 3, 4, 5, 8):
        slots, wish = [Slot(n) for _ in range(n)], mask_of(range(1, n))
        alive = range(n - Slot(n).quorum, n)
        ballot, me = n + n - 1, slots[n - 1]
        for rank in alive:
            me.hear_promise(rank, ballot, slots[rank].prepare(ballot))
        value = me.proposal(ballot, wish)
        for rank in alive:
            assert slots[rank].accept(ballot, value)
            me.hear_vote(rank, Vote(ballot, value))
        assert ranks_of(me.decision, n) == set(range(1, n))
        assert slots[alive[0]].prepare(ballot - 1) is None  # what comes too late changes nothing
        assert not slots[alive[0]].accept(0, 1)


def test_what_may_have_been_chosen_is_taken_over():
    slot = Slot(5)
    for rank, vote in ((0, Vote()), (1, Vote(0, 0b11)), (2, Vote(7, 0b111))):
        assert slot.proposal(10, 0b1) is None
        slot.hear_promise(rank, 10, vote)
    assert slot.proposal(10, 0b1) == 0b111
