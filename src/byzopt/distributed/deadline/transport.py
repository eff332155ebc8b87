"""Rows of all ranks on all ranks, without those that have not come in time; all agree on which have."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterable
from threading import Thread
from time import monotonic
from typing import Any, NamedTuple
from weakref import WeakSet

from byzopt.distributed.communicator import Communicator
from byzopt.distributed.deadline.consensus import Slot, Vote, mask_of, ranks_of
from byzopt.distributed.deadline.inbox import Inbox
from byzopt.distributed.deadline.network import (
    ACCEPT,
    ASK,
    DECIDED,
    FETCH,
    GET,
    PREPARE,
    ROW,
    VOTED,
    Message,
    Network,
)
from byzopt.distributed.deadline.states import Snapshot
from byzopt.errors import ByzoptError, TooManyFaults, require
from byzopt.fields import check_kind

_PATIENCE = 4.0  # deadlines until a rank gives up on those that do not answer at all


class Rows(NamedTuple):
    """What came of round `serial`: the bytes of every rank that counts, and why others do not. The same on
    all ranks."""

    serial: int
    payloads: dict[int, Any]
    missing: dict[int, str]


class Behind(ByzoptError):
    """This rank was away for so long that the others have forgotten the rounds that it has missed."""


class Call(NamedTuple):
    """How far this rank is in finding an agreement: its last ballot (0: none, -1: the leader's), when it
    called it, and since when all members' rows are here (None: they are not)."""

    ballot: int = 0
    at: float = 0.0
    complete: float | None = None


class DeadlineTransport:
    """An exchange of vectors in which a rank that is dead, stopped or later than `deadline` seconds is
    missing from the round, and the others go on.

    In every round each rank sends its row to all others (n - 1 times its length, as in the "replicated"
    topology). The round's leader, the lowest rank that counted in the round before, waits for the rows of
    all ranks, or `deadline` seconds from when its own was ready, and proposes whose rows count. All ranks
    agree on it by Paxos, so that all have the same rows and come to the same answer; where the leader is gone
    another rank proposes. More than half of the ranks have to be alive. A rank that was missing takes the
    answers all the same as soon as it can, and counts again when its rows come in time.

        transport = DeadlineTransport(deadline=5.0)          # all ranks must be there; any backend
        rows = transport.exchange(payload)                   # bytes; the same `rows` on all ranks
        ...                                                  # the same arithmetic on all ranks
        transport.keep(state)                                # what a rank that comes back will be given

    `robust_all_reduce(vector, rule, group=transport)` and `RobustSGD(..., deadline=5.0)` use it so, through
    `deadline.rounds`. Whoever builds on it must do between two exchanges only what is the same on all ranks:
    it has no other collective, and the process group's own wait for the dead.

    A rank that comes back goes through the rounds that it has missed while the others still have their rows.
    Beyond that an optimizer takes the state of the others, and `robust_all_reduce` the answer of the latest
    round that is of its kind, with a warning: the answers in between are lost on this rank.

    `deadline` must be longer than ranks differ in the time of a step; it need not be longer than a step. It
    trusts ranks to run this program, as "sharded" does. `close` says goodbye; the end of the process calls
    it. Errors: `InvalidInput` for a deadline that is no number above 0, or more than 62 ranks.

    Args:
        deadline: Seconds after which a rank is missing from a round, > 0.
        group: Process group of the ranks; None: all.

    Raises:
        InvalidInput: A deadline that is no number above 0, or more than 62 ranks.

    Examples:
        >>> import torch
        >>> import torch.distributed as dist
        >>> from byzopt.distributed import DeadlineTransport, robust_all_reduce
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # torchrun has more
        >>> transport = DeadlineTransport(deadline=5.0)
        >>> robust_all_reduce(torch.ones(2), "median", group=transport, f=0)
        tensor([1., 1.])
        >>> transport.close()
        >>> dist.destroy_process_group()
    """

    def __init__(self, deadline: float, group: Any = None) -> None:
        check_seconds(deadline)
        self.comm = Communicator(group)
        self.rank, self.n, self.deadline = self.comm.rank, self.comm.n, float(deadline)
        require(self.n <= 62, "Ranks with a deadline", "be at most 62", self.n, "Use none.")
        self.members = mask_of(range(self.n))
        self._inbox = Inbox(self.rank, self.n)
        self._network = Network(self.comm, self._take, self._inbox.lose)
        _open.add(self)

    @property
    def serial(self) -> int:
        """Finished rounds."""
        return self._inbox.serial

    @property
    def behind(self) -> int:
        """How many rounds others are known to have finished that this rank has not."""
        with self._inbox.change:
            decided = [t for t, slot in self._inbox.slots.items() if slot.decision is not None]
            ahead = max([*decided, *(t - 1 for t in self._inbox.latest.values())])
        return max(0, ahead - self.serial)

    @property
    def asking(self) -> frozenset[int]:
        """The ranks that wait for a state, which this rank has not kept."""
        with self._inbox.change:
            return frozenset(self._inbox.asking)

    def exchange(self, payload: Any) -> Rows:
        """One round: this rank's bytes for those of all ranks that count.

        Errors: `TooManyFaults`, which names the ranks, where too few answer; `Behind` where this rank was
        away for too long, and must `catch_up`.
        """
        serial, box = self.serial + 1, self._inbox
        with box.change:
            # Where a round is tried again the first row stands, since others may have it.
            payload = box.rows.setdefault(serial, {}).setdefault(self.rank, payload)
            box.latest[self.rank] = serial
        self._network.tell_all(Message(ROW, serial, payload=payload))
        return self._finished(serial, self._decided(serial))

    def passed(self) -> Rows | None:
        """The next round, where the others have decided it already without this rank; None where not."""
        serial = self.serial + 1
        with self._inbox.change:
            decision = self._inbox.slot(serial).decision
        if decision is None or self.rank in ranks_of(decision, self.n):
            return None
        return self._finished(serial, decision)

    def rejoin(self, fits: Callable[[dict[int, Any]], bool]) -> Rows:
        """The latest round that the others have decided and whose payloads `fits` takes, for whoever has no
        state between rounds and so can do without those in between; this rank goes on from there.

        Errors: `Behind` where neither of the last two fits; then nothing has changed.
        """
        box, before = self._inbox, self.serial
        with box.change:
            known = {t: slot.decision for t, slot in box.slots.items() if t > before and slot.decision}
            latest = sorted(known, reverse=True)[:2]  # others keep no more rows
            box.serial = min(latest, default=before + 1) - 1  # rows of these are taken in
        try:
            for serial in latest:
                if fits(self._collected(serial, known[serial])):
                    return self._finished(serial, known[serial])
        except Behind:
            box.serial = before
            raise
        box.serial = before
        raise Behind(
            f"Rank {self.rank} should bring to a round what the others bring. Found that it was away, and "
            f"that they are in round {max(latest, default=before)}, with another rule, shape, dtype or `t`. "
            "Do in this call what they do in theirs, or start the job again."
        )

    def keep(self, state: Callable[[], tuple[bytes, bytes]], wanted: Iterable[int] = ()) -> None:
        """Have `state()` given to ranks that come back, as what there is after the last round: what is the
        same on all ranks, to the byte, and what this rank has for itself. Another thread calls it, later.

        Whoever cannot keep one in every round says which ranks have `wanted` this one: they are told, and the
        next round waits for them once. All ranks have to name the same.
        """
        snapshot, ranks = Snapshot(self.serial, self.members, state), set(wanted) - {self.rank}
        with self._inbox.change:
            self._inbox.states.kept.append(snapshot)
            self._inbox.asking -= ranks
            self._inbox.returning.update(dict.fromkeys(ranks, snapshot.serial))
        if ranks:
            Thread(target=self._announce, args=(snapshot, ranks), daemon=True).start()

    def _announce(self, snapshot: Snapshot, ranks: Iterable[int]) -> None:
        for rank in ranks:
            self._network.send(rank, snapshot.offer())

    def drop_states(self, age: int) -> None:
        """Keep no state that is older than so many rounds."""
        with self._inbox.change:
            self._inbox.states.drop(self.serial - age)

    def catch_up(self, agreeing: int) -> tuple[bytes, list[bytes]]:
        """The state that at least `agreeing` ranks, and most of those that offer one, have after the latest
        round, and what each of them has for itself; this rank goes on from there.

        It waits while so many others answer, for it may take them long to finish a round and offer one; from
        the first offer on for sixteen deadlines. Errors: `TooManyFaults` where so many do not agree on one.
        """
        first, asked, box = monotonic(), 0.0, self._inbox
        while monotonic() - first < 4 * _PATIENCE * self.deadline:
            if monotonic() - asked > self.deadline * (4 if box.states.offers else 1):
                self._network.tell_all(Message(ASK, self.serial))
                asked = monotonic()
            with box.change:
                offer = box.states.best(self.serial, agreeing)
                given = box.states.given.get(offer.digest, {}) if offer else {}
                if offer and len(given) >= agreeing:
                    box.advance(offer.serial)
                    self.members = offer.members
                    box.states.forget()
                    return next(iter(given.values()))[0], [own for _, own in given.values()]
                sources = box.states.offers[offer] - set(given) if offer else set()
                if len(box.lost | {self.rank}) > self.n - agreeing:
                    break
                if not box.states.offers and self._answering() >= agreeing:
                    first = monotonic()
            for source in sources:
                assert offer is not None
                self._network.send(source, Message(GET, offer.serial, payload=offer.digest))
            with box.change:
                box.change.wait(self.deadline / 4)
        with box.change:
            most = max(box.states.offers.values(), key=len, default=set())
            others = sorted(set(range(self.n)) - most - {self.rank})
        raise TooManyFaults(
            f"A rank that comes back should find {agreeing} others that agree on the state. Found that ranks "
            f"{others} gave none, or another. Start the job again from its checkpoints.",
            others,
        )

    def close(self) -> None:
        """Say goodbye: what is on its way still leaves, within the deadline; then this rank is missing."""
        _open.discard(self)
        with self._inbox.change:  # those who still wait for votes need not miss this rank's
            known = [(t, slot.decision) for t, slot in self._inbox.slots.items() if t >= self.serial - 1]
        for serial, decision in known:
            if decision is not None:
                self._network.tell_all(Message(DECIDED, serial, 0, decision))
        self._network.close(self.deadline)

    def _take(self, rank: int, message: Message) -> None:
        for to, reply in self._inbox.take(rank, message):
            if to is None:
                self._network.tell_all(reply)
            else:
                self._network.send(to, reply)

    def _finished(self, serial: int, decision: int) -> Rows:
        rows = self._collected(serial, decision)
        with self._inbox.change:
            self._inbox.advance(serial)
            self.members = decision
        reason = f"It was gone, or not heard within {self.deadline:g} s."
        return Rows(serial, rows, {rank: reason for rank in range(self.n) if rank not in rows})

    def _decided(self, serial: int) -> int:
        """Whose rows count, as all ranks agree."""
        start, call, box = monotonic(), Call(), self._inbox
        while True:
            with box.change:
                slot = box.slot(serial)
                if slot.decision is not None:
                    return slot.decision
                if any(each == serial for _, each in box.forgotten):
                    raise Behind(f"Round {serial} was decided so long ago that others have forgotten it.")
                self._require_quorum(slot, start)
                call, out = self._called(serial, slot, call, start)
                if not out:
                    box.change.wait(self.deadline / 20)
            for message in out:
                self._network.tell_all(message)

    def _called(self, serial: int, slot: Slot, call: Call, start: float) -> tuple[Call, list[Message]]:
        """What this rank says now to bring about an agreement, if anything."""
        now, held = monotonic(), self._inbox.rows.get(serial, {})
        leader = min(ranks_of(self.members, self.n))
        lacking = ranks_of(self.members, self.n) - set(held) - self._inbox.lost
        call = call._replace(complete=None if lacking else call.complete or now)
        ready = now - start >= self.deadline or self._has_all(serial, set(held), call.complete, now)
        if ready and leader == self.rank and not call.ballot:
            return call._replace(ballot=-1, at=now), _proposed(slot, self.rank, serial, 0, mask_of(held))
        if call.ballot > 0 and (value := slot.proposal(call.ballot, mask_of(held))) is not None:
            slot.promises.pop(call.ballot)
            return call, _proposed(slot, self.rank, serial, call.ballot, value)
        pause = self.deadline * (0.5 + 0.25 * self.rank)  # between ballots, so that one of them has time
        if ready and self._is_due(leader, now - start) and (not call.at or now - call.at > pause):
            # A ballot of this rank alone, above all that it knows.
            ballot = (max(slot.promised, call.ballot) // self.n + 1) * self.n + self.rank
            vote = slot.prepare(ballot)
            if vote is not None:
                slot.hear_promise(self.rank, ballot, vote)
            return call._replace(ballot=ballot, at=now), [Message(PREPARE, serial, ballot)]
        return call, []

    def _has_all(self, serial: int, held: set[int], complete: float | None, now: float) -> bool:
        """Whether no row is to be waited for: all members' are here, and those of ranks that were missing
        but keep step, or have just been given the state, or a while has passed."""
        if complete is None:
            return False
        box = self._inbox
        back = {rank for rank, t in box.latest.items() if t >= serial - 1} - held - box.lost
        given = {rank for rank, t in box.returning.items() if t >= serial - 1} - held - box.lost
        return not back | given or now - complete >= self.deadline / (1 if given else 4)

    def _is_due(self, leader: int, elapsed: float) -> bool:
        """Whether it is this rank's turn to propose in the leader's place."""
        others = sorted(set(range(self.n)) - self._inbox.lost - {leader})
        place = others.index(self.rank) if self.rank in others else 0
        wait = 0.0 if leader in self._inbox.lost else 1.5 * self.deadline
        return elapsed >= wait + place * self.deadline / 4

    def _answering(self) -> int:
        """How many others have been heard of of late."""
        late = monotonic() - _PATIENCE * self.deadline
        others = set(range(self.n)) - self._inbox.lost - {self.rank}
        return sum(self._inbox.heard[rank] > late for rank in others)

    def _require_quorum(self, slot: Slot, start: float) -> None:
        """Raise `TooManyFaults` where too few ranks are left to agree on anything."""
        elapsed, lost = monotonic() - start, self._inbox.lost
        silent = {rank for rank, at in self._inbox.heard.items() if at < start and rank != self.rank}
        away = sorted(lost | silent if elapsed > _PATIENCE * self.deadline else lost)
        if self.n - len(away) < slot.quorum:
            raise TooManyFaults(
                f"More than half of {self.n} ranks should be alive. Found ranks {away} gone, or silent for "
                f"{elapsed:.3g} s. Start the job again from its checkpoints.",
                away,
            )

    def _collected(self, serial: int, decision: int) -> dict[int, Any]:
        """The rows of the ranks that count, fetched from others where they have not come by themselves."""
        wanted, start, asked = ranks_of(decision, self.n), monotonic(), monotonic() - self.deadline
        box = self._inbox
        while True:
            with box.change:
                held = box.rows.get(serial, {})
                lacking = wanted - set(held)
                if not lacking:
                    return {rank: held[rank] for rank in sorted(wanted)}
                forgotten = {rank for rank, each in box.forgotten if each == serial} | box.lost | {self.rank}
                if len(forgotten) == self.n or monotonic() - start > 2 * _PATIENCE * self.deadline:
                    raise Behind(f"Rows of ranks {sorted(lacking)} in round {serial} are not to be had.")
                if monotonic() - asked <= self.deadline / 2:
                    box.change.wait(self.deadline / 20)
                    continue
            asked = monotonic()
            for rank in lacking:
                self._network.tell_all(Message(FETCH, serial, rank))


def check_seconds(deadline: float) -> None:
    """Raise `InvalidInput` for what is no deadline."""
    check_kind("Parameter `deadline`", deadline, float)
    require(deadline > 0, "Parameter `deadline`", "be a number of seconds above 0", deadline)


def _proposed(slot: Slot, rank: int, serial: int, ballot: int, value: int) -> list[Message]:
    """Ask all to accept a value, this rank among them."""
    out = [Message(ACCEPT, serial, ballot, value)]
    if slot.accept(ballot, value):
        slot.hear_vote(rank, Vote(ballot, value))
        out.append(Message(VOTED, serial, ballot, value))
    return out


_open: WeakSet[DeadlineTransport] = WeakSet()


@atexit.register
def _close_all() -> None:
    for transport in list(_open):
        transport.close()
