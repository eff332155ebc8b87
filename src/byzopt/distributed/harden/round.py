"""One round: columns of all ranks' rows come in block by block, the ranks decide, and answer by columns.

The blocks are whatever a wrapper deals out: pieces of the buckets of `DistributedDataParallel`, or of the
sharded gradients of an FSDP unit. The rule is that of whole rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from math import inf, isfinite
from typing import Any, NamedTuple

import torch
from torch import Tensor

from byzopt.aggregators.core.base import BaseAggregator
from byzopt.aggregators.core.filters import RoundContext, RoundRule
from byzopt.aggregators.core.foreign import reduced
from byzopt.aggregators.core.inputs import in_safe_range, restored
from byzopt.aggregators.core.kinds import GeometricRule
from byzopt.aggregators.core.suspicion import refuse_suspects, remoteness, suspects
from byzopt.aggregators.numerics.ordering import Order, keys
from byzopt.distributed.agreement import raise_everywhere
from byzopt.distributed.communicator import Communicator
from byzopt.distributed.diagnostics import RoundDiagnostics, diagnose
from byzopt.distributed.harden.agreement import Trouble
from byzopt.distributed.harden.blocks import by_rule, put, sum_of
from byzopt.distributed.harden.counted import rule_of
from byzopt.distributed.harden.forms import Answer, answer_of, by_columns, by_geometry, parts
from byzopt.distributed.shard import ColumnShard, Products, dtype_of, gram_of, summed
from byzopt.errors import InvalidInput, TooManyFaults

CODES = ("trouble", "count", "t", "part", "size", "unusual")  # the numbers that a rank tells before the sums


class Guess(NamedTuple):
    """What the last round proved and this one begins with: a row of the bulk, and who was finite."""

    pivot: int
    finite: tuple[bool, ...]


class Round:
    """Round `t` of a `filter` that is a pure rule in each round, over rows of `d` numbers, a row a rank.

    First every rank adds its blocks, in one order, then all `decide`, then every rank asks for its `answer`
    to each block. Of its own row each tells the largest magnitude (`saw`).
    `count` is how many backward passes this rank has begun, which all must have alike; `t` is what the rule
    knows the round by. Where ranks say different ones, the one that most say holds.
    `part` is False on a rank that has no row, because it has run out of data: that is no fault, and the rule
    is that of the others. `missing` are ranks whose row did not come, and `unsound` those whose columns here
    are not finite, whatever they say: faults, like one that says so.
    """

    def __init__(
        self,
        comm: Communicator,
        filter: RoundRule,
        state: Any,
        t: int,
        d: int,
        guess: Guess | None = None,
        part: bool = True,
        count: int | None = None,
    ) -> None:
        self.comm, self.filter, self.state, self.t, self.d, self.part = comm, filter, state, t, d, part
        self.count = t if count is None else count
        self.rule = self._rule_now()
        self.guess = guess or Guess(0, (True,) * comm.n)
        self.trouble, self.missing, self.unsound = Trouble(), set[int](), set[int]()
        self.blocks: list[Tensor] = []
        self.places: list[Tensor] = []  # for the answers to the blocks
        self.unanswered = False  # whether a block could not be answered early
        self.nobody = False  # whether no rank could take part
        self._answer: Answer | None = None
        self.columns, self._geometric = by_columns(self.rule), by_geometry(self.rule)
        self._extremes: list[Tensor] = []
        self._keys: list[Tensor] = []
        self._grams: list[Tensor] = []

    def add(self, block: Tensor, first: int, place: Tensor) -> bool:
        """Take in the columns `first ..` of all rows, `[n, b]`, which nobody else adds.

        Returns whether the rule's answer to them can be told already, and is in `place` `[b]`; it stands
        unless `decide` returns False.
        """
        self.blocks.append(block)
        self.places.append(place)
        with self.trouble.noted():
            if not self.columns:
                self._measure(block, first)
            elif self._early(block, place):
                return True
        if self.columns:
            self.unanswered = True
            place.zero_()  # others wait for it
        return self.columns

    def _early(self, block: Tensor, place: Tensor) -> bool:
        """Whether there is an answer if the same ranks as in the last round are finite."""
        rule, finite = self.rule, torch.tensor(self.guess.finite, device="cpu")
        rule.check(self.comm.n)
        if not finite.all():
            rule, block = rule.restricted(finite), block[finite.to(block.device)]
            rule.check(len(block))
        try:
            put(restored(by_rule(rule, 1.0, block, place), 1.0, block.dtype), place)
            return True
        except Exception:
            if block.isfinite().all():
                raise
            return False  # it met what the others are about to hear of

    def _measure(self, block: Tensor, first: int) -> None:
        if self.rule.by_value:
            self._keys.append(keys(block, first, self.d))
        if self._geometric:
            self._grams.append(gram_of([block], self.guess.pivot, dtype_of(block, self.d)))

    def saw(self, own: Tensor) -> None:
        """Take note of the magnitudes in some of this rank's own row."""
        if own.numel():
            self._extremes += torch.aminmax(own)

    def decide(self) -> bool:
        """Agree with all ranks on who counts, and on the answer; whether answers given already stand.

        A collective: one message for most rules. Errors, on all ranks: what went wrong on any of them;
        `InvalidInput` where ranks are not in one round; `TooManyFaults` where too few rows are left, or more
        are not finite than the rule tolerates. What the rule raises, perhaps on this rank alone, is in
        `trouble` from then on, and its answers are NaN, for others wait for them.
        """
        codes, sums = self._told()
        self.nobody = bool(codes["trouble"].all())
        if codes["trouble"].any():
            raise_everywhere(self.comm.everyone, self.trouble.error)
        counts = [int(each) for each in codes["count"]]
        if len(set(counts)) > 1:
            raise InvalidInput(
                f"All ranks should take as many backward passes. Found ranks in rounds {counts}. Call "
                "`backward` as often on each, or use the model's `join` where data are uneven."
            )
        moved = self._agree_on(codes["t"])
        self.present = codes["part"] > 0
        sizes = torch.where(self.present, codes["size"], torch.inf)
        sizes[list(self.missing)] = torch.inf
        faults, sums = sums[: self.comm.n], sums[self.comm.n :]
        sizes[faults > 0] = torch.inf
        self.finite = sizes.isfinite()
        self.ready = rule_of(self.rule, self.present, self.finite)
        try:
            return self._settle(sizes[self.finite], sums, moved or bool(codes["unusual"].any()))
        except TooManyFaults:
            raise
        except Exception as error:
            self.trouble.error = error
            return False

    def _rule_now(self) -> BaseAggregator:
        return self.filter.now(self.state, RoundContext(self.t, torch.empty(0, device="cpu")))

    def _agree_on(self, told: Tensor) -> bool:
        """Take the round's t from the ranks; whether they said different ones, as when not all have loaded
        the same counters."""
        said = [int(each) for each in told]
        self.t = max(said, key=lambda t: (said.count(t), t))
        if len(set(said)) == 1:
            return False
        self.rule = self._rule_now()
        return True

    def _told(self) -> tuple[dict[str, Tensor], Tensor]:
        """What the ranks tell, by code `[n]`, and the sums of faults `[n]`, and of keys and products."""
        own = (self.trouble.error is not None, self.count, self.t, self.part, self._size(), self.unanswered)
        n = self.comm.n
        sums = [torch.zeros(n, dtype=torch.float64, device="cpu")]
        sums[0][list(self.unsound)] = 1.0
        if not self.columns:
            sums += [sum_of(self._keys, n), sum_of(self._grams, n, n).flatten()]
        codes = torch.tensor(own, dtype=torch.float64, device="cpu")
        told, total = self.comm.tell(codes, torch.cat(sums))
        return dict(zip(CODES, told.unbind(dim=1), strict=True)), total

    def _size(self) -> float:
        """The largest magnitude in this rank's own row, ∞ where something is not finite."""
        sizes = [abs(float(each)) for each in self._extremes]
        return max(sizes, default=0.0) if all(map(isfinite, sizes)) else inf

    def _settle(self, sizes: Tensor, sums: Tensor, unusual: bool) -> bool:
        """Make `answer` ready, given the magnitudes of finite rows; whether early answers stand."""
        whole = bool(self.finite.all())
        kept = [block if whole else block[self.finite.to(block.device)] for block in self.blocks]
        near = float(sizes.max())
        ready = [in_safe_range(rows, near, sizes.to(rows)) for rows in kept]
        self.kept, self.unit = [rows for rows, _ in ready], ready[0][1]
        if self.columns:
            # A method would be a circle, and keep the buckets of this round until the next collection.
            self._answer = partial(by_rule, self.ready, self.unit)
            plain = self.unit == 1 and self.kept[0].dtype == self.blocks[0].dtype
            # An early answer takes whoever is left out for a fault, which a rank without data is not.
            guessed = bool(self.present.all()) and self._finite() == self.guess.finite
            return plain and not unusual and guessed
        self.seen = self._shard(sums)
        if self.ready.fail_closed:
            remote = remoteness(self.seen, self.blocks[0].dtype)
            suspected = [rank for rank in suspects(self.finite, remote) if self.present[rank]]
            n = int(self.present.sum())
            refuse_suspects(suspected, self.rule.tolerance(n), n)
        if self._geometric:
            self._answer = answer_of(self.ready, self.seen)
        return False

    def _shard(self, sums: Tensor) -> ColumnShard:
        """The rows that are left, as rules see them."""
        n, among = self.comm.n, None
        if not self._geometric:
            return self._joined()
        if self.ready.by_value:
            among = Order(sums[:n][self.finite])
        gram, pivot, known = sums[n:].view(n, n), self.guess.pivot, None
        if self.finite[pivot]:
            place = int(self.finite[:pivot].sum())
            mine = gram[self.finite][:, self.finite]
            known = Products(place, dtype_of(self.blocks[0], self.d), mine)
        order = None if among is None else among.index
        geometry = summed(self.kept, self.unit, self.comm, self.d, order, known)
        shard = ColumnShard(self.kept[0][:, :0], self.unit, self.comm, self.d, None, geometry, first=0)
        shard.among = among
        return shard

    def _joined(self) -> ColumnShard:
        """The rows that are left with all columns of this rank side by side: a copy."""
        rows = torch.cat(self.kept, dim=1)
        width = torch.tensor([float(rows.shape[1])], dtype=torch.float64, device="cpu")
        widths = self.comm.all_gather(width).flatten().tolist()
        first, d = int(sum(widths[: self.comm.rank])), int(sum(widths))
        return ColumnShard(rows, self.unit, self.comm, d, ordered=self.ready.by_value, first=first)

    def answers(self) -> Iterator[Tensor]:
        """This rank's columns of the answer, block by block, in the places given with the blocks; to be asked
        for to the end, by all ranks. From where the rule raises on they are NaN, and `trouble` says why."""
        answered = self._answered()
        for place in self.places:
            with self.trouble.noted():
                if self.trouble.error is None:
                    next(answered)
            yield place if self.trouble.error is None else place.fill_(torch.nan)

    def _answered(self) -> Iterator[Tensor]:
        if self._answer is None:
            whole = restored(reduced(self.ready, self.seen), self.unit, self.blocks[0].dtype)
            widths = [block.shape[1] for block in self.blocks]
            for part, place in zip(torch.split(whole, widths), self.places, strict=True):
                yield put(part, place)
            return
        for rows, place in zip(self.kept, self.places, strict=True):
            fits = rows.dtype == place.dtype
            yield put(restored(self._answer(rows, place if fits else None), self.unit, place.dtype), place)

    def raise_own(self) -> None:
        """Raise what the rule has raised on this rank, if anything: of `trouble` after `answers`."""
        if self.trouble.error is not None:
            raise self.trouble.error

    def next_guess(self) -> Guess:
        """What this round proved, for the next."""
        pivot = self.guess.pivot if self.columns else self.seen.geometry.pivot
        places = self.finite.nonzero().flatten().tolist()
        return Guess(self.guess.pivot if pivot is None or self.columns else places[pivot], self._finite())

    def _finite(self) -> tuple[bool, ...]:
        return tuple(map(bool, self.finite.tolist()))

    def undecided(self, gone: Iterable[int]) -> None:
        """Nothing could be decided, because the ranks that are `gone` are too many."""
        self.missing = set(gone)
        self.present = torch.ones(self.comm.n, dtype=torch.bool, device="cpu")
        self.finite = self.present.clone()
        self.finite[list(self.missing)] = False

    @property
    def faulty(self) -> list[int]:
        """The ranks whose rows were left out."""
        return (self.present & ~self.finite).nonzero().flatten().tolist()

    @property
    def share(self) -> float:
        """The share of ranks that had a row."""
        return float(self.present.double().mean())

    def diagnostics(self) -> RoundDiagnostics:
        """What the round made of every rank. A collective; costs about another answer."""
        _, last = parts(self.ready)
        seen = self.seen if not self.columns and isinstance(last, GeometricRule) else self._joined()
        found = diagnose(self.t, self.ready, seen, self.finite, self.blocks[0].dtype)
        absent = tuple((~self.present).nonzero().flatten().tolist())
        dropped = tuple(rank for rank in found.dropped if rank not in absent)
        return found._replace(dropped=dropped, absent=absent)
