"""How ranks agree on whose vectors count in a round: single-decree Paxos, without any I/O.

A value is a set of ranks, as a bit mask. Ballot 0 of a round belongs to its leader, which all ranks know, and
needs no preparation. When the leader is gone another rank prepares a higher ballot and takes over what may
have been chosen already. Whatever is lost, late or doubled, two ranks never learn different values; with more
than half of the ranks answering they learn one. Source: L. Lamport, Paxos Made Simple, SIGACT News 32(4),
2001.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple


class Vote(NamedTuple):
    """The last value that a rank has accepted, and in which ballot (-1: none yet)."""

    ballot: int = -1
    value: int = 0


@dataclass
class Slot:
    """One round's agreement as one of `n` ranks sees it: what it has promised and accepted, what it has heard
    others accept and promise, and the `decision`, once it has learnt it."""

    n: int
    promised: int = 0
    vote: Vote = Vote()
    decision: int | None = None
    accepted: dict[Vote, set[int]] = field(default_factory=dict)
    promises: dict[int, dict[int, Vote]] = field(default_factory=dict)

    @property
    def quorum(self) -> int:
        """More than half."""
        return self.n // 2 + 1

    def prepare(self, ballot: int) -> Vote | None:
        """Promise to accept nothing below `ballot`; the vote so far, or None for a ballot that comes too
        late."""
        if ballot < self.promised:
            return None
        self.promised = ballot
        return self.vote

    def accept(self, ballot: int, value: int) -> bool:
        """Vote for `value`, unless a higher ballot was promised."""
        if ballot < self.promised:
            return False
        self.promised, self.vote = ballot, Vote(ballot, value)
        return True

    def hear_promise(self, rank: int, ballot: int, vote: Vote) -> None:
        """Rank's promise for our `ballot`."""
        self.promises.setdefault(ballot, {})[rank] = vote

    def hear_vote(self, rank: int, vote: Vote) -> None:
        """Rank has accepted: decided once more than half of the ranks have, in one ballot."""
        voters = self.accepted.setdefault(vote, set())
        voters.add(rank)
        if len(voters) >= self.quorum:
            self.decision = vote.value

    def proposal(self, ballot: int, wish: int) -> int | None:
        """What may be proposed in `ballot`: what may have been chosen already, else the `wish`; None while
        too few have promised."""
        promises = self.promises.get(ballot, {})
        if len(promises) < self.quorum:
            return None
        latest = max(promises.values())
        return latest.value if latest.ballot >= 0 else wish


def mask_of(ranks: Iterable[int]) -> int:
    """Ranks as a bit mask."""
    return sum(1 << rank for rank in set(ranks))


def ranks_of(mask: int, n: int) -> frozenset[int]:
    """The ranks below n in a bit mask."""
    return frozenset(rank for rank in range(n) if mask >> rank & 1)
