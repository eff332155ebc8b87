"""What a rank has heard from the others, and what it answers at once, whatever its own thread is doing."""

from __future__ import annotations

from threading import Condition
from time import monotonic
from typing import Any

from byzopt.distributed.deadline.consensus import Slot, Vote
from byzopt.distributed.deadline.network import (
    ACCEPT,
    ASK,
    DECIDED,
    FETCH,
    GET,
    GONE,
    HERE,
    OFFER,
    PREPARE,
    PROMISE,
    RELAY,
    ROW,
    STATE,
    VOTED,
    Message,
)
from byzopt.distributed.deadline.states import States

_KEPT, _AHEAD, _REMEMBERED = 2, 4, 1000  # rounds: of rows behind and ahead of this rank's, and of decisions
Reply = tuple[int | None, Message]  # to a rank, or to all (None)


class Inbox:
    """Rows and votes of rounds about `serial`, the last that this rank has finished. `change` is the lock of
    all of it, and tells of news.

    `latest` is the round of the last row from each rank, `heard` when anything came from it, `lost` whose
    connection is over, `forgotten` (rank, round) who has dropped what belongs to a round. `asking` are
    ranks that want a state of which this rank has none, and `returning` says after which round the state is
    that a rank was last offered.
    """

    def __init__(self, rank: int, n: int) -> None:
        self.rank, self.n, self.serial = rank, n, 0
        self.change = Condition()
        self.rows: dict[int, dict[int, Any]] = {}
        self.slots: dict[int, Slot] = {}
        self.latest = dict.fromkeys(range(n), 0)
        self.heard = dict.fromkeys(range(n), 0.0)
        self.lost: set[int] = set()
        self.forgotten: set[tuple[int, int]] = set()
        self.asking: set[int] = set()
        self.returning: dict[int, int] = {}
        self.states = States()

    def slot(self, serial: int) -> Slot:
        """The agreement of a round."""
        return self.slots.setdefault(serial, Slot(self.n))

    def advance(self, serial: int) -> None:
        """This rank has finished a round; what is long past is dropped."""
        self.serial = serial
        for kept, depth in ((self.rows, _KEPT), (self.slots, _REMEMBERED)):
            for old in [each for each in kept if each <= serial - depth]:
                del kept[old]
        self.forgotten = {(rank, each) for rank, each in self.forgotten if each > serial}

    def lose(self, rank: int) -> None:
        """The connection to a rank is over."""
        with self.change:
            self.lost.add(rank)
            self.change.notify_all()

    def take(self, rank: int, message: Message) -> list[Reply]:
        """Take in a message; what to answer."""
        if message.kind in (ASK, GET):
            return self._serve(rank, message)
        with self.change:
            self.heard[rank] = monotonic()
            if message.kind in (OFFER, STATE, HERE):
                self.states.hear(rank, message)
                replies: list[Reply] = []
            elif message.kind in (ROW, RELAY, FETCH, GONE):
                replies = self._take_row(rank, message)
            else:
                replies = self._take_vote(rank, message)
            self.change.notify_all()
        return replies

    def _serve(self, rank: int, message: Message) -> list[Reply]:
        """What there is for a rank that wants a state, or at least a sign of life."""
        replies = self.states.served(message)
        with self.change:
            if message.kind == ASK:
                replies = [reply for reply in replies if reply.serial >= self.serial - 1]
            if not replies:
                self.asking.add(rank)
                replies = [Message(HERE, self.serial)]
        return [(rank, reply) for reply in replies]

    def _take_row(self, rank: int, message: Message) -> list[Reply]:
        kind, serial, owner = message[:3]
        if kind in (ROW, RELAY):
            owner = rank if kind == ROW else owner
            self.latest[owner] = max(self.latest[owner], serial if kind == ROW else 0)
            if self.serial - _KEPT < serial <= self.serial + _AHEAD:
                self.rows.setdefault(serial, {}).setdefault(owner, message.payload)
        elif kind == GONE:
            self.forgotten.add((rank, serial))
        elif owner in self.rows.get(serial, {}):
            return [(rank, Message(RELAY, serial, owner, payload=self.rows[serial][owner]))]
        elif serial <= self.serial:
            return [(rank, Message(GONE, serial))]
        return []

    def _take_vote(self, rank: int, message: Message) -> list[Reply]:
        kind, serial, ballot, value, last = message[:5]
        if serial <= self.serial - _REMEMBERED:
            return [(rank, Message(GONE, serial))] if kind in (PREPARE, ACCEPT) else []
        slot = self.slot(serial)
        if kind == DECIDED:
            slot.decision = value
        elif kind in (PREPARE, ACCEPT) and slot.decision is not None:
            return [(rank, Message(DECIDED, serial, 0, slot.decision))]
        elif kind == PREPARE and (vote := slot.prepare(ballot)) is not None:
            return [(rank, Message(PROMISE, serial, ballot, vote.value, vote.ballot))]
        elif kind == PROMISE:
            slot.hear_promise(rank, ballot, Vote(last, value))
        elif kind == ACCEPT and slot.accept(ballot, value):
            slot.hear_vote(self.rank, Vote(ballot, value))
            slot.hear_vote(rank, Vote(ballot, value))
            return [(None, Message(VOTED, serial, ballot, value))]
        elif kind == VOTED:
            slot.hear_vote(rank, Vote(ballot, value))
        return []
