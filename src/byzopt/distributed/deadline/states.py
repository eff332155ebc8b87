"""What all ranks have alike after a round, for ranks that come back: from several that agree."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple

from byzopt.distributed.deadline.network import ASK, GET, OFFER, STATE, Message


class Snapshot(NamedTuple):
    """The state after round `serial`, in which the ranks `members` (a mask) counted. `state()` gives what all
    ranks have alike, and what each has for itself."""

    serial: int
    members: int
    state: Callable[[], tuple[bytes, bytes]]

    def offer(self) -> Message:
        """What tells others of it."""
        return Message(OFFER, self.serial, self.members, payload=digest_of(self.state()[0]))


class Offer(NamedTuple):
    """A state that ranks say they have."""

    serial: int
    members: int
    digest: bytes


class States:
    """The states that this rank keeps, the last two, and those that others have offered and given. To be used
    under one lock, but for `served`."""

    def __init__(self) -> None:
        self.kept: deque[Snapshot] = deque(maxlen=2)
        self.offers: dict[Offer, set[int]] = {}
        self.given: dict[bytes, dict[int, tuple[bytes, bytes]]] = {}

    def served(self, message: Message) -> list[Message]:
        """Answers to a rank that asks what there is, or for one of them."""
        replies = []
        for snapshot in list(self.kept):
            serial, (common, own) = snapshot.serial, snapshot.state()
            if message.kind == ASK and serial >= message.serial:
                replies.append(snapshot.offer())
            elif message.kind == GET and digest_of(common) == bytes(message.payload):
                replies.append(Message(STATE, serial, len(common), payload=common + own))
        return replies

    def hear(self, rank: int, message: Message) -> None:
        """Take in an offer, or a state that was asked for."""
        if message.kind == OFFER:
            offer = Offer(message.serial, message.a, bytes(message.payload))
            self.offers.setdefault(offer, set()).add(rank)
        elif message.kind == STATE:
            common, own = bytes(message.payload[: message.a]), bytes(message.payload[message.a :])
            self.given.setdefault(digest_of(common), {})[rank] = (common, own)

    def best(self, least: int, agreeing: int) -> Offer | None:
        """The latest state, of round `least` or later, that `agreeing` ranks and most of those who offer one
        of that round have."""
        good = []
        for offer, ranks in self.offers.items():
            rivals = sum(len(others) for other, others in self.offers.items() if other.serial == offer.serial)
            if len(ranks) >= agreeing and 2 * len(ranks) > rivals and offer.serial >= least:
                good.append(offer)
        return max(good, default=None)

    def drop(self, before: int) -> None:
        """Keep no state of rounds before this one."""
        while self.kept and self.kept[0].serial < before:
            self.kept.popleft()

    def forget(self) -> None:
        """What others have offered and given is of the past."""
        self.offers.clear()
        self.given.clear()


def digest_of(data: bytes) -> bytes:
    """What tells states apart."""
    return blake2b(data, digest_size=32).digest()
